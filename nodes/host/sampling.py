"""A host's noise process: its spaces, its time, its schedules.

ComfyUI keeps x = latent + sigma * noise for most models (a VP model lives in x_t / alpha_t)
and sigma * noise + (1 - sigma) * latent for flows; at the model's largest sigma it scales
the noise differently again. `Sampling` asks the host's own functions rather than repeat them.
"""

import copy
import math
from types import SimpleNamespace

import torch

import comfy.model_sampling
import comfy.samplers

from ...cil import forward, schedules
from ..lvdm.sampling import RescaledDiscrete
from .models import checked
from .schedule import TRAILING


class Sampling:
    """A host's `model_sampling`, read as a forward process with a time that runs over (0, 1]."""

    def __init__(self, model_sampling):
        self.host = model_sampling
        self.sigma_min = float(model_sampling.sigma_min)
        self.sigma_max = float(model_sampling.sigma_max)

    @classmethod
    def of(cls, model):
        """Of a MODEL (ModelPatcher), with what other nodes patched into it."""
        return cls(checked(model).get_model_object("model_sampling"))

    @property
    def process(self):
        """The forward process, by the host's classes; one the pack does not know is measured."""
        kinds = comfy.model_sampling
        if isinstance(self.host, RescaledDiscrete):
            return forward.rescaled(self._rescale)
        if isinstance(self.host, kinds.CONST):
            return forward.FLOW
        if isinstance(self.host, kinds.COSMOS_RFLOW):
            return forward.RFLOW
        if isinstance(self.host, kinds.EPS):  # v-prediction, EDM and x_0-prediction derive from it
            edm = isinstance(self.host, kinds.ModelSamplingContinuousEDM) and not isinstance(self.host, kinds.ModelSamplingContinuousV)
            return forward.VE if edm else forward.VP
        return forward.ForwardProcess(
            "measured",
            alpha=lambda s: self._scaled(s, noise=0, latent=1),
            sigma=lambda s: self._scaled(s, noise=1, latent=0),
            scale=lambda s: 1.0,
        )

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

    def starts_at_max(self, sigma):
        """Whether the host takes `sigma` for the start of a full run (its `max_denoise`)."""
        wrap = SimpleNamespace(inner_model=SimpleNamespace(model_sampling=self.host))
        return comfy.samplers.Sampler().max_denoise(wrap, [sigma])

    def first_noise_factor(self, sigma):
        """What the host will multiply a NOISE by, when sampling starts at `sigma`."""
        return self._scaled(sigma, noise=1, latent=0, max_denoise=self.starts_at_max(sigma))

    def first_latent_factor(self, sigma):
        """What the host will multiply a LATENT by, when sampling starts at `sigma`."""
        return self._scaled(sigma, noise=0, latent=1, max_denoise=self.starts_at_max(sigma))

    @property
    def _table(self):
        """The sigmas of a model with discrete timesteps, or None for a continuous one."""
        kinds = comfy.model_sampling
        continuous = (kinds.StableCascadeSampling, kinds.ModelSamplingDiscreteEDM)
        discrete = isinstance(self.host, kinds.ModelSamplingDiscrete) and not isinstance(self.host, continuous)
        return self.host.sigmas if discrete else None

    def sigma(self, fraction):
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

    def fraction(self, sigma):
        """The inverse of `sigma`."""
        if self._table is not None:
            return forward.table_fraction(self._table, sigma)
        return forward.curve_fraction(lambda f: 0.0 if f <= 0 else self.sigma(f), sigma)

    def check_start(self, sigma):
        """Raise ValueError unless a run can start at `sigma`."""
        if not math.isfinite(sigma) or sigma <= 0:
            raise ValueError(f"a start must be a sigma above 0, but {sigma} came")
        if sigma > self.sigma_max * (1 + 1e-4):
            raise ValueError(f"the start, sigma {sigma:g}, lies above the model's largest sigma, {self.sigma_max:g}: choose one at or below it")
        if sigma <= self.sigma_min:
            raise ValueError(f"the start, sigma {sigma:g}, lies at or below the model's smallest sigma, {self.sigma_min:g}: nothing would be sampled")

    def below(self, start):
        """A copy of the host's object whose schedule ends at `start`, for the host's schedulers.

        Discrete tables are cut, so that timesteps stay whole; continuous ones are drawn anew.
        """
        short = copy.copy(self.host)
        if self._table is not None:
            kept = self.host.sigmas[self.host.sigmas < start * (1 - 1e-6)]
            table = torch.cat([kept, kept.new_tensor([start])])
        else:
            n, low, top = len(self.host.sigmas), self.fraction(self.sigma_min), self.fraction(start)
            inner = [self.sigma(low + (top - low) * i / (n - 1)) for i in range(1, n - 1)]
            table = self.host.sigmas.new_tensor([self.sigma_min, *inner, start])
        short._buffers = {**self.host._buffers, "sigmas": table}
        if "log_sigmas" in short._buffers:
            short._buffers["log_sigmas"] = table.log()
        # a shifted flow's timestep() is not the inverse of its sigma(), except at the very start
        time = self.host.timestep(table[-1])
        if not math.isclose(float(self.host.sigma(time)), start, rel_tol=1e-2):
            time = self.fraction(start) * self.host.timestep(self.host.sigma_max)
            short.timestep = lambda sigma: time if float(sigma) == float(table[-1]) else self.host.timestep(sigma)
        return short

    def schedule(self, scheduler, steps, start):
        """`steps` steps of one of `scheduler_names`, laid over what lies below `start`: on the CPU."""
        if scheduler == TRAILING:
            return self._trailing(steps, start)
        if start >= self.sigma_max * (1 - 1e-6):
            sigmas = comfy.samplers.calculate_sigmas(self.host, scheduler, steps)
            return sigmas.cpu()
        sigmas = comfy.samplers.calculate_sigmas(self.below(start), scheduler, steps).cpu()
        return schedules.falling(torch.cat([sigmas.new_tensor([start]), sigmas[1:]]))

    def _trailing(self, steps, start):
        """Sigmas at the authors' trailing timesteps, with the final 0."""
        if self._table is None:
            raise ValueError(f"'{TRAILING}' spaces discrete timesteps, but this model's time is continuous: choose sgm_uniform or karras")
        timesteps = schedules.trailing(round(self.fraction(start) * len(self._table)), steps)
        return torch.cat([self._table[timesteps].cpu(), torch.zeros(1)])

    def relaid(self, sigmas, start):
        """A sampler's own schedule with its start moved to `start`, as many steps as before.

        A full schedule of a scheduler that the host knows is computed anew below the start.
        Another one is squeezed in time, its end staying where it was.
        """
        name, steps, discard = self._recognise(sigmas)
        if name is None:
            return schedules.squeeze(sigmas, start, self.fraction, self.sigma)
        anew = self.schedule(name, steps, start)
        return (_discard_penultimate(anew) if discard else anew).to(sigmas)

    def _recognise(self, sigmas):
        """The host's scheduler that made these sigmas -> (name, steps, penultimate discarded); name None if none did."""
        given, n = sigmas.detach().float().cpu(), len(sigmas) - 1
        exact = [(name, n, False) for name in comfy.samplers.SCHEDULER_NAMES]
        exact += [(name, n + 1, True) for name in comfy.samplers.SCHEDULER_NAMES]
        # this one counts its steps itself: what was asked for is near, but another number
        near = [("ddim_uniform", n + k, False) for k in range(-40, 41) if n + k > 0]
        for name, steps, discard in exact + near:
            try:
                full = comfy.samplers.calculate_sigmas(self.host, name, steps).float().cpu()
            except Exception:  # another pack's scheduler may want another model
                continue
            full = _discard_penultimate(full) if discard else full
            if full.shape == given.shape and torch.equal(full, given):
                return name, steps, discard
        return None, 0, False

    def is_full(self, sigmas):
        """Whether a schedule is a full run's: from the model's maximum, or all of a known scheduler's."""
        return float(sigmas[0]) >= self.sigma_max * (1 - 1e-3) or self._recognise(sigmas)[0] is not None


def _discard_penultimate(sigmas):
    """As the host does for the samplers that would stumble over it (dpm_2, uni_pc)."""
    return torch.cat([sigmas[:-2], sigmas[-1:]])
