"""Moments of a data set's latents: E[X_0] and tr(Cov(X_0))/d, and the file that keeps them.

The file is safetensors with one tensor, `mean`, and JSON metadata (see moments/README.md).
No pickle is read here.
"""

import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open

from .files import write_safetensors

FORMAT, VERSION = "cil-moments", 1
AUTHORS_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin")  # only ever read without executing anything
DETAILS = ("channel", "smooth", "full")
SPACE = r"\w[\w.+ -]{0,63}"  # a name that can be shown
SMOOTH = 4  # `smooth` keeps a grid of at most 4 x 4 cells


@dataclass(frozen=True)
class Moments:
    """What Analytic-Init needs to know of the data.

    mean: E[X_0] as float32 [C, T, h, w], or [C, 1, h, w] (a picture), or [C, 1, 1, 1] (a colour).
    variance: tr(Cov(X_0)) / d, a scalar, in the same units squared.
    space: the latent space, for example "sd" or "wan21"; latents as the network sees them,
        that is after the host's scale factor.
    count: clips that were averaged; 0 if not known.
    about: what else is known (width, height, frames, fps, source, licence, ...).
    """

    mean: torch.Tensor
    variance: float
    space: str
    count: int = 0
    about: dict = field(default_factory=dict)

    def __post_init__(self):
        if not re.fullmatch(SPACE, self.space):
            raise ValueError("the latent space of moments is a short name like 'sd' or 'wan21', but another text came")
        if self.mean.ndim != 4:
            raise ValueError(f"the mean of moments is [channels, frames, height, width], but {tuple(self.mean.shape)} came")
        if not torch.isfinite(self.mean).all():
            raise ValueError("the mean of these moments has values that are not numbers")
        if not 0 < self.variance < float("inf"):
            raise ValueError(f"the variance of moments, tr(Cov)/d, must be above 0, but it is {self.variance}")

    @property
    def channels(self):
        return self.mean.shape[0]

    def __str__(self):
        frames, height, width = self.mean.shape[1:]
        detail = "one value a channel" if frames * height * width == 1 else f"{frames} x {height} x {width}"
        per_channel = ", ".join(f"{m:.3f}" for m in self.mean.mean((1, 2, 3)))
        return f"space {self.space}, {self.channels} channels, {detail}, channel means {per_channel}, tr(Cov)/d {self.variance:.4f}, from {self.count or 'an unknown number of'} clips"


def save(moments, path):
    """Write moments to `path`, all of it or nothing. A mean with space in it is kept in fp16, where it fits."""
    half = moments.mean.half()
    small = moments.mean.numel() == moments.channels or not torch.isfinite(half).all()  # or too large for fp16
    mean = moments.mean if small else half
    meta = {"space": moments.space, "variance": moments.variance, "count": moments.count, "about": moments.about}
    strings = {"format": FORMAT, "version": str(VERSION), "moments": json.dumps(meta, ensure_ascii=False)}
    write_safetensors({"mean": mean.contiguous()}, path, strings)


def load(path):
    """Read a moments file, or one of the authors'. Raises ValueError, with the file's name, for anything else."""
    from . import authors_files  # which builds Moments

    path = Path(path)
    if path.suffix in AUTHORS_SUFFIXES:
        return authors_files.load(path)
    try:
        with safe_open(path, framework="pt") as file:
            strings, names = file.metadata() or {}, list(file.keys())
            mean = file.get_tensor("mean").float() if "mean" in names else None
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path.name} cannot be read as a moments file: {error}") from None
    if authors_files.looks_like(names):
        return authors_files.load(path)
    if strings.get("format") != FORMAT or mean is None:
        raise ValueError(f"{path.name} is not a moments file: it holds {', '.join(names[:4]) or 'nothing'}, and no format '{FORMAT}' in its metadata")
    if strings.get("version") != str(VERSION):
        raise ValueError(f"{path.name} has format version {strings.get('version')}, but this pack reads version {VERSION}: update the pack")
    try:
        meta = json.loads(strings["moments"])
        return Moments(mean, float(meta["variance"]), str(meta["space"]), int(meta["count"]), dict(meta["about"]))
    except (KeyError, TypeError, OverflowError, RecursionError, json.JSONDecodeError) as error:
        raise ValueError(f"the metadata of {path.name} are damaged ({error})") from None
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None


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


def _padded_ends(still: torch.Tensor, least: float) -> tuple[int, int]:
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
        padding = picture[:, :width]
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
    inside = moments.mean[:, :, top : height - bottom, left : width - right]
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


def resample(mean, frames, height, width):
    """Stretch a mean to [C, frames, height, width]: linear in time, area-true in space."""
    if mean.shape[2:] != (height, width):
        mean = F.interpolate(mean.movedim(1, 0), size=(height, width), mode="bilinear", antialias=True).movedim(0, 1)
    if mean.shape[1] not in (1, frames):
        flat = mean.flatten(2).movedim(1, 2)  # [C, hw, T]
        mean = F.interpolate(flat, size=frames, mode="linear", align_corners=True).movedim(2, 1).unflatten(2, (height, width))
    return mean.expand(-1, frames, -1, -1)


def check_space(moments, space):
    """Raise ValueError unless the moments are of this latent space."""
    if moments.space != space:
        raise ValueError(
            f"these moments belong to the latent space '{moments.space}' but the model works in '{space}': "
            f"load moments of '{space}', or leave the moments unconnected for the model's own"
        )


def fit(moments, shape, space=None):
    """E[X_0] for a latent of `shape`, in its layout.

    shape: [frames, C, h, w], or [batch, C, frames, h, w].
    space: the latent space of the model, where it is known; another one is refused.
    -> float32 tensor of `shape`.
    """
    if space is not None:
        check_space(moments, space)
    if len(shape) not in (4, 5):
        raise ValueError(f"a latent is [frames, channels, height, width] or [batch, channels, frames, height, width], but {tuple(shape)} came")
    if moments.channels != shape[1]:
        raise ValueError(
            f"these moments have {moments.channels} channels ('{moments.space}') but the latent has {shape[1]}: "
            f"load moments that were made with this model's VAE, or leave the moments unconnected for the model's own"
        )
    if len(shape) == 4:
        return resample(moments.mean, shape[0], *shape[2:]).movedim(1, 0).contiguous()
    return resample(moments.mean, *shape[2:])[None].expand(shape).contiguous()
