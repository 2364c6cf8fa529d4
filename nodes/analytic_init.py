"""AnalyticInitLatent: the KL-optimal start as a LATENT and a NOISE, for any sampler node."""

import comfy.sample
import torch
from comfy_api.latest import io
from comfy_execution.graph import ExecutionBlocker

from ..cil import analytic_init, schedules
from ..cil import moments as cil_moments
from ..cil.moments import Moments
from .host.latents import free_of, like_parts, partly_kept, parts_of, sized_for, sound_gain, to_latent
from .host.models import model_family
from .host.notes import say
from .host.sampling import Sampling
from .host.types import Model
from .moments import MomentsType, default_moments

SOUND = "the sound beside the video starts at the same level, from plain noise"


class Start:
    """The start of one run: what the first x must be, split over a LATENT and a NOISE.

    mean: E[X_0] in the network's space, like `samples`. variance: tr(Cov)/d; None = the naive start.
    noise_mask: only what it gives free to the last (1) is started anew; elsewhere, `samples`
        and the noise stay as they are to the bit, and so does a picture that is kept there.
    gain_in: what the host multiplies these samples by on their way in, beside their format's scale.

    latent: E[X_0] in the units of a LATENT, `samples` where a mask keeps them.
    first_x(eps): that first x itself, for a sampler that begins with its noise.
    noise_gain: what unit noise is multiplied by, so that after the host's own factor its
    standard deviation is sigma_p; a number, or a tensor where a mask keeps some of it at 1.
    """

    def __init__(
        self,
        model: Model,
        sampling: Sampling,
        sigma: float,
        samples: torch.Tensor,
        mean: torch.Tensor,
        variance: float | None,
        noise_mask: torch.Tensor | None = None,
        gain_in: float = 1.0,
    ):
        self.sampling, self.sigma, self.gain_in = sampling, sigma, gain_in
        self.free = None if noise_mask is None else free_of(noise_mask, samples)
        self.partly_kept = noise_mask is not None and bool(partly_kept(noise_mask, samples).any())
        self.noise_gain: float | torch.Tensor = sampling.naive_noise_gain(sigma)
        self.mean = mean
        self.std: float | None = None  # of the first x: the paper's naive start is the noise as it is
        if variance is not None:
            _, std = analytic_init.optimal_start(sampling.process, sigma, variance)
            self.std = std
            self.noise_gain = std / sampling.first_noise_factor(sigma)
        if self.free is None:
            self.latent = to_latent(model, mean).to(samples.dtype)
        else:
            # next to a picture even a mean of zeros goes through the host's process_latent_in
            self.latent = torch.where(self.free, model.get_model_object("process_latent_out")(mean).to(samples), samples)
            self.noise_gain = torch.where(self.free, self.noise_gain, 1.0).to(samples)  # like samples

    def first_x(self, eps: torch.Tensor) -> torch.Tensor:
        """The first x of a process that preserves variance, from unit noise: signal * mean + sigma_p eps."""
        return eps if self.std is None else float(self.sampling.process.signal(self.sigma)) * self.mean.to(eps) + self.std * eps

    def why_not_noised(self) -> str | None:
        """Why no LATENT alone can carry this start, in words; None if one can."""
        if self.sampling.first_latent_factor(self.sigma) < 1e-6:
            return f"at sigma {self.sigma:g} this model multiplies a latent by zero"
        if self.partly_kept:
            return "the mask keeps a part of the picture by half, and one latent cannot hold both the noise to start from and the clean picture to keep"
        return None

    def noised(self, model: Model, noise: torch.Tensor) -> torch.Tensor:
        """A LATENT's samples that a sampler with its noise switched off takes to the same x; what a mask keeps stays clean."""
        factor = self.sampling.first_latent_factor(self.sigma)
        mean = model.get_model_object("process_latent_in")(self.latent) if self.latent.any() else self.latent
        gain = self.sampling.first_noise_factor(self.sigma) * self.noise_gain / factor
        noised = model.get_model_object("process_latent_out")(mean + gain * noise) / self.gain_in
        return noised if self.free is None else torch.where(self.free, noised, self.latent)


def starts(
    model: Model,
    sampling: Sampling,
    sigma: float,
    moments: Moments | None,
    parts: list[torch.Tensor],
    mean_strength: float = 1.0,
    masks: list[torch.Tensor] | None = None,
) -> list[Start]:
    """A Start for each part of a LATENT. moments: of the video, the first part, None = the naive start, which any sound gets. masks: one a part."""
    means, variances = [torch.zeros_like(part) for part in parts], [None] * len(parts)
    gains = [1.0] + [sound_gain(model)] * (len(parts) - 1)
    if moments is not None:
        means[0] = mean_strength * cil_moments.fit(moments, parts[0].shape, model_family(model).space).to(parts[0])
        variances[0] = moments.variance
    return [Start(model, sampling, sigma, *of_part) for of_part in zip(parts, means, variances, masks or [None] * len(parts), gains)]


def masks_of(noise_mask: torch.Tensor, parts: list[torch.Tensor]) -> list[torch.Tensor]:
    """A LATENT's mask, one a part. As the host has it, a part without one is free."""
    masks = parts_of(noise_mask)[: len(parts)]
    return masks + [torch.ones_like(part) for part in parts[len(masks) :]]


class AnalyticNoise:
    """The host's random noise of a seed, times the gains of Starts."""

    def __init__(self, seed: int, gains: list):
        self.seed, self.gains = seed, gains

    def generate_noise(self, input_latent: dict) -> torch.Tensor:
        noise = comfy.sample.prepare_noise(input_latent["samples"], self.seed, input_latent.get("batch_index"))
        return like_parts(noise, [part * gain for part, gain in zip(parts_of(noise), self.gains)])


class AnalyticInitLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AnalyticInitLatent",
            display_name="Analytic Init Latent (CIL)",
            category="image-to-video motion",
            description="The best Gaussian to start from at an early sigma (Eq. 5 of the paper). For SamplerCustomAdvanced take latent and noise; for a sampler with 'add noise' off take noised_latent.",
            inputs=[
                io.Model.Input("model", tooltip="The model that will be sampled."),
                io.Latent.Input(
                    "latent", tooltip="Gives the size and everything else it carries (mask, batch index). Its picture is used only where a mask keeps it."
                ),
                io.Sigmas.Input("sigmas", tooltip="The schedule that will be sampled, from Truncated Sigma Schedule; only its first sigma is used."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Seed of the noise. The same seed gives the same noise as the host's RandomNoise.",
                ),
                io.Float.Input(
                    "mean_strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.01,
                    tooltip="How much of the mean E[X_0] to start with. 1 = the paper's formula, 0 = no mean (only the variance is adjusted). Above 1 pushes the colours towards the data set's average.",
                ),
                MomentsType.Input(
                    "moments", optional=True, tooltip="Mean and variance of the data, from Load Moments. Unconnected: those of the model's family."
                ),
            ],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="The mean, for SamplerCustomAdvanced together with `noise`."),
                io.Noise.Output(display_name="noise", tooltip="Noise of the right scale, for SamplerCustomAdvanced together with `latent`."),
                io.Latent.Output(
                    display_name="noised_latent", tooltip="Mean and noise together, for SamplerCustom or KSampler (Advanced) with 'add noise' off."
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model: Model, latent: dict, sigmas: torch.Tensor, seed: int, mean_strength: float, moments: Moments | None = None) -> io.NodeOutput:
        schedules.check(sigmas)
        sampling, family, notes = Sampling.of(model), model_family(model), []
        sigma = float(sigmas[0])
        sampling.check_starts_from_noise()
        sampling.check_ordinary_samplers()
        sampling.check_start(sigma)
        samples = sized_for(model, latent)
        parts, mask = parts_of(samples), latent.get("noise_mask")
        if moments is None:
            moments, note = default_moments(family, parts[0].shape[1])
            notes.append(note)
        if mask is None and any(part.any() for part in parts):
            notes.append("the picture in the latent is not used: sampling starts from the mean and noise")
        if len(parts) > 1:
            notes.append(SOUND)
        first = starts(model, sampling, sigma, moments, parts, mean_strength, None if mask is None else masks_of(mask, parts))
        noise = AnalyticNoise(seed, [start.noise_gain for start in first])
        out = {**latent, "samples": like_parts(samples, [start.latent for start in first])}
        unit = parts_of(AnalyticNoise(seed, [1.0] * len(parts)).generate_noise(out))
        refused = next(filter(None, (start.why_not_noised() for start in first)), None)
        if refused:
            noised_latent = ExecutionBlocker(
                f"noised_latent: {refused}, so no latent can carry the start. Use the outputs latent and noise with SamplerCustomAdvanced{'' if first[0].partly_kept else ', or start below the maximum'}."
            )
        else:
            noised_latent = {**latent, "samples": like_parts(samples, [start.noised(model, eps) for start, eps in zip(first, unit)])}
        if mean_strength != 1 and (sampling.first_latent_factor(sigma) < 1e-6 or not first[0].latent.any()):
            notes.append("the mean has no part in this start, so mean_strength changes nothing")
        notes.insert(0, f"start at sigma {sigma:g}: mean x {mean_strength:g}, tr(Cov)/d {moments.variance:.4g}")
        say(cls.hidden.unique_id, "\n".join(n for n in notes if n))
        return io.NodeOutput(out, noise, noised_latent)


NODES = [AnalyticInitLatent]
