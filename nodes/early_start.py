"""CILEarlyStart: the early start with Analytic-Init as a patch on the MODEL, for any sampler node."""

import comfy.patcher_extension
import torch
from comfy_api.latest import io

from ..cil import moments as cil_moments
from ..cil import schedules
from ..cil.moments import Moments
from .analytic_init import SOUND, starts
from .families import Family
from .host.latents import free_of, packed, unpacked
from .host.models import cloned, model_family
from .host.notes import say
from .host.sampling import Sampling, begins_with_its_noise
from .host.schedule import ANEW, AUTO, FROM_DIAL, HAND_OVER, START_AS, TRAILING, check_meant, start_sigma
from .host.types import Executor, Model, NodeIdLike, Sampler
from .moments import MomentsType, default_moments, idle_moments
from .schedule import start_inputs, start_note

WRAPPER = "cil_early_start"
LAYOUTS = [AUTO, ANEW, HAND_OVER, TRAILING]
NOT_ITS_SAMPLER = "the host scales the noise of this sampler in a way that does not fit CogVideoX: take VOIDSampler with SamplerCustom or SamplerCustomAdvanced"
OUTER_SAMPLE = comfy.patcher_extension.WrappersMP.OUTER_SAMPLE


class EarlyStart:
    """Wraps the host's OUTER_SAMPLE: no run begins above the start, and what begins from nothing begins at the right Gaussian."""

    def __init__(self, start_as: str, start: float, analytic_init: bool, moments: Moments | None, node_id: NodeIdLike, layout: str = AUTO):
        self.start_as, self.start, self.layout = start_as, start, layout
        self.analytic_init, self.moments = analytic_init, moments
        self.node_id = node_id

    def __call__(
        self, executor: Executor, noise: torch.Tensor, latent_image: torch.Tensor, sampler: Sampler, sigmas: torch.Tensor, *args, **kwargs
    ) -> torch.Tensor:
        model = executor.class_obj.model_patcher
        denoise_mask = args[0] if args else kwargs.get("denoise_mask")
        sampling, family = Sampling.of(model), model_family(model)
        start = start_sigma(sampling, family, self.start_as, self.start)
        shapes = kwargs.get("latent_shapes")
        parts = unpacked(latent_image, shapes)
        masks = masks_for(parts, noise, denoise_mask, shapes)
        reason = reason_to_stay_out(sampling, start, noise, parts, sigmas, masks, denoise_mask is not None, sampler)
        if reason:
            say(self.node_id, f"left alone: {reason}")
            return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
        sigmas, note = self.below(sampling, sigmas, start)
        moments, source = None, ""
        if self.analytic_init:
            moments, source = (self.moments, "") if self.moments else default_moments(family, parts[0].shape[1])
        first = starts(model, sampling, float(sigmas[0]), moments, parts, masks=masks)
        if begins_with_its_noise(sampler):
            noise = packed([part.first_x(eps) for eps, part in zip(unpacked(noise, shapes), first)])
        else:
            latent_image = packed([part.latent for part in first])
            noise = packed([eps * part.noise_gain for eps, part in zip(unpacked(noise, shapes), first)])
        say(self.node_id, "\n".join(filter(None, [note, *self.from_what(parts, masks, denoise_mask, source)])))
        return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)

    def below(self, sampling: Sampling, sigmas: torch.Tensor, start: float) -> tuple[torch.Tensor, str]:
        """A sampler's sigmas with nothing above the start -> (sigmas, what was done to them in words).

        Those that were laid on this MODEL are so already, unless another node set the sampling
        after this one, or the hand-over is to be kept.
        """
        first, whole = float(sigmas[0]), float(sigmas[-1]) == 0
        slack = 1e-6 * (1 + start)  # what kl_optimal loses of a large sigma: it takes its arc tangent in float32
        if not first <= start * (1 + slack):  # above, or kl_optimal's single step, 0 / 0
            sigmas = sampling.retimed(sigmas, start)
            note = f"starts at sigma {start:g} instead of {first:g}, its steps squeezed in time" + (
                f" above the hand-over at {float(sigmas[-1]):g}" if not whole else ""
            )
        elif first < start * (1 - slack):
            return sigmas, f"starts at sigma {first:g}, as its sampler says, below the start at {start:g}"
        else:
            sigmas = torch.cat([sigmas.new_tensor([start]), schedules.falling(sigmas)[1:]])  # [steps + 1]
            note = f"starts at sigma {start:g}"
            if not whole:
                note += f" and hands over at sigma {float(sigmas[-1]):g}: give the MODEL that goes on the same Early Start, or choose layout '{HAND_OVER}'"
        if self.layout != TRAILING:
            return sigmas, note
        if not whole:
            return sigmas, f"{note}\n'{TRAILING}' lays whole runs, and this one hands over"
        return sampling.trailing(len(sigmas) - 1, start).to(sigmas), f"starts at sigma {start:g}, {TRAILING}"

    def from_what(self, parts: list[torch.Tensor], masks: list[torch.Tensor] | None, denoise_mask: torch.Tensor | None, source: str) -> list[str]:
        """What the run starts from, in words."""
        if denoise_mask is None and masks is not None and not masks[0].any():
            return ["the latent already holds a picture: the run starts from that under noise"]
        return [
            *(["Analytic-Init", source] if self.analytic_init else []),
            SOUND if len(parts) > 1 else "",
            "what the latent's mask keeps stays as it is" if denoise_mask is not None else "",
        ]


def masks_for(parts: list[torch.Tensor], noise: torch.Tensor, denoise_mask: torch.Tensor | None, shapes: list | None) -> list[torch.Tensor] | None:
    """What may start anew, one mask a part: by the host's mask, or else where a part is empty.

    None: all of everything. []: the host does not tell what its mask keeps of which part.
    """
    if denoise_mask is not None:
        told = len(parts) == 1 or denoise_mask.shape == noise.shape
        return unpacked(denoise_mask, shapes) if told else []
    held = [bool(part.any()) for part in parts]
    return [torch.full_like(part, float(not h)) for part, h in zip(parts, held)] if any(held) else None


def reason_to_stay_out(
    sampling: Sampling,
    start: float,
    noise: torch.Tensor,
    parts: list[torch.Tensor],
    sigmas: torch.Tensor,
    masks: list[torch.Tensor] | None,
    masked: bool,
    sampler: Sampler,
) -> str | None:
    """Why this run must not be touched, in words for the artist; None if it may. masks: of `masks_for`."""
    if parts[0].ndim not in (4, 5):
        return "this latent is not a video"
    if not sampling.starts_from_noise:
        return "this model samples from a picture, not from noise"
    if sampling.unscaled != begins_with_its_noise(sampler):
        return NOT_ITS_SAMPLER if sampling.unscaled else "this sampler is made for CogVideoX, whose x it does not scale, and this is another model"
    if not noise.any():
        return "the sampler's noise is switched off: it goes on from what the latent holds"
    if float(sigmas[-1]) > 0 and start <= float(sigmas[-1]):
        return f"this stage ends at sigma {float(sigmas[-1]):g}, not below the start at {start:g}: start higher, or hand over later"
    if masks == []:
        return "this host does not tell what the mask keeps of the video and what of the sound: update ComfyUI"
    if masked and not free_of(masks[0], parts[0]).any():
        return "the latent's mask leaves nothing free"
    return None


def lays_anew(layout: str, family: Family) -> bool:
    """Whether samplers are to lay their steps on the truncated process, and so move a hand-over between two of them."""
    return layout in (ANEW, TRAILING) or (layout == AUTO and not family.experts)


class CILEarlyStart(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CILEarlyStart",
            display_name="Early Start (CIL)",
            category="image-to-video motion",
            description="More motion from an image-to-video model: put it between the model loader and any sampler. Sampling starts at an earlier noise level, where the model cannot just copy its image, from the best Gaussian there (Analytic-Init).",
            inputs=[
                io.Model.Input("model", tooltip="The image-to-video model, after other nodes that set its sampling (ModelSampling...)."),
                *start_inputs(),
                io.Boolean.Input(
                    "analytic_init",
                    default=True,
                    tooltip="On: start from the data's mean and variance at that level (the paper's Analytic-Init). Off: the paper's naive start, plain noise. With start 1.0 as a fraction, off changes nothing at all.",
                ),
                MomentsType.Input(
                    "moments", optional=True, tooltip="Mean and variance of the data, from Load Moments. Unconnected: those of the model's family."
                ),
                io.Combo.Input(
                    "layout",
                    options=LAYOUTS,
                    default=AUTO,
                    optional=True,
                    tooltip=f"Where the steps lie. {ANEW}: the sampler's scheduler lays them all below the start, exactly as for a model that ends there. {HAND_OVER}: a sampler that hands over to a second one ends where it would have without this node; the steps above are squeezed in time. {AUTO}: the latter for Wan, which may come as two models for high and low noise, the former for all others. {TRAILING}: the authors' DDIM timesteps (939, 920, 901 ... for 50 steps from 0.94), for models with discrete timesteps, whatever the sampler's scheduler.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model", tooltip="The model with the early start on it. The sampler's own seed, steps and scheduler stay in charge."
                )
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model: Model, start_as: str, start: float, analytic_init: bool, moments: Moments | None = None, layout: str = AUTO) -> io.NodeOutput:
        # a wrong setting is an error here, in this node, not later in the sampler
        family, sampling = model_family(model), Sampling.of(model)
        sampling.check_starts_from_noise()
        check_meant(sampling, start_as, start)
        sigma = start_sigma(sampling, family, start_as, start)
        if moments is not None:
            cil_moments.check_space(moments, family.space)
        if layout == TRAILING:
            sampling.trailing(1, sigma)  # refuses a model without timesteps
        idle = [start_note(start_as, start), idle_moments(moments, analytic_init)]
        patched = cloned(model)
        if model.get_wrappers(OUTER_SAMPLE, WRAPPER):
            idle.append("the Early Start before this one no longer acts")
            patched.remove_wrappers_with_key(OUTER_SAMPLE, WRAPPER)
            if patched.get_model_object("model_sampling") is not sampling.host:
                patched.add_object_patch("model_sampling", sampling.host)
        if start_as == START_AS[0] and family.start[0] == 1.0:
            did = f"will be left alone: {family.evidence}"
        elif start_as == FROM_DIAL and sigma >= sampling.sigma_max * (1 - 1e-6):
            did = "will be left alone: the dial or the probe says the ordinary start"
        elif sigma >= sampling.sigma_max and not analytic_init and layout != TRAILING:
            did = "will be left alone: the start is the ordinary one and Analytic-Init is off"
        else:
            did = f"sampling will start at sigma {sigma:g}"
            truncated = sampling.truncated(sigma) if sigma < sampling.sigma_max and lays_anew(layout, family) else None
            if truncated is not None:
                patched.add_object_patch("model_sampling", truncated)
            patched.add_wrapper_with_key(OUTER_SAMPLE, WRAPPER, EarlyStart(start_as, start, analytic_init, moments, cls.hidden.unique_id, layout))
        say(cls.hidden.unique_id, "\n".join(filter(None, [did, *idle])))  # what cannot act comes last, so that it is what one reads
        return io.NodeOutput(patched)


NODES = [CILEarlyStart]
