"""The noise process of LVDM models in the host's terms: zero terminal SNR and dynamic rescale.

These models were trained on x_t = alpha_t s_t x_0 + sigma_t eps, where s_t falls from 1 to a
base over the first 400 of the 1000 timesteps and stays there. With z = x_t / (alpha_t s_t)
and sigma' = sigma_t / (alpha_t s_t) this is z = x_0 + sigma' eps, the host's own form, so
every sampler and scheduler of the host is right for them. Only what the network sees and
says has to be translated, and that needs s as a function of sigma'.
"""

from typing import Any

import comfy.model_base
import comfy.model_sampling
import torch

TURN = 400  # timesteps over which s falls


def dynamic_rescale(base: float, timesteps: int) -> torch.Tensor:
    """s_t: [timesteps] float64, from 1 down to `base`, then constant."""
    falling = torch.linspace(1.0, base, TURN, dtype=torch.float64)
    return torch.cat([falling, falling.new_full((timesteps - TURN,), base)])


class RescaledDiscrete(comfy.model_sampling.ModelSamplingDiscrete):
    """The host's table of sigmas, divided by s_t.

    Terminal SNR zero means an infinite last sigma; the host puts a finite one in its place
    (alpha^2 = 4.9e-8), and so does this. The network sees unit noise there all the same.
    """

    def __init__(self, model_config: Any | None = None, zsnr: bool | None = None):
        super().__init__(model_config, zsnr)
        factors = dynamic_rescale(model_config.sampling_settings["base_scale"], len(self.sigmas))
        self.register_buffer("factors", factors.float())
        self.set_sigmas(self.sigmas.double() / factors)

    def factor(self, sigma: torch.Tensor) -> torch.Tensor:
        """s at a tensor of sigmas: the table's at its entries, linear in ln sigma between them."""
        table, factors = self.log_sigmas.to(sigma), self.factors.to(sigma)  # [1000] each
        log = sigma.log().clamp(table[0], table[-1])  # like sigma
        above = torch.searchsorted(table, log).clamp(min=1)
        share = (log - table[above - 1]) / (table[above] - table[above - 1])
        return torch.lerp(factors[above - 1], factors[above], share)

    def signal(self, sigma: torch.Tensor, ndim: int) -> tuple[torch.Tensor, torch.Tensor]:
        """-> (alpha, s) at `sigma`, shaped to broadcast over tensors of `ndim` dimensions."""
        s = self.factor(sigma)
        alpha = (1 + (s * sigma) ** 2) ** -0.5
        shape = s.shape[:1] + (1,) * (ndim - 1)
        return alpha.view(shape), s.view(shape)


class RescaledEPS(comfy.model_sampling.EPS):
    """The network sees x_t and predicts eps; z - sigma' eps is x_0, as the host has it."""

    def calculate_input(self, sigma: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        alpha, s = self.signal(sigma, noise.ndim)
        return alpha * s * noise

    def noise_scaling(self, sigma: torch.Tensor, noise: torch.Tensor, latent_image: torch.Tensor, max_denoise: bool = False) -> torch.Tensor:
        if max_denoise:  # the ordinary start: the network sees unit noise
            alpha, s = self.signal(sigma, noise.ndim)
            return noise / (alpha * s) + latent_image
        return super().noise_scaling(sigma, noise, latent_image)


class RescaledV(RescaledEPS):
    """The network predicts v = alpha eps - sigma_t s x_0."""

    def calculate_denoised(self, sigma: torch.Tensor, model_output: torch.Tensor, model_input: torch.Tensor) -> torch.Tensor:
        alpha, _ = self.signal(sigma, model_output.ndim)
        sigma = sigma.view(sigma.shape[:1] + (1,) * (model_output.ndim - 1))
        return alpha**2 * model_input - alpha * sigma * model_output


class RescaledDiscreteEPS(RescaledDiscrete, RescaledEPS):
    pass


class RescaledDiscreteV(RescaledDiscrete, RescaledV):
    pass


def sampling_for(model_config: Any, model_type: Any) -> Any:
    """The `model_sampling` of a model. model_config.sampling_settings: zsnr, and base_scale, where 1 means no rescale."""
    if model_config.sampling_settings["base_scale"] == 1:
        return comfy.model_base.model_sampling(model_config, model_type)
    v = model_type == comfy.model_base.ModelType.V_PREDICTION
    return (RescaledDiscreteV if v else RescaledDiscreteEPS)(model_config)
