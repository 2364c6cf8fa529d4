"""The forward process x_t = alpha_t x_0 + sigma_t eps (Eq. 1), seen from a host's sigma.

A host keeps its own time variable sigma and its own space x = scale * x_t, in which a
discrete variance-preserving model looks like a variance-exploding one. A ForwardProcess
is that translation; everything else in the package is written against it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

Level = float | torch.Tensor


@dataclass(frozen=True)
class ForwardProcess:
    """Three functions of the host's sigma (floats or tensors in, the same out).

    alpha, sigma: the paper's alpha_t and sigma_t.
    scale: the host's x over the paper's x_t.
    preserving: whether the variance stays (VP), so that p_T is N(0, I).
    """

    name: str
    alpha: Callable
    sigma: Callable
    scale: Callable
    preserving: bool = False

    def signal(self, sigma: Level) -> Level:
        """What x_0 is multiplied by in the host's space."""
        return self.alpha(sigma) * self.scale(sigma)

    def noise(self, sigma: Level) -> Level:
        """What eps is multiplied by in the host's space."""
        return self.sigma(sigma) * self.scale(sigma)

    def naive(self, sigma: Level) -> Level:
        """Standard deviation of the paper's naive early start, p_T put at `sigma`: N(0, I) for VP, pure noise otherwise."""
        return self.scale(sigma) if self.preserving else self.noise(sigma)

    def corrupt(self, x0: torch.Tensor, eps: torch.Tensor, sigma: Level) -> torch.Tensor:
        """A draw from q(x_t | x_0), in the host's space."""
        return self.signal(sigma) * x0 + self.noise(sigma) * eps


def _norm(sigma):
    return (1 + sigma * sigma) ** 0.5


# SVD and other EDM models: the data stay, the noise grows.
VE = ForwardProcess("VE", alpha=lambda s: s * 0 + 1, sigma=lambda s: s, scale=lambda s: s * 0 + 1)
# DynamiCrafter, VideoCrafter1 and other eps- or v-models: alpha^2 + sigma^2 = 1; the host keeps x_t / alpha_t.
VP = ForwardProcess("VP", alpha=lambda s: 1 / _norm(s), sigma=lambda s: s / _norm(s), scale=_norm, preserving=True)

# CogVideoX: the same, and the host keeps x_t itself.
VP_PLAIN = ForwardProcess("VP, unscaled", alpha=VP.alpha, sigma=VP.sigma, scale=VE.scale, preserving=True)


def flow(noise_scale: float = 1.0) -> ForwardProcess:
    """A rectified flow, a straight line from data to noise of this standard deviation (1 but for a few models)."""
    return ForwardProcess("flow", alpha=lambda s: 1 - s, sigma=lambda s: noise_scale * s, scale=lambda s: s * 0 + 1)


# Wan, Hunyuan, LTX and others.
FLOW = flow()
# Cosmos Predict2: a rectified flow that the host keeps in x_t / alpha_t.
RFLOW = ForwardProcess("RFlow", alpha=lambda s: 1 / (1 + s), sigma=lambda s: s / (1 + s), scale=lambda s: 1 + s)


def rescaled(factor: Callable) -> ForwardProcess:
    """A VP process whose data shrink with the noise: x_t = alpha_t s_t x_0 + sigma_t eps (LVDM's dynamic rescale).

    factor(sigma): s_t at the host's sigma = sigma_t / (alpha_t s_t); the host keeps x_t / (alpha_t s_t).
    """
    return ForwardProcess(
        "VP, rescaled",
        alpha=lambda s: factor(s) * VP.alpha(factor(s) * s),
        sigma=lambda s: VP.sigma(factor(s) * s),
        scale=lambda s: VP.scale(factor(s) * s) / factor(s),
        preserving=True,
    )


def check_fraction(fraction: float) -> None:
    """Raise ValueError unless 0 < fraction <= 1."""
    if not 0 < fraction <= 1:
        raise ValueError(f"a start is a fraction of T above 0 and at most 1, but {fraction:g} was given (1 = the ordinary start)")


def table_sigma(table: torch.Tensor, fraction: float) -> float:
    """M as a fraction of T -> sigma, for a model with a table of T noise levels.

    table: [T] rising sigmas. M T - 1 is the 0-based index, as in the authors' code, so
    1 is the ordinary start; between two entries sigma is interpolated in its logarithm.
    """
    check_fraction(fraction)
    index = fraction * len(table) - 1
    if index < -1e-6:
        raise ValueError(f"a start of {fraction:g} lies below the first of the model's {len(table)} timesteps; the least is {1 / len(table):g}")
    index = max(index, 0.0)
    if abs(index - round(index)) < 1e-6:  # M T is meant to be whole: 0.94 * 1000 is not, in floating point
        return float(table[round(index)])
    low = math.floor(index)
    a, b = math.log(float(table[low])), math.log(float(table[low + 1]))
    return math.exp(a + (index - low) * (b - a))


def table_fraction(table: torch.Tensor, sigma: float) -> float:
    """The inverse of `table_sigma`; a sigma beyond the table's ends gives its ends."""
    if sigma >= float(table[-1]):
        return 1.0
    above = next(i for i, s in enumerate(table.tolist()) if s > sigma)
    if above == 0:
        return 1 / len(table)
    a, b = math.log(float(table[above - 1])), math.log(float(table[above]))
    return (above + (math.log(sigma) - a) / (b - a)) / len(table)


def curve_fraction(curve: Callable, sigma: float) -> float:
    """sigma -> fraction for a continuous model; `curve(fraction)` is its rising sigma."""
    low, high = 0.0, 1.0
    if sigma >= curve(1.0):
        return 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if curve(middle) < sigma else (low, middle)
    return high
