"""Sensitivity: what a model reads out of a noisy clip, level by level (Sec. 3.1, Eq. 4).

`denoise(x, sigma)` is any model's prediction of the clean clip, `process` its forward
process. Tensors are whole clips; leading dimensions do not matter.

The paper's Fig. 2 shows one-step predictions that lose their motion as t grows. That alone
proves nothing: the exact posterior mean loses it too, since at large t the noisy clip says
nothing. So two clips that begin with the same picture are corrupted by the same noise, and
the question is how much of their difference comes through (`responsiveness`); the picture
is the same for both, so whatever comes through was read from the noisy clip. Beside it
stands an ideal observer of just these two clips (`readable`): a picture, not a verdict,
since a model of real data reckons with more than two. The verdict is calibration's.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from .forward import ForwardProcess
from .randomness import noise_for


def one_step(denoise: Callable, process: ForwardProcess, x0: torch.Tensor, sigma: float, eps: torch.Tensor) -> torch.Tensor:
    """Eq. 4: the clean clip predicted in one step from q(x | x_0) at `sigma`."""
    return denoise(process.corrupt(x0, eps, sigma), sigma)


def one_step_predictions(denoise: Callable, process: ForwardProcess, x0: torch.Tensor, sigmas: Sequence[float], seed: int = 0, draws: int = 1) -> torch.Tensor:
    """Predictions for every level, averaged over `draws` seeded noises: [levels, *x0.shape]."""
    levels = []
    for level, sigma in enumerate(sigmas):
        total = torch.zeros_like(x0)
        for draw in range(draws):
            total += one_step(denoise, process, x0, sigma, noise_for(x0, seed, level, draw))
        levels.append(total / draws)
    return torch.stack(levels)


def _inner(a, b):
    return float((a.to("cpu", torch.float64) * b.to("cpu", torch.float64)).sum())  # MPS has no float64


def motion_gain(prediction: torch.Tensor, x0: torch.Tensor, still: torch.Tensor) -> float:
    """How much of the clip's departure from its still first frame is predicted: 0 = a still, 1 = the truth.

    <X̂ - y, X_0 - y> / ||X_0 - y||^2. Flicker does not raise it, unlike optical flow.
    """
    move = x0 - still
    return _inner(prediction - still, move) / _inner(move, move)


def responsiveness(prediction_a: torch.Tensor, prediction_b: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> float:
    """How much of the difference of two clips survives into their predictions, noise and picture being the same.

    <X̂_A - X̂_B, A - B> / ||A - B||^2: 0 = nothing was read from the noisy clip, 1 = all.
    """
    difference = a - b
    return _inner(prediction_a - prediction_b, difference) / _inner(difference, difference)


def readable(process: ForwardProcess, sigma: float, a: torch.Tensor, b: torch.Tensor) -> float:
    """The `responsiveness` of the exact posterior mean when the clip is A or B with equal chances.

    A closed form of s = signal ||A - B|| / noise: 2 E[logistic(s^2 / 2 + s z)] - 1, z ~ N(0, 1).
    """
    s = float(process.signal(sigma)) * math.sqrt(_inner(a - b, a - b)) / float(process.noise(sigma))
    z, weight = np.polynomial.hermite_e.hermegauss(80)
    argument = np.clip(s * s / 2 + s * z, -700, 700)
    return float(2 * (weight / weight.sum() / (1 + np.exp(-argument))).sum() - 1)


def slowed(clip: torch.Tensor, frames_dim: int) -> torch.Tensor:
    """The clip at half its speed: every frame shown twice, as many frames as before; the first stays the first."""
    index = torch.arange(clip.shape[frames_dim], device=clip.device) // 2
    return clip.index_select(frames_dim, index)


def frozen(clip: torch.Tensor, frames_dim: int) -> torch.Tensor:
    """The clip's first frame in all frames."""
    return clip.narrow(frames_dim, 0, 1).expand_as(clip)
