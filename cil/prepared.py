"""Prepared clips: what a training needs of each, made once and kept in safetensors shards.

A folder of shards is one data set. A shard holds a few clips, their tensors stacked, and in
its metadata the settings, the clips' names and the files that gave none. Texts and what the
unconditional branch sees are mostly the same for many clips, so a shard holds each once.
Shards are written whole, so a preparation that was stopped goes on after the last one.
"""

import json
import time
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from . import resumable
from .clips import Unreadable
from .moments import write_safetensors
from .training import Clip

FORMAT = "cil-prepared-clips"
SHARD = 16  # clips a shard at most
STACKED = ("latents", "image", "embed")
TEXT, DROPPED = "text.", "dropped."  # of tensors that several clips share


class ClipSet:
    """A prepared data set, a sequence of Clip; tensors are read as they are asked for.

    names, motion: of each clip; skipped: (file, reason) of those that gave no clip.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.settings, self.names, self.motion, self.skipped, self._places = None, [], [], [], []
        for path in sorted(self.folder.glob("*.safetensors")):
            self._add(path)

    def _add(self, path):
        about = _about(path)
        if self.settings is None:
            self.settings = about["settings"]
        resumable.check_settings(f"{self.folder.name}/{path.name}", about["settings"], self.settings)
        texts = about.get("texts") or [None] * len(about["names"])
        self._places += [(path, row, text) for row, text in enumerate(texts)]
        self.names += about["names"]
        self.motion += about["motion"]
        self.skipped += [tuple(s) for s in about["skipped"]]

    def __len__(self):
        return len(self._places)

    def __getitem__(self, index):
        path, row, text = self._places[index]
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            latents, image, embed = (file.get_slice(name)[row] if name in names else None for name in STACKED)
            text = None if text is None else file.get_tensor(f"{TEXT}{text}").float()
            dropped = {name.removeprefix(DROPPED): file.get_tensor(name).float() for name in names if name.startswith(DROPPED)}
        return Clip(latents, image.float(), None if embed is None else embed.float(), self.motion[index], text, dropped or None)

    @property
    def shape(self):
        """Of a clip's latents: (C, T, h, w)."""
        return tuple(self[0].latents.shape)

    @property
    def done(self):
        """Files tried so far."""
        return len(self.names) + len(self.skipped)


def load(folder):
    """A data set to train on. Raises ValueError for a folder without clips."""
    if not Path(folder).is_dir():
        raise ValueError(f"there is no prepared data set at {folder}")
    clips = ClipSet(folder)
    if not len(clips):
        raise ValueError(f"{clips.folder} holds no prepared clips: prepare a folder of videos first")
    return clips


def prepare(folder, settings, items, read, encode, every=60.0, progress=None):
    """Prepare the rest of `items` into shards in `folder` -> ClipSet. Stopped at any moment, it can go on.

    settings: a dict that two runs must share to be one; read(item) -> a clip, or raises
    Unreadable; encode(clip) -> Clip; progress(done, skipped, total) after each item.
    """
    clips = ClipSet(folder)
    if clips.settings is not None:
        resumable.check_settings(clips.folder.name, clips.settings, settings)
    names, made, skipped, saved = [], [], [], time.monotonic()

    def flush():
        nonlocal saved
        if made or skipped:
            _write(clips, settings, names, made, skipped)
        names.clear(), made.clear(), skipped.clear()
        saved = time.monotonic()

    try:
        for item in items[clips.done :]:
            try:
                clip = encode(read(item))
            except Unreadable as error:
                skipped.append((str(item), str(error)))
            else:
                made.append(clip)
                names.append(str(item))
            if len(made) == SHARD or time.monotonic() - saved > every:
                flush()
            if progress:
                progress(clips.done + len(made) + len(skipped), len(clips.skipped) + len(skipped), len(items))
    finally:
        flush()
    return clips


def _write(clips, settings, names, made, skipped):
    """One shard, and its clips into the open data set. Tensors in fp16."""
    tensors, texts = _tensors(made) if made else ({}, [])
    about = {"settings": settings, "names": names, "motion": [clip.motion for clip in made], "skipped": skipped}
    if any(text is not None for text in texts):
        about["texts"] = texts
    path = clips.folder / f"clips-{clips.done:06d}.safetensors"
    write_safetensors(tensors, path, {"format": FORMAT, "version": "1", "clips": json.dumps(about)})
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
            strings = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path.name} cannot be read as prepared clips: {error}") from None
    if strings.get("format") != FORMAT:
        raise ValueError(f"{path} is no shard of prepared clips: choose a folder of its own for a data set")
    return json.loads(strings["clips"])
