"""Kill -9 at random moments, then go on: `python run.py do bench.kills [--kills 100]`. Results in bench/results/kills.md.

The commands moments.estimate, nodes.training.prepare and nodes.training.train run in processes
of their own on the demo model. Each is killed at a random moment, taken up again, killed again,
and at last let through. What it then has made is compared with that of a run that was never
stopped, bit by bit, and the folder is looked through for what does not belong there.
"""

import argparse
import io
import os
import random
import signal
import sys
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import torch
from safetensors.torch import load_file

from ..cil import prepared
from ..moments import estimate
from ..nodes.training import prepare, train

CLIP = ["--frames", "4", "--fps", "3", "--width", "32", "--height", "32", "--per-video", "6"]
TRAIN = [
    "--steps",
    "10",
    "--rank",
    "2",
    "--precision",
    "fp32",
    "--no-checkpointing",
    "--beta-m",
    "5",
    "--P-mean",
    "1",
    "--ema",
    "0.9",
    "--learning-rate",
    "0.001",
    "--accumulation",
    "2",
]
LEFT_OVER = (".part", ".lock", ".json")


def videos(folder: Path, count: int = 6) -> Path:
    """Small videos of moving noise, one of them broken."""
    import av

    folder.mkdir()
    for i in range(count):
        g = torch.Generator().manual_seed(i)
        with av.open(str(folder / f"{i}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=6)
            stream.width = stream.height = 64
            stream.pix_fmt = "yuv420p"
            picture = torch.rand(1, 3, 8, 8, generator=g)
            for n in range(24):
                frame = torch.nn.functional.interpolate(picture.roll(n // 3, -1), (64, 64), mode="bilinear")[0].movedim(0, -1)
                for packet in stream.encode(av.VideoFrame.from_ndarray((255 * frame).byte().numpy(), format="rgb24")):
                    container.mux(packet)
            for packet in stream.encode(None):
                container.mux(packet)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


class Command:
    """One of the commands, with a folder to write into: how it runs, what it makes, and when two results are the same."""

    def __init__(self, name, arguments, made):
        self.name, self.arguments, self.made = name, arguments, made

    def start(self, folder: Path) -> int:
        """Run it in a process of its own -> its id."""
        folder.mkdir(exist_ok=True)
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                self.arguments(folder)()
            code = 0
        except BaseException as error:
            os.write(2, f"{self.name}: {error!r}\n".encode())
        finally:
            os._exit(code)

    def finish(self, folder: Path) -> float:
        """Run it to its end -> seconds. Raises RuntimeError if it fails."""
        began = time.monotonic()
        if os.waitpid(self.start(folder), 0)[1]:
            raise RuntimeError(f"{self.name} failed")
        return time.monotonic() - began

    def killed(self, folder: Path, after: float) -> bool:
        """Run it for so many seconds -> whether it was still running then and has been killed."""
        pid, until = self.start(folder), time.monotonic() + after
        while time.monotonic() < until:
            if os.waitpid(pid, os.WNOHANG)[0]:
                return False
            time.sleep(0.005)
        os.kill(pid, signal.SIGKILL)
        return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def commands(source: Path, clips: Path) -> list[Command]:
    def of_set(folder):
        made = prepared.load(folder / "set")
        return {
            f"{name} {i}": t
            for i, name in enumerate(made.names)
            for t in [torch.cat([made[i].latents.float().flatten(), made[i].image.flatten(), made[i].embed.flatten()])]
        }

    return [
        Command("estimate", lambda out: lambda: estimate.main([str(source), "--vae", "demo", "--out", str(out / "m.safetensors"), *CLIP]), lambda out: load_file(out / "m.safetensors") | load_file(out / "m.partial.safetensors")),
        Command("prepare", lambda out: lambda: prepare.main([str(source), "--model", "demo:healthy", "--out", str(out / "set"), "--flow", "none", *CLIP]), of_set),
        Command("train", lambda out: lambda: train.main([str(clips), "--model", "demo:healthy", "--out", str(out / "lora.safetensors"), *TRAIN]), lambda out: load_file(out / "lora.safetensors")),
    ]  # fmt: skip


def strange(folder: Path) -> list[str]:
    """What is left in a folder and belongs to no result."""
    return [p.name for p in folder.rglob("*") if p.is_file() and p.suffix in LEFT_OVER]


def campaign(command: Command, kills: int, place: Path, chance: random.Random) -> dict:
    """So many kills of one command, over as many results as that takes -> its row of the table."""
    seconds = command.finish(place / "whole")
    right, done, results, same, left, most = command.made(place / "whole"), 0, 0, 0, 0, 0
    while done < kills:
        folder = place / f"{results}"
        for _ in range(chance.randint(1, 6)):
            if done == kills:
                break
            done += command.killed(folder, chance.uniform(0, 1.1 * seconds))
            most = max(most, len(strange(folder)))
        command.finish(folder)
        made, results = command.made(folder), results + 1
        same += made.keys() == right.keys() and all(torch.equal(made[k], right[k]) for k in right)
        left += len(strange(folder))
    return {"command": command.name, "seconds": seconds, "kills": done, "results": results, "same": same, "most": most, "left": left}


def main(arguments: list[str] | None = None):
    parser = argparse.ArgumentParser(prog="bench.kills", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="over the three commands together")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    o = parser.parse_args(arguments)
    if not hasattr(os, "fork"):
        raise SystemExit("this needs a system with fork and signals")
    torch.set_num_threads(1)
    os.environ["CIL_SAVE_EVERY"] = "0"  # after each clip, each update
    chance = random.Random(o.seed)
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        source, clips = videos(place / "videos"), place / "clips" / "set"
        todo = commands(source, clips)
        todo[1].finish(clips.parent)
        print(
            "| command | a whole run | kills | results | the same to the bit | most that a kill left behind | left at the end |\n|---|---|---|---|---|---|---|"
        )
        rows = []
        for n, command in enumerate(todo):
            (place / command.name).mkdir()
            rows.append(campaign(command, o.kills // 3 + (n < o.kills % 3), place / command.name, chance))
            print("| {command} | {seconds:.1f} s | {kills} | {results} | {same} | {most} | {left} |".format(**rows[-1]), flush=True)
    if any(row["same"] < row["results"] or row["left"] for row in rows):
        sys.exit("a result differs, or something was left behind")
