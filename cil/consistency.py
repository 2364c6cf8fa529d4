"""Motion that flicker cannot fake, and flicker and likeness beside it.

Optical flow alone rewards flicker: it finds some displacement between any two pictures. Here a
pixel's motion counts only where three things agree (all fields at motion.SVD_SIZE):

1. forward and backward flow cancel (Sundaram et al. 2010);
2. two steps chained are the flow over both frames at once: flicker is drawn anew in each frame;
3. moving explains the change: it leaves clearly less of it than standing still does.

Elsewhere the picture is taken to stand still. What leaves the frame is not counted either way.
`measured` is all of it at once. Needs OpenCV.
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from .flow import opencv
from .motion import SVD_SIZE, check_frames

SLACK = (0.25, 0.25)  # of an agreement: a share of the motion's length, and pixels
WINDOW, SURROUND = 15, 41  # pixels on a side: over which two pictures are compared, and whose mean brightness does not count
EXPLAINED = 0.9  # motion must leave at most this share of the change,
INVISIBLE = 0.01  # unless there is less of it than this, in units of the picture: a motion there shows elsewhere only
GRAIN = 3  # pixels on a side that are averaged before anything is compared: film grain and pixel noise
CAMERA_SLACK = 0.15  # of the camera's motion: what differs from it by less moves with it
STARTS_MOVING = 0.2  # of the clip's usual motion: below that a pair of frames stands still
STILL = 0.05  # pixels a frame at SVD_SIZE: less is what strong flicker leaves, and no clip's motion


@dataclass(frozen=True)
class Pair:
    """One pair of neighbours. field: the motion that counts, [h, w, 2] pixels, 0 where the picture stands. seen: where it can be judged, bool [h, w]. residual: what the motion does not explain, [h, w] in units of the picture."""

    field: torch.Tensor
    seen: torch.Tensor
    residual: torch.Tensor

    def speed(self) -> float:
        """Mean length of the motion where it can be judged, pixels."""
        return float(self.field.norm(dim=-1)[self.seen].mean()) if self.seen.any() else 0.0

    def flicker(self) -> float:
        """Mean absolute change that no motion explains, where it can be judged."""
        return float(self.residual[self.seen].mean()) if self.seen.any() else 0.0

    def split(self) -> tuple[float, float]:
        """-> (camera, subject): mean lengths of the camera's motion and of what moves otherwise than it, pixels.

        A thing that stands in the picture while the camera moves is a subject too.
        """
        if not self.seen.any():
            return 0.0, 0.0
        of_camera = camera(self)
        apart = (self.field - of_camera).norm(dim=-1)
        apart = torch.where(apart <= CAMERA_SLACK * of_camera.norm(dim=-1), 0, apart)
        return float(of_camera.norm(dim=-1)[self.seen].mean()), float(apart[self.seen].mean())


@dataclass(frozen=True)
class Measures:
    """A clip's figures. Lists have an entry a pair of neighbours: motion, camera and subject in pixels at SVD_SIZE, flicker in units of the picture."""

    motion: list[float]
    camera: list[float]
    subject: list[float]
    flicker: list[float]
    likeness: float

    @property
    def first_moving(self) -> int:
        return first_moving(self.motion)


def grid(field: torch.Tensor) -> torch.Tensor:
    """The pixel coordinates (x, y) that a field [h, w, 2] starts from."""
    h, w = field.shape[:2]
    return torch.stack(torch.meshgrid(torch.arange(w), torch.arange(h), indexing="xy"), -1).to(field)


def inside(field: torch.Tensor) -> torch.Tensor:
    """Where a pixel's motion ends within the frame: bool [h, w]."""
    h, w = field.shape[:2]
    x, y = (grid(field) + field).unbind(-1)
    return (x >= 0) & (x <= w - 1) & (y >= 0) & (y <= h - 1)


def carried(values: torch.Tensor, field: torch.Tensor) -> torch.Tensor:
    """values [h, w, c] read where each pixel's motion ends: [h, w, c]. Applied to the next frame it brings it back onto this one."""
    h, w = field.shape[:2]
    at = 2 * (grid(field) + field) / torch.tensor([w - 1, h - 1]).to(field) - 1
    return F.grid_sample(values.movedim(-1, 0)[None], at[None], align_corners=True, padding_mode="border")[0].movedim(0, -1)


def agree(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Where two fields are the same motion, up to SLACK: bool [h, w]."""
    share, pixels = SLACK
    return (a - b).norm(dim=-1) <= share * torch.maximum(a.norm(dim=-1), b.norm(dim=-1)) + pixels


def mean_around(picture: torch.Tensor, size: int) -> torch.Tensor:
    """Box mean over `size` pixels of [h, w, c]; at the border over those that there are."""
    cv2 = opencv("the measure of consistent motion")
    total = lambda array: cv2.boxFilter(array, -1, (size, size), normalize=False, borderType=cv2.BORDER_CONSTANT)
    sums = total(picture.numpy()).reshape(picture.shape)  # OpenCV drops a last dimension of 1
    return torch.from_numpy(sums / total(np.ones(picture.shape[:2], np.float32))[..., None])


def difference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of two pictures around each pixel, changes of brightness aside: [h, w]."""
    apart = a - b
    return mean_around((apart - mean_around(apart, SURROUND)).abs().mean(-1, keepdim=True), WINDOW)[..., 0]


def sized(frame: torch.Tensor, size: tuple[int, int] = SVD_SIZE) -> torch.Tensor:
    """A frame [H, W, 3] at the size at which motion is measured."""
    picture = F.interpolate(frame[None, ..., :3].float().cpu().movedim(-1, 1), size, mode="bilinear", antialias=True)
    return picture[0].movedim(0, -1).contiguous()


def judged(a: torch.Tensor, b: torch.Tensor, forward: torch.Tensor, backward: torch.Tensor, chained: torch.Tensor, direct: torch.Tensor) -> Pair:
    """One pair of frames a, b -> Pair. forward, backward: a -> b and b -> a. chained, direct: the motion over this and another frame, in two steps and at once."""
    moved, smooth = carried(b, forward), [mean_around(frame, GRAIN) for frame in (a, b)]
    real = agree(forward, -carried(backward, forward)) & agree(chained, direct)
    still, explained = difference(*smooth), difference(smooth[0], carried(smooth[1], forward))
    counts = real & inside(forward) & (explained <= torch.where(still > INVISIBLE, EXPLAINED * still, still))
    field = torch.where(counts[..., None], forward, 0)
    residual = torch.where(counts[..., None], a - moved, a - b).abs().mean(-1)
    return Pair(field, inside(forward), residual)


def pairs(frames: torch.Tensor, flow: Callable, size: tuple[int, int] = SVD_SIZE) -> Iterator[Pair]:
    """The Pairs of neighbours of a clip [t, H, W, 3] in [0, 1]: yields t - 1 of them. flow: a backend of flow.py.

    The third frame is the one after; for the last pair the one before. A clip of two frames has none,
    so there only forward and backward flow are compared.
    """
    check_frames(frames)
    resized = functools.lru_cache(4)(lambda i: sized(frames[i], size))  # frame by frame: no copy of the clip is made
    smooth = functools.lru_cache(4)(lambda i: mean_around(resized(i), GRAIN))
    between = lambda i, j: flow(smooth(i), smooth(j))
    ahead = between(0, 1)
    for i in range(len(frames) - 1):
        forward, backward = ahead, between(i + 1, i)
        if i + 2 < len(frames):
            ahead = between(i + 1, i + 2)
            chained, direct = forward + carried(ahead, forward), between(i, i + 2)
        elif i:
            chained, direct = backward + carried(between(i, i - 1), backward), between(i + 1, i - 1)
            chained, direct = carried(chained, forward), carried(direct, forward)  # from the later frame's pixels onto the earlier's
        else:
            chained, direct = forward, forward
        yield judged(resized(i), resized(i + 1), forward, backward, chained, direct)


def camera(pair: Pair) -> torch.Tensor:
    """The camera's part of a Pair's motion, [h, w, 2]: the affine field that the border of the picture follows.

    The border (a sixth of each side) rather than all of it, so that a subject of more than half the frame
    is not taken for the camera; one that fills the border too still is. Zero where no affine field fits.
    """
    cv2 = opencv("the split into camera and subject")
    h, w = pair.field.shape[:2]
    border = pair.seen.clone()
    border[h // 6 : h - h // 6, w // 6 : w - w // 6] = False
    at = border[4::8, 4::8].numpy()
    start, moved = grid(pair.field)[4::8, 4::8].numpy()[at], (grid(pair.field) + pair.field)[4::8, 4::8].numpy()[at]
    cv2.setRNGSeed(0)  # the same clip, the same split
    affine = cv2.estimateAffine2D(start.astype(np.float32), moved.astype(np.float32), method=cv2.RANSAC, ransacReprojThreshold=1.0)[0] if at.sum() > 8 else None
    if affine is None:
        return torch.zeros_like(pair.field)
    affine = torch.from_numpy(affine).to(pair.field)
    return grid(pair.field) @ affine[:, :2].T + affine[:, 2] - grid(pair.field)


def likeness(frames: torch.Tensor, image: torch.Tensor, flow: Callable, size: tuple[int, int] = SVD_SIZE, at_most: int = 8) -> float:
    """1 - the mean absolute difference to the picture of what motion does not explain: 1 = every frame is the picture, moved.

    image: [1, H, W, 3]. Of at most `at_most` frames, evenly from first to last.
    """
    check_frames(frames)
    image = sized(image[0], size)
    chosen = torch.linspace(0, len(frames) - 1, min(at_most, len(frames))).round().long()
    left = []
    for frame in (sized(frames[i], size) for i in chosen):
        forward, backward = flow(image, frame), flow(frame, image)
        real = agree(forward, -carried(backward, forward)) & inside(forward)
        left.append(torch.where(real[..., None], image - carried(frame, forward), image - frame).abs().mean())
    return 1 - float(torch.stack(left).mean())


def measured(
    frames: torch.Tensor, flow: Callable, image: torch.Tensor | None = None, size: tuple[int, int] = SVD_SIZE, between: Callable = lambda: None
) -> Measures:
    """A clip [t, H, W, 3] in [0, 1] -> Measures. image [1, H, W, 3]: the picture for the likeness; None: its first frame. between: called after every pair."""
    found = []
    for pair in pairs(frames, flow, size):
        found.append((pair.speed(), *pair.split(), pair.flicker()))
        between()
    motion, cameras, subjects, flicker = (list(column) for column in zip(*found))
    return Measures(motion, cameras, subjects, flicker, likeness(frames, frames[:1] if image is None else image, flow, size))


def first_moving(speeds: list[float]) -> int:
    """How many pairs pass before the clip moves: the first whose motion is at least a fifth of the upper quartile's; all of them for a still clip (upper quartile below STILL)."""
    usual = float(np.quantile(speeds, 0.75))
    return next((i for i, speed in enumerate(speeds) if usual > STILL and speed >= STARTS_MOVING * usual), len(speeds))


def dynamic_degree(frames: torch.Tensor, fps: float, flow: Callable) -> tuple[bool, list[float], float, int]:
    """VBench's dynamic degree -> (dynamic or not, the pairs' scores, the limit, the pairs that must exceed it).

    Every round(fps / 8)-th frame at its own size; a pair scores the mean of its largest 5 % of flow
    magnitudes; dynamic if at least round(4 n / 16) pairs of the n frames exceed 6 min(H, W) / 256.
    VBench's flow is RAFT large with 20 updates; it counts camera and flicker too.
    """
    check_frames(frames)
    if not fps > 0:
        raise ValueError(f"the frame rate must be above 0, but {fps} was given")
    chosen = frames[:: max(1, round(fps / 8)), ..., :3]
    limit, needed = 6 * min(chosen.shape[1:3]) / 256, round(4 * len(chosen) / 16)
    scores = []
    for a, b in itertools.pairwise(chosen):
        lengths = flow(a.float().cpu().contiguous(), b.float().cpu().contiguous()).norm(dim=-1).flatten()
        scores.append(float(lengths.topk(max(1, int(0.05 * len(lengths)))).values.mean()))
    return sum(score > limit for score in scores) >= needed, scores, limit, needed
