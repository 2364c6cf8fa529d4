"""Motion gain: what a prediction lacks of the motion, given back to it.

A model that leaks shows its image instead of the motion. If its prediction D of the clean clip
has only the share 1 / g of the motion that it should have, seen from the still clip F,

    D' = F + g (D - F)                                                                    (1)

has all of it. For D = (1 - l) D* + l F, D* the exact denoiser, g = 1 / (1 - l) gives D' = D*,
at every noise level and for every data distribution: sampling is then that of the exact model.

To first order in the displacement u a moved picture is y(x + u) = y(x) + u y'(x), so g (D - F)
is the same motion with g u: a faster one. Where u is larger than the detail that moves this
fails: what (1) then makes is contrast, not speed. At high noise D is a blur over all that may
happen, wide beside u, and (1) holds; at low noise D is sharp and it does not. So g acts at high
noise alone, and the sampler turns the amplified blur into a faster motion on its way down.

(1) is a guidance: D + (g - 1) (D - F), away from the still clip, as classifier-free guidance is
one away from the unconditional prediction; F costs no evaluation. Where the early start leaves
out the levels at which a model leaks, this mends them.

Tensors are [..., frames, c, h, w] unless said otherwise; a still clip has one frame, or all.
"""

import itertools
import json
import math
from collections.abc import Sequence

import torch

from .forward import ForwardProcess

NOTHING, BRIGHTNESS, CONTRAST = "nothing", "brightness and colour", "brightness, colour and contrast"
PROTECTED = (NOTHING, BRIGHTNESS, CONTRAST)
PURE_NOISE = 1e-6  # a ratio of 0 counts as this one where its logarithm is taken
FADE = 4.0  # the smooth shape falls over this factor of the signal-to-noise ratio


# ---- the formula ----------------------------------------------------------------------


def amplified(denoised: torch.Tensor, still: torch.Tensor, gain: float, protect: str = NOTHING) -> torch.Tensor:
    """Eq. 1: D + (g - 1) P(D - F), P taking out what is not to be amplified. g = 1 gives `denoised` itself."""
    if gain == 1:
        return denoised
    return denoised + (gain - 1) * protected(denoised - still, still, protect)


def protected(motion: torch.Tensor, still: torch.Tensor, protect: str) -> torch.Tensor:
    """D - F without its change of brightness and colour, and of contrast, a frame and channel each.

    brightness and colour: the mean over the picture. contrast: the part along F less its mean.
    """
    if protect == NOTHING:
        return motion
    motion = motion - motion.mean((-2, -1), keepdim=True)  # [..., t, c, h, w]
    if protect == BRIGHTNESS:
        return motion
    detail = still - still.mean((-2, -1), keepdim=True)  # [..., 1 or t, c, h, w]
    energy = detail.square().sum((-2, -1), keepdim=True).clamp(min=torch.finfo(detail.dtype).tiny)  # [..., 1 or t, c, 1, 1]
    return motion - (motion * detail).sum((-2, -1), keepdim=True) / energy * detail


# ---- the still clip F, from the prediction itself -------------------------------------


def own_frame(clip: torch.Tensor, frame: int = 0) -> torch.Tensor:
    """One frame of the clip: [..., 1, c, h, w]. Exact where the model is sure of that frame.

    In a code whose first latent is of another kind than the rest (it holds one picture, they hold
    several each) the difference to the first is no motion; there frame 1 is taken, and motion counts
    from the pictures in it. Drawing the still picture out of the latents 1 and 2 by the first
    order is worse (bench/still_codes.py).
    """
    return clip.narrow(-4, frame, 1)


def own_mean(clip: torch.Tensor, first: int = 0) -> torch.Tensor:
    """The mean over the frames from `first` on: [..., 1, c, h, w]. Motion about the middle of the clip; for models without an image."""
    return clip.narrow(-4, first, clip.shape[-4] - first).mean(-4, keepdim=True)


# ---- g at each noise level ------------------------------------------------------------


def picture_ratio(process: ForwardProcess, sigma: float, cells: int) -> float:
    """How well a whole picture of `cells` latent cells is seen through the noise: signal / noise sqrt(cells).

    signal / noise says how well one cell is seen. A shape that fills the picture is seen sqrt(cells)
    times better, and so a larger picture is decided at a higher noise level (Hoogeboom et al.,
    arXiv 2301.11093, and Esser et al., arXiv 2403.03206, shift their schedules by it).
    """
    return float(process.signal(sigma)) / float(process.noise(sigma)) * math.sqrt(cells) if sigma > 0 else math.inf


def constant(gain: float, ratio: float, end: float) -> float:
    """g where the ratio is less than `end`, 1 from there on."""
    return gain if ratio < end * (1 - 1e-6) else 1.0


def smooth(gain: float, ratio: float, end: float) -> float:
    """g far below `end`, 1 far above it: a smoothstep in ln ratio, half way at `end`, FADE wide."""
    if not 0 < ratio < math.inf:
        return gain if ratio < end else 1.0
    if not 0 < end < math.inf:
        return gain if end > 0 else 1.0
    t = min(1.0, max(0.0, 0.5 + math.log(end / ratio) / math.log(FADE)))
    return 1 + (gain - 1) * t * t * (3 - 2 * t)


SHAPES = {"constant": constant, "smooth": smooth}


def measured(ratio: float, ratios: Sequence[float], slopes: Sequence[float], strength: float = 1.0, least: float = 1.0) -> float:
    """1 + strength (slope - 1) at a ratio: the measured slope 1 / (1 - l), linear in ln ratio between the levels.

    Beyond the levels it stays as at the last one. least: a slope below it counts as it.
    """
    ln = lambda r: math.log(max(r, PURE_NOISE))
    pairs = sorted((ln(r), max(least, s)) for r, s in zip(ratios, slopes, strict=True))
    at = ln(ratio)
    if at <= pairs[0][0]:
        return 1 + strength * (pairs[0][1] - 1)
    for (low, before), (high, after) in itertools.pairwise(pairs):
        if at <= high:
            t = (at - low) / (high - low) if high > low else 1.0
            return 1 + strength * (before + t * (after - before) - 1)
    return 1 + strength * (pairs[-1][1] - 1)


def curve_of(text: str) -> tuple[list[float], list[float]]:
    """A measured curve as JSON -> (sigmas, slopes). Raises ValueError.

    text: LeakageProbe's report, whose "curve" holds two lists, {"sigma": [...], "slope": [...]}; or that alone.
    """
    try:
        found = json.loads(text)
        found = found.get("curve", found)
        sigmas, slopes = [float(s) for s in found["sigma"]], [float(s) for s in found["slope"]]
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        raise ValueError(
            f"a curve of Leakage Probe is expected, JSON with the lists 'sigma' and 'slope' (or a report that holds them as 'curve'), but this came: {str(text)[:80]!r}"
        ) from None
    if not sigmas or len(sigmas) != len(slopes):
        raise ValueError(f"a curve needs as many slopes as levels and at least one, but {len(sigmas)} levels and {len(slopes)} slopes came")
    if not all(math.isfinite(v) and v > 0 for v in (*sigmas, *slopes)):
        bad = next(v for v in (*sigmas, *slopes) if not (math.isfinite(v) and v > 0))
        raise ValueError(f"the levels and slopes of a curve must be numbers above 0, but {bad} is among them")
    return sigmas, slopes
