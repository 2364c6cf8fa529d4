"""Curves that nodes show, drawn with matplotlib; without it a note in their place."""

import functools
import math
import textwrap
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..cil import levels, verdict
from ..cil.consistency import Measures
from ..cil.dial import Answer, Goal, Reading
from .pictures import captioned

if TYPE_CHECKING:
    from ..cil.calibration import Evidence
    from .levers import Lever
    from .verdict import Finding


class NoMatplotlib(Exception):
    """matplotlib is not installed; its text is what the plot would have been called."""


def plot(draw: Callable) -> Callable:
    """draw(...) -> a matplotlib figure, as a function of the same arguments -> IMAGE [1, H, W, 3]: a note where matplotlib is missing."""

    @functools.wraps(draw)
    def drawn(*args, **kwargs) -> torch.Tensor:
        try:
            return figure_picture(draw(*args, **kwargs))
        except NoMatplotlib as lacking:
            return captioned(torch.ones(32, 768, 3), f"{lacking} For a plot: pip install matplotlib in ComfyUI's Python".strip())[None]

    return drawn


def figure_of(width: float, height: float, title: str = "") -> Any:
    """An empty figure, in inches at 110 dots. title: what a note says first where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise NoMatplotlib(title) from None
    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def figure_picture(figure: Any) -> torch.Tensor:
    """A matplotlib figure -> IMAGE [1, H, W, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return torch.from_numpy(np.asarray(canvas.buffer_rgba())[..., :3].copy()).float()[None] / 255


WORDS = ((0.01, "nearly pure noise"), (0.1, "what moves where"), (1.0, "shapes"), (math.inf, "detail"))  # up to a signal-to-noise ratio


@plot
def probe_plot(found: "Finding", sensitivity: tuple | None = None) -> Any:
    """A probe's curve with its band, the sentence above it and a line at the start -> IMAGE.

    found: verdict.Finding; sensitivity: of one clip, (read, readable) a level, drawn below it.
    """
    figure = figure_of(9, 6.2 if sensitivity is None else 8.6, found.sentence)
    axes = figure.subplots(1 if sensitivity is None else 2, squeeze=False, height_ratios=None if sensitivity is None else [3, 2])[:, 0]
    _leakage_axes(axes[0], found)
    if sensitivity is not None:
        _sensitivity_axes(axes[1], found, *sensitivity)
    figure.suptitle("\n".join(textwrap.wrap(found.sentence, 52)), fontsize=17, fontweight="bold")
    figure.supxlabel("\n".join(line for text in found.details for line in textwrap.wrap(text, 125)), fontsize=8)
    return figure


@plot
def leakage_plot(curves: dict[str, "Evidence"]) -> Any:
    """The leakage of several states of one model, on the same clips and levels -> IMAGE. curves: {name: calibration.Evidence}."""
    first = next(iter(curves.values()))
    figure = figure_of(7, 4, "Leakage before and after.")
    axes, view = figure.add_subplot(), verdict.judge(first)
    ratios = [levels.signal_to_noise(first.process, s, first.variance) for s in first.levels]
    for (name, evidence), colour in zip(curves.items(), ("tab:grey", "tab:red", "tab:blue")):
        curve = evidence.curve(view)
        percent = lambda values: 100 * values.clamp(-10, 10).numpy()
        axes.plot(ratios, percent(curve.leakage), "o-", color=colour, label=name)
        axes.fill_between(ratios, percent(curve.low), percent(curve.high), color=colour, alpha=0.12, linewidth=0)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks(ratios, [f"{s:.3g}\n{r:.2g}" for s, r in zip(first.levels, ratios)], fontsize=8)
    axes.set_xlabel("noise level: sigma, signal to noise", fontsize=9)
    axes.set_ylim(-55, 105)
    axes.set_ylabel("motion missing, %")
    axes.set_title(f"Motion missing from the prediction, {first.clips} clips: lower is freer", fontsize=9)
    axes.legend(fontsize=8)
    return figure


def _level_axis(axes, found):
    """Levels by their signal-to-noise ratio, in sigma and as the host's percent, and in words."""
    ratios = [found.ratio(s) for _, s in found.chosen]
    axes.set_xscale("log")
    axes.set_xlim(ratios[0] * 0.8, ratios[-1] * 1.25)
    axes.minorticks_off()
    axes.set_xticks(ratios, [f"{s:.3g}\n{1 - f:.3f}\n{r:.2g}" for (f, s), r in zip(found.chosen, ratios)], fontsize=8)
    axes.set_xlabel("noise level: sigma, the host's percent, signal to noise", fontsize=9)
    return ratios


def _leakage_axes(axes, found):
    ratios, curve = _level_axis(axes, found), found.curve
    to_percent = lambda values: 100 * values.clamp(-10, 10).numpy()
    if found.evidence.clips > 1:
        axes.fill_between(
            ratios,
            to_percent(curve.low),
            to_percent(curve.high),
            color="tab:red",
            alpha=0.2,
            linewidth=0,
            label="band: chance leaves it on either side at 1 level in 100",
        )
    axes.plot(ratios, to_percent(curve.leakage), "o-", color="tab:red", label="motion missing from the model's prediction")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_ylim(-55, 105)
    axes.set_ylabel("motion missing, %  (0 = none, 100 = a still)")
    if found.start < found.sampling.sigma_max:
        axes.axvline(found.ratio(found.start), color="tab:blue", linewidth=2, linestyle="--", label=f"suggested start: sigma {found.start:.3g}")
        if found.above_edge:
            axes.axvline(found.ratio(found.verdict.edge), color="tab:red", linewidth=1, linestyle=":", label=f"it leaks above sigma {found.verdict.edge:.3g}")
    left, (low, high) = 0.0, axes.get_xlim()
    for upto, word in WORDS:
        begin, end = max(left, low), min(upto, high)
        if end > begin * 1.3:
            axes.text(math.sqrt(begin * end), 97, word, ha="center", va="center", fontsize=9, color="grey")
            if end < high:
                axes.axvline(end, color="grey", linewidth=0.5, alpha=0.5)
        left = upto
    axes.legend(fontsize=8, loc="lower left")


def _sensitivity_axes(axes, found, read, readable):
    ratios = _level_axis(axes, found)
    axes.plot(ratios, readable, "--", color="black", label="read by an ideal observer of these two")
    axes.plot(ratios, read, "o-", color="tab:green", label="read by the model")
    axes.set_ylim(-0.1, 1.15)
    axes.set_ylabel("of the difference of two clips")
    axes.set_title("Sensitivity, which is no measure of leakage", fontsize=9)
    axes.legend(fontsize=8, loc="upper left")


@plot
def sweep_plot(runs: list[dict], start_as: str, start: float | None = None, broken: Iterable[float] = ()) -> Any:
    """Consistent motion and likeness against the start, mean and standard deviation over seeds -> IMAGE.

    start: the one to point out; broken: starts whose points are grey.
    """
    starts = list(dict.fromkeys(run["start"] for run in runs))
    figure = figure_of(7, 4.4)
    axes = figure.add_subplot()
    right = axes.twinx()
    for on, name, line, colour in ((axes, "consistent", "o-", "tab:red"), (right, "likeness", "s--", "tab:blue")):
        of = {s: np.array([run[name] for run in runs if run["start"] == s]) for s in starts}
        on.errorbar(starts, [of[s].mean() for s in starts], [of[s].std() for s in starts], fmt=line, color=colour, capsize=3)
        on.plot([s for s in starts if s in broken], [of[s].mean() for s in starts if s in broken], "x", color="black", ms=10)
    axes.set_ylabel("consistent motion", color="tab:red")
    right.set_ylabel("likeness to the image", color="tab:blue")
    axes.set_xlabel(f"start, as a {start_as}" + (" (x: broken clips)" if broken else ""))
    if start_as == "sigma":
        axes.set_xscale("log")
    if start is not None:
        axes.axvline(start, color="tab:green", linewidth=2, linestyle="--", alpha=0.6)
        axes.set_title(f"start {start:g}: the highest with enough steady motion", fontsize=10)
    return figure


@plot
def motion_plot(found: Measures) -> Any:
    """consistency.Measures, a point a pair of frames -> IMAGE."""
    figure = figure_of(7, 4)
    axes, pairs = figure.add_subplot(), np.arange(1, len(found.motion) + 1) + 0.5
    axes.fill_between(pairs, found.motion, color="tab:green", alpha=0.25, linewidth=0, label="consistent motion")
    axes.plot(pairs, found.camera, "o-", color="tab:blue", ms=3, label="camera")
    axes.plot(pairs, found.subject, "o-", color="tab:green", ms=3, label="subject")
    axes.set_ylim(0, max(0.1, 1.1 * max(*found.motion, *found.camera, *found.subject)))
    axes.set_xlabel("frame")
    axes.set_ylabel("pixels a frame, at 800 x 450")
    first = found.first_moving
    if 0 < first < len(found.motion):
        axes.axvspan(1, first + 1, color="grey", alpha=0.15, linewidth=0, label="stands still")
    right = axes.twinx()
    right.plot(pairs, found.flicker, "--", color="tab:red", linewidth=1, label="flicker")
    right.set_ylim(0, max(0.02, 1.5 * max(found.flicker)))
    right.set_ylabel("flicker", color="tab:red")
    axes.legend(fontsize=8, loc="upper left")
    return figure


@plot
def loss_plot(losses: list[float], title: str) -> Any:
    """The loss of each update and its running mean -> IMAGE."""
    figure = figure_of(7, 4, f"{title}.")
    axes = figure.add_subplot()
    steps, window = np.arange(1, len(losses) + 1), max(1, len(losses) // 20)
    sums = np.cumsum([0.0, *losses])
    first = np.maximum(0, steps - window)
    axes.plot(steps, losses, color="tab:blue", alpha=0.3, linewidth=0.8, label="each update")
    axes.plot(steps, (sums[steps] - sums[first]) / (steps - first), color="tab:red", label=f"mean of the last {window}")
    axes.set_yscale("log")
    axes.set_xlabel("update")
    axes.set_ylabel("loss")
    axes.legend(fontsize=8)
    axes.set_title("\n".join(textwrap.wrap(title, 90)), fontsize=9)
    return figure


@plot
def dial_plot(readings: list[Reading], answer: Answer, goal: Goal, lever: "Lever", title: str) -> Any:
    """Motion against the setting, with the asked amount and what was chosen -> IMAGE.

    readings: of cil/dial.py, answer and goal likewise; lever: of levers.py.
    """
    figure = figure_of(7, 4.6, title)
    axes = figure.add_subplot()
    known = sorted(readings, key=lambda r: r.setting)
    whole, broken = ([r for r in known if r.whole is is_whole] for is_whole in (True, False))
    axes.plot([r.setting for r in whole], [r.amount for r in whole], "o-", color="tab:blue", label="looked at")
    if broken:
        axes.plot([r.setting for r in broken], [r.amount for r in broken], "x", color="tab:red", ms=9, label="breaks")
    if goal.amount is not None:
        axes.axhspan(goal.amount - goal.tolerance, goal.amount + goal.tolerance, color="tab:orange", alpha=0.2, linewidth=0)
        axes.axhline(goal.amount, color="tab:orange", label="asked")
    axes.plot([answer.reading.setting], [answer.reading.amount], "o", ms=14, mfc="none", color="tab:green", mew=2, label="chosen")
    axes.axvline(lever.search.neutral, color="grey", linewidth=0.8, linestyle=":", label="neutral")
    axes.set_ylim(bottom=0)
    axes.set_xlabel(f"{lever.name}" + (": depth, ln of signal to noise over the ordinary start's" if lever.search.neutral == 0 == lever.search.low else ""))
    axes.set_ylabel("consistent motion, pixels at 800 x 450")
    axes.legend(fontsize=8)
    figure.suptitle("\n".join(textwrap.wrap(title, 70)), fontsize=11)
    return figure
