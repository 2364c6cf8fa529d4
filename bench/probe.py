"""What the probe says of the demo models, and is its start a good one? `python run.py do bench.probe`.

Writes bench/results/probe_*.md: leakage on held-out clips, beside that of the data's exact
denoiser; then clips sampled from the suggested start and from the ordinary one (more starts:
bench.early_start). With --cost: where the time of a probe goes.
"""

import argparse
import statistics
import time

import torch

from ..cil import flow
from ..demo import latents, scenes
from ..nodes import probe
from ..nodes.host.evaluation import SamplingContext
from ..nodes.host.sampling import Sampling
from . import sampling

LEVELS, DRAWS = 10, 2
OTHER = "another heading"  # a true second clip; the others are made from the first


class ExactContext:
    """The exact denoiser of one scene's data in the place of a model's SamplingContext."""

    def __init__(self, model, scene):
        self.model = model
        self.candidates = torch.stack([latents.encode(scenes.render(s))[0] for s in scenes.headings(scene)])[:, None]

    def run(self, samples, sigmas, work):
        def denoise(xs, sigma):
            return [scenes.exact_denoised(x[None], sigma, self.candidates)[0] for x in xs]

        work(denoise, samples * latents.SCALE)


def two_clips(scene, control):
    """A scene's clip and one that begins with the same frame, as a LATENT holds them."""
    clip = scenes.render(scene)
    if control == OTHER:
        second = scenes.render(scene.replace(heading=(scene.heading + scenes.HEADINGS // 2) % scenes.HEADINGS))
    else:
        second = probe.second_of(clip, control, 1)
    return tuple(latents.encode(c)[0] / latents.SCALE for c in (clip, second))


@torch.inference_mode()
def leakages(demo, pictures, control):
    """-> [(leakage, suggested sigma) of the model], [leakage of the exact denoiser], a clip each."""
    host = Sampling.of(demo.model)
    levels = probe.levels_between(host, LEVELS, 0.0, 1.0)
    ours, exact = [], []
    for i in range(len(pictures)):
        scene = pictures[i : i + 1]
        a, b = two_clips(scene, control)
        positive, _, _ = demo.conditioning(scene)
        for context, into in ((SamplingContext(demo.model, positive, None, 1.0, i), ours), (ExactContext(demo.model, scene), exact)):
            found = probe.measure(context, host.process, a, b, levels, i, DRAWS, lambda: None)
            into.append(probe.verdict(found, host, control != OTHER)[:2])
    return ours, [leak for leak, _ in exact]


def report(demo, bucket, clips, images, seeds, dis):
    lines = [f"## Motion bucket {bucket}", "", "| second clip | leakage of the model | of the exact denoiser | suggested start (sigma), median |", "|---|---|---|---|"]
    starts = {None: "the ordinary one, 700"}
    for control in (OTHER, probe.HALF_SPEED, probe.FROZEN):
        ours, exact = leakages(demo, sampling.held_out(clips, bucket), control)
        suggested = statistics.median(s for _, s in ours)
        cells = [sampling.pm(values) for values in ([leak for leak, _ in ours], exact)]
        lines.append(f"| {control} | {cells[0]} | {cells[1]} | {suggested:.3g} |")
        print(bucket, lines[-1], flush=True)
        if suggested < Sampling.of(demo.model).sigma_max:
            starts[suggested] = f"{suggested:.3g}, suggested with: {control}"
    lines += ["", f"| start (sigma) | {sampling.COLUMNS} | {sampling.GAIN} |", "|---|---|---|---|---|---|"]
    ordinary = None
    for sigma, name in starts.items():
        columns = sampling.from_start(demo, sampling.held_out(images, bucket), seeds, sigma, True, dis)
        ordinary = ordinary or columns
        lines.append(f"| {name} | {' | '.join(map(sampling.pm, columns))} | {sampling.gain(columns, ordinary)} |")
        print(bucket, lines[-1], flush=True)
    return lines


def cost():
    """Print where the time of one probe goes: the model, and everything else of the node."""
    import comfy.patcher_extension

    demo, scene = sampling.Demo("healthy"), sampling.held_out(1, sampling.BUCKETS[-1])
    inside = []

    def timed(executor, *args, **kwargs):
        began = time.perf_counter()
        try:
            return executor(*args, **kwargs)
        finally:
            inside.append(time.perf_counter() - began)

    model = demo.model.clone()
    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, "timed", timed)
    positive, _, _ = demo.conditioning(scene)
    clip = scenes.render(scene)[0].movedim(1, -1)
    node = probe.LeakageProbe.PREPARE_CLASS_CLONE(None)
    settings = dict(control=probe.HALF_SPEED, cfg=1.0, levels=LEVELS, from_fraction=0.0, to_fraction=1.0, draws=DRAWS, seed=0, flow="DIS (OpenCV)")
    with torch.inference_mode():
        for name, source in (("latent, no pictures", {"latent": {"samples": demo.vae.encode(clip)}}), ("images, sheet and flow", {"images": clip, "vae": demo.vae})):
            inside.clear()
            began = time.perf_counter()
            node.execute(model, positive, **settings, **source)
            whole = time.perf_counter() - began
            print(f"{name}: {whole:.2f} s, of which the model {sum(inside):.2f} s in {len(inside)} calls, everything else {whole - sum(inside):.2f} s")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--checkpoint", choices=["leaking", "healthy"], action="append", help="default: both")
    parser.add_argument("--bucket", type=int, action="append", help=f"motion of the clips; default: {sampling.BUCKETS}")
    parser.add_argument("--clips", type=int, default=8, help="held-out clips that are probed")
    parser.add_argument("--images", type=int, default=4, help="pictures that are animated from each start")
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--cost", action="store_true")
    options = parser.parse_args(arguments)
    if options.cost:
        return cost()
    for checkpoint in options.checkpoint or ("leaking", "healthy"):
        print(checkpoint, flush=True)
        demo, dis = sampling.Demo(checkpoint), flow.dis()
        lines = [
            f"# The probe on the demo model *{checkpoint}*",
            "",
            f"`python run.py do bench.probe`: {options.clips} held-out clips, {LEVELS} levels, {DRAWS} draws; then {options.seeds} seeds of {options.images} pictures, "
            f"{sampling.STEPS} Euler steps, Karras, CFG 1. Mean ± standard error. Demo models on demo data; see demo/README.md.",
        ]
        for bucket in options.bucket or sampling.BUCKETS:
            lines += ["", *report(demo, bucket, options.clips, options.images, options.seeds, dis)]
        sampling.write_result(f"probe_{checkpoint}.md", lines)
