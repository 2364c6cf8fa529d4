"""What of a clip a probe compares: linear projections that depend on its first frame alone."""

import math

import torch
import torch.nn.functional as F

WHOLE, MOTIONS = "whole", "motions"
BANDS = ("slow", "middle", "fast")  # of the temporal frequencies: the first quarter, the second, the upper half
GRID = 4  # the smooth phi_k have so many nodes a side


def smooth_cells(height: int, width: int) -> torch.Tensor:
    """phi_k: hat functions on a coarse grid, their sum 1 everywhere -> [GRID^2, height, width]."""
    corners = torch.eye(GRID * GRID, dtype=torch.float64).view(-1, 1, GRID, GRID)
    return F.interpolate(corners, (height, width), mode="bilinear", align_corners=True)[:, 0]


def motions_of(picture: torch.Tensor, frames: int) -> tuple[torch.Tensor, torch.Tensor] | None:
    """What small displacements do to a picture, to first order: (d_x y) phi_k tau_m and (d_y y) phi_k tau_m, tau in {t, t^2}.

    picture [C, h, w] -> orthonormal (in space [m, C h w], in time [2, frames]), whose products
    span them; None for a picture without any detail. A change of a channel's brightness is
    orthogonal to all of them.
    """
    if min(picture.shape[1:]) < 2 or frames < 2:
        return None
    picture = picture.to("cpu", torch.float64)
    slopes = torch.stack(torch.gradient(picture, dim=(1, 2)))  # [2, C, h, w]
    fields = slopes[:, None] * smooth_cells(*picture.shape[1:])[None, :, None]  # [2, k, C, h, w]
    fields = fields - fields.mean((3, 4), keepdim=True)
    fields = fields.flatten(2).flatten(0, 1)  # [2 k, C h w]
    values, vectors = torch.linalg.eigh(fields @ fields.T)
    kept = values > 1e-6 * values[-1].clamp(min=1e-12)
    if not kept.any():
        return None
    space = (vectors[:, kept] / values[kept].sqrt()).T @ fields
    t = torch.linspace(0, 1, frames, dtype=torch.float64)
    time = torch.linalg.qr(torch.stack([t, t * t], 1))[0].T[: frames - 1]
    return space, time


def cosines(frames: int) -> torch.Tensor:
    """The orthonormal DCT-II over frames: [frequencies, frames]."""
    k, t = torch.arange(frames, dtype=torch.float64)[:, None], torch.arange(frames, dtype=torch.float64)
    rows = torch.cos(math.pi * k * (t + 0.5) / frames) * math.sqrt(2 / frames)
    rows[0] /= math.sqrt(2)
    return rows


class Views:
    """What of a clip is compared: all of it, the motions of its picture, and bands of temporal frequency.

    still [C, T, h, w]: the clip's first frame in all frames.
    """

    def __init__(self, still: torch.Tensor):
        frames = still.shape[1]
        self.motions = motions_of(still[:, 0], frames)
        self.cosines = cosines(frames)
        self.ends = [math.ceil(frames / 4), math.ceil(frames / 2), frames]

    def __call__(self, clip: torch.Tensor) -> dict[str, torch.Tensor]:
        """A clip's departure from the still [C, T, h, w] -> {view: its coefficients, a vector}. In float64, on the CPU."""
        flat = clip.to("cpu", torch.float64).movedim(1, 0).flatten(1)  # [T, C h w]
        spectrum = self.cosines @ flat
        begins = [0, *self.ends[:-1]]
        out = {name: spectrum[a:b].flatten() for name, a, b in zip(BANDS, begins, self.ends) if b > a}
        out[WHOLE] = flat.flatten()
        if self.motions is not None:
            space, time = self.motions
            out[MOTIONS] = (time @ flat @ space.T).flatten()
        return out
