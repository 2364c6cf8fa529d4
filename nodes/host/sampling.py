"""A host's noise process: its spaces, its time, its schedules.

ComfyUI keeps x = latent + sigma * noise for most models (a VP model lives in x_t / alpha_t)
and sigma * noise + (1 - sigma) * latent for flows; at the model's largest sigma it scales
the noise differently again. `Sampling` asks the host's own functions rather than repeat them.
"""

import math
from types import SimpleNamespace

import comfy.model_sampling
import comfy.samplers
import torch

from ...cil import forward, levels, schedules
from ..lvdm.sampling import RescaledDiscrete
from .models import sampleable
from .schedule import TRAILING
from .truncated import can_be_truncated, truncated, whole_of
from .types import Model, ModelSampling, Sampler


def begins_with_its_noise(sampler: Sampler) -> bool:
    """Whether a SAMPLER takes the NOISE for its first x, neither scaled by the host nor laid on a latent (the host's VOIDSampler)."""
    return type(sampler).__name__ == "VOID_DDIM"


class Sampling:
    """A host's `model_sampling`, read as a forward process with a time that runs over (0, 1].

    Of a truncated one (an early start), the whole process is read.
    """

    def __init__(self, model_sampling: ModelSampling):
        self.host = whole_of(model_sampling)
        self.sigma_min = float(self.host.sigma_min)
        self.sigma_max = float(self.host.sigma_max)

    @classmethod
    def of(cls, model: Model) -> "Sampling":
        """Of a MODEL (ModelPatcher), with what other nodes patched into it."""
        return cls(sampleable(model).get_model_object("model_sampling"))

    @property
    def process(self) -> forward.ForwardProcess:
        """The forward process, by the host's classes; one the pack does not know is measured."""
        kinds = comfy.model_sampling
        if isinstance(self.host, RescaledDiscrete):
            return forward.rescaled(self._rescale)
        if isinstance(self.host, kinds.CONST):
            scale = float(getattr(self.host, "noise_scale", 1.0))
            return forward.FLOW if scale == 1 else forward.flow(scale)
        if isinstance(self.host, kinds.COSMOS_RFLOW):
            return forward.RFLOW
        if self.unscaled:
            return forward.VP_PLAIN
        if isinstance(self.host, kinds.EPS):  # v-prediction, EDM and x_0-prediction derive from it
            edm = isinstance(self.host, kinds.ModelSamplingContinuousEDM) and not isinstance(self.host, kinds.ModelSamplingContinuousV)
            return forward.VE if edm else forward.VP
        return forward.ForwardProcess(
            "measured",
            alpha=lambda s: self._scaled(s, noise=0, latent=1),
            sigma=lambda s: self._scaled(s, noise=1, latent=0),
            scale=lambda s: 1.0,
        )

    @property
    def unscaled(self) -> bool:
        """Whether the network is given the sampler's x as it is though the process preserves variance (CogVideoX, of newer hosts).

        The host's `noise_scaling` does not fit such a model, so its ordinary samplers cannot sample it.
        """
        return isinstance(self.host, getattr(comfy.model_sampling, "V_PREDICTION_DDPM", ()))

    def levels(self, count: int, low: float, high: float) -> list[tuple[float, float]]:
        """Levels from fraction `high` down to `low` -> [(fraction, sigma)], see cil/levels.evenly."""
        least = max(self.fraction(self.sigma_min), 1e-6)
        return levels.evenly(self.process, lambda fraction: self.sigma(max(fraction, least)), count, low, high)

    def _rescale(self, sigma):
        """The dynamic rescale's s at a sigma, a number or a tensor."""
        if torch.is_tensor(sigma):
            return self.host.factor(sigma)
        return float(self.host.factor(torch.tensor(sigma, dtype=torch.float64)))

    def _scaled(self, sigma, noise, latent, max_denoise=False):
        """The host's `noise_scaling` of two numbers."""
        one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
        sigma = torch.tensor(sigma, dtype=torch.float64)
        return float(self.host.noise_scaling(sigma, noise * one, latent * one, max_denoise))

    def starts_at_max(self, sigma: float) -> bool:
        """Whether the host takes `sigma` for the start of a full run (its `max_denoise`)."""
        wrap = SimpleNamespace(inner_model=SimpleNamespace(model_sampling=self.host))
        return comfy.samplers.Sampler().max_denoise(wrap, [sigma])

    def first_noise_factor(self, sigma: float) -> float:
        """What the host will multiply a NOISE by, when sampling starts at `sigma`."""
        return self._scaled(sigma, noise=1, latent=0, max_denoise=self.starts_at_max(sigma))

    def first_latent_factor(self, sigma: float) -> float:
        """What the host will multiply a LATENT by, when sampling starts at `sigma`."""
        return self._scaled(sigma, noise=0, latent=1, max_denoise=self.starts_at_max(sigma))

    @property
    def starts_from_noise(self) -> bool:
        """Whether the host noises a latent at all; models that turn one picture into another may start from the picture."""
        return self._scaled(self.sigma_max, noise=1, latent=0) > 0

    def check_starts_from_noise(self) -> None:
        """Raise ValueError for a model whose sampling does not begin with noise."""
        if not self.starts_from_noise:
            raise ValueError(
                "this model samples from a picture, not from noise (its sampling adds none), so it has no noise level to start at: take this node out"
            )

    def check_ordinary_samplers(self) -> None:
        """Raise ValueError for a model that the host's ordinary samplers do not fit."""
        if self.unscaled:
            raise ValueError("the host's ordinary samplers do not fit CogVideoX: use Early Start with VOIDSampler and SamplerCustom or SamplerCustomAdvanced")

    def naive_noise_gain(self, sigma: float) -> float:
        """What unit noise is multiplied by for the paper's naive start; the ordinary start is the host's own, 1."""
        process = self.process
        if self.starts_at_max(sigma) or not process.preserving:
            return 1.0
        return process.naive(sigma) / self.first_noise_factor(sigma)

    @property
    def _table(self):
        """The sigmas of a model with discrete timesteps, or None for a continuous one."""
        kinds = comfy.model_sampling
        continuous = (kinds.StableCascadeSampling, kinds.ModelSamplingDiscreteEDM)
        discrete = isinstance(self.host, kinds.ModelSamplingDiscrete) and not isinstance(self.host, continuous)
        return self.host.sigmas if discrete else None

    def sigma(self, fraction: float) -> float:
        """M as a fraction of T -> sigma_M.

        Discrete models: M T - 1 is the index into the table. Others: the host's own
        percent_to_sigma(1 - fraction), except that 1 is the model's largest sigma.
        """
        forward.check_fraction(fraction)
        if fraction == 1:
            return self.sigma_max
        if self._table is not None:
            return forward.table_sigma(self._table, fraction)
        return min(float(self.host.percent_to_sigma(1 - fraction)), self.sigma_max)

    def fraction(self, sigma: float) -> float:
        """The inverse of `sigma`."""
        if self._table is not None:
            return forward.table_fraction(self._table, sigma)
        return forward.curve_fraction(lambda f: 0.0 if f <= 0 else self.sigma(f), sigma)

    def check_start(self, sigma: float) -> None:
        """Raise ValueError unless a run can start at `sigma`."""
        if not math.isfinite(sigma) or sigma <= 0:
            raise ValueError(f"a start must be a sigma above 0, but {sigma} came")
        if sigma > self.sigma_max * (1 + 1e-4):
            raise ValueError(f"the start, sigma {sigma:g}, lies above the model's largest sigma, {self.sigma_max:g}: choose one at or below it")
        if sigma <= self.sigma_min:
            raise ValueError(f"the start, sigma {sigma:g}, lies at or below the model's smallest sigma, {self.sigma_min:g}: nothing would be sampled")

    def truncated(self, start: float) -> ModelSampling | None:
        """The host's object with `start` for its largest sigma; None where it is not made as the host's are.

        Discrete tables are cut, so that timesteps stay whole; continuous ones are drawn anew.
        """
        if not can_be_truncated(self.host):
            return None
        if self._table is not None:
            inner = self.host.sigmas[self.host.sigmas < start * (1 - 1e-6)].tolist()
        else:
            n, low, top = min(len(self.host.sigmas), 1000), self.fraction(self.sigma_min), self.fraction(start)
            inner = [self.sigma_min, *(self.sigma(low + (top - low) * i / (n - 1)) for i in range(1, n - 1))]
        return truncated(self.host, start, self.host.sigmas.new_tensor([*inner, start]))

    def schedule(self, scheduler: str, steps: int, start: float) -> torch.Tensor:
        """`steps` steps of one of `scheduler_names`, laid over what lies below `start`: on the CPU."""
        if scheduler == TRAILING:
            return self.trailing(steps, start)
        if start >= self.sigma_max * (1 - 1e-6):
            return comfy.samplers.calculate_sigmas(self.host, scheduler, steps).cpu()
        process = self.truncated(start)
        if process is None:
            return self.retimed(comfy.samplers.calculate_sigmas(self.host, scheduler, steps).cpu(), start)
        sigmas = comfy.samplers.calculate_sigmas(process, scheduler, steps).cpu()
        return schedules.falling(torch.cat([sigmas.new_tensor([start]), sigmas[1:]]))

    def trailing(self, steps: int, start: float) -> torch.Tensor:
        """Sigmas at the authors' trailing timesteps below `start`, with the final 0: [steps + 1]."""
        if self._table is None:
            raise ValueError(f"'{TRAILING}' spaces discrete timesteps, but this model's time is continuous: choose sgm_uniform or karras")
        timesteps = schedules.trailing(round(self.fraction(start) * len(self._table)), steps)
        return torch.cat([self._table[timesteps].cpu(), torch.zeros(1)])

    def retimed(self, sigmas: torch.Tensor, start: float) -> torch.Tensor:
        """Any schedule of this process, squeezed in time to begin at `start`; its end stays where it was."""
        least = self.fraction(self.sigma_min)
        return schedules.falling(schedules.retime(sigmas, start, self.fraction, lambda time: self.sigma(max(time, least))))
