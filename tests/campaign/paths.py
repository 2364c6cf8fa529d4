"""Fifty paths outside the allowed folders, through every input that takes a path, a name or a file's choice."""

import json
import os
import re
import tempfile
from pathlib import Path

from interface import ours
from listener import listening

from .files import good
from .graphs import choices_of, inputs_of, prompt_of
from .verdict import judge, outcome

SECRET = "s3cret-in-a-file"
TYPED = ("folder", "name", "measurements", "export_as")  # inputs in which a path or a name is typed
NAMES = ("name", "export_as")  # what these make is a file or folder of the pack's own, so a plain name is none of the ways


def secrets(folder):
    """What lies where no graph may look: a text, a video's name, a pipe."""
    (folder / "secret.txt").write_text(f"{SECRET}\n{SECRET}.mp4\n")
    (folder / "secret.mp4").write_text(SECRET)
    (folder / "secret.json").write_text(f'{{"{SECRET}": 1}}')
    os.mkfifo(folder / "pipe.txt")
    return folder


def paths_outside(host, outside, address):
    """Fifty ways out: straight, by dots, by links, by lists, by pipes, by the net, as other systems write them."""
    inside = Path(host.base) / "input"
    straight = ["/", "/etc", "/etc/passwd", "/proc/self/environ", "/proc/self/fd/0", "/dev/zero", "/dev/stdin", "/home", "/tmp"]
    straight += [str(outside), *(str(p) for p in sorted(outside.iterdir()))]
    dots = ["..", "../..", "../../../../../../etc/passwd", "x/../../..", "./..", "../custom_nodes", "../user", "../models", "~", "~/..", "$HOME"]
    dots += [f"../../../../../../../..{outside}", r"\\server\share", r"C:\Windows\win.ini", "//server/share/a.mp4"]
    net = [f"{scheme}://{address}/a.mp4" for scheme in ("http", "https", "ftp", "tcp", "udp", "file", "rtmp", "concat", "data", "crypto", "subfile")]
    links = []
    for i, target in enumerate([outside, outside / "secret.txt", outside / "pipe.txt", "/etc/passwd", "/", outside / "secret.json"]):
        links.append(f"link{i}{Path(target).suffix if Path(target).suffix == '.json' else ''}")
        (inside / links[-1]).symlink_to(target)
    lines = [
        str(outside / "secret.mp4"),
        "../../../../etc/passwd",
        f"http://{address}/a.mp4",
        f"tcp://{address}/a.mp4",
        "link0/secret.mp4",
        SECRET,
        f"{SECRET}.mp4",
    ]
    for i, line in enumerate(lines):
        (inside / f"list{i}.txt").write_text(line + "\n")
    os.mkfifo(inside / "pipe.txt")
    os.mkfifo(inside / "pipe.json")
    (inside / "list.json").write_text(f'{{"{SECRET}": 1}}')
    return [
        *straight,
        *dots,
        *net,
        *links,
        *(f"list{i}.txt" for i in range(len(lines))),
        "pipe.txt",
        "pipe.json",
        "list.json",
        "link0/secret.txt",
        "link0/secret.json",
    ]


def swept(host):
    for path in (Path(host.base) / "input").iterdir():
        if path.name.startswith(("link", "list", "pipe")):
            path.unlink()


def run(host, info, table, seed=0):
    with tempfile.TemporaryDirectory(dir=Path.home()) as folder, listening() as (address, asked):
        ways = paths_outside(host, secrets(Path(folder)), address)
        checkpoints = Path(host.base) / "models" / "checkpoints"  # so that its loader has something to choose, and its other choices are reached
        checkpoints.mkdir(parents=True, exist_ok=True)
        (checkpoints / "model.safetensors").write_bytes(good("checkpoints"))
        info = host.get("/object_info")
        targets = [
            (node, one) for node in sorted(ours(info)) for one, (spec, _) in inputs_of(info, node).items() if one in TYPED or choices_of(spec) is not None
        ]
        try:
            for number, way in enumerate(ways):
                for node, one in targets:
                    plain = one in NAMES and re.fullmatch(r"\w+(\.\w+)?", way) is not None
                    if plain and one == "export_as":
                        continue  # it would be measured for minutes
                    if one not in TYPED and (number + len(node) + len(one)) % 8:
                        continue  # a choice is held against its list, whatever the text: an eighth of the ways each
                    changed = {one: way}  # as a name, "list0.txt" is one like any other
                    prompt = prompt_of(info, node, changed, cheap=True)
                    if one == "folder":
                        prompt["n"]["inputs"].pop("images", None)
                    entry, trouble = outcome(host, prompt)
                    verdict, told = judge(entry, trouble, not plain, [one, "video", "clips", "cannot be", "data set"])
                    shown = json.dumps(entry, ensure_ascii=False).replace(json.dumps(way), "") if entry else ""
                    leaked = SECRET in shown.replace(way, "") or "root:" in shown or bool(asked)
                    table.add("paths", "silent" if leaked else verdict, f"{node}.{one} {way}", told)
        finally:
            swept(host)
            (checkpoints / "model.safetensors").unlink()
        kept = [p for part in ("output", "models") for p in (Path(host.base) / part).rglob("*") if p.is_file()]
        leaked = SECRET in host.read_log().replace(f"{SECRET}.mp4", "") or any(SECRET.encode() in p.read_bytes() for p in kept)
        table.add("paths", "silent" if leaked else "clear", "the log and every file that was written", "a secret stands there")
