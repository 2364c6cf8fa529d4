"""Sampling time with our nodes over without: `python run.py do bench.overhead`. Paired runs, demo model."""

import argparse
import statistics
import time

from ..nodes.motion_gain import CILMotionGain
from . import sampling


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--motion-gain", action="store_true", help="Motion Gain in the place of Early Start")
    options = parser.parse_args(arguments)
    demo, scene = sampling.Demo("healthy"), sampling.held_out(1, 200)
    calls = []

    def timed(patched):
        began = time.process_time(), time.perf_counter()
        demo.sample(scene, 0, patched)
        return time.process_time() - began[0], time.perf_counter() - began[1]

    import comfy.patcher_extension

    def counting(model):
        model = model.clone()

        def count(executor, *args, **kwargs):
            calls.append(1)
            return executor(*args, **kwargs)

        model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, "count", count)
        return model

    gained = lambda: CILMotionGain.PREPARE_CLASS_CLONE(None).execute(demo.model, 1.4, "sigma", 0.0, "constant", "own first frame", "nothing", 1.0).args[0]
    plain, ours = counting(demo.model), counting(gained() if options.motion_gain else demo.early(50.0, True))
    per_run = []
    for model in (plain, ours):  # also warms up
        calls.clear()
        timed(model)
        per_run.append(len(calls))
    if per_run[0] != per_run[1]:
        raise SystemExit(f"not comparable: {per_run[0]} model calls without, {per_run[1]} with")
    pairs = []
    for i in range(options.pairs):
        a, b = (timed(plain), timed(ours)) if i % 2 else reversed((timed(ours), timed(plain)))
        pairs.append((b[0] / a[0], b[1] / a[1]))
    for name, values in zip(("CPU time", "wall time"), zip(*pairs)):
        print(
            f"{name} with / without, {per_run[0]} model calls each: median {statistics.median(values):.4f} of {len(values)} pairs, {min(values):.4f} to {max(values):.4f}"
        )
