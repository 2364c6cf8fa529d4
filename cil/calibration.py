"""Leakage of a model by its calibration, exact for every data distribution.

Let y be the still first frame, x a noisy clip and D = E[X_0 | x, y] the exact denoiser. Its
error is orthogonal to everything that can be computed from x and y,

    E < X_0 - D, f(x, y) > = 0,                                                     (1)

so in f = D - y it shows that E < X_0 - y, D - y > = E ||D - y||^2 at every level, and a model
that predicts (1 - l) of the motion, D = (1 - l) D_exact + l y, has

    l = 1 - E < D - y, f > / E < X_0 - y, f >.                                      (2)

No reference model and no second clip is needed. f is the sum of D - y and of what the
plainest observer predicts, c (x - alpha y) with the best scalar c. The first is sharp; the
second sees a model that predicts nothing at all, where the first would be 0 / 0.

(1) holds for linear projections too that depend on y alone: onto the motions of the picture
to first order (`motions_of`), outside of which lie flicker and brightness, whose energy in
||D - y||^2 would hide a leak, and onto bands of temporal frequency, which name them.

Where a code's first latent is of another kind than the rest (it holds one picture, they hold
several each), a still clip is not that latent repeated, and its distance from the rest would
pass for motion that every model knows. There all of X_0, D and x are their departures from the
mean over the latents after the first: linear, so (1) holds, and a still clip has none, whatever its code.

What it needs: clips that are a fair draw of what the model was trained on. Clips chosen for
much motion show leakage by their choice alone. One clip proves nothing.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from .forward import ForwardProcess
from .randomness import noise_for
from .views import MOTIONS, WHOLE, Views

CONFIDENCE = 0.99  # of one side of the band: where it leaves 0, chance does so at 1 level in 100
IN_SPAN = 0.05  # share of the clips' motion that the motions of the picture must hold to be the judge
FROM_NOISE = 0.01  # signal over noise up to which a prediction follows from the picture alone
LEVELLED = 0.1  # share of the mean expected motion up to which clips count alike


# ---- the sums -------------------------------------------------------------------------


def inner_products(move: torch.Tensor, predicted: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """m = X_0 - y, p = D - y, f = x - alpha y, [..., d] -> <m, p>, <p, p>, <m, f>, <p, f>, <m, m>: [..., 5]."""
    pairs = ((move, predicted), (predicted, predicted), (move, seen), (predicted, seen), (move, move))
    return torch.stack([(a * b).sum(-1) for a, b in pairs], -1)


@dataclass
class Evidence:
    """The sums of a probe, to which clips are added one at a time.

    levels: falling sigmas; process; evaluations: noises a clip and level; products {view: a
    list over clips of [levels, 5]}, see `inner_products`; dims {view: its dimension}; moments:
    for each clip the sums over its latents (values, squares, number).
    """

    process: ForwardProcess
    levels: Sequence[float]
    evaluations: int
    products: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    dims: dict[str, int] = field(default_factory=dict)
    moments: list[tuple[float, float, int]] = field(default_factory=list)

    @property
    def clips(self) -> int:
        return len(self.moments)

    @property
    def variance(self) -> float:
        """tr(Cov(X_0)) / d of the clips so far, about one mean for all values."""
        values, squares, number = (sum(column) for column in zip(*self.moments))
        return max(squares / number - (values / number) ** 2, 1e-12)

    def add(self, products: dict[str, torch.Tensor], dims: dict[str, int], moments: tuple[float, float, int]) -> None:
        """One clip's sums, as `measure` returns them."""
        for name, value in products.items():
            self.products.setdefault(name, []).append(value)
            self.dims[name] = max(dims[name], self.dims.get(name, 0))
        self.moments.append(moments)

    def has(self, name: str) -> bool:
        """Whether every clip has this view."""
        return 0 < len(self.products.get(name, [])) == self.clips

    def view(self, name: str) -> torch.Tensor:
        """[levels, clips, 5] of a view that every clip has."""
        return torch.stack(self.products[name], 1)

    def judges(self) -> list[str]:
        """The views that may judge: the motions of the picture, where they hold enough of the clips' motion, and all of it."""
        if not self.has(MOTIONS):
            return [WHOLE]
        inside, whole = self.view(MOTIONS), self.view(WHOLE)
        share = lambda view: float(view[-1, :, 4].sum())
        return [MOTIONS, WHOLE] if share(inside) > IN_SPAN * share(whole) else [WHOLE]

    def error(self, level: int) -> float:
        """Root of the mean square of D - X_0 at a level, over the clips."""
        own, square, _, _, moved = self.view(WHOLE)[level].mean(0).tolist()
        return math.sqrt(max(moved - 2 * own + square, 0.0) / self.dims[WHOLE])

    def curve(self, name: str) -> "Curve":
        """The leakage in a view."""
        return leakage(*self._parts(name), self.evaluations)

    def together(self, name: str, levels: Sequence[int]) -> "Curve":
        """The leakage in a view of some levels as one, [1]: that of the motion which is predicted at any of them."""
        whole, got = (part[list(levels)].sum(0, keepdim=True) for part in self._parts(name))
        return leakage(whole, got, self.evaluations)

    def _parts(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        signal = torch.tensor([float(self.process.signal(s)) for s in self.levels], dtype=torch.float64)
        noise = torch.tensor([float(self.process.noise(s)) for s in self.levels], dtype=torch.float64)
        return parts(self.view(name), signal, noise, self.dims[name])


def departure_from_mean(clip: torch.Tensor) -> torch.Tensor:
    """[C, T, h, w] -> [C, T - 1, h, w]: the latents after the first, less their mean over time."""
    rest = clip[:, 1:]
    return rest - rest.mean(1, keepdim=True)


def measure(
    denoise: Callable[[list[torch.Tensor], float], list[torch.Tensor]],
    process: ForwardProcess,
    x0: torch.Tensor,
    levels: Sequence[float],
    pairs: int,
    seed: int,
    as_clip: Callable[[torch.Tensor], torch.Tensor] = lambda x: x,
    tick: Callable[[int, list[torch.Tensor]], None] = lambda level, predictions: None,
    apart: bool = False,
) -> tuple[dict[str, torch.Tensor], dict[str, int], tuple[float, float, int]]:
    """One clip through a model at all levels, for `Evidence.add`. No prediction is kept.

    denoise(xs, sigma): predictions of the clean clip for a list of noisy ones. Noises come in
    antithetic pairs, +eps and -eps, whose errors largely cancel. as_clip: the model's layout
    -> [C, T, h, w]. tick(level, the two predictions) after each pair. apart: the first latent is of
    another kind than the rest.
    """
    clip = as_clip(x0)
    still = clip[:, :1].expand_as(clip[:, 1:] if apart else clip)
    departure = (lambda z, signal: departure_from_mean(z)) if apart else (lambda z, signal: z - signal * still)
    views = Views(still)
    move = views(departure(clip, 1.0))
    sums = {name: torch.zeros(len(levels), 5, dtype=torch.float64) for name in move}
    for level, sigma in enumerate(levels):
        signal = float(process.signal(sigma))
        for pair in range(pairs):
            eps = noise_for(x0, seed, level, pair)
            noisy = [process.corrupt(x0, sign * eps, sigma) for sign in (1, -1)]
            predictions = denoise(noisy, sigma)
            for x, prediction in zip(noisy, predictions):
                predicted, seen = views(departure(as_clip(prediction), 1.0)), views(departure(as_clip(x), signal))
                for name, total in sums.items():
                    total[level] += inner_products(move[name], predicted[name], seen[name]) / (2 * pairs)
            tick(level, predictions)
    values = clip.to("cpu", torch.float64)
    return sums, {name: value.numel() for name, value in move.items()}, (float(values.sum()), float(values.square().sum()), values.numel())


# ---- the leakage, and how sure it is --------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """Leakage at falling levels, [levels] each: 0 = as much motion as there should be, 1 = the still picture.

    low, high: its band; not numbers where nothing can be said (one clip, or nothing predicted).
    Below 0: more than there should be, such as flicker.
    """

    leakage: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor


def weights(products: torch.Tensor, signal: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """How much each clip counts at each level, [levels, ..., clips], mean 1: the less, the more motion is expected of it.

    Else a few clips with much motion would be the only voters. What is expected is what the
    model predicts from pure noise, which the picture gives, so Eq. 1 holds; X_0 and the noise
    of the level itself must have no say.
    """
    ratios = (signal / noise).flatten().tolist()
    if len(ratios) < 2 or ratios[1] > FROM_NOISE:
        return torch.ones_like(products[..., 1])
    expected = torch.cat([products[1:2, ..., 1], products[:1, ..., 1].expand(len(ratios) - 1, *products.shape[1:-1])])
    w = 1 / (LEVELLED + expected / expected.mean(-1, keepdim=True).clamp(min=1e-300))
    return w / w.mean(-1, keepdim=True)


def parts(products: torch.Tensor, signal: torch.Tensor, noise: torch.Tensor, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """<X_0 - y, f> and <D - y, f> of Eq. 2, as clips count. products [levels, ..., clips, 5]; signal, noise [levels]; dim: of the view -> [levels, ..., clips] each."""
    shape = [-1] + [1] * (products.ndim - 3)
    signal, noise = signal.view(shape), noise.view(shape)
    products = products * weights(products, signal, noise)[..., None]
    mean_seen = products[..., 2].mean(-1)  # alpha E ||X_0 - y||^2
    c = mean_seen / (signal * mean_seen + noise**2 * dim)  # of the plainest observer, the best in the mean square
    return products[..., 0] + c[..., None] * products[..., 2], products[..., 1] + c[..., None] * products[..., 3]


def leakage(whole: torch.Tensor, got: torch.Tensor, evaluations: int) -> Curve:
    """Eq. 2 over clips, with a band. whole, got [..., clips]: see `parts`.

    evaluations: noises a clip, of both signs. The band is Fieller's for the
    ratio of two means over clips, by Student's t: the set of l at which the mean of
    <D - y, f> - (1 - l) <X_0 - y, f> is not told from 0. (The percentile bootstrap over 8
    clips is too narrow: it leaves out the truth five times too often.) An answer that none of
    the evaluations gave may still be one evaluation's share of the truth, so the deviation is
    never taken for less than that.
    """
    clips = whole.shape[-1]
    a, b = whole.mean(-1), got.mean(-1)
    some = a > 0
    l = torch.where(some, 1 - b / torch.where(some, a, 1.0), math.nan)
    if clips < 2:
        return Curve(l, torch.full_like(l, math.nan), torch.full_like(l, math.nan))
    from scipy.special import stdtrit  # the host brings it

    t2 = float(stdtrit(clips - 1, CONFIDENCE)) ** 2
    spread = lambda u, v: ((u - u.mean(-1, keepdim=True)) * (v - v.mean(-1, keepdim=True))).sum(-1) / (clips - 1) / clips
    least = (a / (clips * evaluations)) ** 2
    # (a^2 - t^2 var a) u^2 - 2 (a b - t^2 cov) u + (b^2 - t^2 var b) = 0, u = 1 - l
    p, q, r = a**2 - t2 * spread(whole, whole), a * b - t2 * spread(whole, got), b**2 - t2 * (spread(got, got) + least)
    bounded = some & (p > 0)
    root = (q**2 - p * r).clamp(min=0).sqrt()
    bound = lambda sign: torch.where(bounded, 1 - (q + sign * root) / torch.where(bounded, p, 1.0), math.nan)
    return Curve(l, bound(1), bound(-1))
