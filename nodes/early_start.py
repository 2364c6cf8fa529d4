"""CILEarlyStart: the early start with Analytic-Init as a patch on the MODEL, for any sampler node."""

from comfy_api.latest import io

import comfy.patcher_extension

from ..cil import moments as cil_moments
from .analytic_init import SOUND, starts
from .host.latents import free_of, packed, unpacked
from .host.models import cloned, model_family
from .host.notes import say
from .host.sampling import Sampling
from .host.schedule import START_AS, start_sigma
from .moments import MomentsType, default_moments, idle_moments
from .schedule import idle_start, start_inputs

WRAPPER = "cil_early_start"


class EarlyStart:
    """Wraps the host's OUTER_SAMPLE: moves the first sigma down and starts from the right Gaussian."""

    def __init__(self, start_as, start, analytic_init, moments, node_id):
        self.start_as, self.start = start_as, start
        self.analytic_init, self.moments = analytic_init, moments
        self.node_id = node_id

    def __call__(self, executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
        model = executor.class_obj.model_patcher
        denoise_mask = args[0] if args else kwargs.get("denoise_mask")
        sampling, family = Sampling.of(model), model_family(model)
        start = start_sigma(sampling, family, self.start_as, self.start)
        shapes = kwargs.get("latent_shapes")
        parts = unpacked(latent_image, shapes)
        masks = None if denoise_mask is None else []
        if masks is not None and (len(parts) == 1 or denoise_mask.shape == noise.shape):
            masks = unpacked(denoise_mask, shapes)
        reason = self.reason_to_stay_out(sampling, family, start, noise, parts, sigmas, masks)
        if reason:
            say(self.node_id, f"left alone: {reason}")
            return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
        notes = []
        if start < float(sigmas[0]):
            notes.append(f"starts at sigma {start:g} instead of {float(sigmas[0]):g}")
            sigmas = sampling.relaid(sigmas, start)
        moments = None
        if self.analytic_init:
            moments, note = (self.moments, "") if self.moments else default_moments(family, parts[0].shape[1])
            notes += ["Analytic-Init", note]
        if moments is not None or masks is not None:
            first = starts(model, sampling, float(sigmas[0]), moments, parts, masks=masks)
            latent_image = packed([start.latent for start in first])
            noise = packed([eps * start.noise_gain for eps, start in zip(unpacked(noise, shapes), first)])
        notes.append(SOUND if len(parts) > 1 else "")
        if masks is not None:
            notes.append("what the latent's mask keeps stays as it is")
        say(self.node_id, "\n".join(filter(None, notes)))
        return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)

    def reason_to_stay_out(self, sampling, family, start, noise, parts, sigmas, masks):
        """Why this run must not be touched, in words for the artist; None if it may.

        parts: video, or video and sound. masks: theirs, empty where the host does not tell them apart.
        """
        if self.start_as == START_AS[0] and family.start[0] == 1.0:
            return family.evidence
        if start >= sampling.sigma_max and not self.analytic_init:
            return "the start is the ordinary one and Analytic-Init is off"
        if parts[0].ndim not in (4, 5):
            return "this latent is not a video"
        if not sampling.is_full(sigmas):
            return f"this sampler starts at sigma {float(sigmas[0]):g}, not at the beginning (a later stage, or denoise below 1)"
        if 0 < float(sigmas[-1]) and start <= float(sigmas[-1]):
            return f"this stage ends at sigma {float(sigmas[-1]):g}, not below the start at {start:g}: start higher, or hand over later"
        if masks is not None and family.image.kept is None:
            return "the latent has a mask, part of it is to be kept"
        if masks == []:
            return "this host does not tell what the mask keeps of the video and what of the sound: update ComfyUI"
        if masks is not None and not free_of(masks[0], parts[0]).any():
            return "the latent's mask leaves nothing free"
        if masks is None and any(part.any() for part in parts):
            return "the latent already holds a picture to start from"
        if not noise.any():
            return "the sampler's noise is switched off, so there is nothing to start from"
        return None


class CILEarlyStart(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CILEarlyStart",
            display_name="Early Start (CIL)",
            category="image-to-video motion",
            description="More motion from an image-to-video model: put it between the model loader and any sampler. Sampling starts at an earlier noise level, where the model cannot just copy its image, from the best Gaussian there (Analytic-Init).",
            inputs=[
                io.Model.Input("model", tooltip="The image-to-video model."),
                *start_inputs(),
                io.Boolean.Input("analytic_init", default=True, tooltip="On: start from the data's mean and variance at that level (the paper's Analytic-Init). Off: from plain noise of that level. With start 1.0 as a fraction, off changes nothing at all."),
                MomentsType.Input("moments", optional=True, tooltip="Mean and variance of the data, from Load Moments. Unconnected: those of the model's family."),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The model with the early start on it. The sampler's own seed, steps and scheduler stay in charge.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model, start_as, start, analytic_init, moments=None):
        # a wrong setting is an error here, in this node, not later in the sampler
        family = model_family(model)
        sigma = start_sigma(Sampling.of(model), family, start_as, start)
        if moments is not None:
            cil_moments.check_space(moments, family.space)
        patched = cloned(model)
        wrapper = EarlyStart(start_as, start, analytic_init, moments, cls.hidden.unique_id)
        patched.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, WRAPPER, wrapper)
        left_alone = start_as == START_AS[0] and family.start[0] == 1.0
        notes = [
            f"will be left alone: {family.evidence}" if left_alone else f"sampling will start at sigma {sigma:g}",
            idle_start(start_as, start),
            idle_moments(moments, analytic_init),
        ]
        say(cls.hidden.unique_id, "\n".join(filter(None, notes)))
        return io.NodeOutput(patched)


NODES = [CILEarlyStart]
