"""Clips out of video files, the way the paper takes them: n frames at a given rate, resized and cropped."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F

from .files import displayed, text_of
from .randomness import chance_of
from .sources import SUFFIXES, find, inside, regular

__all__ = ["SUFFIXES", "ClipSpec", "Draw", "Unreadable", "caption", "captions", "digest", "find", "listing", "read", "stamp", "unquoted"]
LARGEST = 1 << 27  # pixels of a frame
EXTREME = 8  # sides of a frame that are longer than this, in those of the clip, are cropped before it is resized
# what a file may be and open: its own demuxer alone, so no playlist that leads to other files or to the net
FORMATS = "mov,mp4,matroska,webm,avi,mpeg,mpegvideo,mpegts,h264,hevc,m4v,ogg,asf,flv,gif"
CLOSED = {"format_whitelist": FORMATS, "protocol_whitelist": "none"}


@dataclass(frozen=True)
class ClipSpec:
    """What a clip is: frames, frames a second, size in pixels, seed of the random starts, random flips.

    Defaults: the paper's (App. D).
    """

    frames: int = 16
    fps: float = 3.0
    height: int = 320
    width: int = 512
    seed: int = 0
    flip: bool = False

    def __post_init__(self):
        if self.frames < 1 or self.fps <= 0 or self.height < 8 or self.width < 8:
            raise ValueError(f"a clip needs at least one frame, a rate above 0 and 8 x 8 pixels, but {self} was given")


class Unreadable(Exception):
    """A file that gives no clip, and why."""


class Draw(NamedTuple):
    """The n-th clip to take from a file."""

    path: Path
    n: int

    def __str__(self):
        return displayed(self.path)


def unquoted(typed: str) -> str:
    """A path as it was typed or pasted: without the quotes that file managers put around it."""
    typed = typed.strip()
    return typed[1:-1].strip() if len(typed) > 1 and typed[0] == typed[-1] and typed[0] in "\"'" else typed


def caption(path: Path, roots: Iterable[Path] | None = None) -> str | None:
    """The text beside a video, in a .txt file of its name, or None where there is none. roots: as in `find`. Raises ValueError with its name."""
    file = Path(path).with_suffix(".txt")
    if roots is not None and not inside(file, roots):
        raise ValueError(f"{displayed(file)} is a link that leads outside the folders from which a graph may read clips")
    return text_of(file).strip() if regular(file) else None


def captions(paths: Iterable[Path], roots: Iterable[Path] | None = None) -> dict[Path, str | None]:
    """The captions of all videos. Raises ValueError that names the files that cannot be read."""
    found, bad = {}, []
    for path in paths:
        try:
            found[path] = caption(path, roots)
        except ValueError as error:
            bad.append(str(error))
    if bad:
        raise ValueError(f"{len(bad)} captions cannot be read: {'; '.join(bad[:3])}")
    return found


def stamp(path: Path) -> str | None:
    """A short name for what is in a file now: its size and time. None where there is no file."""
    try:
        about = Path(path).stat()
    except (OSError, ValueError):
        return None
    return f"{about.st_size}-{about.st_mtime_ns}"


def digest(texts: Iterable[str]) -> str:
    """A short name for a list of texts, in their order."""
    return hashlib.sha256("\n".join(texts).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def listing(source: str | Path, roots: Iterable[Path] | None = None, check: Callable[[], object] = lambda: None) -> str | None:
    """A short name for all files of a source and what is in them now; None where there are none. roots, check: as in `find`; a ValueError ends it with None."""
    try:
        return digest(f"{path} {stamp(path)} {stamp(path.with_suffix('.txt'))}" for path in find(source, roots, check))
    except (OSError, ValueError):
        return None


def _av():
    try:
        import av
    except ImportError:
        raise ImportError("reading videos needs PyAV, which ComfyUI brings: run 'pip install av' in its Python") from None
    return av


def read(path: Path, spec: ClipSpec, draw: int, check: Callable[[], object] = lambda: None) -> torch.Tensor:
    """One clip of a file -> uint8 [frames, height, width, 3]. Raises Unreadable with the reason.

    draw: which random start of this file; the start depends on (spec.seed, draw, the file's name) only.
    check() is called before each frame that is decoded; whatever it raises ends the reading.
    In memory there are the clip in its size and two of the file's frames, however large they are.
    """
    av = _av()
    chance = chance_of(path, spec.seed, draw)
    if not regular(path):
        raise Unreadable("is no regular file")
    try:
        with open(path, "rb") as file, av.open(file, container_options=CLOSED) as container:
            if not container.streams.video:
                raise Unreadable("has no pictures in it")
            frames = _frames_at(container, spec, chance, check)
    except Unreadable:
        raise
    except av.error.ArgumentError:
        raise Unreadable("is of a kind that is not read (a playlist, for example, which would lead to other files)") from None
    except (av.error.FFmpegError, OSError, ValueError, RuntimeError, MemoryError) as error:
        raise Unreadable(f"cannot be decoded ({getattr(error, 'strerror', None) or str(error) or type(error).__name__})") from None
    clip = torch.stack(frames)  # [T, H, W, 3]
    return clip.flip(2) if spec.flip and chance.random() < 0.5 else clip


def _frames_at(container, spec, chance, check):
    """The frames nearest to evenly spaced times after a random start, upright and in the clip's size: uint8 [H, W, 3] each."""
    stream = container.streams.video[0]
    if stream.width * stream.height > LARGEST:
        raise Unreadable(f"has frames of {stream.width} x {stream.height} pixels, more than is read")
    stream.thread_type = "AUTO"
    length, shown = _length(container, stream), _frame_time(stream)
    need = (spec.frames - 1) / spec.fps
    if length is not None and length - shown / 2 < need:
        raise Unreadable(f"is {length:.2f} s long, but {spec.frames} frames at {spec.fps:g} fps need {need:.2f} s")
    origin = float((stream.start_time or 0) * stream.time_base)
    start = chance.uniform(0, max(0.0, (length or 0) - shown - need))
    wanted = [origin + start + i / spec.fps for i in range(spec.frames)]
    if start > 0:
        container.seek(int(wanted[0] / stream.time_base), stream=stream)
    picked, before = [], None
    for frame in container.decode(stream):
        check()
        if frame.time is None:
            continue
        if before is not None:
            nearest = _nearest(before.time, frame.time, wanted[len(picked) :])
            for later, times in ((False, nearest.count(False)), (True, nearest.count(True))):
                if times:
                    picked += times * [_upright(frame if later else before, spec)]
        before = frame
        if len(picked) == len(wanted):
            break
    if before is None:
        raise Unreadable("holds no picture that can be decoded")
    # the last frame stays on the screen for one frame's time
    left = sum(time <= before.time + shown for time in wanted[len(picked) :])
    if left:
        picked += left * [_upright(before, spec)]
    if len(picked) < len(wanted):
        raise Unreadable(f"ends after {before.time - origin + shown:.2f} s, but {spec.frames} frames at {spec.fps:g} fps need {need:.2f} s")
    return picked


def _nearest(before, after, wanted):
    """Of the times wanted before `after`: whether each is nearer to it than to `before`. They rise, so False comes first."""
    return [after - time < time - before for time in wanted if after > time]


def _upright(frame, spec):
    """A decoded frame as it is shown, in the clip's size: uint8 [H, W, 3]. Phones film sideways and say so in the file."""
    picture = torch.from_numpy(frame.to_ndarray(format="rgb24"))  # [H, W, 3]
    quarters = round(getattr(frame, "rotation", 0) / 90) % 4  # counter-clockwise
    return _cover(torch.rot90(picture, quarters) if quarters else picture, spec.height, spec.width)


def _length(container, stream):
    """Seconds, or None where the file does not say."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration else None


def _frame_time(stream):
    """Seconds for which a frame is shown."""
    return 1 / float(stream.average_rate) if stream.average_rate else 0.1


def _cover(frame, height, width):
    """Resize so that the size is covered, then crop its middle: uint8 [H, W, 3] -> [height, width, 3]."""
    scale = max(height / frame.shape[0], width / frame.shape[1])
    keep = [min(size, round(EXTREME * wanted / scale)) for size, wanted in zip(frame.shape, (height, width))]
    top, left = (frame.shape[0] - keep[0]) // 2, (frame.shape[1] - keep[1]) // 2  # 0, but of strips, which would become huge
    picture = frame[top : top + keep[0], left : left + keep[1]].movedim(-1, 0)[None].float()  # [1, 3, H, W]
    return covering(picture, height, width)[0].movedim(0, -1).round().clamp(0, 255).byte()  # [height, width, 3]


def covering(pictures: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Pictures [n, 3, H, W] resized so that they cover the size, then cropped to its middle: [n, 3, height, width]."""
    scale = max(height / pictures.shape[2], width / pictures.shape[3])
    size = [max(side, round(old * scale)) for side, old in zip((height, width), pictures.shape[2:])]
    pictures = F.interpolate(pictures, size, mode="bilinear", antialias=True)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return pictures[:, :, top : top + height, left : left + width]
