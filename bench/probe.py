"""What the probe says of the demo models, of an exact denoiser, and whether its start is a good one: `python run.py do bench.probe`.

Writes bench/results/probe.md: the verdict on each checkpoint and on the exact denoiser of the
same clips (a mixture over the headings that each first frame allows), with a fair draw of clips
and with those that move most; then clips sampled from the suggested start and from the ordinary one,
pair by pair. With --cost: where the time of a probe goes.
"""

import argparse
import time

import torch

from ..cil import calibration, flow
from ..demo import latents, scenes
from ..demo.clips import DemoClips
from ..nodes import calibrate, probe, verdict
from ..nodes.host.sampling import Sampling
from . import sampling

LEVELS, PAIRS = 12, 2
SLOW = sampling.BUCKETS[0]  # the motion that is asked for in sampling: of it these models make least
MANY = 8  # times as many clips as are probed, of which those that move most are chosen


class Exact:
    """The exact denoiser of one scene's data: its headings, equally likely."""

    def __init__(self, scene):
        self.candidates = torch.stack([latents.encode(scenes.render(s)) for s in scenes.headings(scene)])  # [k, 1, T, 4, h, w]

    def __call__(self, xs, sigma):
        return [scenes.exact_denoised(x[None], sigma, self.candidates)[0] for x in xs]


def exact_evidence(clips, which, process, sigmas):
    """As calibrate.calibrate, with the exact denoiser in the model's place."""
    evidence = calibration.Evidence(process, sigmas, 2 * PAIRS)
    for index in which:
        scene = clips.scenes[index : index + 1]
        x0 = latents.encode(scenes.render(scene))[0]  # [T, 4, h, w]
        evidence.add(*calibration.measure(Exact(scene), process, x0, sigmas, PAIRS, index + 1, lambda x: x.movedim(1, 0)))
    return evidence


def chosen(clips, count, most):
    """Which clips: the first `count`, or of MANY times as many those that move fastest."""
    return clips.scenes.bucket.topk(count).indices.tolist() if most else list(range(count))


@torch.inference_mode()
def findings(count, most, checkpoints):
    """-> {name: verdict.Finding}, of each checkpoint and of the exact denoiser on the same clips."""
    found = {}
    for name in checkpoints:
        demo = sampling.Demo(name)
        host = Sampling.of(demo.model)
        levels = calibrate.levels_of(host, LEVELS, 0.0, 1.0)
        clips = DemoClips(demo.clip_vision, count * MANY, 0)
        which, sigmas = chosen(clips, count, most), [s for _, s in levels]
        if not found:
            found["exact denoiser"] = verdict.Finding(exact_evidence(clips, which, host.process, sigmas), host, levels)
        evidence = calibrate.calibrate(demo.model, clips, which, sigmas, PAIRS, 0, 0, lambda *_: None)
        found[name] = verdict.Finding(evidence, host, levels)
        print(name, found[name].sentence, *found[name].details, sep="\n", flush=True)
    return found


def tables(found):
    """The findings as lines of markdown."""
    lines = []
    for name, finding in found.items():
        lines += ["", f"**{name}**: {finding.sentence} {' '.join(finding.details)}", "", *finding.table()]
    return lines


def gains(found, pictures, seeds):
    """Speed from the ordinary and from the suggested start, pair by pair -> lines of markdown."""
    lines = [
        "",
        "| model | start (sigma) | speed / asked, ordinary start | from the suggested start | gain | distance to a true clip, then |",
        "|---|---|---|---|---|---|",
    ]
    for name, finding in found.items():
        if finding.start >= finding.sampling.sigma_max or name == "exact denoiser":
            lines.append(f"| {name} | the ordinary one | | | | |")
            continue
        demo, held_out, dis = sampling.Demo(name), sampling.held_out(pictures, SLOW), flow.dis()
        before, after = (sampling.from_start(demo, held_out, pictures * seeds, sigma, True, dis) for sigma in (None, finding.start))
        distances = [sampling.mean_and_error(columns[3])[0] for columns in (before, after)]
        lines.append(
            f"| {name} | {finding.start:.3g} | {sampling.pm(before[1])} | {sampling.pm(after[1])} | {sampling.gain(after, before)} | {distances[0]:.3f}, {distances[1]:.3f} |"
        )
        print(lines[-1], flush=True)
    return lines


def cost():
    """Print where the time of one probe of 4 clips goes: the model, and everything else."""
    import comfy.patcher_extension

    demo, inside, rows = sampling.Demo("healthy"), [], []

    def timed(executor, x, *args, **kwargs):
        began = time.perf_counter()
        try:
            return executor(x, *args, **kwargs)
        finally:
            inside.append(time.perf_counter() - began)
            rows.append(len(x) // scenes.FRAMES)

    model = demo.model.clone()
    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, "timed", timed)
    clips, node = DemoClips(demo.clip_vision, 4, 0), probe.LeakageProbe.PREPARE_CLASS_CLONE(None)
    settings = {
        "control": probe.FROZEN,
        "cfg": 1.0,
        "levels": LEVELS,
        "from_fraction": 0.0,
        "to_fraction": 1.0,
        "draws": PAIRS,
        "seed": 0,
        "flow": "DIS (OpenCV)",
        "clips": clips,
        "motion_bucket_id": 0,
    }
    with torch.inference_mode():
        began = time.perf_counter()
        node.execute(model, **settings)
        whole = time.perf_counter() - began
    print(
        f"4 clips x {LEVELS} levels x {PAIRS} pairs x 2 = {4 * LEVELS * PAIRS * 2} evaluations, {sum(rows)} made: {whole:.2f} s, of which the model {sum(inside):.2f} s, everything else {whole - sum(inside):.2f} s"
    )


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--checkpoint", choices=["leaking", "healthy"], action="append", help="default: both")
    parser.add_argument("--clips", type=int, default=8, help="clips that are probed")
    parser.add_argument("--pictures", type=int, default=4, help="pictures that are animated from each start; 0 = none")
    parser.add_argument("--seeds", type=int, default=4, help="clips of each picture")
    parser.add_argument("--fair-only", action="store_true", help="leave out the clips chosen for much motion")
    parser.add_argument("--cost", action="store_true")
    o = parser.parse_args(arguments)
    if o.cost:
        return cost()
    names = o.checkpoint or ["leaking", "healthy"]
    lines = [
        "# The probe on the demo models",
        "",
        f"`python run.py do bench.probe`: {o.clips} clips, {LEVELS} levels, {PAIRS} pairs of noises. Demo models on demo data.",
        "",
        "## A fair draw of clips",
    ]
    fair = findings(o.clips, False, names)
    lines += tables(fair)
    if o.pictures:
        lines += [
            "",
            f"Sampled from there, {o.pictures} held-out pictures, {o.seeds} seeds each, {sampling.STEPS} Euler steps, Karras, CFG 1; mean ± standard error:",
            *gains(fair, o.pictures, o.seeds),
        ]
    if not o.fair_only:
        lines += [
            "",
            f"## Clips chosen for much motion: the {o.clips} of {o.clips * MANY} that move fastest",
            "",
            "A biased draw: here a leak may be seen where there is none.",
            *tables(findings(o.clips, True, names)),
        ]
    sampling.write_result("probe.md", lines)
