"""The method of moments: E[X_0] and tr(Cov(X_0)) / d from clips, one at a time (Sec. 3.2)."""

import hashlib
import itertools
import time
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from . import resumable
from .clips import Unreadable
from .moments import Moments

FORMAT, VERSION = "cil-moments-partial", 2


class Accumulator:
    """Running mean and squared deviations of latents, in float64 and constant memory.

    Welford's update for a batch, Chan's for a merge; never E[x^2] - E[x]^2.
    Clips are [C, T, h, w] (or any one shape), all the same.
    """

    def __init__(self):
        self.count, self.mean, self.m2 = 0, None, None

    def add(self, clips: torch.Tensor) -> None:
        """Add a batch of clips: [n, C, T, h, w]."""
        clips = clips.detach().to("cpu", torch.float64)  # [n, C, T, h, w]
        part = Accumulator()
        part.count, part.mean = len(clips), clips.mean(0)  # [C, T, h, w]
        part.m2 = (clips - part.mean).square().sum(0)
        self.merge(part)

    def merge(self, other: "Accumulator") -> None:
        """Take in another accumulator's clips; the order of merges does not matter."""
        if other.count == 0:
            return
        if self.count == 0:
            self.count, self.mean, self.m2 = other.count, other.mean.clone(), other.m2.clone()
            return
        if self.mean.shape != other.mean.shape:
            raise ValueError(f"clips of {tuple(other.mean.shape)} cannot be averaged with clips of {tuple(self.mean.shape)}")
        total = self.count + other.count
        delta = other.mean - self.mean  # [C, T, h, w]
        mean = self.mean + delta * (other.count / total)
        m2 = self.m2 + other.m2 + delta.square() * (self.count * other.count / total)
        self.count, self.mean, self.m2 = total, mean, m2  # in one go: an interrupt finds all of it or nothing

    def moments(self, space: str, about: dict | None = None) -> Moments:
        """-> Moments. The variance is divided by n - 1, summed over dimensions and divided by d."""
        if self.count < 2:
            raise ValueError(f"moments need at least two clips, but {self.count} came")
        variance = float((self.m2 / (self.count - 1)).mean())
        return Moments(self.mean.float(), variance, space, self.count, about or {})


class Skipped(NamedTuple):
    """An item that gave no clip: its name, the reason, its place in the list, and its file's stamp then.

    Files of version 1 tell neither place nor stamp.
    """

    name: str
    reason: str
    place: int | None = None
    stamp: str | None = None

    def __str__(self):
        return f"{self.name}: it {self.reason}"


class Changed(ValueError):
    """Files are no longer those that were averaged."""


class Estimate:
    """An estimate on its way: what was averaged and what was skipped, one clip an item of a list.

    settings: a dict that two runs must share to be one; it is kept in the file. hashes: of the
    averaged clips' pixels, 8 bytes each, so that none is counted twice where parts are merged.
    seen: a sum over the averaged files' stamps, None in files of version 1.
    """

    def __init__(self, settings: dict):
        self.settings, self.accumulator = settings, Accumulator()
        self.skipped: list[Skipped] = []
        self.hashes = array("q")
        self.seen: int | None = 0
        self.seconds = {"read": 0.0, "encode": 0.0, "rest": 0.0}

    @property
    def done(self) -> int:
        """Items tried so far; by construction none is counted twice."""
        return self.accumulator.count + len(self.skipped)

    @property
    def content(self) -> str:
        """A short name for the set of the averaged clips, whatever their order."""
        return content(self.hashes)

    def save(self, path: Path) -> None:
        """Write all of it in float64, atomically."""
        a = self.accumulator
        tensors = {} if a.count == 0 else {"mean": a.mean, "m2": a.m2}
        about = {"count": a.count, "skipped": self.skipped, "settings": self.settings, "seen": self.seen}
        resumable.write(tensors | {"hashes": torch.tensor(self.hashes, dtype=torch.int64)}, path, FORMAT, VERSION, about)

    @classmethod
    def load(cls, path: Path) -> "Estimate":
        """Read what `save` wrote. Raises ValueError, with the file and what to do, for anything else."""
        tensors, about = resumable.read(
            path, FORMAT, VERSION, "a partial estimate of moments", "; finished files cannot be merged, their .partial files can", "estimate"
        )
        try:
            estimate = cls(dict(about["settings"]))
            estimate.skipped = [Skipped(*s) for s in about["skipped"]]
            estimate.seen, estimate.hashes = about.get("seen"), array("q", tensors["hashes"].tolist() if "hashes" in tensors else ())
            a = estimate.accumulator
            a.count, a.mean, a.m2 = int(about["count"]), tensors.get("mean"), tensors.get("m2")
            if a.count < 0 or (a.count > 0) != (a.mean is not None) or (a.count > 0 and a.mean.shape != a.m2.shape):
                raise ValueError(f"it counts {a.count} clips, which its tensors do not bear out")
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ValueError(f"{path} is damaged ({error}): delete it to begin anew") from None
        return estimate

    @classmethod
    def resume(cls, path: Path, settings: dict) -> "Estimate":
        """The estimate in `path` if it has these settings, a new one if there is no such file."""
        if not Path(path).exists():
            return cls(settings)
        estimate = cls.load(path)
        resumable.check_settings(str(path), estimate.settings, settings, later=("vae_weights",))
        return estimate

    def run(
        self, items: Sequence, read: Callable, encode: Callable, path: Path | None = None, every: float = 30.0,
        progress: Callable | None = None, stamp: Callable = lambda item: None,
    ) -> None:  # fmt: skip
        """Work through the rest of `items`; stopped at any moment, nothing is counted twice.

        read(item) -> a clip, or raises Unreadable; encode(clip) -> latents [C, T, h, w];
        progress(estimate, total) after each item; state goes to `path` every so many seconds
        and at the end, whatever ends it. stamp(item) -> a short name for what is in the item's
        file now: one that was skipped is tried again when it changes. Raises Changed where one
        that was averaged has changed.
        """
        saved = time.monotonic()
        again = self._to_retry(items, stamp)
        try:
            for index in itertools.chain(again, range(self.done, len(items))):
                self._try(items[index], index, read, encode, stamp(items[index]))
                if path and time.monotonic() - saved > every:
                    self.save(path)
                    saved = time.monotonic()
                if progress:
                    progress(self, len(items))
        finally:
            if path:
                self.save(path)

    def _try(self, item, index, read, encode, stamp):
        """Average one item, or note why not. Its outcome is set in one go: an interrupt finds all of it or nothing."""
        began = time.perf_counter()
        others = [s for s in self.skipped if s.place != index]
        try:
            clip = read(item)
        except Unreadable as error:
            self.skipped = [*others, Skipped(str(item), str(error), index, stamp)]
            self._spend("read", began)
            return
        began = self._spend("read", began)
        latents = encode(clip)
        began = self._spend("encode", began)
        total, part = Accumulator(), Accumulator()
        part.add(latents[None])
        total.merge(self.accumulator)
        total.merge(part)
        del self.hashes[self.accumulator.count :]
        self.hashes.append(_hash(clip))
        seen = None if self.seen is None else _summed(self.seen, index, stamp)
        self.accumulator, self.skipped, self.seen = total, others, seen
        self._spend("rest", began)

    def _to_retry(self, items, stamp):
        """Places of the skipped files that have changed since. Raises Changed where an averaged one has."""
        skipped = {s.place: s.stamp for s in self.skipped}
        if self.seen is not None:
            if self.done > len(items):
                raise Changed(f"{self.done} files were tried before, but there are {len(items)} now")
            seen = 0
            for index in range(self.done):
                if index not in skipped:
                    seen = _summed(seen, index, stamp(items[index]))
            if seen != self.seen:
                raise Changed("files have changed since they were averaged")
        return [i for i, old in skipped.items() if i is not None and stamp(items[i]) != old]

    def _spend(self, what, began):
        now = time.perf_counter()
        self.seconds[what] += now - began
        return now


def _hash(clip):
    """64 bits of a clip's pixels, uint8 [T, H, W, 3], or of whatever else was read."""
    data = clip.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy() if torch.is_tensor(clip) else repr(clip).encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little", signed=True)


def _summed(seen, index, stamp):
    """A sum that knows which stamps went in, in any order."""
    return (seen + int.from_bytes(hashlib.blake2b(f"{index} {stamp}".encode(), digest_size=6).digest(), "little")) % 2**52


def content(hashes: Sequence[int]) -> str:
    """A short name for a set of clips, by their hashes in any order."""
    return hashlib.sha256(array("q", sorted(hashes)).tobytes()).hexdigest()[:16]


def shared(one: Estimate, other: Estimate) -> int:
    """How many clips two estimates have both averaged. Those of version 1 tell only whether they are the same."""
    a, b = one.accumulator, other.accumulator
    if a.count and a.count == b.count and a.mean.shape == b.mean.shape and torch.equal(a.mean, b.mean) and torch.equal(a.m2, b.m2):
        return a.count
    return len(set(one.hashes) & set(other.hashes))


def merge(estimates: Sequence[Estimate]) -> Accumulator:
    """Estimates of parts of one data set -> one Accumulator; their order does not matter. See `shared` first."""
    total = Accumulator()
    for estimate in estimates:
        total.merge(estimate.accumulator)
    return total


def all_reduce(accumulator: Accumulator) -> None:
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
    mean = (zero if accumulator.mean is None else accumulator.mean).to(device)  # [C, T, h, w], as are m2, centre and spread
    m2 = (zero if accumulator.m2 is None else accumulator.m2).to(device)
    total, centre = n.clone(), mean * n
    dist.all_reduce(total)
    dist.all_reduce(centre)
    centre /= total
    spread = m2 + n * (mean - centre).square()
    dist.all_reduce(spread)
    accumulator.count, accumulator.mean, accumulator.m2 = int(total), centre.cpu(), spread.cpu()
