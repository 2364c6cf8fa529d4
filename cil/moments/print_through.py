"""What a data set prints into its mean (borders, watermarks, subtitles), and how it is left out."""

from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor

from .moments import Moments

DETAILS = ("channel", "smooth", "full")
SMOOTH = 4  # `smooth` keeps a grid of at most 4 x 4 cells


def border(moments: Moments) -> tuple[int, int, int, int]:
    """Cells of black (or other) padding that a data set has printed into its mean.

    Padding is the same in every clip, so its rows are flat and end in one jump that stands
    out of the picture's own changes and is as large as the latents' own spread: black is far
    from the middle of what pictures are. A watermark's edge is faint beside that. One cell at
    an edge is the VAE's own doing and no border.
    -> (top, bottom, left, right), 0 where there is none.
    """
    still = moments.mean.mean(1)  # [C, h, w]
    least = (moments.channels * moments.variance) ** 0.5 / 3
    return (*_padded_ends(still, least), *_padded_ends(still.transpose(1, 2), least))


def _padded_ends(still: Tensor, least: float) -> tuple[int, int]:
    """Flat rows at the top and at the bottom of [C, h, w] that end in a jump of at least `least`."""
    height = still.shape[1]
    if height < 8:
        return 0, 0
    rows = still.mean(2)  # [C, h]
    jumps = (rows[:, 1:] - rows[:, :-1]).norm(dim=0)  # [h - 1], between row k and k + 1
    usual = jumps.median()
    ends = []
    for flipped in (False, True):
        steps = jumps.flip(0) if flipped else jumps
        picture = still.flip(1) if flipped else still
        jump, at = steps[: height // 2 - 1].max(0)
        width = int(at) + 1
        padding = picture[:, :width]  # [C, width, w]: the rows beyond the jump
        flat = (padding - padding.mean((1, 2), keepdim=True)).square().mean().sqrt() < 0.2 * jump
        ends.append(width if width > 1 and flat and jump > 4 * usual and jump > least else 0)
    return ends[0], ends[1]


def without_border(moments: Moments) -> Moments:
    """The moments of what lies inside a border.

    A padded cell is the same in every clip and adds nothing to tr(Cov), but counts in d: the
    picture's own tr(Cov)/d is larger by the whole area over the picture's.
    """
    top, bottom, left, right = border(moments)
    height, width = moments.mean.shape[2:]
    inside = moments.mean[:, :, top : height - bottom, left : width - right]  # [C, T, h', w']
    return replace(moments, mean=inside, variance=moments.variance * moments.mean.numel() / inside.numel())


def warning(moments: Moments) -> str:
    """What a person should know before using these moments, or an empty string."""
    cells = border(moments)
    if not any(cells):
        return ""
    sides = ", ".join(f"{n} cells {side}" for n, side in zip(cells, ("above", "below", "left", "right")) if n)
    return (
        f"the mean has a border ({sides}): its clips were letterboxed or padded, and its tr(Cov)/d, {moments.variance:.3g}, counts the border, which never changes. "
        f"'channel' and 'smooth' leave the border out and take {without_border(moments).variance:.3g}, 'full' keeps both and would print the border into your video"
    )


def simplify(moments: Moments, detail: str) -> Moments:
    """Leave out what a data set prints into its mean: watermarks, borders, subtitles.

    channel: one value a channel, over what lies inside a border; smooth: no time, at most
    4 x 4 soft patches, likewise; full: all of it.
    """
    if detail not in DETAILS:
        raise ValueError(f"detail is one of {', '.join(DETAILS)}, but '{detail}' was given")
    if detail == "full":
        return moments
    inside = without_border(moments)
    if detail == "channel":
        return replace(inside, mean=inside.mean.mean((1, 2, 3), keepdim=True))
    height, width = (min(SMOOTH, size) for size in inside.mean.shape[2:])
    return replace(inside, mean=F.adaptive_avg_pool2d(inside.mean.mean(1), (height, width))[:, None])
