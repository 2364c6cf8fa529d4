"""What a calibration proves: where a model leaks, where to start, and what may lie unseen."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from .calibration import Curve, Evidence
from .forward import ForwardProcess
from .levels import sigma_at, signal_to_noise

LEAST = 0.05  # a leakage that is worth a cure
FEWEST = 4  # clips below which nothing is judged
HIDDEN = 0.5  # a leakage that must not go unseen: else nothing is said
# nats a value that an early start may cost, `start_cost`: where a leak ends and nothing is gained above it, and where it ends nowhere
DEAREST = 0.12  # of latents with variance 1 at sigma 2
CAREFUL = 0.01  # at sigma 7


def leaking(curve: Curve) -> list[bool]:
    """At which levels a leak is proved: the band lies above 0, the figure is worth a cure, and so it is at a neighbour."""
    sure = [low > 0 and l >= LEAST for low, l in zip(curve.low.tolist(), curve.leakage.tolist())]
    beside = lambda i: any(0 <= j < len(sure) and sure[j] for j in (i - 1, i + 1))
    return [s and beside(i) for i, s in enumerate(sure)]


def judge(evidence: Evidence) -> str:
    """The view that is judged by: the first of `Evidence.judges`, unless all of the motion proves a leak at more levels.

    A model's own errors hide a leak from the latter and never feign one: their energy makes the
    prediction larger, and so the leakage smaller. Large motions lie mostly outside the former.
    """
    return max(evidence.judges(), key=lambda name: sum(leaking(evidence.curve(name))))  # the first of equals


def excess(curve: Curve) -> bool:
    """Whether more than there should be is proved at most levels: the model's own doing, in a fast band flicker."""
    return sum(high < 0 for high in curve.high.tolist()) > len(curve.high) / 2


@dataclass(frozen=True)
class Verdict:
    """What a curve proves.

    judged: whether anything can be said. edge: the sigma above which the model leaks; None
    where no leak is proved, 0 where the lowest level leaks too. start: the suggested one, None
    = the ordinary. leakage: in the middle of the levels that leak. hidden: the largest leakage
    that the levels of a model without proof could have.
    """

    judged: bool
    edge: float | None
    start: float | None
    leakage: float
    hidden: float


def verdict(evidence: Evidence, name: str | None = None) -> Verdict:
    """-> Verdict in a view; None = the one that judges."""
    curve, clips = evidence.curve(name or judge(evidence)), evidence.clips
    highest = sorted(min(h, 1.0) if math.isfinite(h) else 1.0 for h in curve.high.tolist())
    hidden = highest[len(highest) // 2]
    proved = leaking(curve)
    if clips < FEWEST or not any(proved):
        return Verdict(clips >= FEWEST and hidden < HIDDEN, None, None, 0.0, hidden)
    typical = statistics.median(l for l, p in zip(curve.leakage.tolist(), proved) if p)
    edge = edge_of(curve, proved, typical / 2, evidence)
    return Verdict(True, edge, max(edge, least_start(evidence, edge)), typical, hidden)


def edge_of(curve: Curve, proved: Sequence[bool], half: float, evidence: Evidence) -> float:
    """Where the leakage falls through `half` for the last time, in ln of the signal-to-noise ratio; 0 if it does not."""
    values, levels, process = curve.leakage.tolist(), evidence.levels, evidence.process
    last = max(i for i, p in enumerate(proved) if p and values[i] >= half)
    if last + 1 == len(levels):
        return 0.0
    before, after = values[last], values[last + 1]
    part = (before - half) / (before - after) if after < half else 0.5
    above, below = (signal_to_noise(process, s) for s in levels[last : last + 2])
    return sigma_at(process, above ** (1 - part) * below**part, levels[last + 1], levels[last])


def start_cost(process: ForwardProcess, sigma: float, variance: float) -> float:
    """The most by which a Gaussian start at `sigma` can differ from the data's own x_M: KL in nats a value.

    1/2 ln(1 + variance signal^2 / noise^2), Prop. 1's minimum for data without any spread;
    variance: tr(Cov(X_0)) / d.
    """
    return 0.5 * math.log1p(signal_to_noise(process, sigma, variance) ** 2)


def least_start(evidence: Evidence, edge: float) -> float:
    """The sigma among the levels at which `start_cost` reaches what a start may cost. edge: of the leak, 0 = it ends at no level."""
    ratio = math.sqrt(math.expm1(2 * (DEAREST if edge else CAREFUL)) / evidence.variance)
    return sigma_at(evidence.process, ratio, evidence.levels[-1], evidence.levels[0])
