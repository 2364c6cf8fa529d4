"""A clip of a training's first picture, sampled again every so many updates: what has the training done?

It goes through the trainer's own model call, with that clip's own conditions and always the same noise, by
the host's Euler sampler in few steps and without guidance. It is shown in the coarse colours that the host
has for each kind of latents, so that no VAE has to be loaded beside a model in training.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import comfy.k_diffusion.sampling
import comfy.utils
import latent_preview
import numpy as np
import torch

from ...cil import randomness, training
from .. import pictures, previews
from ..host.sampling import Sampling
from ..host.types import Model

if TYPE_CHECKING:
    from .model import Denoiser

STEPS = 12
PURPOSE = 2  # of the noise's key: 0 and 1 are the training's


@torch.no_grad()
def sampled(model: Model, denoise: "Denoiser", clip: training.Clip, seed: int, device: torch.device) -> torch.Tensor:
    """The model's clip for one prepared picture, as it is now: latents as the network sees them [C, T, h, w]."""
    sampling = Sampling.of(model)
    sigmas = sampling.schedule("simple", STEPS, sampling.sigma_max).to(device)
    eps = torch.randn(clip.latents.shape, generator=randomness.generator(seed, PURPOSE)).to(device)  # [C, T, h, w]
    x = sampling.process.corrupt(torch.zeros_like(eps), eps, float(sigmas[0]))[None]  # [1, C, T, h, w]
    shown = [training.Example(clip, eps, 0.0)]
    return comfy.k_diffusion.sampling.sample_euler(lambda x, sigma, **_: denoise(x, sigma, shown).float(), x, sigmas, disable=True)[0]


def coarse(model: Model, latents: torch.Tensor) -> torch.Tensor | None:
    """[C, T, h, w] -> a tile (previews.tile) in the host's colours for such latents; None where it has none."""
    kind = model.get_model_object("latent_format")
    factors = (getattr(kind, name, None) for name in ("latent_rgb_factors", "latent_rgb_factors_bias", "latent_rgb_factors_reshape"))
    given = [f for i, f in enumerate(factors) if i < 2 or f is not None]
    if given[0] is None:
        return None
    painter, frames = latent_preview.Latent2RGBPreviewer(*given), latents.float().cpu().split(1, dim=1)  # each [C, 1, h, w]
    whole = kind.latent_dimensions == 3
    images = [painter.decode_latent_to_preview(frame[None] if whole else frame[None, :, 0]) for frame in frames]
    clip = torch.stack([torch.from_numpy(np.asarray(image.convert("RGB")).copy()) for image in images]).float() / 255  # [T, h, w, 3]
    return previews.tile(pictures.same_size(clip, clip.shape[1] * 8, clip.shape[2] * 8))


class Watch:
    """The clips of one training. every: updates between two, 0 = none."""

    def __init__(self, every: int):
        self.every = every
        self.sample: Callable | None = None
        self.tiles: list[torch.Tensor] = []  # captioned

    def begin(self, model: Model, denoise: "Denoiser", clip: training.Clip, seed: int, device: torch.device, step: int) -> None:
        """Before the first update."""
        self.sample = (lambda: coarse(model, sampled(model, denoise, clip, seed, device))) if self.every else None
        self.look("before" if step == 0 else f"step {step}")

    def after(self, step: int, steps: int) -> None:
        """After an update."""
        if self.every and (step % self.every == 0 or step == steps):
            self.look(f"step {step}")

    def look(self, caption: str) -> None:
        """One more clip."""
        shown = self.sample() if self.sample else None
        if shown is not None:
            self.tiles.append(previews.captioned(shown, caption))

    def preview(self, frame: int) -> tuple | None:
        """The first clip beside the last, running: what the host takes beside its progress."""
        return previews.preview_of([self.tiles[0], self.tiles[-1]][: len(self.tiles)], frame) if self.tiles else None

    def sheet(self) -> torch.Tensor:
        """All clips, moving: [t, H, W, 3]."""
        return previews.moving(self.tiles) if self.tiles else pictures.captioned(torch.ones(32, 512, 3), "no clips were sampled: sample_every is 0")[None]
