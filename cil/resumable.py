"""Files of work under way: written with a checksum, read back, and held against the settings of whoever goes on with it."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from .files import checksum_holds, write_safetensors


def write(tensors: dict, path: Path, kind: str, version: int, about: dict, gather: Callable = lambda tensor: tensor) -> None:
    """Write a state: tensors, and a dict as JSON. gather(tensor): see write_safetensors. Raises OSError."""
    strings = {"format": kind, "version": str(version), "about": json.dumps(about)}
    write_safetensors(tensors, path, strings, gather, checksum=True)


def read(path: Path, kind: str, version: int, what: str, hint: str = "", old: str = "about") -> tuple[dict[str, torch.Tensor], dict]:
    """What `write` wrote -> (tensors, dict). Raises ValueError that names the file, calls it `what` and says what to do.

    version: the newest that can be read; old: where versions before `about` kept their JSON.
    """
    path, anew = Path(path), "delete it to begin anew"
    try:
        with safe_open(path, framework="pt") as file:
            strings = file.metadata() or {}
            found = strings.get("format") == kind
            tensors = {name: file.get_tensor(name) for name in file.keys()} if found else {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read as {what} ({error}): {anew}") from None
    if not found:
        raise ValueError(f"{path.name} is not {what}{hint}")
    check_version(path, strings.get("version", "1"), version)
    if not checksum_holds(tensors, strings):
        raise ValueError(f"{path} is damaged: its contents are not those that were written (its checksum differs). {anew.capitalize()}")
    try:
        return tensors, dict(json.loads(strings.get("about") or strings[old]))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: what it tells of itself cannot be read ({error}). {anew.capitalize()}") from None


def check_version(path: Path, found: str, newest: int) -> None:
    """Raise ValueError for a file that a newer pack has written."""
    if not (found.isascii() and found.isdigit() and int(found) <= newest):
        raise ValueError(f"{path} has format version {found[:20]}, but this pack reads versions up to {newest}: update the pack, or delete it to begin anew")


def check_settings(name: str, found: dict, wanted: dict, later: tuple = ()) -> None:
    """Raise ValueError, naming the keys, unless two dicts of settings are equal. later: keys that older files do not have."""
    keys = {k for k in wanted.keys() | found.keys() if not (k in later and k not in found)}
    differing = sorted(k for k in keys if wanted.get(k) != found.get(k))
    if differing:
        raise ValueError(f"{name} was begun with other settings ({', '.join(differing)}): finish it with those, or delete it to begin anew")
