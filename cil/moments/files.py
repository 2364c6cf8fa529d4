"""The file that keeps moments: safetensors with one tensor, `mean`, and JSON metadata (see moments/README.md).

No pickle is read here.
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ..files import write_safetensors
from . import authors_files
from .moments import Moments

FORMAT, VERSION = "cil-moments", 1
AUTHORS_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin")  # only ever read without executing anything


def save(moments: Moments, path: Path) -> None:
    """Write moments to `path`, all of it or nothing. A mean with space in it is kept in fp16, where it fits."""
    half = moments.mean.half()
    small = moments.mean.numel() == moments.channels or not torch.isfinite(half).all()  # or too large for fp16
    mean = moments.mean if small else half
    meta = {"space": moments.space, "variance": moments.variance, "count": moments.count, "about": moments.about}
    strings = {"format": FORMAT, "version": str(VERSION), "moments": json.dumps(meta, ensure_ascii=False)}
    write_safetensors({"mean": mean.contiguous()}, path, strings)


def load(path: str | Path) -> Moments:
    """Read a moments file, or one of the authors'. Raises ValueError, with the file's name, for anything else."""
    path = Path(path)
    if path.suffix in AUTHORS_SUFFIXES:
        return authors_files.load(path)
    try:
        with safe_open(path, framework="pt") as file:
            strings, names = file.metadata() or {}, list(file.keys())
            mean = file.get_tensor("mean").float() if "mean" in names else None
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path.name} cannot be read as a moments file: {error}") from None
    if authors_files.looks_like(names):
        return authors_files.load(path)
    if strings.get("format") != FORMAT or mean is None:
        raise ValueError(f"{path.name} is not a moments file: it holds {', '.join(names[:4]) or 'nothing'}, and no format '{FORMAT}' in its metadata")
    if strings.get("version") != str(VERSION):
        raise ValueError(f"{path.name} has format version {strings.get('version')}, but this pack reads version {VERSION}: update the pack")
    try:
        meta = json.loads(strings["moments"])
        variance, count, about = meta["variance"], meta["count"], meta["about"]
        if not isinstance(variance, (int, float)) or not isinstance(count, int) or count < 0 or not isinstance(about, dict):
            raise TypeError
        made = mean, float(variance), str(meta["space"]), count, about
    except (KeyError, TypeError, OverflowError, RecursionError, json.JSONDecodeError):
        raise ValueError(
            f"the metadata of {path.name} are damaged: they are not what this pack writes beside the mean. Make or download the file again"
        ) from None
    try:
        return Moments(*made)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None
