"""A host's `model_sampling` whose largest sigma is sigma_M: the early start as a shorter forward process.

Every scheduler of the host or of a pack reads its range off this object, so each lays its own
steps below M (Alg. 1), Karras from 100 as well as a pack's own. A sigma is the same noise level
as before: what the network is told (`timestep`), what others mean by a per cent of the model's
schedule (`percent_to_sigma`) and the model's arithmetic stay those of the whole process.
"""

import copy
import math
from functools import cache
from typing import Any

import torch

from .types import ModelSampling

HostClass: Any = object  # what the host's classes give it


class Truncation(HostClass):
    """What a truncated process does otherwise than the host's class, which stands behind it in the class's bases.

    whole: the host's own object. low, told: the timesteps of the smallest sigma and of the start.
    stretch: schedulers walk from `told` down to `low`; times this, they walk down the host's
    `sigma()` from where it gives the start (a shifted flow's timestep() is not its inverse).
    """

    whole: ModelSampling
    sigmas: torch.Tensor
    low: float
    told: float
    stretch: float

    @property
    def sigma_max(self) -> torch.Tensor:
        return self.sigmas[-1]

    def sigma(self, timestep: float | torch.Tensor) -> torch.Tensor:
        """Timestep -> sigma, for schedulers; the start's own timestep gives exactly the start."""
        timestep = torch.as_tensor(timestep)
        inside = timestep if self.stretch == 1 else self.low + (timestep - self.low) * self.stretch
        top = self.sigma_max.to(timestep.device)
        sigma = torch.as_tensor(super().sigma(inside))
        return torch.where(timestep >= self.told, top, torch.minimum(sigma, top))

    def percent_to_sigma(self, percent: float) -> float:
        """Of the whole process: ControlNets, conditioning ranges and caches mean the model's schedule."""
        return self.whole.percent_to_sigma(percent)

    def noise_scaling(self, sigma: torch.Tensor, noise: torch.Tensor, latent_image: torch.Tensor, max_denoise: bool = False) -> torch.Tensor:
        """x_M = signal * latent + sigma * noise: the host's stronger noise at its largest sigma belongs to T."""
        return super().noise_scaling(sigma, noise, latent_image, False)


@cache
def _truncated_class(host_class: Any) -> type:
    """The host's class with `Truncation` before it, so that isinstance tells of it what it told before."""
    return type(f"Truncated{host_class.__name__}", (Truncation, host_class), {})


def whole_of(model_sampling: ModelSampling) -> ModelSampling:
    """The host's own object, of itself or of a truncated one."""
    return getattr(model_sampling, "whole", model_sampling)


def can_be_truncated(model_sampling: ModelSampling) -> bool:
    """Whether an object is made as the host's are: a module with its table in the buffer `sigmas`."""
    return isinstance(model_sampling, torch.nn.Module) and "sigmas" in model_sampling._buffers


def truncated(whole: ModelSampling, start: float, sigmas: torch.Tensor) -> ModelSampling:
    """The process of `whole` up to `start`; `whole` is left as it is.

    sigmas: [n] rising, the last one `start`: what a scheduler reads that picks from a table.
    """
    out = copy.copy(whole)
    out.__class__ = _truncated_class(whole.__class__)
    out._buffers = {**whole._buffers, "sigmas": sigmas}
    vars(out)["whole"] = whole  # not as a submodule: it is no part of the model
    low, told = (float(whole.timestep(s)) for s in (whole.sigmas[0], sigmas[-1]))
    meant = told
    if not math.isclose(float(whole.sigma(torch.tensor(told))), start, rel_tol=1e-5):
        meant = _timestep_of(whole, start, low)
    out.low, out.told = low, told
    out.stretch = (meant - low) / (told - low) if told > low else 1.0
    return out


def _timestep_of(whole, start, low):
    """The timestep at which the host's `sigma()` gives `start`, by bisection: it rises with time."""
    high = float(whole.timestep(whole.sigma_max))
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if float(whole.sigma(torch.tensor(middle))) < start else (low, middle)
    return (low + high) / 2
