"""Noise levels by their signal-to-noise ratio, so that levels of different families can be compared.

sigma means another thing in each family and M / T in each schedule. How much of the clip is
left in the noise does not: sqrt(variance) signal / noise, 0 = pure noise. SVD's sigma 100 is
0.009 (its latents have a variance of 0.81), and so is Wan at M = 0.93 T with shift 8.
"""

import math
from collections.abc import Callable

from .forward import ForwardProcess

PURE_NOISE = 1e-3  # the ratio below which no level says more than another: SVD's largest sigma is 700
CLEAR = 2.0  # the ratio above which everything that moves is settled


def signal_to_noise(process: ForwardProcess, sigma: float, variance: float = 1.0) -> float:
    """How large a clip's latents are beside the noise at the host's `sigma`. variance: tr(Cov(X_0)) / d."""
    return math.sqrt(variance) * float(process.signal(sigma)) / float(process.noise(sigma))


def sigma_at(process: ForwardProcess, ratio: float, low: float, high: float) -> float:
    """The sigma in [low, high] at which signal / noise is `ratio`, by bisection; an end where it lies beyond."""
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if signal_to_noise(process, middle) > ratio else (low, middle)
    return high


def fraction_at(process: ForwardProcess, sigma_of: Callable[[float], float], ratio: float, variance: float = 1.0, low: float = 1e-4) -> float:
    """M / T at a signal-to-noise ratio, by bisection.

    sigma_of(fraction): the model's rising sigma for fractions in [low, 1].
    A ratio beyond what the model has gives its nearest end, 1 or `low`.
    """
    of = lambda fraction: signal_to_noise(process, sigma_of(fraction), variance)
    high = 1.0
    if of(high) >= ratio:
        return high
    if of(low) <= ratio:
        return low
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if of(middle) > ratio else (low, middle)
    return high


def evenly(process: ForwardProcess, sigma_of: Callable[[float], float], count: int, low: float, high: float) -> list[tuple[float, float]]:
    """`count` levels from fraction `high` down to `low`, even in ln of their ratio -> [(fraction, sigma)], sigma falling.

    Fewer where the range ends before; what lies beyond PURE_NOISE and CLEAR is left out,
    unless the range lies there wholly. Raises ValueError for a range that is none.
    """
    if not 0 <= low < high <= 1:
        raise ValueError(f"the range of levels must be 0 <= from < to <= 1, but {low:g} to {high:g} was given")
    of = lambda fraction: signal_to_noise(process, sigma_of(fraction))
    top, bottom = max(of(high), PURE_NOISE), CLEAR if low == 0 else of(low)
    bottom = min(bottom, CLEAR) if top < CLEAR else bottom
    if bottom <= top:
        raise ValueError(f"from {low:g} to {high:g} there is nothing but pure noise in this model: probe lower levels")
    found: list[tuple[float, float]] = []
    for i in range(count):
        ratio = top * (bottom / top) ** (i / max(count - 1, 1))
        fraction = high if i == 0 and of(high) >= PURE_NOISE else fraction_at(process, sigma_of, ratio)
        if not found or sigma_of(fraction) < found[-1][1]:
            found.append((fraction, sigma_of(fraction)))
    return found
