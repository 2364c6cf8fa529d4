"""What a model is trained for: losses as weights of ||D - x_0||^2, and the loss of one batch.

A model is anything that predicts the clean clip, D(x, sigma), in a host's space (forward.py);
what its network itself predicts only decides the weight.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..forward import ForwardProcess
from .dataset import Example


# Ho et al. 2020, Eq. 14, ||eps - eps_hat||^2, since D = (x_t - sigma_t eps_hat) / alpha_t
def eps_weight(process: ForwardProcess, sigma: torch.Tensor) -> torch.Tensor:
    return (process.alpha(sigma) / process.sigma(sigma)) ** 2


# Salimans & Ho 2022, App. D, ||v - v_hat||^2 with v = alpha_t eps - sigma_t x_0: D = alpha_t x_t - sigma_t v_hat.
# Lipman et al. 2023, Eq. 23, ||u - u_hat||^2 with u = eps - x_0: D = x_t - sigma_t u_hat. The same weight.
def velocity_weight(process: ForwardProcess, sigma: torch.Tensor, rescale: Callable = lambda s: 1.0) -> torch.Tensor:
    """rescale(sigma): LVDM's s_t, where the network predicts v = alpha_t eps - sigma_t s_t x_0."""
    return (rescale(sigma) / process.sigma(sigma)) ** 2


# Karras et al. 2022, Table 1, lambda(sigma); with sigma_data = 1 also SVD's v-loss.
def edm_weight(sigma: torch.Tensor, sigma_data: float = 1.0) -> torch.Tensor:
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


@dataclass(frozen=True)
class Objective:
    """What a model is trained for, in a host's sigma.

    process: its forward process; weight(sigma) of ||D - x_0||^2; draw_sigma(generator): the
    levels to train; fraction(sigma): t of TimeNoise, a fraction of T in [0, 1]; noised: the
    fields of a Clip on which TimeNoise acts, and TOKENS where it acts on what the network makes
    of the image encoder's output.
    """

    process: ForwardProcess
    weight: Callable
    draw_sigma: Callable
    fraction: Callable
    noised: tuple = ("image",)


def denoising_loss(denoise: Callable, objective: Objective, examples: list[Example], device: torch.device | str = "cpu") -> torch.Tensor:
    """weight(sigma) ||D(x) - x_0||^2, mean over elements and examples: a scalar.

    denoise(x [n, C, T, h, w], sigma [n], examples) -> the predicted clean clips.
    """
    x0 = torch.stack([e.clip.latents.float() for e in examples]).to(device)  # [n, C, T, h, w]
    eps = torch.stack([e.eps for e in examples]).to(device)
    sigma = torch.tensor([e.sigma for e in examples], device=device)  # [n]
    x = objective.process.corrupt(x0, eps, sigma.view(-1, 1, 1, 1, 1))
    gap = (denoise(x, sigma, examples) - x0).square().flatten(1).mean(1)  # [n]
    return (objective.weight(sigma) * gap).mean()
