"""What each detail setting of Load Moments keeps of a watermark and a black border: `python run.py do bench.detail`.

Writes moments/detail.png (channel 0 of a mean with both planted in it, as each setting
would start a video) and prints the strongest pattern that is left.
"""

from pathlib import Path

import numpy as np
import torch

from ..cil import moments
from ..nodes import pictures

SHAPE = (16, 4, 40, 64)


def planted():
    """A soft vertical gradient and grain, a row of letters across the middle, black padding around."""
    h, w = SHAPE[2:]
    colour = torch.tensor([0.3, -0.3, 0.2, 0.1])[:, None, None, None]
    mean = colour + 0.1 * torch.linspace(-1, 1, h)[:, None] + 0.03 * torch.randn(4, 1, h, w, generator=torch.Generator().manual_seed(0))
    mean[:, :, h // 2 - 2 : h // 2 + 2, w // 4 : 3 * w // 4 : 2] += 0.5
    black = torch.tensor([-1.2, -2.0, 1.1, 1.3])[:, None, None, None]
    for rows in (slice(0, 6), slice(h - 6, h)):
        mean[:, :, rows] = black
    return moments.Moments(mean, 0.8, "sd")


def main(arguments=None):
    from PIL import Image

    cells, low, high = [], -1.2, 0.9  # one grey scale for all
    for detail in ("full", "smooth", "channel"):
        fitted = moments.fit(moments.simplify(planted(), detail), SHAPE)
        pattern = (fitted - fitted.mean((0, 2, 3), keepdim=True)).abs().max()
        grey = ((fitted[0, 0] - low) / (high - low)).clamp(0, 1)[..., None].expand(-1, -1, 3)
        cells.append(pictures.captioned(pictures.same_size(grey[None], 240, 384)[0], f"{detail}: strongest pattern {pattern:.2f}"))
        print(f"{detail}: strongest pattern left {pattern:.2f}")
    sheet = pictures.grid(cells, columns=3)[0]
    Image.fromarray((sheet.numpy() * 255).round().astype(np.uint8)).save(Path(moments.__file__).parents[1] / "moments" / "detail.png", optimize=True)
