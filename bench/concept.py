"""The picture of the concept page, from the demo's data: `python run.py do bench.concept`.

A row of noisy clips at several sigmas, and under each what the exact denoiser of that data
predicts: what can be known of the clip's last frame from the noisy clip and the first frame.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image

from ..demo import latents, scenes
from ..nodes import pictures

TARGET = Path(__file__).parent.parent / "nodes" / "web" / "docs" / "leakage-levels.jpg"
SIGMAS = (700, 100, 30, 10, 3, 0.5)
SIZE = 176


def noisy_pixels(clip, sigma, eps):
    """What a noisy clip looks like: latents under noise, scaled to their own spread, as 8 x 8 pixels a cell."""
    noised = (latents.encode(clip) + sigma * eps) / (1 + sigma**2) ** 0.5
    rgb = torch.einsum("zc,...zhw->...chw", latents.MIX, noised) / latents.GAIN + latents.CENTRE
    return rgb.clamp(0, 1)


def predicted_pixels(scene, sigma, eps):
    """The exact denoiser's prediction: the possible clips, weighed by how well the noisy clip fits each."""
    candidates = [scenes.render(s) for s in scenes.headings(scene)]
    known = torch.stack([latents.encode(c) for c in candidates])
    noisy = latents.encode(scenes.render(scene)) + sigma * eps
    weights = scenes.posterior(noisy, sigma, known)
    return torch.einsum("hn,hn...->n...", weights, torch.stack(candidates))


def frame(clip):
    """The last frame of [1, t, 3, h, w] as an IMAGE [SIZE, SIZE, 3]."""
    return F.interpolate(clip[:, -1], (SIZE, SIZE), mode="nearest" if clip.shape[-1] < SIZE // 4 else "bilinear")[0].movedim(0, -1)


def draw():
    """-> the picture, [H, W, 3] in [0, 1]."""
    scene = scenes.sample(1, torch.Generator().manual_seed(4)).replace(bucket=float(scenes.MAX_BUCKET))
    clip = scenes.render(scene)
    eps = torch.randn(latents.encode(clip).shape, generator=torch.Generator().manual_seed(0))
    cells = [
        pictures.captioned(F.interpolate(clip[:, i], (SIZE, SIZE), mode="bilinear")[0].movedim(0, -1), text)
        for i, text in ((0, "the picture (first frame)"), (-1, "the truth (last frame)"))
    ]
    columns = [torch.cat(cells)]
    for sigma in SIGMAS:
        noisy = pictures.captioned(frame(noisy_pixels(clip, sigma, eps)), f"noisy, sigma {sigma:g}")
        known = pictures.captioned(frame(predicted_pixels(scene, sigma, eps)), "what can be known")
        columns.append(torch.cat([noisy, known]))
    gap = torch.ones(columns[0].shape[0], 6, 3)
    return torch.cat([part for column in columns for part in (column, gap)][:-1], 1)


def main(arguments=None):
    picture = Image.fromarray((draw() * 255).round().byte().numpy())
    picture.save(TARGET, quality=82, optimize=True)
    print(f"{TARGET.name}: {picture.size[0]} x {picture.size[1]}, {TARGET.stat().st_size} bytes")
