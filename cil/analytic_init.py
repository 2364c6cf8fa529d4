"""Analytic-Init: start at M < T from the Gaussian nearest to the data's own x_M (Prop. 1)."""

import math

import torch

from .forward import ForwardProcess


def optimal_start(process: ForwardProcess, sigma: float | torch.Tensor, variance: float) -> tuple[float | torch.Tensor, float | torch.Tensor]:
    """The KL-optimal N(mu_p, sigma_p^2 I) at `sigma`, in the host's space (Eq. 5).

    variance: tr(Cov(X_0)) / d, a scalar.
    -> (gain, std): mu_p = gain * E[X_0], sigma_p = std.
    """
    if variance < 0 or not math.isfinite(variance):
        raise ValueError(f"the variance of the latents, tr(Cov)/d, cannot be {variance}")
    gain, noise = process.signal(sigma), process.noise(sigma)
    return gain, math.sqrt(gain**2 * variance + noise**2)
