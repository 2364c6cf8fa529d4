"""The search of the motion dial: the least setting of a lever that gives an amount of motion.

One evaluation is a clip, sampled and measured: dear. The response of motion to a setting is rough,
may be flat, may jump, may turn back, and ends where the clip breaks. What helps: all clips are made
from the same seeds, so that the response is one curve, if a rough one, and a bracket stays a bracket.
So the search goes outward from the neutral setting until the amount is bracketed, then inward by
regula falsi on the readings' isotonic fit, held off the bracket's ends; every answer is a setting
that was seen. A setting at or beyond one at which the clip broke is never tried and never answered.

`next_setting` and `answer` are functions of the readings alone: readings that were kept, or come from
elsewhere, continue a search as if it had made them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

NOISE = 1e-9  # of an amount: below it nothing moves
GUARD = 0.15  # a step into a bracket keeps this share of it from either end
GROWTH = 2.5  # an outward step is at most this many times as far as the last setting
FLAT = 0.1  # of the change asked for: a lever that gives less over its whole range moves nothing

FOUND, AS_IT_IS, NEAREST, CANNOT = "found", "as it is", "nearest", "cannot"


@dataclass(frozen=True)
class Lever:
    """What is turned: settings in [low, high], `neutral` among them, which changes nothing. More motion lies above.

    step: a first guess of how far from neutral more motion is seen. digits: decimals of a setting, below which nothing is told apart.
    """

    neutral: float
    low: float
    high: float
    step: float
    digits: int = 2

    @property
    def least(self) -> float:
        """The smallest difference of two settings."""
        return 10.0**-self.digits

    def side(self, direction: int) -> float:
        """How far the range goes from neutral: up (1) or down (-1)."""
        return self.high - self.neutral if direction > 0 else self.neutral - self.low

    def at(self, distance: float, direction: int) -> float:
        """The setting at a distance from neutral, as it can be set."""
        return round(self.neutral + direction * min(distance, self.side(direction)), self.digits)


@dataclass(frozen=True)
class Reading:
    """A setting and what came of it. amount: of motion, 0 = a still. whole: whether the clip is one, not a broken one."""

    setting: float
    amount: float
    whole: bool = True


@dataclass(frozen=True)
class Goal:
    """amount: asked for; None = as much as stays whole. tolerance: of an amount, either way."""

    amount: float | None
    tolerance: float = 0.0

    def __post_init__(self):
        if self.amount is not None and not (math.isfinite(self.amount) and self.amount >= 0):
            raise ValueError(f"an amount of motion is a number of 0 or more, but {self.amount} was asked for")

    def met(self, amount: float) -> bool:
        return self.amount is not None and abs(amount - self.amount) <= self.tolerance


@dataclass(frozen=True)
class Answer:
    """kind: FOUND, AS_IT_IS (nothing is needed), NEAREST or CANNOT. reason: in words, where it is not FOUND."""

    kind: str
    reading: Reading
    reason: str = ""


# ---- what the readings say ------------------------------------------------------------


def isotonic(values: Sequence[float]) -> list[float]:
    """The nearest rising sequence, in squares: pool adjacent violators."""
    pools: list[list[float]] = []  # [mean, count]
    for value in values:
        pools.append([float(value), 1])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            mean, count = pools.pop()
            pools[-1] = [(pools[-1][0] * pools[-1][1] + mean * count) / (pools[-1][1] + count), pools[-1][1] + count]
    return [mean for mean, count in pools for _ in range(int(count))]


@dataclass(frozen=True)
class Side:
    """The readings on one side of neutral, outward, as distance and gain. gain: change of motion in the wanted direction.

    points: neutral first, up to the first broken one. broken: its distance, infinite where none broke. need: the gain asked for.
    """

    lever: Lever
    direction: int
    points: tuple[tuple[float, float], ...]
    broken: float
    need: float

    @classmethod
    def of(cls, lever: Lever, readings: Sequence[Reading], goal: Goal) -> "Side":
        plain = plain_of(lever, readings)
        wanted = math.inf if goal.amount is None else goal.amount
        direction = 1 if wanted >= plain.amount else -1
        distance = lambda r: direction * (r.setting - lever.neutral)
        outward = sorted((r for r in readings if r is plain or distance(r) > 0), key=distance)
        broken = min((distance(r) for r in outward if not r.whole), default=math.inf)
        points = tuple((distance(r), direction * (r.amount - plain.amount)) for r in outward if distance(r) < broken)
        need = direction * (wanted - plain.amount)
        return cls(lever, direction, points, broken, need)

    @property
    def room(self) -> float:
        return self.lever.side(self.direction)

    @property
    def gap(self) -> float:
        """Below this two settings are one for the search."""
        return max(1.5 * self.lever.least, 0.01 * self.room)

    @property
    def edge(self) -> float:
        """How closely it looks for the setting at which the clip breaks: what is just whole is of little use."""
        return max(1.5 * self.lever.least, 0.05 * self.room)

    @property
    def closed(self) -> bool:
        """Whether nothing is left to try further out."""
        last = self.points[-1][0]
        return self.broken - last <= self.edge if math.isfinite(self.broken) else self.room - last <= self.gap

    def setting(self, distance: float) -> float:
        return self.lever.at(distance, self.direction)


def plain_of(lever: Lever, readings: Sequence[Reading]) -> Reading:
    """The neutral setting's reading. Raises ValueError without one."""
    plain = next((r for r in readings if r.setting == lever.neutral), None)
    if plain is None:
        raise ValueError(f"a search begins with the neutral setting, {lever.neutral:g}, but it was not read")
    return plain


# ---- where to look --------------------------------------------------------------------


def next_setting(lever: Lever, readings: Sequence[Reading], goal: Goal, hint: float | None = None) -> float | None:
    """The setting to try next; None where looking on is of no use. hint: a first guess, from elsewhere."""
    if all(r.setting != lever.neutral for r in readings):
        return lever.neutral
    if any(r.whole and goal.met(r.amount) for r in readings):
        return None
    side = Side.of(lever, readings, goal)
    distance = inward(side) if any(gain >= side.need for _, gain in side.points) else outward(side, hint)
    setting = None if distance is None else side.setting(distance)
    return None if setting is None or any(r.setting == setting for r in readings) else setting


def inward(side: Side) -> float | None:
    """Into the bracket of the amount: where the fit's line between its ends meets it."""
    over = next(i for i, (_, gain) in enumerate(side.points) if gain >= side.need)
    (low, _), (high, _) = side.points[over - 1], side.points[over]
    if high - low <= side.gap:
        return None  # the response jumps past the amount
    fit = isotonic([gain for _, gain in side.points])
    below, above = fit[over - 1], fit[over]
    share = (side.need - below) / (above - below) if above > below else 0.5
    return low + (high - low) * min(max(share, GUARD), 1 - GUARD)


def outward(side: Side, hint: float | None = None) -> float | None:
    """Beyond the readings, up to the range's end and short of what broke; then where the response may have turned."""
    if side.closed:
        return around_the_top(side) if math.isfinite(side.need) else None
    last, gain = side.points[-1]
    if math.isfinite(side.broken):
        return (last + side.broken) / 2
    if last == 0:
        guess = side.lever.step if hint is None else side.direction * (hint - side.lever.neutral)
        return min(guess if guess > side.gap else side.lever.step, side.room)
    slope = gain / last
    linear = 1.1 * side.need / slope if slope > NOISE and math.isfinite(side.need) else math.inf
    return min(max(linear, last + side.lever.step / 2), GROWTH * last, side.room)


def around_the_top(side: Side) -> float | None:
    """Where the most motion was seen inside the range: the wider of the gaps beside it. None at the range's own end, and on flat ground."""
    gains = [gain for _, gain in side.points]
    top = max(range(len(gains)), key=gains.__getitem__)
    if top in (0, len(gains) - 1) or gains[top] < FLAT * side.need:
        return None
    before, at, after = (side.points[i][0] for i in (top - 1, top, top + 1))
    low, high = (at, after) if after - at >= at - before else (before, at)
    return (low + high) / 2 if high - low > max(4 * side.gap, 0.1 * side.room) else None


# ---- what came of it ------------------------------------------------------------------


def answer(lever: Lever, readings: Sequence[Reading], goal: Goal) -> Answer:
    """The best of what was read: of those that give the amount the one nearest to neutral, or else the nearest amount of a whole clip."""
    plain = plain_of(lever, readings)
    if goal.met(plain.amount):
        return Answer(AS_IT_IS, plain, "the plain clip already moves as asked")
    side = Side.of(lever, readings, goal)
    seen = {side.setting(distance) for distance, _ in side.points}
    known = sorted((r for r in readings if r.setting in seen), key=lambda r: abs(r.setting - lever.neutral))
    if goal.amount is None:
        most = max(known, key=lambda r: r.amount)
        return Answer(FOUND, most) if most is not plain else Answer(AS_IT_IS, plain, why_no_more(side))
    met = next((r for r in known if goal.met(r.amount)), None)
    if met is not None:
        return Answer(FOUND, met)
    wanted = goal.amount
    nearest = min(known, key=lambda r: abs(r.amount - wanted))
    closed = 1 - abs(nearest.amount - wanted) / abs(plain.amount - wanted)
    if closed < FLAT:
        return Answer(CANNOT, plain, why_not(side))
    return Answer(NEAREST, nearest, why_not(side))


def why_no_more(side: Side) -> str:
    return "the first step already breaks the clip" if math.isfinite(side.broken) and len(side.points) == 1 else "no setting that was tried adds motion"


def why_not(side: Side) -> str:
    """Why the amount was not met, in words."""
    gains, word = [gain for _, gain in side.points], "more" if side.direction > 0 else "less"
    if side.room <= 0:
        return f"this lever gives no {word} motion: choose another"
    over = next((i for i, gain in enumerate(gains) if gain >= side.need), None)
    if over is not None and side.points[over][0] - side.points[over - 1][0] <= side.gap:
        return f"the motion jumps past the amount between {side.setting(side.points[over - 1][0]):g} and {side.setting(side.points[over][0]):g}"
    if over is not None or not side.closed:
        return "the budget was spent before the amount was met"
    if math.isfinite(side.broken):
        return (
            f"the clip breaks at {side.setting(side.broken):g}, before it moves so much"
            if side.direction > 0
            else f"the clip breaks at {side.setting(side.broken):g}"
        )
    if max(gains) < FLAT * side.need:
        return "this lever moves nothing here: the motion stays what it is over its whole range"
    return f"this lever gives no {word} over its whole range"
