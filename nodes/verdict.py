"""What a probe found, in words and figures: the sentence, the levels, the curve for other nodes."""

import math
from typing import Any

from ..cil import calibration, levels, verdict, views
from .host.sampling import Sampling

STEEPEST = 4.0  # the largest slope that the curve hands on
TELLING = 8  # clips that are asked for


def cannot_take(evidence: calibration.Evidence) -> bool:
    """Whether at the lowest level the prediction is worse than the noisy clip itself."""
    noise = 1 / max(levels.signal_to_noise(evidence.process, evidence.levels[-1]), 1e-9)
    return evidence.error(-1) > max(1.5 * noise, 0.3 * math.sqrt(evidence.variance))


class Finding:
    """The verdict on a model's calibration, for people and for other nodes.

    evidence: of at least one clip; sampling: the model's; chosen: its levels [(fraction, sigma)], sigma falling.
    start: the suggested sigma, the model's largest where the ordinary start stays.
    """

    def __init__(self, evidence: calibration.Evidence, sampling: Sampling, chosen: list[tuple[float, float]]):
        self.evidence, self.sampling, self.chosen = evidence, sampling, chosen
        self.broken = cannot_take(evidence)
        self.judge = verdict.judge(evidence)
        self.verdict = verdict.verdict(evidence, self.judge)
        self.curve = evidence.curve(self.judge)
        proved = verdict.leaking(self.curve) if evidence.clips >= verdict.FEWEST else [False] * len(chosen)
        self.proved = proved if not self.broken else [False] * len(chosen)
        start = None if self.broken else self.verdict.start
        self.start = sampling.sigma_max if start is None or start >= sampling.sigma_max else start

    def ratio(self, sigma: float) -> float:
        return levels.signal_to_noise(self.evidence.process, sigma, self.evidence.variance)

    @property
    def above_edge(self) -> bool:
        """Whether the suggested start lies above a leak's edge, since one there would cost too much."""
        return bool(self.verdict.edge) and self.verdict.edge * 1.001 < self.start < self.sampling.sigma_max

    @property
    def sentence(self) -> str:
        """The verdict for an artist, in one sentence or two."""
        found, clips = self.verdict, self.evidence.clips
        if self.broken:
            return "This model cannot take these clips: at the lowest level its prediction is worse than the noisy clip itself."
        if clips == 1:
            return "One clip shows a curve and proves nothing."
        if not found.judged:
            return f"Cannot be judged from {clips} clips: give more of them."
        if found.edge is None:
            return f"No leak is seen in {clips} clips: keep the ordinary start."
        if self.start >= self.sampling.sigma_max:
            return f"This model copies your picture only at the very top, above sigma {found.edge:.3g}: keep the ordinary start."
        if found.edge == 0:
            return f"At every level that was probed this model holds motion back: start at sigma {self.start:.3g}, and try a motion gain."
        if self.above_edge:
            return f"Above sigma {found.edge:.3g} this model copies your picture: start at sigma {self.start:.3g}, since a lower start would cost too much."
        return f"Above sigma {found.edge:.3g} this model copies your picture: start there."

    @property
    def details(self) -> list[str]:
        """How much, how sure, and the limits: lines."""
        found, clips = self.verdict, self.evidence.clips
        if self.broken:
            return [
                "Another resolution or frame count than it was trained on, another VAE, or conditioning made from another picture. The start stays ordinary."
            ]
        if clips == 1:
            return [f"For a verdict connect clips from Prepare Clips, {TELLING} or more. The start stays ordinary."]
        lines = []
        if found.edge is not None:
            low, high = self._between()
            lines.append(f"There {low:.0%} to {high:.0%} of the motion that should be predicted is missing ({clips} clips).")
        if self.start < self.sampling.sigma_max:
            lines.append(f"sigma {self.start:.3g} is {self.sampling.fraction(self.start):.3f} of T, signal to noise {self.ratio(self.start):.2g}.")
            if found.edge == 0 or self.above_edge:
                lines.append("Below it a Gaussian start is no longer near to real clips.")
        elif not found.judged or found.edge is None:
            size = f"{found.hidden:.0%}" if found.hidden < 0.95 else "any size"
            lines.append(f"A leak of {size} could lie unseen in these clips.")
        if verdict.excess(self.evidence.curve(views.BANDS[-1])):
            lines.append("Its fast changes are too strong: the model flickers.")
        lines.append("Holds for clips that are a fair draw of what the model was made for; clips chosen for much motion look like a leak.")
        return lines

    def _between(self):
        """The band of the leakage, in the middle of the levels where it is proved."""
        bands = [(low, high) for low, high, p in zip(self.curve.low.tolist(), self.curve.high.tolist(), self.proved) if p]
        middle = lambda values: sorted(values)[len(values) // 2]
        return middle([low for low, _ in bands]), min(1.0, middle([high for _, high in bands]))

    def rows(self) -> list[dict]:
        """A dict a level, for the report."""
        figure = lambda x: float(x) if math.isfinite(x) else None
        curves = {name: self.evidence.curve(name) for name in (views.WHOLE, views.MOTIONS, *views.BANDS) if self.evidence.has(name)}
        rows = []
        for k, (fraction, sigma) in enumerate(self.chosen):
            row: dict[str, Any] = {"sigma": sigma, "fraction": fraction, "percent": 1 - fraction, "signal_to_noise": self.ratio(sigma)}
            row |= {"leakage": figure(self.curve.leakage[k]), "low": figure(self.curve.low[k]), "high": figure(self.curve.high[k]), "proved": self.proved[k]}
            row["views"] = {name: [figure(c.leakage[k]), figure(c.low[k]), figure(c.high[k])] for name, c in curves.items()}
            rows.append(row | {"start_cost": verdict.start_cost(self.evidence.process, sigma, self.evidence.variance)})
        return rows

    def for_gain(self) -> dict:
        """The curve that other nodes take: by how much the predicted motion is to be multiplied at each sigma; 1 where no leak is proved."""
        slope = [1 / (1 - min(l, 1 - 1 / STEEPEST)) if p else 1.0 for l, p in zip(self.curve.leakage.tolist(), self.proved)]
        return {
            "sigma": [s for _, s in self.chosen], "slope": slope, "signal_to_noise": [self.ratio(s) for _, s in self.chosen],
            "clips": self.evidence.clips, "judged": self.verdict.judged and not self.broken,
        }  # fmt: skip

    def report(self) -> dict:
        """All figures, for JSON."""
        found = self.verdict
        return {
            "verdict": self.sentence, "details": self.details, "clips": self.evidence.clips, "judged": found.judged and not self.broken,
            "leakage": found.leakage if found.edge is not None and not self.broken else None, "edge_sigma": found.edge,
            "start_sigma": self.start, "start_fraction": self.sampling.fraction(self.start), "judged_by": self.judge,
            "variance": self.evidence.variance, "evaluations": self.evidence.evaluations, "levels": self.rows(), "curve": self.for_gain(),
        }  # fmt: skip

    def table(self) -> list[str]:
        """The levels as lines of markdown."""
        percent = lambda x: "" if not math.isfinite(x) else f"{100 * x:.0f}"
        lines = ["| sigma | M / T | host's percent | signal to noise | motion missing, % | from | to | |", "|---|---|---|---|---|---|---|---|"]
        for k, (fraction, sigma) in enumerate(self.chosen):
            l, low, high = (float(v[k]) for v in (self.curve.leakage, self.curve.low, self.curve.high))
            cells = (
                f"{sigma:.4g}",
                f"{fraction:.3f}",
                f"{1 - fraction:.3f}",
                f"{self.ratio(sigma):.2g}",
                percent(l),
                percent(low),
                percent(high),
                "leaks" if self.proved[k] else "",
            )
            lines.append(f"| {' | '.join(cells)} |")
        return lines
