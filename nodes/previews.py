"""Previews for the Motion Dial: short clips through the host's own samplers, in one stage or two, and the tiles that show them."""

import base64
import io as streams
from collections.abc import Callable
from dataclasses import dataclass

import comfy.model_management
import comfy.sample
import comfy.utils
import numpy as np
import torch

from . import pictures
from .host.latents import parts_of, sized_for
from .host.models import model_family
from .host.types import Model, NodeIdLike, Vae

TILE, TILE_FRAMES, COLUMNS = 160, 12, 4  # pixels a tile is wide at most, frames in it, tiles in a row
FEW = 8  # steps: runs of so few are not made shorter
LARGEST = 1 << 19  # bytes of a strip that is read


@dataclass(frozen=True)
class Run:
    """A run of the graph's sampler. hand_over: the step at which the second stage takes over, 0 = one stage. latent: of one clip."""

    positive: list
    negative: list
    latent: dict
    seed: int
    steps: int
    cfg: float
    sampler: str
    scheduler: str
    hand_over: int = 0

    def shorter(self, steps: int) -> "Run":
        """The same run in fewer steps, its hand-over at the same share of them. steps 0: a third, not below 6; few steps stay."""
        if steps == 0:
            steps = self.steps if self.steps <= FEW else max(6, round(self.steps / 3))
        steps = min(steps, self.steps)
        at = min(max(1, round(self.hand_over * steps / self.steps)), steps - 1) if self.hand_over else 0
        return Run(self.positive, self.negative, self.latent, self.seed, steps, self.cfg, self.sampler, self.scheduler, at)

    def key(self) -> tuple:
        """All that decides what it samples."""
        return (self.positive, self.negative, self.latent, self.seed, self.steps, self.cfg, self.sampler, self.scheduler, self.hand_over)


def one_clip(latent: dict) -> dict:
    """A LATENT with its first clip alone."""
    samples = latent["samples"]
    if samples.is_nested or samples.ndim < 5 or len(samples) == 1:
        return latent
    mask = latent.get("noise_mask")
    return {**latent, "samples": samples[:1]} | ({} if mask is None else {"noise_mask": mask[:1] if len(mask) == len(samples) else mask})


def smaller(model: Model, latent: dict, size: float) -> tuple[dict, str]:
    """An empty LATENT at `size` of its width and height -> (LATENT, a note where it must stay as it is).

    The host fits an image that is conditioned on to the latent; one that the latent itself holds it does not.
    """
    if size >= 1:
        return latent, ""
    samples = latent["samples"]
    if samples.is_nested or latent.get("noise_mask") is not None or samples.any() or model_family(model).image.kept is not None:
        return latent, "the latent holds the picture, so the previews are in full size"
    cells = 8 if samples.ndim == 4 else 2
    h, w = (max(cells, round(side * size / cells) * cells) for side in samples.shape[-2:])
    if h >= samples.shape[-2] or w >= samples.shape[-1]:
        return latent, "the latent is too small for smaller previews"
    return {**latent, "samples": samples.new_zeros(*samples.shape[:-2], h, w)}, ""


def sampled(models: list, run: Run, seed: int, step: Callable = lambda: None) -> torch.Tensor:
    """The video's latents that KSampler, or two KSampler (Advanced), would give, to the bit. step() is called after each step."""
    tell = lambda *args: step()
    fixed = {"steps": run.steps, "cfg": run.cfg, "sampler_name": run.sampler, "scheduler": run.scheduler, "positive": run.positive, "negative": run.negative}
    fixed |= {"noise_mask": run.latent.get("noise_mask"), "callback": tell, "disable_pbar": True, "seed": seed}
    samples = sized_for(models[0], run.latent)
    noise = comfy.sample.prepare_noise(samples, seed, run.latent.get("batch_index"))  # like samples
    if not run.hand_over:
        return parts_of(comfy.sample.sample(models[0], noise, latent_image=samples, denoise=1.0, **fixed))[0]
    samples = comfy.sample.sample(models[0], noise, latent_image=samples, start_step=0, last_step=run.hand_over, force_full_denoise=False, **fixed)
    nothing = samples * 0
    out = comfy.sample.sample(
        models[1], nothing, latent_image=samples, disable_noise=True, start_step=run.hand_over, last_step=10000, force_full_denoise=True, **fixed
    )
    return parts_of(out)[0]


def decoded(vae: Vae, samples: torch.Tensor) -> torch.Tensor:
    """IMAGE frames [t, H, W, 3] of one clip's latents."""
    frames = vae.decode(samples)  # [t, H, W, 3] or [1, t, H, W, 3]
    return frames.reshape(-1, *frames.shape[-3:])


# ---- tiles ----------------------------------------------------------------------------


def tile(frames: torch.Tensor) -> torch.Tensor:
    """A clip as it is shown and kept: at most TILE_FRAMES frames, at most TILE wide -> uint8 [t, h, w, 3]."""
    some = frames[torch.linspace(0, len(frames) - 1, min(TILE_FRAMES, len(frames))).round().long()][..., :3].float().cpu()
    h, w = some.shape[1:3]
    if w > TILE:
        some = pictures.same_size(some, max(1, round(h * TILE / w)), TILE)
    return (some.clamp(0, 1) * 255).round().to(torch.uint8)


def strip_of(shown: torch.Tensor) -> str:
    """A tile as text, for a file: its frames side by side as a JPEG."""
    from PIL import Image

    out = streams.BytesIO()
    Image.fromarray(np.concatenate(list(shown.numpy()), 1)).save(out, "JPEG", quality=85)
    return f"{len(shown)}:" + base64.b64encode(out.getvalue()).decode()


def tile_of(strip: str) -> torch.Tensor | None:
    """The inverse of `strip_of`; None for a text that is none."""
    from PIL import Image

    count, _, data = strip.partition(":")
    try:
        frames = int(count)
        picture = Image.open(streams.BytesIO(base64.b64decode(data, validate=True)), formats=["JPEG"])
        w, h = picture.size
        if not (1 <= frames <= TILE_FRAMES and w % frames == 0 and w <= frames * TILE and h <= 4 * TILE):
            return None
        frames_in_row = torch.from_numpy(np.asarray(picture.convert("RGB")).copy())  # [h, frames w, 3]
    except (ValueError, OSError):
        return None
    return torch.stack(frames_in_row.chunk(frames, 1))


def captioned(shown: torch.Tensor, caption: str) -> torch.Tensor:
    """A tile with its caption: uint8 [t, h, TILE, 3]."""
    h, w = shown.shape[1:3]
    enlarged = shown if w == TILE else (pictures.same_size(shown.float() / 255, max(1, round(h * TILE / w)), TILE) * 255).round().to(torch.uint8)
    bar = pictures.captioned(enlarged[0].float() / 255, caption, TILE)[enlarged.shape[1] :]
    return torch.cat([enlarged, (bar * 255).round().to(torch.uint8)[None].expand(len(enlarged), -1, -1, -1)], 1)


def mosaic(tiles: list[torch.Tensor], frame: int) -> torch.Tensor:
    """One frame of all captioned tiles, each running round: float [1, H, W, 3]."""
    return pictures.grid([shown[frame % len(shown)].float() / 255 for shown in tiles], min(COLUMNS, len(tiles)))


def moving(tiles: list[torch.Tensor]) -> torch.Tensor:
    """All tiles as one clip [t, H, W, 3]."""
    return torch.cat([mosaic(tiles, frame) for frame in range(max(map(len, tiles)))])


def preview_of(tiles: list[torch.Tensor], frame: int) -> tuple:
    """What the host takes for a picture beside its progress."""
    from PIL import Image

    picture = (mosaic(tiles, frame)[0] * 255).round().to(torch.uint8).numpy()
    return "JPEG", Image.fromarray(picture), None


class SearchProgress:
    """The host's progress of a search, with the tiles running in its preview. total: steps at most."""

    def __init__(self, total: int, node_id: NodeIdLike):
        self.bar, self.total, self.done, self.ticks = comfy.utils.ProgressBar(total, node_id), total, 0, 0
        self.tiles: list[torch.Tensor] = []

    def tick(self, done: int = 0) -> None:
        """After a step (done = 1), or anything else that takes time (0). Raises the host's exception where the run was stopped."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        self.done, self.ticks = self.done + done, self.ticks + 1
        self.bar.update_absolute(min(self.done, self.total), self.total, preview_of(self.tiles, self.ticks) if self.tiles and self.bar.hook else None)
