"""How near the still clip of a code with causal time can be told from a moving clip: `python run.py do bench.still_codes`.

Clips of the demo's world through two linear codes of the kind of Wan's VAE, block means of 8 x 8
pixels: the first picture by itself through one random map, each four after it through another, of
their mean alone, or of their mean and their change. For each way to have F: the distance to the
true still clip of the code, in units of the motion ||D - F_true||, over the latents after the
first. 0 is exact; 1 is as good as no F at all. Seconds on one core; prints a table.
"""

import argparse

import torch

from ..cil import motion_gain
from ..demo import scenes

PICTURES, FOUR, CHANNELS = 13, 4, 16


def code(clips, with_change, generator):
    """[n, 13, 3, H, W] -> latents [n, 4, CHANNELS, h, w]."""
    cells = torch.nn.functional.avg_pool2d(clips.flatten(0, 1), 8).unflatten(0, clips.shape[:2])
    first, mean, change = (torch.randn(CHANNELS, 3, generator=generator) / 3**0.5 for _ in range(3))
    fours = cells[:, 1:].unflatten(1, (-1, FOUR))  # [n, 3, 4, 3, h, w]
    through = lambda matrix, x: torch.einsum("zc,ntchw->ntzhw", matrix, x)
    rest = through(mean, fours.mean(2))
    if with_change:
        rest = rest + through(change, fours[:, :, -1] - fours[:, :, 0])
    return torch.cat([through(first, cells[:, :1]), rest], 1)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--clips", type=int, default=64)
    options = parser.parse_args(arguments)
    drawn = scenes.sample(options.clips, torch.Generator().manual_seed(2_000_000_021))
    clips = scenes.render(drawn, PICTURES)
    ways = {
        "first latent repeated": motion_gain.own_frame,
        "second latent repeated, the default": lambda z: motion_gain.own_frame(z, 1),
        "mean of the latents after the first": lambda z: motion_gain.own_mean(z, 1),
        "drawn out of the second and third to the first order": lambda z: z[:, 1:2] - (FOUR + 1) / (2 * FOUR) * (z[:, 2:3] - z[:, 1:2]),
        "the still, encoded": None,
    }
    print("| F | code of the mean | of mean and change |\n|---|---|---|")
    for name, way in ways.items():
        cells = [name]
        for with_change in (False, True):
            g = lambda: torch.Generator().manual_seed(1)
            moving, still = (code(c, with_change, g()) for c in (clips, clips[:, :1].expand_as(clips)))
            found = still if way is None else way(moving)
            gap = lambda a, b: float((a - b)[:, -1].square().mean().sqrt())
            cells.append(f"{gap(found.expand_as(still), still) / gap(moving, still):.2f}")
        print(f"| {' | '.join(cells)} |")
