"""TimeNoise: noise on the conditional image whose level rises with time (Sec. 3.2, Eq. 6).

    logit(beta_s / beta_m) ~ N(mu(t), 1),   mu(t) = 2 t^a - 1,   t in [0, 1]

beta_m is in the units of the latents that carry the image; a > 0 (5 in the paper) says how
late the levels rise. Larger beta_m or smaller a: more motion, less likeness to the image.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class TimeNoise:
    """p_t(beta). beta_m: the largest level; a: the exponent."""

    beta_m: float
    a: float = 5.0

    def __post_init__(self):
        if not (0 < self.beta_m < math.inf and 0 < self.a < math.inf):
            raise ValueError(f"TimeNoise needs beta_m > 0 and a > 0, but beta_m = {self.beta_m} and a = {self.a} were given")

    def mu(self, t: float | torch.Tensor) -> Any:
        """Centre of logit(beta / beta_m): -1 at t = 0, 1 at t = 1. t: a number or tensor in [0, 1]."""
        inside = ((t >= 0) & (t <= 1)).all() if torch.is_tensor(t) else 0 <= t <= 1
        if not inside:
            raise ValueError(f"TimeNoise's time is a fraction of T in [0, 1], but {t} was given")
        return 2 * t**self.a - 1

    def sample(self, t: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """One level for each entry of the tensor t: same shape. generator: a CPU generator."""
        z = torch.randn(t.shape, generator=generator, dtype=torch.float64)  # like t
        return self.beta_m * torch.sigmoid(self.mu(t.double()) + z)

    def density(self, beta: torch.Tensor, t: float | torch.Tensor) -> torch.Tensor:
        """Eq. 6 at a tensor of levels; 0 outside (0, beta_m)."""
        inside = (beta > 0) & (beta < self.beta_m)
        safe = torch.where(inside, beta, self.beta_m / 2)
        gap = torch.logit(safe / self.beta_m) - self.mu(t)
        return torch.where(inside, self.beta_m / math.sqrt(2 * math.pi) / (safe * (self.beta_m - safe)) * torch.exp(-gap.square() / 2), 0.0)

    def cdf(self, beta: torch.Tensor, t: float | torch.Tensor) -> torch.Tensor:
        """P(level <= beta), for beta in (0, beta_m)."""
        return 0.5 * torch.erfc(-(torch.logit(beta / self.beta_m) - self.mu(t)) / math.sqrt(2))

    def median(self, t: float | torch.Tensor) -> float:
        """beta_m sigmoid(mu(t)), the level that half of the draws exceed."""
        return self.beta_m / (1 + math.exp(-self.mu(t)))

    def mean(self, t: float) -> float:
        """E[beta], by Gauss-Hermite quadrature."""
        z, weight = np.polynomial.hermite_e.hermegauss(60)
        return float(self.beta_m * (weight / weight.sum() / (1 + np.exp(-(self.mu(t) + z)))).sum())

    def constant(self, t: float) -> float:
        """The paper's deterministic alternative, beta_m (mu(t) + 1) / 2."""
        return self.beta_m * (self.mu(t) + 1) / 2


def add_noise(image: torch.Tensor, level: float, eps: torch.Tensor) -> torch.Tensor:
    """y_s = y_0 + beta_s eps. level: a number, or a tensor that broadcasts (one a sample)."""
    return image + level * eps


def mix_noise(image: torch.Tensor, level: float, eps: torch.Tensor) -> torch.Tensor:
    """Eq. 20: y_s = (1 - beta_s) y_0 + beta_s eps, levels in [0, 1]; discolours SVD."""
    return (1 - level) * image + level * eps
