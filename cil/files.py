"""Files that are whole or not there, and folders that have one writer.

A file is written beside its place, under a name that tells who writes it, and moved there at
the end. What a killed process left so is swept by the next one that writes under the name.
"""

import errno
import json
import logging
import os
import re
import secrets
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import torch

from .processes import alive

PART, LOCK, FOLDER_LOCK = ".part", ".lock", "writing.lock"
TYPES = {  # safetensors' names of the types
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64", torch.int32: "I32",
    torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL", torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
}  # fmt: skip
CHECKSUM, UNKNOWN = "crc32", 8 * "0"
ADVICE = {
    errno.ENOSPC: "the disk is full: make room",
    errno.EDQUOT: "your share of the disk is used up: make room",
    errno.EFBIG: "the system allows no larger file here: is the disk full, or a limit set?",
    errno.EACCES: "you may not write there: choose another place, or change its rights",
    errno.EPERM: "you may not write there: choose another place, or change its rights",
    errno.EROFS: "the disk is read-only: choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOTDIR: "a file stands where a folder is needed: choose another place",
    errno.EEXIST: "a file stands where a folder is needed: choose another place",
}
RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))}


# ---- writing --------------------------------------------------------------------------


def unwritable(path: Path, error: OSError) -> OSError:
    """The same error in one sentence with the path and what to do."""
    advice = ADVICE.get(error.errno or 0, "is the disk full, or gone?")
    return OSError(
        f"{path} could not be written ({error.strerror or error}): {advice}; nothing half-written was left, and what stood there before is as it was"
    )


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """-> a binary file that takes the place of `path` at the end, all of it or nothing. Rights follow the umask. Raises OSError."""
    path, part = Path(path), None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{_host()}-{os.getpid()}-{secrets.token_hex(3)}{PART}")
        with open(part, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        if part is not None:
            with suppress(OSError):
                part.unlink(missing_ok=True)


def write_safetensors(tensors: dict, path: Path, strings: dict, gather: Callable = lambda tensor: tensor, checksum: bool = False) -> None:
    """Write tensors and metadata as a safetensors file, one tensor after another: never a second copy of all of them.

    gather(tensor): all of a tensor of which this process holds a share. checksum: keep a CRC-32 of
    everything in the metadata, for `checksum_holds`. Raises OSError with the path and what to do.
    """
    names = ordered(tensors)
    strings = strings | ({CHECKSUM: UNKNOWN} if checksum else {})
    header, place = {"__metadata__": strings}, 0
    for name in names:
        tensor = tensors[name]
        size = tensor.numel() * tensor.element_size()
        header[name] = {"dtype": TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors lie at whole multiples of their elements
    with replacing(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        crc = _crc_of(strings)
        for name in names:
            data = _bytes(gather(tensors[name]))
            file.write(data)
            crc = zlib.crc32(data, crc) if checksum else crc
        if checksum:
            file.seek(8 + text.index(f'"{CHECKSUM}":"{UNKNOWN}"'.encode()) + len(CHECKSUM) + 4)
            file.write(f"{crc:08x}".encode())


def checksum_holds(tensors: dict, strings: dict) -> bool:
    """Whether tensors and metadata are as `write_safetensors` wrote them; True where the file keeps no checksum."""
    if CHECKSUM not in strings:
        return True
    crc = _crc_of(strings)
    for name in ordered(tensors):
        crc = zlib.crc32(_bytes(tensors[name]), crc)
    return strings[CHECKSUM] == f"{crc:08x}"


def ordered(tensors: dict) -> list[str]:
    """Names in the order in which a file holds them: wide elements first, which keeps all of them aligned."""
    return sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))


def _bytes(tensor):
    return memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


def _crc_of(strings):
    return zlib.crc32(json.dumps({k: v for k, v in strings.items() if k != CHECKSUM}, sort_keys=True).encode())


# ---- one writer -----------------------------------------------------------------------


class Claimed(ValueError):
    """Another process is writing there."""


@contextmanager
def claim(*files: Path, folder: Path | None = None) -> Iterator[None]:
    """Be the only process that writes these files, or files in this folder. Sweeps what killed ones left there.

    Raises Claimed, naming the other process, at once. The lock is the system's: it ends with
    the process that holds it, however that ends. Raises OSError where nothing can be written.
    """
    places = {Path(path): Path(path).with_name(Path(path).name + LOCK) for path in files}
    if folder is not None:
        places[Path(folder)] = Path(folder) / FOLDER_LOCK
    with ExitStack() as stack:
        for path, lock in places.items():
            stack.enter_context(_locked(path, lock))
            sweep(path)
        yield


@contextmanager
def _locked(path, file):
    """Hold the lock `file` of `path`, with a file beside it that tells who does."""
    try:
        import filelock
    except ImportError:
        raise ImportError("writing needs filelock, which PyTorch brings: run 'pip install filelock' in ComfyUI's Python") from None
    owner = file.with_name(file.name + ".json")
    about = {"process": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(str(file))
        lock.acquire(timeout=0)
    except NotImplementedError:  # some network disks; a second writer is not noticed there
        logging.getLogger("cil").warning("%s lies on a disk that has no locks: let only one process write there", path)
        yield
        return
    except filelock.Timeout:
        raise Claimed(f"{path} is being written by {_told(owner)}: wait until it is done, stop it, or choose another name") from None
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        try:
            owner.write_text(json.dumps(about), encoding="utf-8")
        except OSError as error:
            raise unwritable(path, error) from error
        yield
    finally:
        owner.unlink(missing_ok=True)
        if os.name != "nt":  # where a file that is open cannot be removed
            file.unlink(missing_ok=True)
        lock.release()
        if os.name == "nt":
            with suppress(OSError):
                file.unlink(missing_ok=True)


def _told(owner):
    try:
        about = json.loads(owner.read_text(encoding="utf-8"))
        return f"process {about['process']} on {about['host']}, since {about['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def tidy(folder: Path) -> None:
    """Take away what a writer that was killed after its last word left in a folder in which nothing is left to do."""
    if (Path(folder) / FOLDER_LOCK).exists():
        with suppress(Claimed, OSError), claim(folder=folder):
            pass


def sweep(path: Path) -> None:
    """Remove what killed writers of a file, or in a folder, left half-written. For whoever has claimed it, or for a folder of one's own."""
    path = Path(path)
    folder, start = (path, "") if path.is_dir() else (path.parent, path.name)
    for part in folder.glob("*" + PART) if folder.is_dir() else ():
        found = re.fullmatch(r".+\.([0-9a-f]{8})-(\d+)-[0-9a-f]{6}\.part", part.name)
        if found is not None and part.name.startswith(start) and (found[1] != _host() or int(found[2]) == os.getpid() or not alive(int(found[2]))):
            part.unlink(missing_ok=True)


def _host():
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


# ---- what people write ----------------------------------------------------------------


def check_name(name: str, what: str = "a file's name") -> str:
    """A name for a file or folder, as typed -> the name. Raises ValueError for what some system cannot have, or what leaves the folder."""
    name = name.strip()
    if not re.fullmatch(r"[\w][\w .-]*", name) or name.endswith("."):
        raise ValueError(f"'{name}' cannot be {what}: use letters, digits, spaces, '.', '-' and '_'")
    if name.split(".")[0].strip().upper() in RESERVED:
        raise ValueError(f"'{name}' cannot be {what}: Windows keeps it for a device. Choose another one")
    if len(name.encode()) > 150:
        raise ValueError(f"'{name[:40]}...' cannot be {what}: it has {len(name)} characters, choose a shorter one")
    return name


def text_of(path: Path, most: int = 1 << 20) -> str:
    """A text file in UTF-8, or in UTF-16 with its mark. Raises ValueError with the file's name, never with what it holds."""
    path = Path(path)
    try:
        with open(path, "rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise ValueError(f"{displayed(path)} cannot be read: {error.strerror}") from None
    if len(data) > most:
        raise ValueError(f"{displayed(path)} is too long for a text of this kind: at most {most} bytes are read")
    try:
        return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{displayed(path)} is no text in UTF-8: save it as UTF-8 (it may be another kind of file)") from None


def displayed(path: Path) -> str:
    """A file's name as it can be shown: bytes that are no UTF-8 replaced."""
    return Path(path).name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
