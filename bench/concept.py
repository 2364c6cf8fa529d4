"""The picture of the concept page, from the landscape's data: `python run.py do bench.concept`.

A row of noisy clips at several sigmas, and under each what the exact denoiser of that data
predicts: what can be known of the clip's last frame from the noisy clip and the first frame.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image

from ..demo.landscape import latents, scenes, simulated
from ..demo.latents import MIX
from ..nodes import pictures

TARGET = Path(__file__).parent.parent / "nodes" / "web" / "docs" / "leakage-levels.jpg"
SIGMAS = (100, 20, 8, 4, 2, 0.5)
SCENE, SPEED = 4, 3.0  # pixels a frame
SIZE = 176


def noisy_pixels(clip, sigma, eps):
    """What a noisy clip looks like: latents under noise, scaled to their own spread, as 8 x 8 pixels a cell."""
    noised = (latents.encode(clip) + sigma * eps) / (1 + sigma**2) ** 0.5
    rgb = torch.einsum("zc,...zhw->...chw", MIX, noised) / latents.GAIN + latents.CENTRE
    return rgb.clamp(0, 1)


class Known:
    """What can be known of one scene's last frame."""

    def __init__(self, scene):
        exact = simulated.Leak(scene, 0.0, 0.0)
        self.codes, self.shares = exact.clips, exact.shares
        self.last = scenes.render(simulated.known(scene)[0], only_last=True)[:, 0]

    def predicted(self, noisy, sigma):
        """The exact denoiser's last frame: those of all clips that the picture allows, weighed by how well the noisy clip fits each. [1, 1, 3, H, W]."""
        weights = scenes.posterior(noisy[0], sigma, self.codes, self.shares).float()
        return torch.einsum("m,m...->...", weights, self.last)[None, None]


def frame(clip):
    """The last frame of [1, t, 3, h, w] as an IMAGE [SIZE, SIZE, 3]."""
    return F.interpolate(clip[:, -1], (SIZE, SIZE), mode="nearest" if clip.shape[-1] < SIZE // 4 else "bilinear")[0].movedim(0, -1)


def draw():
    """-> the picture, [H, W, 3] in [0, 1]."""
    scene = scenes.gliding(scenes.sample(1, torch.Generator().manual_seed(SCENE)), SPEED)
    clip, known = scenes.render(scene), Known(scene)
    eps = torch.randn(latents.encode(clip).shape, generator=torch.Generator().manual_seed(0))
    cells = [
        pictures.captioned(F.interpolate(clip[:, i], (SIZE, SIZE), mode="bilinear")[0].movedim(0, -1), text)
        for i, text in ((0, "the picture (first frame)"), (-1, "the truth (last frame)"))
    ]
    columns = [torch.cat(cells)]
    for sigma in SIGMAS:
        noisy = pictures.captioned(frame(noisy_pixels(clip, sigma, eps)), f"noisy, sigma {sigma:g}")
        columns.append(torch.cat([noisy, pictures.captioned(frame(known.predicted(latents.encode(clip) + sigma * eps, sigma)), "what can be known")]))
    gap = torch.ones(columns[0].shape[0], 6, 3)
    return torch.cat([part for column in columns for part in (column, gap)][:-1], 1)


def main(arguments=None):
    picture = Image.fromarray((draw() * 255).round().byte().numpy())
    picture.save(TARGET, quality=82, optimize=True)
    print(f"{TARGET.name}: {picture.size[0]} x {picture.size[1]}, {TARGET.stat().st_size} bytes")
