"""What the probe says of the simulated leak and of the trained demo models, and whether its start is a good one: `python run.py do bench.probe`.

Writes bench/results/probe.md, or probe_trained.md. The simulated leak (demo/landscape) is asked as the node asks a model, but
of several scenes: each clip goes to the exact denoiser of its own picture, of whose answer a share is
replaced by the still picture. Then clips are sampled from the suggested start and from the ordinary one,
pair by pair. --part trained, cost: the trained models; where the time of a probe goes. On denoisers that are exact in closed form: bench.exact.
"""

import argparse
import copy
import itertools
import math
import statistics
import time

import torch

from ..cil import calibration
from ..cil.views import MOTIONS, WHOLE
from ..demo import clips as demo_clips
from ..demo import latents, scenes
from ..demo.landscape import clips as landscape_clips
from ..demo.landscape import graph, measure, simulated
from ..demo.landscape import scenes as landscape
from ..nodes import calibrate, probe, verdict
from ..nodes.host.sampling import Sampling
from . import sampling

LEVELS, PAIRS, CLIPS = 12, 2, 8
MANY = 8  # times as many clips as are probed, of which those that move most are chosen
SETS = 3  # draws of clips
ABOVE = 3.0  # sigma above which the simulated leak leaks
PATIENTS = {"leak 0.7": 0.7, "leak 0.5": 0.5, "no leak": 0.0}
SCENES, SEEDS, STEPS = 4, 2, 20  # of the clips that are sampled
STILL = 4.0  # pixels of travel below which a clip stands still


# ---- the simulated leak, of several scenes --------------------------------------------


class OwnScenes:
    """A model that knows several scenes: the denoiser of whichever begins with the picture that it is told."""

    def __init__(self, drawn, share):
        self.leaks = [simulated.Leak(drawn[i : i + 1], share, ABOVE) for i in range(len(drawn))]

    def leaking(self, share):
        """The same with another leak."""
        other = copy.copy(self)
        other.leaks = [copy.copy(leak) for leak in self.leaks]
        for leak in other.leaks:
            leak.share = share
        return other

    def __call__(self, executor, x, t, c_concat=None, *args, **kwargs):
        """The host's APPLY_MODEL: x, c_concat [k T, 4, h, w], t [k T], k clips of T frames."""
        frames, out = landscape.FRAMES, []
        for part, sigma, told in zip(x.float().cpu().split(frames), t[::frames].tolist(), c_concat.float().cpu()[::frames]):
            own = min(self.leaks, key=lambda leak: float((leak.still[0] - told * latents.SCALE).square().sum()))
            out.append(own.denoised(part, sigma))
        return torch.cat(out).to(x)


def drawn_clips(n, seed):
    """n clips, each of its own scene: a fair draw of what the model is made for."""
    g = torch.Generator().manual_seed(seed)
    drawn = landscape.sample(n, g)
    return drawn.replace(motion=torch.cat([landscape_clips.fair(drawn[i : i + 1], 1, g).motion for i in range(n)]))


def fastest(drawn, n):
    return drawn[landscape.amount(drawn.motion).topk(n).indices]


def found_in(model, clips, which, bucket):
    """What the node says of a model -> verdict.Finding."""
    host = Sampling.of(model)
    levels = host.levels(LEVELS, 0.0, 1.0)
    return verdict.Finding(calibrate.calibrate(model, clips, which, [s for _, s in levels], PAIRS, 0, bucket, lambda *_: None), host, levels)


def simulated_findings(sets, most):
    """-> {patient: a list of Finding, one a set of clips}. most: the clips that move most of MANY times as many."""
    found = {name: [] for name in PATIENTS}
    for seed in range(sets):
        drawn = fastest(drawn_clips(CLIPS * MANY, 500 + seed), CLIPS) if most else drawn_clips(CLIPS, seed)
        own = OwnScenes(drawn, 0.0)
        for name, share in PATIENTS.items():
            model, vision, _ = simulated.loaded(own.leaking(share))
            found[name].append(found_in(model, landscape_clips.LandscapeClips(vision, drawn, seed), range(CLIPS), 127))
            print(seed, name, found[name][-1].sentence, found[name][-1].judge, *(between(found[name][-1], True, v) for v in (MOTIONS, WHOLE)), flush=True)
    return found


# ---- the trained demo models ----------------------------------------------------------


class Exact:
    """The exact denoiser of one scene's data in the trained models' world: its headings, equally likely."""

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


def trained_findings(most):
    """-> {name: [Finding]}, of each checkpoint and of the exact denoiser on the same clips."""
    found = {}
    for name in ("leaking", "healthy"):
        demo = sampling.Demo(name)
        clips = demo_clips.fair(demo.clip_vision, CLIPS * MANY, 0)
        which = clips.scenes.bucket.topk(CLIPS).indices.tolist() if most else list(range(CLIPS))
        found[f"*{name}*"] = [found_in(demo.model, clips, which, 0)]
        print(name, found[f"*{name}*"][0].sentence, flush=True)
    host, levels = found["*healthy*"][0].sampling, found["*healthy*"][0].chosen
    found["their exact denoiser"] = [verdict.Finding(exact_evidence(clips, which, host.process, [s for _, s in levels]), host, levels)]
    return found


# ---- the tables -----------------------------------------------------------------------


def between(finding, above, view=None):
    """The leakage and its band over the levels above or below ABOVE together, in percent. view: None = the one that judges."""
    inside = [k for k, (_, sigma) in enumerate(finding.chosen) if (sigma > ABOVE) == above]
    curve = finding.evidence.together(view or finding.judge, inside)
    return percents(curve)


def percents(curve, level=0):
    """A curve's leakage at a level, and its band."""
    return [100 * float(values[level]) for values in (curve.leakage, curve.low, curve.high)]


def rows(found, view=None):
    """A row a model: what the first set says, and all sets."""
    lines = [
        f"| model | the sentence, of the first {CLIPS} clips | motion missing above sigma {ABOVE:g}, % | below | a start suggested | edge, sigma |",
        "|---|---|---|---|---|---|",
    ]
    for name, findings in found.items():
        started = [f for f in findings if f.start < f.sampling.sigma_max]
        edges = sorted(f.verdict.edge for f in started)
        figure = lambda above: "{:.0f} ({:.0f} to {:.0f})".format(*between(findings[0], above, view))
        edge = f"{statistics.median(edges):.3g} ({edges[0]:.3g} to {edges[-1]:.3g})" if edges else ""
        lines.append(f"| {name} | {findings[0].sentence} | {figure(True)} | {figure(False)} | {len(started)} of {len(findings)} | {edge} |")
    return lines


def clearest(finding):
    """The level above ABOVE that says most: where the band is the narrowest. Asked of a control, so the leak has no say."""
    curve = finding.evidence.curve(WHOLE)
    width = (curve.high - curve.low).nan_to_num(math.inf)
    return min((k for k, (_, sigma) in enumerate(finding.chosen) if sigma > ABOVE), key=lambda k: float(width[k]))


def apart(found):
    """In how many sets the bands of two models do not overlap, at the level where the lesser one's is the narrowest -> lines."""
    lines = []
    for a, b in itertools.combinations(found, 2):
        at = [clearest(control) for control in found[b]]
        bands = [tuple(f.evidence.curve(WHOLE) for f in pair) for pair in zip(found[a], found[b])]
        clear = sum(float(one.low[k]) > float(other.high[k]) for k, (one, other) in zip(at, bands))
        of = lambda curve, k: "{:.0f} % ({:.0f} to {:.0f})".format(*percents(curve, k))
        first = f"the first set, at sigma {found[b][0].chosen[at[0]][1]:.3g}: {of(bands[0][0], at[0])} and {of(bands[0][1], at[0])}"
        lines.append(f"- {a} and {b}: the bands do not overlap in {clear} of {len(found[a])} sets; {first}.")
    return lines


def sampled(model, vision, vae, drawn, start):
    """Clips of each scene and seed, as a graph makes them -> travel [n] in pixels, share of frames without the subject [n]. start: sigma, None = the ordinary one."""
    model = model if start is None else graph.early(model, start)
    travel, lost = [], []
    for i in range(len(drawn)):
        scene = drawn[i : i + 1]
        conditions = graph.conditioned(vision, vae, landscape.render(scene, 1)[0].movedim(1, -1))
        for seed in range(SEEDS):
            pixels = graph.sampled(model, vae, conditions, seed, STEPS).movedim(-1, 1)[None]
            tracks = measure.track(pixels, scene)
            travel.append(float(tracks.travel))
            lost.append(float(tracks.lost))
    return torch.tensor(travel), torch.tensor(lost)


def gains(found):
    """Clips from the ordinary and from the suggested start of the first set, pair by pair -> lines."""
    drawn = drawn_clips(SCENES, 10_000)  # scenes that no probe has seen
    own = OwnScenes(drawn, 0.0)
    lines = [
        "| model | start, sigma | travel, pixels: median | stand still | more than from the ordinary start, pair by pair | frames without the subject, % |",
        "|---|---|---|---|---|---|",
    ]
    for name, share in PATIENTS.items():
        loaded = simulated.loaded(own.leaking(share))
        finding = found[name][0]
        starts, plain = {"the ordinary one": None}, 0.0
        if finding.start < finding.sampling.sigma_max:
            starts[f"{finding.start:.3g}, suggested"] = finding.start
        if finding.above_edge:
            starts[f"{finding.verdict.edge:.3g}, the edge"] = finding.verdict.edge
        for what, start in starts.items():
            travel, lost = sampled(*loaded, drawn, start)
            plain = travel if start is None else plain
            gain = "" if start is None else sampling.pm(travel - plain)
            lines.append(f"| {name} | {what} | {travel.median():.1f} | {int((travel < STILL).sum())} of {len(travel)} | {gain} | {100 * lost.mean():.0f} |")
            print(lines[-1], flush=True)
    return lines


def cost():
    """Where the time of one probe of 4 clips goes: the model, and everything else -> a line."""
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
    clips, node = demo_clips.fair(demo.clip_vision, 4, 0), probe.LeakageProbe.PREPARE_CLASS_CLONE(None)
    settings = {"control": probe.FROZEN, "cfg": 1.0, "levels": LEVELS, "from_fraction": 0.0, "to_fraction": 1.0, "draws": PAIRS, "seed": 0}
    began = time.perf_counter()
    node.execute(model, **settings, flow="DIS (OpenCV)", clips=clips, motion_bucket_id=0)
    whole = time.perf_counter() - began
    return (
        f"A probe of 4 clips on a trained demo model: 4 x {LEVELS} levels x {PAIRS} pairs x 2 = {4 * LEVELS * PAIRS * 2} evaluations, {sum(rows)} made; "
        f"{whole:.1f} s on one CPU core, of which the model {sum(inside):.1f} s and everything else, clips and plot too, {whole - sum(inside):.1f} s (`bench.probe --part cost`)."
    )


def simulated_part(sets):
    """probe.md."""
    fair = simulated_findings(sets, False)
    lines = [
        "# The probe on the simulated leak",
        "",
        f"`python run.py do bench.probe`: the exact denoiser of each clip's own scene (demo/landscape); above sigma {ABOVE:g} a share of its answer is the still picture. "
        f"{CLIPS} clips a set, {LEVELS} levels, {PAIRS} pairs of noises. Figures are those of the first set, the band in brackets, of all of the motion and of the levels above (below) that sigma together. The trained models: probe_trained.md; other exact denoisers: probe_exact.md.",
        "",
        f"## {sets} sets, a fair draw each",
        "",
        *rows(fair, WHOLE),
        "",
        "Told apart at the level that says most, the one above that sigma at which the band of the model with less leak is the narrowest:",
        "",
        *apart(fair),
        "",
        "## Sampled from the start that the first set suggests, and from the edge where that lies lower",
        "",
        f"{SCENES} other scenes, {SEEDS} seeds each, {STEPS} Euler steps, Karras; median, or mean ± standard error:",
        "",
        *gains(fair),
    ]
    sampling.write_result("probe.md", lines)
    lines += [
        "",
        f"## Clips chosen for much motion: the {CLIPS} of {CLIPS * MANY} that move fastest, {sets} sets",
        "",
        "A biased draw, in which a leak may be seen where there is none.",
        "",
        *rows(simulated_findings(sets, True), WHOLE),
    ]
    sampling.write_result("probe.md", lines)


def trained_part():
    """probe_trained.md."""
    fair = trained_findings(False)
    lines = [
        "# The probe on the trained models of the first demo",
        "",
        f"`python run.py do bench.probe --part trained`: {CLIPS} clips, {LEVELS} levels, {PAIRS} pairs of noises; figures as in probe.md.",
        "",
        "*leaking* and *healthy* make too little of slow motions, which weigh little beside the energy of fast clips: the probe does not tell them apart, and suggests no start. A negative result.",
        "",
        "A fair draw of clips:",
        "",
        *rows(fair),
        "",
        *apart(fair),
        "",
        f"The {CLIPS} of {CLIPS * MANY} that move fastest:",
        "",
        *rows(trained_findings(True)),
        "",
        cost(),
    ]
    sampling.write_result("probe_trained.md", lines)


@torch.inference_mode()
def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--part", choices=["simulated", "trained", "cost"], default="simulated")
    parser.add_argument("--sets", type=int, default=SETS, help="draws of clips to probe the simulated leak with")
    o = parser.parse_args(arguments)
    if o.part == "cost":
        return print(cost())
    simulated_part(o.sets) if o.part == "simulated" else trained_part()
