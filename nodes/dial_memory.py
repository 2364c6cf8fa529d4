"""What the Motion Dial has measured: kept beside the host's user data, and as small files to hand on.

A file is read as what a stranger may have written: every number is checked, pictures are JPEG of
a tile's size, and a file that is anything else counts as not there (one's own) or is refused (one that
was chosen). No file leads to another, and none carries more than numbers and tiles.
"""

import itertools
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import folder_paths

from ..cil import sources
from ..cil.amount import Amount
from ..cil.files import check_name, claim, displayed, replacing, text_of
from .host.inputs import clip_roots

VERSION = 1
LARGEST, LONGEST = 8 << 20, 1 << 20  # bytes of a kept file, of one that is handed on
MOST_READINGS, MOST_CURVES = 256, 1000
FOLDER, SUFFIX = "cil_dial", ".json"


@dataclass(frozen=True)
class Kept:
    """A setting, what was measured, and its tile as text ('' where none was kept)."""

    setting: float
    amount: Amount
    strip: str = ""


def numbers(value: object, count: int) -> list[float] | None:
    """`count` finite numbers, or None."""
    if not isinstance(value, list) or len(value) != count:
        return None
    right = all(isinstance(x, (int, float)) and not isinstance(x, bool) and abs(x) < 1e9 for x in value)  # which NaN is not
    return [float(x) for x in value] if right else None


def reading_of(row: object) -> Kept | None:
    """[setting, motion, likeness, flicker] with or without a tile -> Kept; None for anything else."""
    if not isinstance(row, list) or len(row) not in (4, 5):
        return None
    found, strip = numbers(row[:4], 4), row[4] if len(row) == 5 else ""
    if found is None or found[1] < 0 or found[3] < 0 or not isinstance(strip, str):
        return None
    return Kept(found[0], Amount(*found[1:]), strip)


def row_of(kept: Kept, tile: bool) -> list:
    return [kept.setting, *asdict(kept.amount).values(), *([kept.strip] if tile and kept.strip else [])]


def readings_of(rows: object) -> list[Kept]:
    """The readings among rows that a file gives; what is none is left out."""
    rows = rows[:MOST_READINGS] if isinstance(rows, list) else []
    return [kept for kept in map(reading_of, rows) if kept is not None]


# ---- kept -----------------------------------------------------------------------------


def own_file(key: str) -> Path:
    return Path(folder_paths.get_user_directory()) / FOLDER / f"{key}{SUFFIX}"


@dataclass
class Notebook:
    """What is kept under one key. about: in words for people; readings; done: requests that were searched to their end."""

    key: str
    about: dict
    readings: list[Kept]
    done: list[str]
    note: str = ""

    @classmethod
    def opened(cls, key: str, about: dict) -> "Notebook":
        """With `note` where a file is there that cannot be used."""
        path = own_file(key)
        if not path.exists():
            return cls(key, about, [], [])
        try:
            held = json.loads(text_of(path, LARGEST))
        except (ValueError, RecursionError):
            held = None
        if not isinstance(held, dict) or held.get("cil_dial") != VERSION or held.get("key") != key:
            return cls(key, about, [], [], f"what was kept in {displayed(path)} cannot be used: measured anew")
        done = held.get("done") if isinstance(held.get("done"), list) else []
        return cls(key, about, readings_of(held.get("readings")), [d for d in done[:MOST_READINGS] if isinstance(d, str) and len(d) < 200])

    def write(self, readings: list[Kept], done: str | None = None) -> None:
        """Whole or not at all. Never raises, since the search goes on without: `note` says why it was not kept."""
        self.readings = readings
        self.done = self.done if done is None or done in self.done else [*self.done, done]
        rows = [row_of(kept, tile=True) for kept in readings]
        try:
            with replacing(own_file(self.key)) as file:
                file.write(json.dumps({"cil_dial": VERSION, "key": self.key, **self.about, "done": self.done, "readings": rows}).encode())
        except OSError as error:
            self.note = f"not kept for the next time: {error}"


# ---- handed on ------------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """The readings of one picture and setting. model: fingerprint of the weights; lever: its name; key: of everything."""

    model: str
    lever: str
    key: str
    readings: tuple[Kept, ...]

    def setting_for(self, ratio: float, neutral: float) -> float | None:
        """The setting at which this curve has `ratio` times its plain motion, read off between its readings; None beyond them."""
        plain = next((k.amount.motion for k in self.readings if k.setting == neutral), 0.0)
        if plain <= 0:
            return None
        known = sorted((k.setting, k.amount.motion / plain) for k in self.readings)
        crossings = []
        for (a, low), (b, high) in itertools.pairwise(known):
            if min(low, high) <= ratio <= max(low, high) and high != low:
                crossings.append(a + (b - a) * (ratio - low) / (high - low))
        return min(crossings, key=lambda s: abs(s - neutral), default=None)


def curves_of(text: str) -> list[Curve] | None:
    """The curves of a file that was handed on; None where it is no such file."""
    try:
        held = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(held, dict) or held.get("cil_dial") != VERSION or not isinstance(held.get("curves"), list):
        return None
    found = []
    for entry in held["curves"][:MOST_CURVES]:
        names = [entry.get(name) for name in ("model", "lever", "key")] if isinstance(entry, dict) else [None]
        if all(isinstance(name, str) and len(name) <= 100 for name in names):
            readings = tuple(k for k in readings_of(entry.get("readings")) if not k.strip)
            model, lever, key = names
            found.append(Curve(model, lever, key, readings))
    return found


def imported(source: str) -> list[Curve]:
    """The curves of the file that an artist names; it lies below the folders that a graph may read. Raises ValueError."""
    path = sources.located(source, clip_roots())
    if path.suffix.lower() != SUFFIX or not sources.regular(path):
        raise ValueError(f"there is no file of measurements at '{displayed(path)}': name a {SUFFIX} file that this node exported, below {sources.PLACES}")
    found = curves_of(text_of(path, LONGEST))
    if found is None:
        raise ValueError(f"'{displayed(path)}' is no file of measurements that this node exported")
    return found


def exported_file(name: str) -> Path:
    """Where measurements of this name are written: in ComfyUI's output folder. Raises ValueError, which is better known before anything is measured."""
    path = Path(folder_paths.get_output_directory()) / FOLDER / f"{check_name(name, 'the name of a file of measurements')}{SUFFIX}"
    held_in(path)
    return path


def held_in(path: Path) -> list[Curve]:
    """The curves of one's own file, none where there is no file. Raises ValueError."""
    held = curves_of(text_of(path, LONGEST)) if path.exists() else []
    if held is None:
        raise ValueError(f"'{displayed(path)}' is there and is no file of measurements: choose another name")
    return held


def export(path: Path, curve: Curve) -> None:
    """Add a curve to a file. Raises ValueError or OSError in a sentence."""
    with claim(path):
        held = held_in(path)
        held = [*[c for c in held if c.key != curve.key][-(MOST_CURVES - 1) :], curve]
        rows = lambda c: [row_of(k, tile=False) for k in c.readings]
        entries = [{"model": c.model, "lever": c.lever, "key": c.key, "readings": rows(c)} for c in held]
        with replacing(path) as file:
            file.write(json.dumps({"cil_dial": VERSION, "curves": entries}, indent=1).encode())
