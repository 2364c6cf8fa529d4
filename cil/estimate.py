"""The method of moments: E[X_0] and tr(Cov(X_0)) / d from clips, one at a time (Sec. 3.2)."""

import json
import time
from pathlib import Path

import torch

from . import resumable
from .clips import Unreadable
from .moments import Moments, write_safetensors

FORMAT = "cil-moments-partial"


class Accumulator:
    """Running mean and squared deviations of latents, in float64 and constant memory.

    Welford's update for a batch, Chan's for a merge; never E[x^2] - E[x]^2.
    Clips are [C, T, h, w] (or any one shape), all the same.
    """

    def __init__(self):
        self.count, self.mean, self.m2 = 0, None, None

    def add(self, clips):
        """Add a batch of clips: [n, C, T, h, w]."""
        clips = clips.detach().to("cpu", torch.float64)
        part = Accumulator()
        part.count, part.mean = len(clips), clips.mean(0)
        part.m2 = (clips - part.mean).square().sum(0)
        self.merge(part)

    def merge(self, other):
        """Take in another accumulator's clips; the order of merges does not matter."""
        if other.count == 0:
            return
        if self.count == 0:
            self.count, self.mean, self.m2 = other.count, other.mean.clone(), other.m2.clone()
            return
        if self.mean.shape != other.mean.shape:
            raise ValueError(f"clips of {tuple(other.mean.shape)} cannot be averaged with clips of {tuple(self.mean.shape)}")
        total = self.count + other.count
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.count / total)
        m2 = self.m2 + other.m2 + delta.square() * (self.count * other.count / total)
        self.count, self.mean, self.m2 = total, mean, m2  # in one go: an interrupt finds all of it or nothing

    def moments(self, space, about=None):
        """-> Moments. The variance is divided by n - 1, summed over dimensions and divided by d."""
        if self.count < 2:
            raise ValueError(f"moments need at least two clips, but {self.count} came")
        variance = float((self.m2 / (self.count - 1)).mean())
        return Moments(self.mean.float(), variance, space, self.count, about or {})


class Estimate:
    """An estimate on its way: what was averaged and what was skipped, one clip an item of a list.

    settings: a dict that two runs must share to be one; it is kept in the file.
    """

    def __init__(self, settings):
        self.settings, self.accumulator = settings, Accumulator()
        self.skipped = []  # (item, reason) of those that gave no clip
        self.seconds = {"read": 0.0, "encode": 0.0, "rest": 0.0}

    @property
    def done(self):
        """Items tried so far; by construction none is counted twice."""
        return self.accumulator.count + len(self.skipped)

    def save(self, path):
        """Write all of it in float64, atomically."""
        a = self.accumulator
        tensors = {} if a.count == 0 else {"mean": a.mean, "m2": a.m2}
        about = {"count": a.count, "skipped": self.skipped, "settings": self.settings}
        write_safetensors(tensors, path, {"format": FORMAT, "version": "1", "estimate": json.dumps(about)})

    @classmethod
    def load(cls, path):
        """Read what `save` wrote. Raises ValueError for anything else."""
        tensors, strings = resumable.read(path, FORMAT, "a partial estimate of moments", "; finished files cannot be merged, their .partial files can")
        about = json.loads(strings["estimate"])
        estimate = cls(about["settings"])
        estimate.skipped = [tuple(s) for s in about["skipped"]]
        a = estimate.accumulator
        a.count, a.mean, a.m2 = about["count"], tensors.get("mean"), tensors.get("m2")
        return estimate

    @classmethod
    def resume(cls, path, settings):
        """The estimate in `path` if it has these settings, a new one if there is no such file."""
        if not Path(path).exists():
            return cls(settings)
        estimate = cls.load(path)
        resumable.check_settings(Path(path).name, estimate.settings, settings)
        return estimate

    def run(self, items, read, encode, path=None, every=30.0, progress=None):
        """Work through the rest of `items`; stopped at any moment, nothing is counted twice.

        read(item) -> a clip, or raises Unreadable; encode(clip) -> latents [C, T, h, w];
        progress(estimate, total) after each item; state goes to `path` every so many seconds
        and at the end, whatever ends it.
        """
        saved = time.monotonic()
        try:
            for item in items[self.done :]:
                began = time.perf_counter()
                try:
                    clip = read(item)
                except Unreadable as error:
                    self.skipped.append((str(item), str(error)))
                    self._spend("read", began)
                else:
                    began = self._spend("read", began)
                    latents = encode(clip)
                    began = self._spend("encode", began)
                    self.accumulator.add(latents[None])
                    if path and time.monotonic() - saved > every:
                        self.save(path)
                        saved = time.monotonic()
                    self._spend("rest", began)
                if progress:
                    progress(self, len(items))
        finally:
            if path:
                self.save(path)

    def _spend(self, what, began):
        now = time.perf_counter()
        self.seconds[what] += now - began
        return now


def merge(estimates):
    """Estimates of parts of one data set -> one Accumulator; their order does not matter."""
    total = Accumulator()
    for estimate in estimates:
        total.merge(estimate.accumulator)
    return total


def all_reduce(accumulator):
    """Merge over all processes of torch.distributed, in place. Chan's formula in closed form.

    Every process must have met at least one clip, or know the shape from another.
    """
    import torch.distributed as dist

    shapes = [None] * dist.get_world_size()
    dist.all_gather_object(shapes, None if accumulator.mean is None else tuple(accumulator.mean.shape))
    shape = next((s for s in shapes if s is not None), None)
    if shape is None:
        return
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    zero = torch.zeros(shape, dtype=torch.float64)
    n = torch.tensor(float(accumulator.count), dtype=torch.float64, device=device)
    mean = (zero if accumulator.mean is None else accumulator.mean).to(device)
    m2 = (zero if accumulator.m2 is None else accumulator.m2).to(device)
    total, centre = n.clone(), mean * n
    dist.all_reduce(total)
    dist.all_reduce(centre)
    centre /= total
    spread = m2 + n * (mean - centre).square()
    dist.all_reduce(spread)
    accumulator.count, accumulator.mean, accumulator.m2 = int(total), centre.cpu(), spread.cpu()
