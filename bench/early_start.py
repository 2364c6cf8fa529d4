"""Baseline, naive early start and Analytic-Init on both demo models: `python run.py do bench.early_start`.

Writes bench/results/early_start.md. About an hour on two CPU cores; --quick takes minutes.
"""

import argparse
from pathlib import Path

from ..cil import motion
from . import sampling

RESULTS = Path(__file__).parent / "results"
SIGMAS = (100, 50, 20, 10, 5, 3)
BUCKET = 200


def settings():
    yield "baseline", None, False
    for sigma in SIGMAS:
        yield f"naive, sigma_M = {sigma}", sigma, False
        yield f"Analytic-Init, sigma_M = {sigma}", sigma, True


def table(checkpoint, images, seeds):
    demo, flow = sampling.Demo(checkpoint), motion.dis_flow()
    pictures = sampling.held_out(images, BUCKET)
    rows = ["| start | motion score | speed / asked | speed error (px/frame) | distance to nearest true clip |", "|---|---|---|---|---|"]
    for name, sigma, analytic in settings():
        patched, figures = demo.early(sigma, analytic), []
        for i in range(images):
            scene = pictures[i : i + 1]
            for seed in range(seeds):
                sample = demo.sample(scene, seed, patched)
                figures.append((motion.motion_score(demo.frames(sample), flow), *sampling.judge(sample, scene)))
        cells = ["{:.3f} ± {:.3f}".format(*sampling.mean_and_error(column)) for column in zip(*figures)]
        rows.append(f"| {name} | {' | '.join(cells)} |")
        print(checkpoint, rows[-1], flush=True)
    return rows


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="2 seeds of 2 images")
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--images", type=int, default=4)
    options = parser.parse_args(arguments)
    images, seeds = (2, 2) if options.quick else (options.images, options.seeds)
    lines = [
        "# Early start on the demo models",
        "",
        f"`python run.py do bench.early_start`: {images} held-out pictures x {seeds} seeds, motion bucket {BUCKET}, "
        f"{sampling.STEPS} Euler steps, Karras, CFG 1. Mean ± standard error. Demo models on demo data; see demo/README.md.",
    ]
    for checkpoint in ("leaking", "healthy"):
        lines += ["", f"## {checkpoint}", "", *table(checkpoint, images, seeds)]
    if not options.quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "early_start.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
