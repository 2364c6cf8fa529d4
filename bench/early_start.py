"""Baseline, naive early start and Analytic-Init on the demo models: `python run.py do bench.early_start`.

At several requested motions. Writes bench/results/early_start_*.md. A quarter of an hour a model on
one CPU core; --quick takes minutes.
"""

import argparse

from ..cil import flow
from . import sampling

SIGMAS = (100, 20, 10, 5)


def settings():
    yield "baseline", None, False
    for sigma in SIGMAS:
        yield f"naive, sigma_M = {sigma}", sigma, False
        yield f"Analytic-Init, sigma_M = {sigma}", sigma, True


def table(demo, bucket, images, seeds, dis):
    pictures = sampling.held_out(images, bucket)
    rows = [f"## Motion bucket {bucket}", "", f"| start | {sampling.COLUMNS} | {sampling.GAIN} |", "|---|---|---|---|---|---|"]
    ordinary = None
    for name, sigma, analytic in settings():
        columns = sampling.from_start(demo, pictures, seeds, sigma, analytic, dis)
        ordinary = ordinary or columns
        rows.append(f"| {name} | {' | '.join(map(sampling.pm, columns))} | {sampling.gain(columns, ordinary)} |")
        print(bucket, rows[-1], flush=True)
    return rows


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--checkpoint", choices=["leaking", "healthy"], action="append", help="default: both")
    parser.add_argument("--bucket", type=int, action="append", help=f"requested motion; default: {sampling.BUCKETS}")
    parser.add_argument("--quick", action="store_true", help="4 clips a row, nothing written")
    parser.add_argument("--seeds", type=int, default=16, help="clips a row; each seed animates one of the pictures in turn")
    parser.add_argument("--images", type=int, default=4)
    options = parser.parse_args(arguments)
    images, seeds = (2, 4) if options.quick else (options.images, options.seeds)
    for checkpoint in options.checkpoint or ("leaking", "healthy"):
        print(checkpoint, flush=True)
        demo, dis = sampling.Demo(checkpoint), flow.dis()
        rows = [row for bucket in options.bucket or sampling.BUCKETS for row in ["", *table(demo, bucket, images, seeds, dis)]]
        if options.quick:
            continue
        lines = [
            f"# Early start on the {checkpoint} demo model",
            "",
            f"`python run.py do bench.early_start`: {seeds} clips a row, as many seeds, of {images} held-out pictures at each requested motion, "
            f"{sampling.STEPS} Euler steps, Karras, CFG 1. Mean ± standard error. A demo model on demo data; see demo/README.md.",
            *rows,
        ]
        sampling.write_result(f"early_start_{checkpoint}.md", lines)
