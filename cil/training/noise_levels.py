"""Which noise levels are trained: draw(generator) -> sigma."""

import math
from collections.abc import Callable

import torch


# Karras et al. 2022, Table 1: ln sigma ~ N(P_mean, P_std^2), kept inside the model's range
def lognormal_sigma(P_mean: float, P_std: float, low: float, high: float, tail: float = 0.0) -> Callable:
    """-> draw(generator) -> sigma. tail: the share that is drawn evenly in ln sigma instead, over the whole range."""

    def draw(g):
        normal = P_mean + P_std * float(torch.randn((), generator=g, dtype=torch.float64))
        even, choice = torch.rand(2, generator=g, dtype=torch.float64).tolist()
        log = math.log(low) + even * math.log(high / low) if choice < tail else normal
        return min(max(math.exp(log), low), high)

    return draw


# Ho et al. 2020, Alg. 1: t ~ U{1, ..., T}
def uniform_timestep(table: torch.Tensor) -> Callable:
    """Of a model with a table of T sigmas -> draw(generator) -> sigma."""
    return lambda g: float(table[int(torch.randint(len(table), (), generator=g))])


# Lipman et al. 2023, Eq. 23: t ~ U(0, 1), in the model's own time, so that its shift acts
def uniform_time(sigma_of: Callable) -> Callable:
    """sigma_of(t), t in (0, 1] -> draw(generator) -> sigma."""
    return lambda g: sigma_of(1 - float(torch.rand((), generator=g, dtype=torch.float64)))


EVERY_SIGMA = (0.0, math.inf)
TRIES = 10000


def within(draw: Callable, low: float, high: float) -> Callable:
    """The same draws, but those outside [low, high] are drawn again. For a model of one of several stages."""

    def again(g):
        for _ in range(TRIES):
            if low <= (sigma := draw(g)) <= high:
                return sigma
        raise ValueError(f"hardly any noise level of this training lies in [{low:g}, {high:g}], in sigma: widen the range")

    return again
