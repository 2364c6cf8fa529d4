"""Naive against TimeNoise tuning of the demo models: `python run.py do bench.timenoise --steps 2000`.

From the leaking checkpoint, and from the healthy one as control, both tunings with equal steps
and seeds. Then, for base, naive and TimeNoise: the one-step curves of the probe (Fig. 2 and 5a),
and sampled clips at several requested motions, each with and without Analytic-Init (the grid of
Table 1), with the distance of the first frame to the conditional image as the price. --sweep adds
the effect of beta_m and a (Fig. 4c). Writes bench/results/timenoise_*.md and plots.

Tuned weights and unfinished trainings are kept in --work: stopped, the same command goes on.
"""

import argparse
import itertools
from pathlib import Path

import torch

from ..cil import flow, motion, probe
from ..cil.timenoise import TimeNoise
from ..cil.training import Recipe
from ..demo import latents, model, scenes
from ..demo.clips import fair
from ..demo.train import NOISE
from ..nodes import probe_clip
from ..nodes.host.evaluation import SamplingContext
from ..nodes.host.sampling import Sampling
from ..nodes.training import train
from . import sampling
from .sampling import BUCKETS  # requested motions

FRACTIONS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6)  # levels of the one-step curves, M / T
STARTS = (("full start", None), ("Analytic-Init", 50.0))  # sigma_M
SWEEP = [(5.0, b) for b in (2.0, 5.0, 15.0, 50.0)] + [(a, 5.0) for a in (1.0, 20.0)]  # (a, beta_m)
COLUMNS = ("speed / asked", "speed error (px/frame)", "motion score", "first frame's distance to the image", "distance to nearest true clip")


def tuned(o, checkpoint, noise, seed):
    """The weights of one tuning, made unless they are there -> (file, its name in tables)."""
    name = "naive" if noise is None else f"TimeNoise a {noise.a:g}, beta_m {noise.beta_m:g}"
    path = o.work / f"{checkpoint}-{name.replace(' ', '-').replace(',', '')}-{o.steps}-{seed}.safetensors"
    if not path.exists():
        base, clip_vision, _ = model.load(checkpoint)
        recipe = Recipe(o.steps, o.batch, learning_rate=o.learning_rate, ema=o.ema, seed=seed, noise=noise)
        own = NOISE[checkpoint]  # the noise levels the checkpoint was trained with: naive tuning changes nothing else
        config = train.TrainConfig(rank=0, precision=o.precision, checkpointing=False, bucket=0, **own)
        state = path.with_suffix(".state")
        made = train.tune(base, fair(clip_vision, o.steps * o.batch, seed), recipe, config, state, progress=train.report)
        train.save_checkpoint(made.values, base, str(model.CHECKPOINTS[checkpoint]), path, {"tuning": name})
        state.unlink(missing_ok=True)
    return str(path), name


@torch.inference_mode()
def curves(o, demo):
    """Mean over held-out clips of the probe's gain and response at each level -> (sigmas, gains, responses)."""
    host, rows = Sampling.of(demo.model), []
    levels = [(f, host.sigma(f)) for f in FRACTIONS]
    for scene in pictures(o, max(BUCKETS)):
        positive, _, _ = demo.conditioning(scene)
        clip = latents.encode(scenes.render(scene))[0] / latents.SCALE
        context = SamplingContext(demo.model, positive, None, 1.0, 0)
        found = probe_clip.measure(context, host.process, clip, probe.slowed(clip, 0), levels, 0, o.draws, lambda: None)
        rows.append([found.mean("gain"), found.mean("response")])
    gains, responses = torch.tensor(rows).mean(0).tolist()
    return [s for _, s in levels], gains, responses


def ideal_curve(o):
    """The gain of the exact denoiser on the same clips: what can be known at all."""
    host, rows = Sampling.of(sampling.Demo("healthy").model), []
    for scene in pictures(o, max(BUCKETS)):
        candidates = torch.stack([latents.encode(scenes.render(s)) for s in scenes.headings(scene)])
        clip = latents.encode(scenes.render(scene))
        exact = lambda x, sigma: scenes.exact_denoised(x, sigma, candidates)
        found = probe.one_step_predictions(exact, host.process, clip, [host.sigma(f) for f in FRACTIONS], 0, o.draws)
        rows.append([probe.motion_gain(p, clip, probe.frozen(clip, 1)) for p in found])
    return torch.tensor(rows).mean(0).tolist()


def pictures(o, bucket):
    """The held-out scenes, one at a time."""
    together = sampling.held_out(o.images, bucket)
    return [together[i : i + 1] for i in range(o.images)]


def sampled(o, demo, sigma, backend):
    """{bucket: rows of COLUMNS}, one row a picture and seed."""
    patched, rows = demo.early(sigma, True), {}
    for bucket in BUCKETS:
        rows[bucket] = []
        for scene in pictures(o, bucket):
            image = latents.encode(scenes.render(scene, 1))[0, 0]
            for seed in range(o.seeds):
                sample = demo.sample(scene, seed, patched, steps=o.sampling_steps)
                ratio, error, residual = sampling.judge(sample, scene)
                score = motion.motion_score(demo.frames(sample), backend)
                rows[bucket].append((ratio, error, score, float((sample[0, 0] - image).square().mean().sqrt()), residual))
    return rows


class Found:
    """Figures of one model: of all seeds of its training together."""

    def __init__(self, o, files, backend):
        self.rows = {name: {bucket: [] for bucket in BUCKETS} for name, _ in STARTS}
        gains, responses = [], []
        for file in files:
            demo = sampling.Demo(file)
            self.sigmas, gain, response = curves(o, demo)
            gains.append(gain)
            responses.append(response)
            for name, sigma in STARTS:
                for bucket, rows in sampled(o, demo, sigma, backend).items():
                    self.rows[name][bucket] += rows
        self.gain, self.response = (torch.tensor(v).mean(0).tolist() for v in (gains, responses))

    def column(self, start, index, bucket=None):
        """(mean, standard error) of one of COLUMNS, at one requested motion or at all."""
        chosen = [bucket] if bucket is not None else BUCKETS
        return sampling.mean_and_error([row[index] for b in chosen for row in self.rows[start][b]])

    def less(self, other, start, index):
        """(mean, standard error) of one of COLUMNS, less the other's of the same picture, seed and training seed."""
        # the base has no training seeds: its clips come again for each of the other's
        pairs = [pair for b in BUCKETS for pair in zip(self.rows[start][b], itertools.cycle(other.rows[start][b]))]
        return sampling.mean_and_error([ours[index] - theirs[index] for ours, theirs in pairs])


def differences(found):
    """What the tunings change of the speed error and of the first frame, the same clips compared, as markdown rows."""
    base, naive, timenoise = found
    rows = ["| the same clips compared | start | " + " | ".join(COLUMNS[i] for i in (1, 3)) + " |", "|---|---|---|---|"]
    for one, other in ((naive, base), (timenoise, base), (timenoise, naive)):
        for start, _ in STARTS:
            cells = [sampling.number(found[one].less(found[other], start, i)) for i in (1, 3)]
            rows.append(f"| {one} less {other} | {start} | {' | '.join(cells)} |")
    return rows


def grid(found):
    """The grid of Table 1 as markdown rows. found: {model: Found}."""
    head = ["model", "start", *(f"speed / asked at {b}" for b in BUCKETS), *COLUMNS[1:]]
    rows = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, figures in found.items():
        for start, _ in STARTS:
            asked = [sampling.number(figures.column(start, 0, b)) for b in BUCKETS]
            cells = [name, start, *asked, *(sampling.number(figures.column(start, i)) for i in range(1, len(COLUMNS)))]
            rows.append("| " + " | ".join(cells) + " |")
    return rows


def curve_rows(found, ideal):
    some = next(iter(found.values()))
    rows = ["| M / T | sigma | exact denoiser | " + " | ".join(f"{n}: gain | {n}: read" for n in found) + " |", "|---" * (3 + 2 * len(found)) + "|"]
    for i, fraction in enumerate(FRACTIONS):
        cells = [f"{f.gain[i]:.3f} | {f.response[i]:.3f}" for f in found.values()]
        rows.append(f"| {fraction:.2f} | {some.sigmas[i]:.4g} | {ideal[i]:.3f} | {' | '.join(cells)} |")
    return rows


def plot(found, ideal, title, path):
    """One-step curves on the left, asked against sampled motion on the right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.4), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(FRACTIONS, ideal, "--", color="black", label="exact denoiser")
    right.plot(BUCKETS, BUCKETS, "--", color="black", label="as asked")
    for (name, figures), colour in zip(found.items(), ("tab:grey", "tab:orange", "tab:blue")):
        left.plot(FRACTIONS, figures.gain, "o-", color=colour, label=name)
        for (start, _), line in zip(STARTS, ("-", ":")):
            got = [(b * m, b * e) for b in BUCKETS for m, e in [figures.column(start, 0, b)]]
            right.errorbar(BUCKETS, [m for m, _ in got], [e for _, e in got], fmt=f"o{line}", color=colour, capsize=3, label=f"{name}, {start}")
    left.set(xlabel="M / T", ylabel="motion in the one-step prediction (gain; the truth is 1)", ylim=(-0.1, 1.2))
    right.set(xlabel="requested motion bucket", ylabel="sampled motion, as a bucket")
    left.legend(fontsize=8)
    right.legend(fontsize=7)
    figure.suptitle(title)
    figure.savefig(path)


def sweep_plot(rows, path):
    """Motion against alignment for each (a, beta_m)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.4), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for name, ratio, _, distance in rows:
        axes.errorbar(distance[0], ratio[0], xerr=distance[1], yerr=ratio[1], fmt="o", capsize=3, label=name)
    axes.legend(fontsize=8)
    axes.set(xlabel="first frame's distance to the image (latent rms): the price", ylabel="sampled speed / asked: the gain")
    figure.savefig(path)


def arguments_of(arguments):
    parser = argparse.ArgumentParser(prog="bench.timenoise", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000, help="updates of each tuning")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--ema", type=float, default=0.99)
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="fp32")
    parser.add_argument("--beta-m", type=float, default=5.0, help="in units of the image latents, which deviate by about 5")
    parser.add_argument("--a", type=float, default=5.0)
    parser.add_argument("--train-seeds", type=int, default=2, help="trainings of each kind")
    parser.add_argument("--seeds", type=int, default=4, help="clips of each picture and requested motion")
    parser.add_argument("--images", type=int, default=4, help="held-out pictures")
    parser.add_argument("--sampling-steps", type=int, default=sampling.STEPS)
    parser.add_argument("--draws", type=int, default=2, help="noises a level of the one-step curves")
    parser.add_argument("--sweep", action="store_true", help="also beta_m and a, from the leaking checkpoint, one training each")
    parser.add_argument("--checkpoints", nargs="*", choices=list(NOISE), default=["leaking", "healthy"])
    parser.add_argument("--work", type=Path, default=Path(".run") / "timenoise", help="where tuned weights are kept")
    parser.add_argument("--out", type=Path, default=sampling.RESULTS)
    return parser.parse_args(arguments)


def main(arguments=None):
    o = arguments_of(arguments)
    o.work.mkdir(parents=True, exist_ok=True)
    noise, backend, ideal = TimeNoise(o.beta_m, o.a), flow.dis(), ideal_curve(o)
    about = [
        f"`python run.py do bench.timenoise {' '.join(arguments or ())}`: all weights, {o.steps} steps, AdamW {o.learning_rate:g}, batch {o.batch}, {o.train_seeds} training seeds; "
        f"TimeNoise a = {o.a:g}, beta_m = {o.beta_m:g} (image latents unscaled). {o.images} held-out pictures x {o.seeds} seeds at each requested motion, {o.sampling_steps} Euler steps, Karras, CFG 1, clean image. "
        f"Mean ± standard error over clips. *gain* is the motion in the one-step prediction, *read* what it reads out of the noisy clip. Demo models on demo data: it need not hold elsewhere.",
    ]
    for checkpoint in o.checkpoints:
        files = {"base": [checkpoint]}
        for made in (None, noise):
            both = [tuned(o, checkpoint, made, seed) for seed in range(o.train_seeds)]
            files[both[0][1]] = [file for file, _ in both]
        found = {name: Found(o, these, backend) for name, these in files.items()}
        lines = [
            f"# Naive and TimeNoise tuning of the demo model *{checkpoint}*",
            "",
            *about,
            "",
            *grid(found),
            "",
            *differences(found),
            "",
            "One-step predictions:",
            "",
            *curve_rows(found, ideal),
        ]
        sampling.write_result(f"timenoise_{checkpoint}.md", [*lines, "", f"![curves](timenoise_{checkpoint}.png)"], o.out)
        plot(found, ideal, checkpoint, o.out / f"timenoise_{checkpoint}.png")
        print("\n".join(grid(found)), flush=True)
    if o.sweep:
        rows = []
        for a, beta_m in SWEEP:
            file, name = tuned(o, "leaking", TimeNoise(beta_m, a), 0)
            figures = Found(o, [file], backend)
            rows.append((name, *(figures.column(STARTS[0][0], i) for i in (0, 1, 3))))
            print(*rows[-1], flush=True)
        lines = [
            "# a and beta_m of TimeNoise, from the demo model *leaking*",
            "",
            *about,
            "",
            f"| tuning | {COLUMNS[0]} | {COLUMNS[1]} | {COLUMNS[3]} |",
            "|---|---|---|---|",
        ]
        lines += [f"| {name} | {' | '.join(map(sampling.number, columns))} |" for name, *columns in rows]
        sampling.write_result("timenoise_sweep.md", [*lines, "", "![sweep](timenoise_sweep.png)"], o.out)
        sweep_plot(rows, o.out / "timenoise_sweep.png")
