"""Damaged and hostile files, through every loader of the pack."""

import json
import os
import pickle
import random
import struct
import zipfile
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save

from .graphs import prompt_of, watched
from .inputs import PAYLOADS
from .verdict import judge, outcome

PLACES = {  # folder: (node, input, endings)
    "cil_moments": ("CILLoadMoments", "moments_name", (".safetensors", ".pt")),
    "loras": ("CILTimeNoiseTrain", "existing_lora", (".safetensors", ".pt")),
    "checkpoints": ("CILLoadDynamiCrafter", "ckpt_name", (".safetensors", ".ckpt")),
    "cil_flow": ("CILMotionScore", "flow", (".safetensors", ".pth")),
}


def metadata_of(path):
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def good(kind):
    if kind == "cil_moments":
        about = {"space": "demo", "variance": 1.0, "count": 3, "about": {}}
        return save({"mean": torch.rand(4, 1, 1, 1)}, {"format": "cil-moments", "version": "1", "moments": json.dumps(about)})
    return save({"a.weight": torch.rand(4, 4), "b.weight": torch.rand(3)}, {"format": "pt"})


def header(about, data=b"", length=None):
    text = json.dumps(about).encode() if not isinstance(about, bytes) else about
    return struct.pack("<Q", len(text) if length is None else length) + text + data


class Runs:
    """What a pickle can do to whoever trusts it."""

    def __init__(self, canary):
        self.canary = str(canary)

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


def hostile(kind, canary, chance):
    """{what: bytes}."""
    whole, made = good(kind), {}
    made |= {"empty": b"", "a text": b"no tensors", "zeros": bytes(64), "a picture": b"\x89PNG\r\n\x1a\n" + bytes(64), "random": chance.randbytes(400)}
    for n in range(10):
        made[f"cut {n}"] = whole[: chance.randrange(1, len(whole) - 1)]
    tensor = lambda **more: {"mean": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} | more}
    made["header of 2^60 bytes"] = header(b"{}", length=1 << 60)
    made["410 GB"] = header(tensor(shape=[1 << 37], data_offsets=[0, 1 << 39]), bytes(16))
    made["overflowing shape"] = header(tensor(shape=[1 << 62, 1 << 62]), bytes(16))
    made["negative shape"] = header(tensor(shape=[-4]), bytes(16))
    made["unknown type"] = header(tensor(dtype="F7"), bytes(16))
    made["crossed offsets"] = header(tensor(data_offsets=[16, 0]), bytes(16))
    made["deep"] = header(b"[" * 100000, bytes(16))
    made["deep metadata"] = header({"__metadata__": {"format": "cil-moments", "version": "1", "moments": "[" * 100000}} | tensor(), bytes(16))
    made["metadata of numbers"] = header({"__metadata__": {"format": 3}} | tensor(), bytes(16))
    made["pickle"] = pickle.dumps(Runs(canary))
    if kind == "cil_moments":
        strings = lambda **more: {"space": "demo", "variance": 1.0, "count": 3, "about": {}} | more
        of = lambda mean, version="1", **more: save({"mean": mean}, {"format": "cil-moments", "version": version, "moments": json.dumps(strings(**more))})
        mean = torch.rand(4, 1, 1, 1)
        made |= {"NaN": of(mean * float("nan")), "infinity": of(mean / 0), "future": of(mean, "99"), "wrong version": of(mean, "x" * 500)}
        made |= {f"variance {v}": of(mean, variance=v) for v in (0, -1, "a", None, [1], float("nan"), 1e400)}
        made |= {f"count {c}": of(mean, count=c) for c in ("a", None, [1], float("inf"))}
        made |= {f"space {n}": of(mean, space=p) for n, p in enumerate([*PAYLOADS, "", "a\nb", 3 * "long " * 100])}
        made |= {"two dimensions": of(torch.rand(4, 4)), "no channels": of(torch.zeros(0, 1, 1, 1)), "about a list": of(mean, about=[1])}
    return made


def run(host, info, table, seed, every=1):
    """every: of the files each n-th alone."""
    base, chance = Path(host.base), random.Random(seed)
    canary, tried = base / "canary", 0
    for kind, (node, one, endings) in PLACES.items():
        folder = base / "models" / kind
        folder.mkdir(parents=True, exist_ok=True)
        for number, (what, data) in enumerate(hostile(kind, canary, chance).items()):
            for ending in endings:
                tried += 1
                if tried % every:
                    continue
                path = folder / f"hostile{number}{ending}"
                path.write_bytes(data)
                if what == "pickle" and ending != ".safetensors":
                    with zipfile.ZipFile(path, "w") as archive:
                        archive.writestr("archive/data.pkl", data)
                        archive.writestr("archive/version", "3")
                host.get("/object_info")  # lists it
                entry, trouble = outcome(host, watched(info, prompt_of(info, node, {one: path.name}, cheap=True)))
                verdict, told = judge(entry, trouble, True, [path.name, path.stem])
                table.add("files", "executed" if canary.exists() else verdict, f"{kind}/{path.name} ({what})", told)
                canary.unlink(missing_ok=True)
                path.unlink()
    videos(host, info, table, chance, every)


def videos(host, info, table, chance, every=1):
    """Broken videos, alone in a folder and as lists."""
    import video_file

    place = Path(host.base) / "input" / "bad"
    place.mkdir(exist_ok=True)
    video_file.write(place / "whole.mp4", torch.rand(6, 32, 32, 3), rate=6)
    whole = (place / "whole.mp4").read_bytes()
    (place / "whole.mp4").unlink()
    made = {"empty": b"", "text": b"no video", "playlist": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "concat": b"ffconcat version 1.0\nfile /etc/passwd\n"}
    made |= {f"cut {n}": whole[: chance.randrange(1, len(whole) // 2)] for n in range(8)}
    made |= {f"random {n}": chance.randbytes(chance.randrange(1, 4000)) for n in range(4)}
    lists = {
        "binary": b"\xff\x00\xfe",
        "latin": "\xe9.mp4".encode("latin-1"),
        "blank": b"\n\n",
        "itself": b"list.txt",
        "scheme": b"tcp://1.2.3.4/a.mp4",
        "long": b"a" * 70000 + b".mp4",
    }
    for what, data in [*made.items(), *lists.items()][::every]:
        path = place / ("list.txt" if what in lists else "clip.mp4")
        path.write_bytes(data)
        source = "bad/list.txt" if what in lists else "bad"
        for node in ("CILEstimateMoments", "CILPrepareClips"):
            inputs = {"folder": source, "frames": 2, "width": 32, "height": 32}
            prompt = prompt_of(info, node, inputs, cheap=True)
            prompt["n"]["inputs"].pop("images", None)
            entry, trouble = outcome(host, watched(info, prompt))
            table.add("files", *_first(judge(entry, trouble, True, [path.name, "bad"]), f"{node} {source} ({what})"))
        path.unlink()


def _first(judged, case):
    verdict, told = judged
    return verdict, case, told
