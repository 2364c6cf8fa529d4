"""Gaussian video with a full covariance, its exact denoiser in the host's own classes, and a made leak.

Given its first picture y, a clip of d numbers is N(mean, S): the first frame is y for certain, the
rest moves together. E[X_0 | x] = m + a S (a^2 S + b^2 I)^-1 (x - a m) at signal a and noise b.
"""

import comfy.latent_formats
import comfy.model_base
import comfy.model_patcher
import comfy.supported_models_base
import torch

from cil_pack.nodes.host.sampling import Sampling

T = comfy.model_base.ModelType
FRAMES, CHANNELS, SIZE = 4, 4, (2, 3)
BATCHED, CUBE = "frames as batch", "5-D"
# name: (model type, settings of its sampling, layout)
KINDS = {
    "EDM": (T.V_PREDICTION_EDM, {"sigma_max": 80.0, "sigma_min": 0.002}, CUBE),
    "EDM, frames as batch": (T.V_PREDICTION_EDM, {"sigma_max": 80.0, "sigma_min": 0.002}, BATCHED),
    "VP eps": (T.EPS, {}, CUBE),
    "VP v, zero SNR": (T.V_PREDICTION, {"zsnr": True}, CUBE),
    "flow": (T.FLOW, {"shift": 1.0}, CUBE),
    "flow, shift 8": (T.FLOW, {"shift": 8.0}, CUBE),
}


class Data:
    """N(mean, S) of a clip [FRAMES, C, h, w] given its first picture."""

    def __init__(self, seed=0):
        g = torch.Generator().manual_seed(seed)
        shape = (FRAMES, CHANNELS, *SIZE)
        draw = lambda *s: torch.randn(*s, generator=g, dtype=torch.float64)
        self.picture = draw(CHANNELS, *SIZE)
        moving = self.picture.numel() * (FRAMES - 1)
        mix = draw(moving, moving) / moving**0.5
        self.mean = (self.picture.expand(shape).clone() + 0.3 * torch.cat([torch.zeros(1, *shape[1:]).double(), draw(FRAMES - 1, *shape[1:])])).flatten()
        self.covariance = torch.zeros(self.mean.numel(), self.mean.numel(), dtype=torch.float64)
        self.covariance[self.picture.numel() :, self.picture.numel() :] = mix @ mix.T
        self.still = self.picture.expand(shape).flatten()

    def denoised(self, x, signal, noise):
        """E[X_0 | x]: x [n, d]."""
        s, eye = self.covariance, torch.eye(len(self.mean), dtype=torch.float64)
        weight = torch.linalg.solve(signal**2 * s + noise**2 * eye, signal * s)  # [d, d], S commutes with it
        return self.mean + (x - signal * self.mean) @ weight


class Network(torch.nn.Module):
    """Answers, in the model's own prediction type, so that the host's `denoised` is (1 - leak) exact + leak still."""

    dtype = torch.float32

    def __init__(self, sampling, data, leak, layout):
        super().__init__()
        self.host, self.process = sampling, Sampling(sampling).process
        self.data, self.leak, self.layout = data, leak, layout

    def forward(self, x, timesteps=None, context=None, transformer_options={}, **kwargs):
        sigma = transformer_options["sigmas"].double()[0]
        one, at = torch.ones(1, 1, 1, 1, 1, dtype=torch.float64), sigma.view(1)
        noisy = x.double() / self.host.calculate_input(at, one).flatten()
        rows = noisy.reshape(-1, FRAMES, *x.shape[1:]) if self.layout == BATCHED else noisy.movedim(2, 1)
        exact = self.data.denoised(rows.flatten(1), float(self.process.signal(float(sigma))), float(self.process.noise(float(sigma))))
        wanted = (exact + self.leak(float(sigma)) * (self.data.still - exact)).view(rows.shape)
        wanted = wanted.reshape(noisy.shape) if self.layout == BATCHED else wanted.movedim(1, 2)
        # the host's `denoised` is affine in the network's answer
        answered = lambda value: self.host.calculate_denoised(at, torch.full_like(noisy, value), noisy)
        return ((wanted - answered(0.0)) / (answered(1.0) - answered(0.0))).to(x)


def model(kind, data, leak=lambda sigma: 0.0):
    """-> MODEL of a family that the pack knows as video."""
    model_type, settings, layout = KINDS[kind]

    class Config(comfy.supported_models_base.BASE):
        unet_config = {"disable_unet_model_creation": True, "in_channels": CHANNELS}
        unet_extra_config = {}
        latent_format = comfy.latent_formats.LatentFormat
        sampling_settings = settings
        cil_family = "SVD"

    base = comfy.model_base.BaseModel(Config(Config.unet_config), model_type)
    base.latent_format.latent_channels, base.latent_format.latent_dimensions = CHANNELS, 2 if layout == BATCHED else 3
    base.diffusion_model = Network(base.model_sampling, data, leak, layout)
    return comfy.model_patcher.ModelPatcher(base, torch.device("cpu"), torch.device("cpu"))


def conditioning(data, layout):
    """With the picture as an image-to-video node puts it there."""
    picture = data.picture.float()[None]
    return [[torch.zeros(1, 1, 8), {"concat_latent_image": picture if layout == BATCHED else picture[:, :, None]}]]
