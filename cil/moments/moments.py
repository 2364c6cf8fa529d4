"""Moments of a data set's latents, E[X_0] and tr(Cov(X_0))/d, and their fitting to a clip's size."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

SPACE = r"\w[\w.+ -]{0,63}"  # a name that can be shown


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
        if not self.mean.numel():
            raise ValueError(f"the mean of these moments is empty: {' x '.join(map(str, self.mean.shape))}")
        if not torch.isfinite(self.mean).all():
            raise ValueError("the mean of these moments has values that are not numbers")
        if not 0 < self.variance < float("inf"):
            raise ValueError(f"the variance of moments, tr(Cov)/d, must be above 0, but it is {self.variance}")

    @property
    def channels(self) -> int:
        return self.mean.shape[0]

    def __str__(self) -> str:
        frames, height, width = self.mean.shape[1:]
        detail = "one value a channel" if frames * height * width == 1 else f"{frames} x {height} x {width}"
        per_channel = ", ".join(f"{m:.3f}" for m in self.mean.mean((1, 2, 3)))
        return f"space {self.space}, {self.channels} channels, {detail}, channel means {per_channel}, tr(Cov)/d {self.variance:.4f}, from {self.count or 'an unknown number of'} clips"


def resample(mean: torch.Tensor, frames: int, height: int, width: int) -> torch.Tensor:
    """Stretch a mean to [C, frames, height, width]: linear in time, area-true in space."""
    if mean.shape[2:] != (height, width):
        mean = F.interpolate(mean.movedim(1, 0), size=(height, width), mode="bilinear", antialias=True).movedim(0, 1)  # [C, T, height, width]
    if mean.shape[1] not in (1, frames):
        flat = mean.flatten(2).movedim(1, 2)  # [C, hw, T]
        mean = F.interpolate(flat, size=frames, mode="linear", align_corners=True).movedim(2, 1).unflatten(2, (height, width))
    return mean.expand(-1, frames, -1, -1)


def check_space(moments: Moments, space: str) -> None:
    """Raise ValueError unless the moments are of this latent space."""
    if moments.space != space:
        raise ValueError(
            f"these moments belong to the latent space '{moments.space}' but the model works in '{space}': "
            f"load moments of '{space}', or leave the moments unconnected for the model's own"
        )


def fit(moments: Moments, shape: Sequence[int], space: str | None = None) -> torch.Tensor:
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
