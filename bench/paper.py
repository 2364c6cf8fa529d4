"""The paper's figures on a model of SVD's kind in the landscape world: `python run.py do bench.paper`.

--part asked: Fig. 1, the motion asked for against what comes. levels: Fig. 2, how much of a clip's motion a
one-step prediction holds at each noise level. starts: Table 8 and Fig. 3, the start M from T down, naive and
Analytic-Init. timenoise: Table 9, tuned naively and with TimeNoise and started earlier. sweep: Fig. 4c, a and beta_m.
Writes bench/results/paper_PART.md and .png. What is tuned is kept in --work: stopped, the same command goes on.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch

from ..cil import probe
from ..cil.timenoise import TimeNoise
from ..cil.training import Recipe
from ..demo import model as host_model
from ..demo import train as demo_train
from ..demo.landscape import latents, scenes, simulated, svd, trained
from ..demo.landscape.train import KINDS
from ..nodes import probe_clip
from ..nodes.host.evaluation import SamplingContext
from ..nodes.host.sampling import Sampling
from ..nodes.training import train
from . import landscape, sampling
from .landscape import Way, line

HELP = Path(__file__).parent.parent / "nodes" / "web" / "docs"  # where figures.md shows Fig. 2
PATIENT, CONTROL = "svd_leaking", "svd_healthy"
PLAIN = Way("plain")
ASKED = (0.6, 1.2, 1.8, 2.4, 3.0)  # pixels a frame
STARTS = (100.0, 50.0, 30.0, 15.0, 8.0, 5.0)  # sigma; the ordinary one is 700
LATER = (None, 100.0, 30.0, 15.0)  # of Table 9
FRACTIONS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5)  # levels of Fig. 2, M / T
SPEED, AT_MOST = 2.1, 8  # of the clips of Fig. 2, pixels a frame: the data's middle; and their number
NOISE = TimeNoise(5.0, 5.0)  # beta_m in units of the image's latents, which deviate by about 5
SWEEP = (TimeNoise(2.0, 5.0), TimeNoise(15.0, 5.0), TimeNoise(5.0, 1.0), TimeNoise(5.0, 20.0))


# ---- clips and what is read of them ---------------------------------------------------


@dataclass(frozen=True)
class Clips:
    """Figures of a row's clips. read: as bench.landscape reads them; first [n]: distance of the first frame to the picture."""

    read: landscape.Read
    first: torch.Tensor

    @classmethod
    def of(cls, made, way, o, bucket=scenes.OPEN):
        held_out, frames = trained.held_out(o.pictures, made.frames), made.frames
        pixels = landscape.sampled(made, way, held_out, o.seeds, o.sampling_steps, bucket)
        read = landscape.read(pixels, held_out, o.seeds, trained.typical_travel(frames))
        pictures = scenes.render(held_out, 1)[:, 0].repeat_interleave(o.seeds, 0)
        first = (pixels[:, 0] - pictures).square().mean((1, 2, 3)).sqrt()
        return cls(read, first)

    def cells(self):
        """Of COLUMNS."""
        return [*self.read.cells(), sampling.pm(self.first)]

    def compared(self, plain):
        """Of COLUMNS, and behind the first of them that of MORE. plain: the Clips to compare with, or None."""
        travel, *rest = self.cells()
        return [travel, "" if plain is None else sampling.pm(self.read.travel - plain.read.travel), *rest]


COLUMNS = (*landscape.COLUMNS[:4], "first frame's distance to the picture")
MORE = (COLUMNS[0], "more than the ordinary start, same clips", *COLUMNS[1:])


def started(sigma, analytic=True):
    """The Way that begins there; None = the ordinary one."""
    return PLAIN if sigma is None else Way(f"{'Analytic-Init' if analytic else 'naive'}, sigma {sigma:g}", sigma, analytic)


def table(head, rows):
    """Markdown lines of rows of cells."""
    return [line(*cells) for cells in (head, ["---"] * len(head), *rows)]


def said(cells):
    """The row itself, printed."""
    print(line(*cells), flush=True)
    return cells


# ---- Fig. 1 ---------------------------------------------------------------------------


def asked(o):
    """-> lines, plot(axes)."""
    ways = [(PATIENT, way) for way in (PLAIN, started(15.0), Way("motion gain 2 above sigma 5", gain=2.0, end=5.0))] + [(CONTROL, PLAIN)]
    series, rows = {}, []
    for checkpoint, way in ways:
        made = trained.of(checkpoint)
        got = [scenes.amount(Clips.of(made, way, o, round(px / float(scenes.pixels_of(1)))).read.motion) for px in ASKED]
        series[f"{checkpoint}, {way.name}"] = [sampling.mean_and_error(amounts) for amounts in got]
        rows.append(said([f"*{checkpoint}*, {way.name}", *map(sampling.pm, got)]))
    lines = [
        "# Asked against got (the paper's Fig. 1)",
        "",
        "The amount of motion asked for by SVD's motion bucket, and that of the nearest true clip to what was sampled, pixels a frame of the subject or the camera, whichever is more.",
        "",
        *table(["asked", *(f"{px:g}" for px in ASKED)], rows),
    ]

    def plot(axes):
        axes.plot((0, ASKED[-1]), (0, ASKED[-1]), "--", color="black", label="as asked")
        for name, values in series.items():
            axes.errorbar(ASKED, [m for m, _ in values], [e for _, e in values], fmt="o-", capsize=3, label=name)
        axes.set(xlabel="asked, pixels a frame", ylabel="got")

    return lines, plot


# ---- Fig. 2 ---------------------------------------------------------------------------


@torch.inference_mode()
def held(made, scene, levels, draws):
    """One clip -> (share of its motion, of its difference from the same clip at half the speed) that a one-step prediction holds, a level each."""
    first = scenes.render(scene, 1)[0].movedim(1, -1)
    positive, _, _ = made.conditioned(first)
    clip = latents.encode(scenes.render(scene))[0] / latents.SCALE
    context = SamplingContext(made.model, positive, None, 1.0, 0)
    found = probe_clip.measure(context, Sampling.of(made.model).process, clip, probe.slowed(clip, 0), levels, 0, draws, lambda: None)
    return found.mean("gain"), found.mean("response")


def held_by_exact(scene, process, sigmas, draws):
    """The same share of motion by the exact denoiser: what can be known at all."""
    exact, clip = simulated.Leak(scene, 0.0, 0.0), latents.encode(scenes.render(scene))[0]
    predictions = probe.one_step_predictions(lambda x, sigma: exact.denoised(x, sigma), process, clip, sigmas, 0, draws)
    return [probe.motion_gain(p, clip, probe.frozen(clip, 0)) for p in predictions]


READ = ", read from the clip"
PAIRS = (
    (f"*{PATIENT}*", f"*{CONTROL}*"),
    (f"*{PATIENT}*{READ}", f"*{CONTROL}*{READ}"),
    (f"*{PATIENT}*", "exact denoiser"),
    (f"*{CONTROL}*", "exact denoiser"),
)


def apart(one, other, sigmas):
    """The sigmas at which the means over clips are told apart, in words. one, other [levels, clips]."""
    from scipy.special import stdtrit

    t = float(stdtrit(one.shape[1] - 1, 0.99))
    (a, b), (c, d) = ((v.mean(1), t * v.std(1) / v.shape[1] ** 0.5) for v in (one, other))
    clear = (a - c).abs() > b + d
    return "sigma " + ", ".join(f"{s:.3g}" for s, yes in zip(sigmas, clear) if yes) if clear.any() else "none of these levels"


def levels(o):
    """-> lines, plot(axes)."""
    host = Sampling.of(trained.of(PATIENT).model)
    chosen = [(f, host.sigma(f)) for f in FRACTIONS]
    sigmas = [sigma for _, sigma in chosen]
    count = min(o.pictures, AT_MOST)
    drawn = scenes.gliding(trained.held_out(count, scenes.FRAMES), SPEED)
    each = [drawn[i : i + 1] for i in range(count)]
    columns = {"exact denoiser": [held_by_exact(scene, host.process, sigmas, o.draws) for scene in each]}
    for name in (PATIENT, CONTROL):
        made = trained.of(name)
        gain, response = zip(*(held(made, scene, chosen, o.draws) for scene in each))
        columns |= {f"*{name}*": gain, f"*{name}*{READ}": response}
    columns = {name: torch.tensor(values, dtype=torch.float64).T for name, values in columns.items()}  # [levels, clips]
    rows = [said([f"{f:.2f}", f"{sigma:.3g}", *(sampling.pm(column[i]) for column in columns.values())]) for i, (f, sigma) in enumerate(chosen)]
    lines = [
        "# What a one-step prediction holds (the paper's Fig. 2)",
        "",
        f"{count} clips in which the subject glides {SPEED:g} pixels a frame, noised to M and denoised in one step. Of the clip's motion the prediction holds the share shown (1 = all; the exact denoiser's is what can be known at all). "
        "*Read from the clip*: of the difference between the clip and the same at half its speed, the noise and the picture being the same; 0 = it comes from the picture alone.",
        "",
        *table(["M / T", "sigma", *columns], rows),
        "",
        "Where intervals of 98 %, by Student's t over these clips, do not overlap:",
        "",
        *(f"- {a} / {b}: {apart(columns[a], columns[b], sigmas)}" for a, b in PAIRS),
    ]

    def plot(axes):
        axes.plot(FRACTIONS, columns["exact denoiser"].mean(1), "--", color="black", label="exact denoiser")
        for name in (PATIENT, CONTROL):
            for column, dash in ((f"*{name}*", "o-"), (f"*{name}*{READ}", "o:")):
                found = [sampling.mean_and_error(values) for values in columns[column]]
                axes.errorbar(FRACTIONS, [m for m, _ in found], [e for _, e in found], fmt=dash, capsize=2, label=column.replace("*", ""))
        axes.set(xlabel="M / T", ylabel="motion in the one-step prediction (the truth is 1)")

    return lines, plot


# ---- Table 8 and Fig. 3 ---------------------------------------------------------------


def starts(o):
    """-> lines, plot(axes)."""
    made = trained.of(PATIENT)
    host, plain = Sampling.of(made.model), Clips.of(made, PLAIN, o)
    rows = [said(["1", f"{host.sigma_max:g}", "the ordinary start", *plain.compared(None)])]
    series = {"naive": [], "Analytic-Init": []}
    for sigma in STARTS:
        for analytic, name in enumerate(series):
            found = Clips.of(made, started(sigma, bool(analytic)), o)
            series[name].append(found.read)
            rows.append(said([f"{host.fraction(sigma):.2f}", f"{sigma:g}", name, *found.compared(plain)]))
    lines = ["# The start M from T down (the paper's Table 8 and Fig. 3)", "", f"From *{PATIENT}*.", "", *table(["M / T", "sigma", "start", *MORE], rows)]

    def plot(axes):
        at, other = [host.fraction(sigma) for sigma in (host.sigma_max, *STARTS)], axes.twinx()
        for (name, found), dash in zip(series.items(), (":", "-")):
            reads = [plain.read, *found]
            axes.plot(at, [float(read.travel.median()) for read in reads], f"o{dash}", color="tab:blue", label=f"{name}: travel")
            other.plot(at, [float(read.distance.mean()) for read in reads], f"s{dash}", color="tab:red")
            axes.plot([], [], f"s{dash}", color="tab:red", label=f"{name}: distance")
        axes.invert_xaxis()
        axes.set(xlabel="M / T", ylabel="median travel over the data's")
        other.set(ylabel="distance to the nearest true clip")

    return lines, plot


# ---- Table 9 and Fig. 4c --------------------------------------------------------------


def tuned(o, noise):
    """PATIENT tuned on, made unless it is there -> (file, its name in tables). noise: a TimeNoise, None = naively."""
    name = "naive tuning" if noise is None else f"TimeNoise, a {noise.a:g}, beta_m {noise.beta_m:g}"
    path = o.work / f"{name.replace(' ', '-').replace(',', '')}-{o.steps}.safetensors"
    if not path.exists():
        kind = KINDS["svd"]
        own = kind.fresh(0)
        own.load_model_weights(host_model.weights(svd.CHECKPOINTS[PATIENT], own.diffusion_model))
        recipe = Recipe(o.steps, kind.batch, learning_rate=o.learning_rate, dropout=kind.dropout, ema=o.ema, seed=1, noise=noise)
        config = train.TrainConfig(rank=0, precision="fp32", checkpointing=False, bucket=0, **kind.noise)
        state = path.with_suffix(".state")
        made = train.tune(host_model.patcher_of(own), kind.clips(1, True), recipe, config, state, progress=train.report)
        demo_train.save(made.values, path, tuning=name)
        state.unlink(missing_ok=True)
    return path, name


def timenoise(o):
    """-> lines, plot(axes)."""
    files = [(svd.CHECKPOINTS[PATIENT], "base"), tuned(o, None), tuned(o, NOISE)]
    rows, series = [], {}
    for file, name in files:
        made, plain, series[name] = trained.of(file), None, []
        for sigma in LATER:
            found = Clips.of(made, started(sigma), o)
            rows.append(said([name, "the ordinary one" if sigma is None else f"{sigma:g}", *found.compared(plain)]))
            plain = plain or found
            series[name].append(float(found.read.travel.median()))
    lines = [
        "# TimeNoise and an earlier start (the paper's Table 9)",
        "",
        f"From *{PATIENT}*, all weights, one tuning of each kind: {told(o)}",
        "",
        *table(["model", "start, sigma", *MORE], rows),
    ]

    def plot(axes):
        names = ["700", *(f"{sigma:g}" for sigma in LATER[1:])]
        for name, values in series.items():
            axes.plot(names, values, "o-", label=name)
        axes.set(xlabel="start, sigma", ylabel="median travel over the data's")

    return lines, plot


def sweep(o):
    """-> lines, plot(axes)."""
    rows, points = [], []
    for file, name in [(svd.CHECKPOINTS[PATIENT], "base"), *(tuned(o, noise) for noise in (None, NOISE, *SWEEP))]:
        found = Clips.of(trained.of(file), PLAIN, o)
        rows.append(said([name, *found.cells()]))
        points.append((name, sampling.mean_and_error(found.read.travel), sampling.mean_and_error(found.first)))
    lines = [
        "# a and beta_m of TimeNoise (the paper's Fig. 4c)",
        "",
        f"From *{PATIENT}*, all weights, one tuning each: {told(o)} The ordinary start.",
        "",
        *table(["model", *COLUMNS], rows),
    ]

    def plot(axes):
        for name, travel, first in points:
            axes.errorbar(first[0], travel[0], xerr=first[1], yerr=travel[1], fmt="o", capsize=3, label=name)
        axes.set(xlabel="first frame's distance to the picture: the price", ylabel="mean travel over the data's median: the gain")

    return lines, plot


def told(o):
    """How a tuning is made, in words."""
    return f"{o.steps} steps, AdamW {o.learning_rate:g}, batch {KINDS['svd'].batch}; the picture clean when sampled."


# ---- the command ----------------------------------------------------------------------

PARTS = {"asked": asked, "levels": levels, "starts": starts, "timenoise": timenoise, "sweep": sweep}


def main(arguments=None):
    from matplotlib.figure import Figure

    parser = argparse.ArgumentParser(prog="bench.paper", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=list(PARTS), help="one of them; default: all")
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=1, help="clips of each picture")
    parser.add_argument("--sampling-steps", type=int, default=landscape.STEPS)
    parser.add_argument("--draws", type=int, default=2, help="noises a level of Fig. 2")
    parser.add_argument("--steps", type=int, default=120, help="updates of a tuning")
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--ema", type=float, default=0.98)
    parser.add_argument("--work", type=Path, default=Path(".run") / "paper", help="where tuned weights are kept")
    parser.add_argument("--out", type=Path, default=sampling.RESULTS)
    o = parser.parse_args(arguments)
    for folder in (o.work, o.out):
        folder.mkdir(parents=True, exist_ok=True)
    for part in o.part or PARTS:
        lines, plot = PARTS[part](o)
        about = (
            f"`python run.py do bench.paper --part {part}`: "
            + ("" if part == "levels" else f"{o.pictures} held-out pictures with {o.seeds} seed{'s' * (o.seeds > 1)}, {o.sampling_steps} Euler steps, Karras, CFG 1, the amount of motion left open" + " but for what is asked" * (part == "asked") + ". ")
            + "Mean ± standard error. A demo model on demo data."
        )  # fmt: skip
        figure = Figure(figsize=(6.4, 4.4), dpi=100, layout="constrained")
        axes = figure.add_subplot()
        plot(axes)
        axes.legend(fontsize=8)
        figure.savefig(o.out / f"paper_{part}.png")
        if part == "levels" and o.out == sampling.RESULTS:
            figure.savefig(HELP / "one-step.webp", pil_kwargs={"quality": 85})
        sampling.write_result(f"paper_{part}.md", [*lines[:2], about, "", *lines[2:], "", f"![The table as a plot](paper_{part}.png)"], o.out)
