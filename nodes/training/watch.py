"""What has a training done? A clip of its first picture, sampled again every so many updates, and the leakage before and after.

Both go through the trainer's own model call, with the clips' own conditions and always the same noise. The
clip is sampled by the host's Euler sampler in few steps and without guidance, and shown in the coarse colours
that the host has for each kind of latents, so that no VAE has to be loaded beside a model in training. The
leakage is LeakageProbe's (cil/calibration.py), of a few clips of the set, each with a clean picture.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import comfy.k_diffusion.sampling
import comfy.model_management
import comfy.utils
import latent_preview
import numpy as np
import torch

from ...cil import calibration, randomness, training
from ...cil.prepared import ClipSet
from .. import pictures, plots, previews
from ..host.models import model_family
from ..host.sampling import Sampling
from ..host.types import Model

if TYPE_CHECKING:
    from .model import Denoiser

STEPS = 12
LEVELS = 8  # at which the leakage is measured, with one pair of noises a clip
PURPOSE = 2  # of the noise's key: 0 and 1 are the training's


@torch.no_grad()
def calibrated(
    model: Model, denoise: "Denoiser", clips: ClipSet, count: int, levels: list[tuple[float, float]], seed: int, device: torch.device
) -> calibration.Evidence:
    """`count` clips of a set, evenly over it, through the model as it is now. levels: (fraction, sigma)."""
    sigmas, apart = [sigma for _, sigma in levels], model_family(model).first_apart
    evidence = calibration.Evidence(Sampling.of(model).process, sigmas, 2)
    for index in torch.linspace(0, len(clips) - 1, min(count, len(clips))).round().int().tolist():
        clip = clips[index]
        shown, own = [training.Example(clip, None, 0.0)], randomness.clip_seed(seed, index)
        laid_out = (lambda x: x.movedim(1, 0)) if denoise.adapter.frames_as_batch else (lambda x: x)  # either way round
        predict = lambda xs, sigma, shown=shown: [laid_out(denoise(laid_out(x)[None], x.new_tensor([sigma]), shown)[0].float()) for x in xs]
        stop = lambda *_: comfy.model_management.throw_exception_if_processing_interrupted()
        x0 = laid_out(clip.latents.float().to(device))  # as the sampler has it
        evidence.add(*calibration.measure(predict, evidence.process, x0, sigmas, 1, own, laid_out, stop, apart))
    return evidence


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
    """What is seen of one training. every: updates between two clips; probed: clips whose leakage is measured; 0 = none."""

    def __init__(self, every: int, probed: int = 0):
        self.every, self.probed = every, probed
        self.sample: Callable | None = None
        self.probe: Callable | None = None
        self.tiles: list[torch.Tensor] = []  # captioned
        self.curves: dict[str, calibration.Evidence] = {}

    def begin(self, model: Model, denoise: "Denoiser", clips: ClipSet, seed: int, device: torch.device, step: int, sigmas: tuple[float, float]) -> None:
        """Before the first update. sigmas: the least and the largest level that is trained."""
        if self.every:
            self.sample = lambda: coarse(model, sampled(model, denoise, clips[0], seed, device))
        if self.probed:
            sampling = Sampling.of(model)
            low, high = (sampling.fraction(min(max(s, sampling.sigma_min), sampling.sigma_max)) for s in sigmas)
            levels = sampling.levels(LEVELS, low if sigmas[0] > sampling.sigma_min else 0.0, high)
            self.probe = lambda: calibrated(model, denoise, clips, self.probed, levels, seed, device)
        self.look("before" if step == 0 else f"step {step}")
        self.measure("before" if step == 0 else f"after step {step}")

    def after(self, step: int, steps: int) -> None:
        """After an update."""
        if self.every and (step % self.every == 0 or step == steps):
            self.look(f"step {step}")
        if step == steps:
            self.measure(f"after step {step}")

    def measure(self, caption: str) -> None:
        """One more curve."""
        if self.probe:
            self.curves[caption] = self.probe()

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

    def leakage(self) -> torch.Tensor:
        """The curves in one plot: [1, H, W, 3]."""
        return plots.leakage_plot(self.curves) if self.curves else pictures.captioned(torch.ones(32, 512, 3), "no leakage was measured: probe_clips is 0")[None]
