"""Motion scores of a clip (App. B), and what of it is the camera's.

A clip is looked at frame by frame, so that no copy of it is made.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F

from .flow import opencv

SVD_SIZE = (450, 800)  # height, width to which SVD's motion score resizes every frame
PIA_RANGE = (0.2, 1.0)  # m_min, m_max of PIA's score


def check_frames(frames: torch.Tensor) -> None:
    """Raise ValueError unless `frames` is a clip: [t >= 2, H, W, 3] of numbers."""
    if frames.ndim != 4 or frames.shape[-1] < 3:
        raise ValueError(f"a clip is [frames, height, width, 3], but {tuple(frames.shape)} came")
    if len(frames) < 2:
        raise ValueError("motion is measured between frames, but only one frame came: connect all the frames of the clip")
    if not all(torch.isfinite(frame).all() for frame in frames):
        raise ValueError("the clip has pixels that are not numbers (NaN); the picture broke before it came here")


def flows(frames: torch.Tensor, flow: Callable, size: tuple[int, int] = SVD_SIZE) -> Iterator[torch.Tensor]:
    """Optical flow of each pair of neighbours, at `size`: yields [h, w, 2] pixels.

    frames [t, H, W, 3] in [0, 1]; flow: a backend of flow.py.
    """
    check_frames(frames)
    before = None
    for frame in frames:
        picture = frame[..., :3].float().cpu().movedim(-1, 0)[None]  # [1, 3, H, W]
        after = F.interpolate(picture, size, mode="bilinear", antialias=True)[0].movedim(0, -1).contiguous()  # [h, w, 3]
        if before is not None:
            yield flow(before, after)
        before = after


def motion_per_pair(frames: torch.Tensor, flow: Callable) -> torch.Tensor:
    """Mean flow magnitude between neighbours, at SVD's size: [t - 1] pixels."""
    return torch.stack([f.norm(dim=-1).mean() for f in flows(frames, flow)])


def motion_score(frames: torch.Tensor, flow: Callable) -> float:
    """SVD's motion score: the sum of `motion_per_pair`."""
    return float(motion_per_pair(frames, flow).sum())


def global_flow(field: torch.Tensor) -> torch.Tensor:
    """The camera's part of a flow [h, w, 2]: the affine field that most of the picture follows, [h, w, 2].

    OpenCV's RANSAC; zero where no affine field fits.
    """
    cv2 = opencv("the split into camera and subject")
    h, w = field.shape[:2]
    y, x = np.mgrid[4:h:8, 4:w:8].astype(np.float32)
    points = np.stack([x, y], -1).reshape(-1, 2)  # [n, 2], every eighth pixel
    moved = points + field[4::8, 4::8].reshape(-1, 2).numpy()
    cv2.setRNGSeed(0)  # the same clip, the same split
    affine, _ = cv2.estimateAffine2D(points, moved, method=cv2.RANSAC, ransacReprojThreshold=1.0)
    if affine is None:
        return torch.zeros_like(field)
    grid = torch.stack(torch.meshgrid(torch.arange(w), torch.arange(h), indexing="xy"), -1).to(field)  # [h, w, 2]
    affine = torch.from_numpy(affine).to(field)  # [2, 3]
    return grid @ affine[:, :2].T + affine[:, 2] - grid


def split_motion(field: torch.Tensor) -> tuple[float, float]:
    """-> (camera, subject): mean magnitude of the global field and of what is left of the flow, pixels."""
    camera = global_flow(field)
    return float(camera.norm(dim=-1).mean()), float((field - camera).norm(dim=-1).mean())


def hsv(frames: torch.Tensor) -> torch.Tensor:
    """RGB in [0, 1] -> hue, saturation, value in [0, 1], in the last dimension."""
    value, at = frames.max(-1)  # [..., h, w] each
    chroma = value - frames.min(-1).values
    r, g, b = frames.unbind(-1)
    safe = chroma.clamp(min=1e-12)
    hue = torch.where(at == 0, ((g - b) / safe) % 6, torch.where(at == 1, (b - r) / safe + 2, (r - g) / safe + 4)) / 6
    return torch.stack([torch.where(chroma > 0, hue, 0), torch.where(value > 0, chroma / value.clamp(min=1e-12), 0), value], -1)


def pia_motion(frames: torch.Tensor, d_max: float = 1.0) -> torch.Tensor:
    """PIA's motion score of each frame: d_i / d_max (m_max - m_min), d_i the mean L1 distance to the first frame in HSV.

    d_max: the largest distance in the data set; 1 without one. -> [t], 0 for the first frame.
    """
    check_frames(frames)
    if d_max <= 0:
        raise ValueError(f"d_max, the data set's largest distance, must be above 0, but it is {d_max}")
    first = hsv(frames[0, ..., :3].float())  # [H, W, 3]
    distance = torch.stack([(hsv(frame[..., :3].float()) - first).abs().mean() for frame in frames])  # [t]
    low, high = PIA_RANGE
    return (distance / d_max).clamp(max=1) * (high - low)
