"""Got against asked: the motion dial, the preset and the plain model: `python run.py do bench.dial`.

On the demo's checkpoints, on the simulated leak (demo/landscape), or on `exact`, which is the same without a leak.
Each picture is asked for several multiples of the data's median motion. The model is told the usual motion
bucket, whatever is asked. The dial's search and its previews are the node's own; what is read is the motion
of the nearest true clip (bench/sources.py), and a setting whose distance to it rises by more than --price over
the plain clip's counts as broken. The search gets the model calls of two full runs.
Writes bench/results/dial_*.md and .png; --quick takes 3 pictures and writes nothing.
"""

import argparse
from dataclasses import dataclass

import torch

from ..cil import dial
from ..demo.landscape import trained
from ..nodes import levers, previews
from ..nodes.early_start import CILEarlyStart
from ..nodes.host.models import model_family
from . import sampling, sources
from .sources import SIMULATED

ASKED = (0.5, 1.0, 1.5, 2.0)  # of the data's median motion
USUAL = 127  # the motion bucket that the model is told
TOLERANCE = 0.1
EXACT = "exact"
LEAKS = {SIMULATED: 0.7, EXACT: 0.0}
WHAT = {SIMULATED: "the simulated leak", EXACT: "an exact model, which does not leak"}


@dataclass(frozen=True)
class Got:
    """motion: over the data's median; distance: to the nearest true clip; likeness: to the picture, 1 - mean absolute difference; calls: of the model."""

    motion: float
    distance: float
    likeness: float
    calls: int
    note: str = ""


class Picture:
    """One picture: what is sampled of it at each setting, made once."""

    def __init__(self, source, k, name, full, price):
        self.source, self.k, self.price = source, k, source.price if price is None else price
        positive, negative, latent, self.image = source.picture(k)
        self.model, self.median = source.model, source.median(k)
        self.full = previews.Run(positive, negative, latent, k, full, 1.0, "euler", source.scheduler)
        self.short = self.full.shorter(0)
        self.lever = levers.levers_of(name, [self.model], positive, 1.0)[0]
        self.known = {}

    @torch.inference_mode()
    def read(self, patched, run):
        """-> (motion, distance, likeness) of one clip."""
        samples = previews.sampled([patched], run, run.seed)
        frames = sources.decoded(self.source, samples)
        found = self.source.judged(samples, frames, self.k)
        likeness = 1 - float((frames - self.image).abs().mean())
        return float(found[self.source.motion]) / self.median, float(found[self.source.distance]), likeness

    def at(self, setting, run):
        key = (setting, run.steps)
        if key not in self.known:
            self.known[key] = self.read(self.lever.models([self.model], setting)[0], run)
        return self.known[key]

    def plain(self):
        return Got(*self.at(self.lever.search.neutral, self.full), self.full.steps)

    def preset(self):
        node = CILEarlyStart.PREPARE_CLASS_CLONE(None)
        return Got(*self.read(node.execute(self.model, "family preset", 1.0, True).args[0], self.full), self.full.steps)

    def dialled(self, asked):
        """The dial's clip for an amount, its previews among the calls."""
        goal, readings = dial.Goal(asked, TOLERANCE * asked), []
        plain = self.at(self.lever.search.neutral, self.short)
        while (len(readings) + 1) * self.short.steps <= 2 * self.full.steps:
            setting = dial.next_setting(self.lever.search, readings, goal)
            if setting is None:
                break
            motion, distance, _ = self.at(setting, self.short)
            readings.append(dial.Reading(setting, motion, distance <= plain[1] + self.price))
        answer = dial.answer(self.lever.search, readings, goal)
        calls = len(readings) * self.short.steps + self.full.steps
        return Got(*self.at(answer.reading.setting, self.full), calls, f"{answer.kind} {answer.reading.setting:g}")


def row(name, asked, got):
    """One line of the table: of all pictures, `got` a list of them."""
    column = lambda f: sampling.pm([f(g) for g in got])
    cells = [
        name,
        f"{asked:g}",
        column(lambda g: g.motion),
        column(lambda g: abs(g.motion - asked)),
        column(lambda g: g.distance),
        column(lambda g: g.likeness),
    ]
    return f"| {' | '.join([*cells, f'{sum(g.calls for g in got) / len(got):.0f}'])} |"


def plot(series, path, title):
    """Got against asked, mean and standard error over the pictures. series: {name: {asked: [Got]}}."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5.6, 4.6), dpi=110)
    axes.plot([0, 2.2], [0, 2.2], color="grey", lw=0.8, label="as asked")
    for name, of in series.items():
        found = [sampling.mean_and_error([g.motion for g in got]) for got in of.values()]
        axes.errorbar(list(of), [m for m, _ in found], [e for _, e in found], fmt="o-", capsize=3, label=name)
    axes.set(xlabel="asked, of the data's median motion", ylabel="got", title=title)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def source_of(checkpoint, count):
    """What is animated, `count` pictures. Loads the model."""
    if checkpoint in LEAKS:
        return sources.LeakSource(count, USUAL, LEAKS[checkpoint])
    if checkpoint in trained.CHECKPOINTS:
        return sources.TrainedSource(checkpoint, count)
    return sources.DemoSource(checkpoint, count, USUAL)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--checkpoint",
        action="append",
        help="leaking, healthy, wan_leaking, wan_healthy, svd_leaking, svd_healthy, simulated, exact or a file of the demo's kind; default: leaking",
    )
    parser.add_argument("--lever", default=levers.BEST, choices=levers.LEVERS, help="what is turned; another than the best stands in the results' names")
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--price", type=float, help="by how much the distance may rise; default: 0.1 in latents, 0.02 in RGB")
    parser.add_argument("--quick", action="store_true", help="3 pictures, nothing written")
    options = parser.parse_args(arguments)
    count = 3 if options.quick else options.pictures
    for checkpoint in options.checkpoint or ["leaking"]:
        source = source_of(checkpoint, count)
        series = {"plain": {}, "preset": {}, "dial": {}}
        for k in range(count):
            picture = Picture(source, k, options.lever, sampling.STEPS, options.price)
            fixed = {"plain": picture.plain(), "preset": picture.preset()}
            for asked in ASKED:
                for name, got in (*fixed.items(), ("dial", picture.dialled(asked))):
                    series[name].setdefault(asked, []).append(got)
            print(k, {n: [(round(g[-1].motion, 2), g[-1].note) for g in of.values()] for n, of in series.items()}, flush=True)
        lines = ["| | asked | got | error | distance to the nearest true clip | likeness | model calls |", "|---|---|---|---|---|---|---|"]
        lines += [row(name, asked, got) for asked in ASKED for name, of in series.items() if (got := of[asked])]
        errors = {name: [abs(g.motion - asked) for asked, got in of.items() for g in got] for name, of in series.items()}
        lines += ["", "Mean error over all amounts: " + ", ".join(f"{name} {sampling.pm(values)}" for name, values in errors.items()) + "."]
        print("\n".join(lines), flush=True)
        if options.quick:
            continue
        what = WHAT.get(checkpoint, f"the {checkpoint} demo model")
        price = "" if options.price is None else f" --price {options.price:g}"
        lever, best = picture.lever.name, levers.in_turn(model_family(source.model))[0]
        told, name = (f" --lever '{lever}'", f"dial_{checkpoint}_{lever.replace(' ', '_')}") if lever != best else ("", f"dial_{checkpoint}")
        head = [
            f"# Got against asked on {what}",
            "",
            f"`python run.py do bench.dial --checkpoint {checkpoint}{told} --pictures {count}{price}`: {count} held-out pictures, one seed each, {sampling.STEPS} Euler steps, {source.scheduler}, CFG 1; a model that is told a motion bucket is told {USUAL} whatever is asked. "
            f"Motion: that of the nearest true clip over the median of the data's. preset: Early Start's family preset. dial: {lever}, previews of {picture.short.steps} steps, at most two full runs' model calls, then the full run; all calls are counted. Mean ± standard error. A demo model on demo data, read by a tracker that knows its world.",
            "",
            f"![Got against asked]({name}.png)",
            "",
        ]
        sampling.write_result(f"{name}.md", head + lines)
        plot(series, sampling.RESULTS / f"{name}.png", f"Got against asked, {what}")
