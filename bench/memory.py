"""Peak memory and time at real sizes: `python run.py do bench.memory`. Results in bench/results/memory.md.

Synthetic clips, stand-ins for network, VAE and (in the sweep) optical flow: what is measured is what
the pack itself holds and does. Each row runs in a process of its own; its peak is what the resident
memory rose to above what was there when the work began (models, the graph's own clip).
BEFORE holds the same of an earlier commit of the pack, with the same stand-ins.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import comfy.latent_formats
import comfy.model_base
import comfy.model_patcher
import comfy.samplers
import comfy.supported_models_base
import torch

from ..cil import clips, processes
from ..cil.training import Recipe, Training
from ..nodes import sweep
from ..nodes.motion import DIS, MotionScore
from ..nodes.probe import LeakageProbe
from ..nodes.probe_clip import FROZEN
from .sampling import write_result

MB = 1e6
SVD_LATENT, SVD_CLIP = (25, 4, 72, 128), (25, 576, 1024, 3)
WAN_LATENT, WAN_CLIP = (1, 16, 21, 60, 104), (81, 480, 832, 3)
PARAMETERS = 25_000_000
Row = tuple[str, str, float, float]  # work, size, peak in bytes, seconds


# ---- stand-ins ------------------------------------------------------------------------


class Still(torch.nn.Module):
    """A network that predicts zeros."""

    dtype = torch.float32

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor, **kwargs) -> torch.Tensor:
        return torch.zeros_like(x)


class Vae:
    """Latents enlarged to pixels; of a code with causal time four frames a latent, after the first."""

    def decode(self, samples: torch.Tensor) -> torch.Tensor:
        frames = samples if samples.ndim == 4 else samples[0].movedim(0, 1).repeat_interleave(4, 0)[3:]  # [T, C, h, w]
        pixels = torch.nn.functional.interpolate(frames[:, :3].float(), scale_factor=8)
        return pixels.mul_(0.1).add_(0.5).clamp_(0, 1).movedim(1, -1)


def model_of(kind, settings, latent, channels):
    """A MODEL of the host around `Still`."""

    class Config(comfy.supported_models_base.BASE):
        unet_config = {"disable_unet_model_creation": True, "in_channels": channels}
        unet_extra_config = {}
        latent_format = latent
        sampling_settings = settings

    base = comfy.model_base.BaseModel(Config(Config.unet_config), kind)
    base.diffusion_model = Still()
    return comfy.model_patcher.ModelPatcher(base, torch.device("cpu"), torch.device("cpu"))


def svd():
    return model_of(comfy.model_base.ModelType.V_PREDICTION_EDM, {"sigma_max": 700.0, "sigma_min": 0.002}, comfy.latent_formats.SD15, 4)


def wan():
    return model_of(comfy.model_base.ModelType.FLOW, {"shift": 8.0}, comfy.latent_formats.Wan21, 16)


def conditioning():
    return [[torch.zeros(1, 1, 8), {}]]


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# ---- measuring ------------------------------------------------------------------------


def resident(field="VmRSS"):
    """Bytes that this process holds now (VmRSS) or held at most (VmHWM). Linux."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def measured(work: Callable) -> tuple[float, float]:
    """-> (peak above what was there before, seconds)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    before, began = resident(), time.perf_counter()
    work()
    return resident("VmHWM") - before, time.perf_counter() - began


def elements(shape):
    return torch.Size(shape).numel()


def probe(levels: int) -> Row:
    latent, model, node = {"samples": noise(*SVD_LATENT)}, svd(), LeakageProbe.PREPARE_CLASS_CLONE(None)
    run = lambda: node.execute(model, FROZEN, 1.0, levels, 0.0, 1.0, 1, 0, DIS, conditioning(), None, None, Vae(), latent)
    return "Leakage Probe, with its sheet", f"{levels} levels", *measured(run)


def sweeps(starts: int) -> Row:
    guider = comfy.samplers.CFGGuider(wan())
    guider.set_conds(conditioning(), conditioning())
    sweep.flow_backend = lambda *args: lambda a, b, **updates: torch.zeros(*a.shape[:2], 2)
    text, sampler, node = f"1:0.9:{starts}", comfy.samplers.sampler_object("euler"), sweep.StartSweep.PREPARE_CLASS_CLONE(None)
    latent = {"samples": torch.zeros(WAN_LATENT)}
    run = lambda: node.execute(guider, sampler, latent, Vae(), text, "fraction", True, "simple", 1, 0, 1, DIS)
    return "Start Sweep, 81 frames of 832 x 480", f"{starts} starts", *measured(run)


def score(frames: int) -> Row:
    clip = (torch.nn.functional.interpolate(noise(frames, 3, 36, 64), scale_factor=16, mode="bilinear") * 0.2 + 0.5).clamp(0, 1).movedim(1, -1)
    node = MotionScore.PREPARE_CLASS_CLONE(None)
    run = lambda: node.execute(clip, DIS, 0.0, 1.0)
    return "Motion Score, all its measures and pictures", f"{frames} frames", *measured(run)


def read(frames: int) -> Row:
    import av
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        with av.open(str(path), "w") as out:
            stream = out.add_stream("mpeg4", rate=6)
            stream.width, stream.height, stream.pix_fmt = 3840, 2160, "yuv420p"
            for i in range(2 * frames):
                picture = np.full((2160, 3840, 3), 30 + i, np.uint8)
                out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            out.mux(stream.encode())
        spec = clips.ClipSpec(frames, 3.0, 480, 832)
        row = measured(lambda: clips.read(path, spec, 0))
    return "reading a clip of a 3840 x 2160 file", f"{frames} frames", *row


class OnACard(processes.Alone):
    """One process whose weights lie on a card: what is gathered from there is a copy."""

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.clone()


def saving(seconds: float) -> Row:
    """A training whose state is saved as often as it may; its steps do nothing but wait. The peak is that of a save."""
    parameters = {f"layer {i}": torch.nn.Parameter(torch.zeros(PARAMETERS // 10)) for i in range(10)}
    began, saves = time.perf_counter(), []
    run = Training(parameters, Recipe(steps=10**6, clip_norm=0.0), {}, OnACard())
    loss = lambda step, part: sum(p[:8].sum() for p in parameters.values())
    run.update(loss)  # AdamW's moments are there from now on
    save = run.save
    run.save = lambda path: saves.append(measured(lambda: save(path)))

    class Over(Exception):
        pass

    def until(training):
        time.sleep(0.2)
        if time.perf_counter() - began > seconds:
            raise Over

    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        with suppress(Over):
            run.run(loss, Path(folder) / "state.safetensors", 1.0, until)
        whole = time.perf_counter() - start
    on_the_way = [took for _, took in saves[:-1]]  # the last is the one at the end
    share = f"{len(on_the_way)} saves on the way took {sum(on_the_way) / whole:.1%} of {whole:.0f} s"
    peak, each = max(peak for peak, _ in saves), sum(took for _, took in saves) / len(saves)
    return f"saving a training of {PARAMETERS / 1e6:g} million fp32 weights on a card, asked for every second", share, peak, each


PARTS: dict[str, Callable[[], Row]] = {
    "probe few": lambda: probe(4), "probe many": lambda: probe(12), "sweep few": lambda: sweeps(2), "sweep many": lambda: sweeps(4),
    "score short": lambda: score(13), "score": lambda: score(25), "read short": lambda: read(9), "read": lambda: read(33), "saving": lambda: saving(150),
}  # fmt: skip


# The same work and stand-ins on commit 05062a9, the last before the round that made real sizes fit: (peak in MB, seconds), one idle core.
# There 23 saves on the way took 45 % of 61 s. Its Motion Score and Start Sweep measured the optical flow alone.
BEFORE = {
    "probe few": (1190, 15.0), "probe many": (3327, 50.2), "sweep few": (1675, 7.8), "sweep many": (2468, 20.6),
    "score short": (552, 4.8), "score": (934, 12.0), "read short": (309, 1.7), "read": (1106, 6.1), "saving": (320, 1.2),
}  # fmt: skip
HEAD = [
    "# Peak memory at real sizes",
    "",
    "`python run.py do bench.memory`: synthetic clips, stand-ins for the networks and VAEs, and in the sweep for the optical flow; one CPU core. "
    "SVD 25 x 576 x 1024, Wan 81 x 480 x 832. *peak*: by how much the resident memory of the process rises while the node works. "
    f"One decoded clip is {4 * elements(SVD_CLIP) / MB:.0f} MB of SVD and {4 * elements(WAN_CLIP) / MB:.0f} MB of Wan. Of a saving: its time, and the peak while it writes (0: a tensor at a time, in memory that was free).",
    "",
    "*before*: commit 05062a9, the last before the nodes were made to hold one clip. It was checked out beside this one, and the same stand-ins, clips and sizes "
    "were given to its nodes and functions, each row in a process of its own. Its Motion Score and Start Sweep measured the optical flow alone; now both measure "
    "consistent motion, flicker and likeness too, which takes most of their time. Of its training 23 saves on the way took 45 % of 61 s. The seconds before are of an idle core, "
    "those of now of one that was shared.",
    "",
    "| work | size | peak before, MB | peak now, MB | s before | s now |",
    "|---|---|---|---|---|---|",
]


def line(part: str, row: Row) -> str:
    work, size, peak, seconds = row
    before, took = BEFORE[part]
    return f"| {work} | {size} | {before} | {peak / MB:.0f} | {took:.1f} | {seconds:.1f} |"


def main(arguments: list[str] | None = None):
    parser = argparse.ArgumentParser(prog="bench.memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=list(PARTS), help="one row, as JSON")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.part:
        with torch.no_grad() if options.part != "saving" else torch.enable_grad():
            print("ROW " + json.dumps(PARTS[options.part]()))
        return
    rows = []
    for part in PARTS:
        command = [sys.executable, str(Path(sys.argv[0]).resolve()), "do", "bench.memory", "--part", part]
        text = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ).stdout
        rows.append(line(part, json.loads(next(found[4:] for found in text.splitlines() if found.startswith("ROW ")))))
        print(rows[-1], flush=True)
        write_result("memory.md", [*HEAD, *rows])  # what is there already, should it be stopped
