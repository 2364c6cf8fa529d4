"""Prepared clips: what a training needs of each, made once and kept in safetensors shards.

A folder of shards is one data set. A shard holds a few clips, their tensors stacked, and in
its metadata the settings, the clips' names and the files that gave none. Texts and what the
unconditional branch sees are mostly the same for many clips, so a shard holds each once.
Shards are written whole, so a preparation that was stopped goes on after the last one. The
number in a shard's name is that of the records before it, so a set notices a missing or a
doubled one.
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from . import resumable
from .clips import Unreadable
from .estimate import Changed, Skipped
from .files import claim, tidy, write_safetensors
from .training import Clip

FORMAT, VERSION = "cil-prepared-clips", 2
SHARD = 16  # clips a shard at most
STACKED = ("latents", "image", "embed")
TEXT, DROPPED = "text.", "dropped."  # of tensors that several clips share
LATER = ("vae_weights", "clip_vision_weights", "clip_weights")  # settings that sets of version 1 do not have


class ClipSet:
    """A prepared data set, a sequence of Clip; tensors are read as they are asked for.

    names, motion: of each clip; places: its place in the list of files and its file's stamp
    then, None in sets of version 1; skipped: of those that gave no clip. Raises ValueError,
    with the shard and what to do, for a set that is not whole.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.settings: dict | None = None
        self.names: list[str] = []
        self.motion: list[float] = []
        self.places: list[tuple] = []
        self._skipped: list[Skipped] = []
        self._rows: list[tuple] = []
        self._records = 0
        for path in sorted(self.folder.glob("*.safetensors")):
            self._add(path)

    def _add(self, path):
        about = _about(path)
        if self.settings is None:
            self.settings = about["settings"]
        resumable.check_settings(f"{self.folder.name}/{path.name}", about["settings"], self.settings)
        if path.stem != _stem(self._records):
            wanted = self.folder / f"{_stem(self._records)}.safetensors"
            raise ValueError(
                f"{path} does not follow on the shards before it: {wanted.name} is missing, or this is a copy. Bring that back, or delete this one and those after it, and prepare again"
            )
        texts = about.get("texts") or [None] * len(about["names"])
        self._rows += [(path, row, text) for row, text in enumerate(texts)]
        self.names += about["names"]
        self.motion += about["motion"]
        self.places += [tuple(place) for place in about.get("places", len(about["names"]) * [(None, None)])]
        self._skipped += [Skipped(*s) for s in about["skipped"]]
        self._records += len(about["names"]) + len(about["skipped"])

    @property
    def skipped(self) -> list[Skipped]:
        """Of each file that gave no clip the last outcome."""
        made = {index for index, _ in self.places if index is not None}
        last = {(n, "old") if s.place is None else s.place: s for n, s in enumerate(self._skipped)}
        return [s for s in last.values() if s.place not in made]

    def __len__(self):
        return len(self._rows)

    def __getitem__(self, index: int) -> Clip:
        path, row, text = self._rows[index]
        try:
            with safe_open(path, framework="pt") as file:
                names = set(file.keys())
                rows = {name: file.get_slice(name)[row] for name in STACKED if name in names}
                text = None if text is None else file.get_tensor(f"{TEXT}{text}").float()
                dropped = {name.removeprefix(DROPPED): file.get_tensor(name).float() for name in names if name.startswith(DROPPED)}
            latents, image, embed = rows["latents"], rows["image"].float(), rows.get("embed")
        except (SafetensorError, OSError, IndexError, KeyError) as error:
            raise ValueError(
                f"{path} cannot be read any more ({error}): it was deleted or changed since this data set was opened. Prepare the clips again"
            ) from None
        return Clip(latents, image, None if embed is None else embed.float(), self.motion[index], text, dropped or None)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a clip's latents: (C, T, h, w)."""
        return tuple(self[0].latents.shape)

    @property
    def done(self) -> int:
        """Files tried so far."""
        return len(self.names) + len(self.skipped)


def load(folder: Path) -> ClipSet:
    """A data set to train on. Raises ValueError for a folder without clips."""
    if not Path(folder).is_dir():
        raise ValueError(f"there is no prepared data set at {folder}")
    clips = ClipSet(folder)
    if not len(clips):
        raise ValueError(f"{clips.folder} holds no prepared clips: prepare a folder of videos first")
    return clips


def prepare(
    folder: Path, settings: dict, items: Sequence, read: Callable, encode: Callable, every: float = 60.0,
    progress: Callable | None = None, stamp: Callable = lambda item: None,
) -> ClipSet:  # fmt: skip
    """Prepare the rest of `items` into shards in `folder` -> ClipSet. Stopped at any moment, it can go on.

    settings: a dict that two runs must share to be one; read(item) -> a clip, or raises
    Unreadable; encode(clip) -> Clip; progress(done, skipped, total) after each item;
    stamp(item): see Estimate.run. Raises Claimed where another process prepares into the folder.
    """
    clips = ClipSet(folder)
    if clips.settings is not None:
        resumable.check_settings(str(clips.folder), clips.settings, settings, LATER)
    if not _left(clips, items, stamp):
        tidy(clips.folder)
        return clips
    with claim(folder=clips.folder):
        clips = ClipSet(folder)  # anew: another process may have written until now
        _fill(clips, clips.settings or settings, items, read, encode, every, progress, stamp)
    return clips


def _left(clips, items, stamp):
    """Places in the list that are to be tried: of skipped files that have changed since, and of all new ones."""
    if clips.done > len(items):
        raise Changed(
            f"{clips.folder} holds the outcome of {clips.done} files, but there are {len(items)} now: choose another name, or delete it to begin anew"
        )
    size = lambda stamped: str(stamped).split("-")[0]  # a copy of the videos has other times
    changed = [name for name, (index, then) in zip(clips.names, clips.places) if index is not None and size(stamp(items[index])) != size(then)]
    if changed:
        raise Changed(
            f"{len(changed)} videos have changed since they were prepared ({', '.join(changed[:3])}): choose another name, or delete {clips.folder} to begin anew"
        )
    return [s.place for s in clips.skipped if s.place is not None and stamp(items[s.place]) != s.stamp] + list(range(clips.done, len(items)))


def _fill(clips, settings, items, read, encode, every, progress, stamp):
    names, places, made, skipped, saved = [], [], [], [], time.monotonic()

    def flush():
        nonlocal saved
        if made or skipped:
            _write(clips, settings, names, places, made, skipped)
        names.clear(), places.clear(), made.clear(), skipped.clear()
        saved = time.monotonic()

    tried = clips.done
    try:
        for index in _left(clips, items, stamp):
            item, now = items[index], stamp(items[index])
            tried = max(tried, index + 1)
            try:
                clip = encode(read(item))
            except Unreadable as error:
                skipped.append(Skipped(str(item), str(error), index, now))
            else:
                made.append(clip)
                names.append(str(item))
                places.append((index, now))
            if len(made) == SHARD or time.monotonic() - saved > every:
                flush()
            if progress:
                gone = {s.place for s in clips.skipped} | {s.place for s in skipped}
                progress(tried, len(gone - {index for index, _ in places}), len(items))
    finally:
        flush()


def _stem(records):
    return f"clips-{records:06d}"


def _write(clips, settings, names, places, made, skipped):
    """One shard, and its clips into the open data set. Tensors in fp16."""
    tensors, texts = _tensors(made) if made else ({}, [])
    about = {"settings": settings, "names": names, "places": places, "motion": [clip.motion for clip in made], "skipped": skipped}
    if any(text is not None for text in texts):
        about["texts"] = texts
    path = clips.folder / f"{_stem(clips._records)}.safetensors"
    write_safetensors(tensors, path, {"format": FORMAT, "version": str(VERSION), "clips": json.dumps(about)})
    clips._add(path)


def _tensors(made):
    """Clips of one kind -> (a shard's tensors, for each clip the number of its text or None)."""
    first, half = made[0], lambda value: value.half().contiguous()
    tensors = {name: half(torch.stack([getattr(clip, name) for clip in made])) for name in STACKED if getattr(first, name) is not None}
    tensors |= {DROPPED + field: half(value) for field, value in (first.dropped or {}).items()}
    kept, texts = [], []
    for text in (clip.text for clip in made):
        same = (n for n, other in enumerate(kept) if text is not None and text.shape == other.shape and torch.equal(text, other))
        number = None if text is None else next(same, len(kept))
        if number == len(kept):
            kept.append(text)
        texts.append(number)
    return tensors | {f"{TEXT}{n}": half(text) for n, text in enumerate(kept)}, texts


def _about(path):
    """A shard's metadata. Raises ValueError for anything else."""
    try:
        with safe_open(path, framework="pt") as file:
            strings, rows = file.metadata() or {}, {file.get_slice(name).get_shape()[0] for name in file.keys() if name in STACKED}
    except (SafetensorError, OSError, IndexError) as error:
        raise ValueError(f"{path} cannot be read as prepared clips ({error}): delete it and those after it, and prepare again") from None
    if strings.get("format") != FORMAT:
        raise ValueError(f"{path} is no shard of prepared clips: choose a folder of its own for a data set")
    resumable.check_version(path, strings.get("version", "1"), VERSION)
    try:
        about = json.loads(strings["clips"])
        counts = {len(about["names"]), len(about["motion"])} | ({len(about["texts"])} if "texts" in about else set()) | rows
        if len(counts) != 1 or not isinstance(about["settings"], dict) or not isinstance(about["skipped"], list):
            raise ValueError(f"its lists and tensors are of {sorted(counts)} clips")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it and those after it, and prepare again") from None
    return about
