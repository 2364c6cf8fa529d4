"""Where clips come from: the video files of a folder or of a list, and nothing else.

A graph comes from strangers, so in one only what lies inside the host's own folders is looked
at (`roots`); its owner, in a terminal, may name anything. Messages name files that were found,
never what a list says: it may be no list.
"""

import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from .files import displayed, text_of

SUFFIXES = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".m4v", ".ogv", ".wmv", ".flv", ".gif"}
LONGEST = 1 << 24  # bytes of a list
PLACES = "ComfyUI's input and output folders and those that its owner registered as 'cil_clips' (see this node's help)"


def regular(path: Path) -> bool:
    """Whether a path leads to a regular file: no folder, pipe, socket or device."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):  # not there, or no path at all
        return False


def inside(path: Path, roots: Iterable[Path]) -> bool:
    """Whether a path, its links followed, lies in one of the roots, or is one."""
    try:
        real = Path(path).resolve()
    except (OSError, ValueError, RuntimeError):  # no path at all, or a ring of links
        return False
    return any(real.is_relative_to(Path(root).resolve()) for root in roots)


def located(source: str | Path, roots: Iterable[Path] | None = None) -> Path:
    """What a person typed -> a path. With roots, a relative one lies in the first root that has it; raises ValueError for one outside."""
    text = str(source)
    if roots is None:
        return Path(text)
    if "\0" in text or "://" in text:
        raise ValueError(f"a folder of videos, or a list of them, is a path inside {PLACES}")
    candidates = [Path(root) / text for root in roots]  # an absolute path stays itself
    path = next((p for p in candidates if inside(p, roots) and os.path.lexists(p)), candidates[0])
    if not inside(path, roots):
        raise ValueError(f"'{displayed(path)}' lies outside the folders from which a graph may read clips: {PLACES}. Move it there, or register its folder")
    return path


def find(source: str | Path, roots: Iterable[Path] | None = None, check: Callable[[], object] = lambda: None) -> list[Path]:
    """Video files of a folder (and below), or of a text file that lists one path a line -> paths, those of a folder sorted.

    roots: folders outside of which nothing is read; None = anything. check() is called again and
    again on the way; whatever it raises ends the search. Raises ValueError.
    """
    roots = None if roots is None else list(roots)
    path = located(source, roots)
    if os.path.isdir(path):
        found = _below(path, roots, check)
    elif regular(path):
        found = _listed(path, roots, check)
    else:
        raise ValueError(f"there is no folder or list of videos at {displayed(path) if roots else path}")
    return found


def _below(folder, roots, check):
    """Videos by their name below the folder, so that the same data in another place give the same clips."""
    found = []
    for place, _, names in os.walk(folder):  # which follows no links to folders
        check()
        found += [Path(place, name) for name in names if Path(name).suffix.lower() in SUFFIXES]
    found = sorted(filter(regular, found), key=lambda p: p.relative_to(folder).as_posix())
    for path in found:
        if roots is not None and not inside(path, roots):
            raise ValueError(f"'{displayed(path)}' is a link that leads outside the folders from which a graph may read clips: {PLACES}")
    return found


def _listed(file, roots, check):
    """Videos of a list, in its order. Raises ValueError with the number of the first line that names none."""
    if file.suffix.lower() in SUFFIXES:
        raise ValueError(f"'{displayed(file)}' is one video: give the folder that it lies in, or a text file with one path a line")
    found = []
    for number, line in enumerate(text_of(file, LONGEST).splitlines(), 1):
        check()
        if not line.strip():
            continue
        path, at = file.parent / line.strip(), f"line {number} of '{displayed(file)}'"
        if path.suffix.lower() not in SUFFIXES or "://" in line or "\0" in line:
            raise ValueError(f"{at} is no path of a video file ({', '.join(sorted(SUFFIXES))})")
        if roots is not None and not inside(path, roots):
            raise ValueError(f"{at} leads outside the folders from which a graph may read clips: {PLACES}")
        if not regular(path):
            raise ValueError(f"there is no video file at {at}: paths are relative to the list's own folder")
        found.append(path)
    return found
