"""Clips out of video files, the way the paper takes them: n frames at a given rate, resized and cropped."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F

SUFFIXES = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".m4v", ".ogv", ".wmv", ".flv", ".gif"}


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
        return self.path.name


def find(source):
    """Video files of a folder (and below), or of a text file that lists one path a line -> sorted paths."""
    source = Path(source)
    if source.is_dir():
        found = [p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()]
        # by their name below the folder, so that the same data in another place give the same clips
        return sorted(found, key=lambda p: p.relative_to(source).as_posix())
    if source.is_file():
        lines = source.read_text(encoding="utf-8").splitlines()
        return [source.parent / line.strip() for line in lines if line.strip()]
    raise ValueError(f"there is no folder or list of videos at {source}")


def caption(path):
    """The text beside a video, in a .txt file of its name, or None where there is none."""
    file = Path(path).with_suffix(".txt")
    return file.read_text(encoding="utf-8").strip() if file.is_file() else None


def _av():
    try:
        import av
    except ImportError:
        raise ImportError("reading videos needs PyAV, which ComfyUI brings: run 'pip install av' in its Python") from None
    return av


def read(path, spec, draw):
    """One clip of a file -> uint8 [frames, height, width, 3]. Raises Unreadable with the reason.

    draw: which random start of this file; the start depends on (spec.seed, draw, the file's name) only.
    """
    av = _av()
    chance = random.Random(f"{spec.seed} {draw} {Path(path).name}")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise Unreadable("has no pictures in it")
            times, frames = _frames_at(container, spec, chance)
    except Unreadable:
        raise
    except (av.error.FFmpegError, OSError, ValueError, RuntimeError, MemoryError) as error:
        raise Unreadable(f"cannot be decoded ({str(error) or type(error).__name__})") from None
    clip = torch.stack([_cover(f, spec.height, spec.width) for f in frames])
    return clip.flip(2) if spec.flip and chance.random() < 0.5 else clip


def _frames_at(container, spec, chance):
    """The frames nearest to evenly spaced times after a random start."""
    stream = container.streams.video[0]
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
        if frame.time is None:
            continue
        while len(picked) < len(wanted) and before is not None and frame.time > wanted[len(picked)]:
            after_is_nearer = frame.time - wanted[len(picked)] < wanted[len(picked)] - before.time
            picked.append((frame if after_is_nearer else before).to_ndarray(format="rgb24"))
        before = frame
        if len(picked) == len(wanted):
            break
    if before is None:
        raise Unreadable("holds no picture that can be decoded")
    # the last frame stays on the screen for one frame's time
    while len(picked) < len(wanted) and wanted[len(picked)] <= before.time + shown:
        picked.append(before.to_ndarray(format="rgb24"))
    if len(picked) < len(wanted):
        raise Unreadable(f"ends after {before.time - origin + shown:.2f} s, but {spec.frames} frames at {spec.fps:g} fps need {need:.2f} s")
    return wanted, picked


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
    picture = torch.from_numpy(frame).movedim(-1, 0)[None].float()
    scale = max(height / picture.shape[2], width / picture.shape[3])
    size = [max(height, round(picture.shape[2] * scale)), max(width, round(picture.shape[3] * scale))]
    picture = F.interpolate(picture, size, mode="bilinear", antialias=True)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return picture[0, :, top : top + height, left : left + width].movedim(0, -1).round().clamp(0, 255).byte()
