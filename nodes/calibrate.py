"""Leakage of a model over a prepared set of clips: `python run.py do nodes.calibrate SET --model MODEL`.

SET is a folder made by nodes.training.prepare for MODEL (which is named as there); each clip is
shown with its own first frame, text and numbers, as training shows it. Prints the verdict and
the levels; --out writes them as JSON, and a plot beside it. Under torchrun the clips are spread
over the processes:
    COMFYUI_PATH=... CIL_INSIDE=1 torchrun --nproc-per-node 8 run.py do nodes.calibrate ...
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import comfy.sd
import comfy.utils
import torch

from ..cil import calibration, prepared, processes, randomness, training
from ..cil.prepared import ClipSet
from ..cil.training import Clip
from .host.evaluation import SamplingContext
from .host.latents import to_latent
from .host.models import model_family
from .host.sampling import Sampling
from .host.types import Conditioning, Model
from .training import train
from .training.conditions import ConditionAdapter, adapter_of
from .training.prepare import add_variant, load_checkpoint

if TYPE_CHECKING:
    from .verdict import Finding


def checked_adapter(model: Model, clips: ClipSet, bucket: int) -> ConditionAdapter:
    """How the model is told of the clips of a set -> ConditionAdapter. Raises ValueError where it cannot take them, before anything runs."""
    try:
        adapter = adapter_of(model)
    except ValueError:
        raise ValueError(
            f"several clips can be probed on models that the pack can train (SVD's family, DynamiCrafter, VideoCrafter1, Wan 2.1 / 2.2 14B image-to-video), "
            f"but a {type(model.model).__name__} came: give one clip as images or latent"
        ) from None
    train.check(model, clips, train.TrainConfig(bucket=bucket))
    return adapter


def conditioning(adapter: ConditionAdapter, clip: Clip, fps: float, bucket: int) -> Conditioning:
    """A CONDITIONING of the host that says of one clip what training says of it."""
    told = adapter.conditioning(training.Example(clip, None, 0.0), fps, bucket or None, torch.device("cpu"))
    return [[told.pop("cross_attn"), told]]


def chosen(clips: ClipSet, most: int, seed: int) -> list[int]:
    """Which clips of a set to take: `most` of them at random, 0 = all."""
    order = torch.randperm(len(clips), generator=training.generator(seed, 3)).tolist()
    return order[: most or len(order)]


def probed(model: Model, adapter: ConditionAdapter, clip: Clip, sigmas: list[float], pairs: int, seed: int, bucket: int, fps: float, tick: Callable) -> tuple:
    """One clip -> what `calibration.Evidence.add` takes. tick: see `calibration.measure`."""
    x0 = clip.latents.float()
    samples = to_latent(model, x0.movedim(1, 0) if adapter.frames_as_batch else x0[None])
    as_clip = (lambda x: x.movedim(1, 0)) if adapter.frames_as_batch else (lambda x: x[0])
    process, apart, found = Sampling.of(model).process, model_family(model).first_apart, []
    work = lambda denoise, a: found.append(calibration.measure(denoise, process, a, sigmas, pairs, seed, as_clip, tick, apart))
    SamplingContext(model, conditioning(adapter, clip, fps, bucket), None, 1.0, seed).run(samples, sigmas, work)
    return found[0]


def calibrate(
    model: Model, clips: ClipSet, which: Iterable[int], sigmas: list[float], pairs: int, seed: int, bucket: int, tick: Callable
) -> calibration.Evidence:
    """The clips `which` of a ClipSet through a MODEL, one after the other.

    bucket: the motion bucket that SVD is told, 0 = each clip's own; tick(place, level, predictions).
    """
    adapter = checked_adapter(model, clips, bucket)
    evidence = calibration.Evidence(Sampling.of(model).process, sigmas, 2 * pairs)
    for place, index in enumerate(which):
        own = lambda level, predictions, place=place: tick(place, level, predictions)
        evidence.add(*probed(model, adapter, clips[index], sigmas, pairs, randomness.clip_seed(seed, index), bucket, clips.settings["fps"], own))
    return evidence


def gathered(evidence: calibration.Evidence) -> calibration.Evidence:
    """All processes' clips together, the same in each."""
    if processes.team().world == 1:
        return evidence
    parts: list = [None] * processes.team().world
    torch.distributed.all_gather_object(parts, (evidence.products, evidence.dims, evidence.moments))
    whole = calibration.Evidence(evidence.process, evidence.levels, evidence.evaluations)
    for products, dims, moments in parts:
        for clip, sums in enumerate(moments):
            whole.add({name: value[clip] for name, value in products.items()}, dims, sums)
    return whole


# ---- the command ----------------------------------------------------------------------


def arguments_of(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nodes.calibrate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", metavar="SET", help="folder made by nodes.training.prepare")
    parser.add_argument("--model", required=True, help="checkpoint, diffusion model, or demo:leaking, demo:healthy, demo:FILE")
    add_variant(parser)
    parser.add_argument("--lora", help="a LoRA file to put on the model at full strength")
    parser.add_argument("--out", type=Path, help="JSON file for the report; a .png of the plot comes beside it")
    parser.add_argument("--clips", dest="most", type=int, default=0, help="how many clips, at random; 0 = all of the set")
    parser.add_argument("--levels", type=int, default=12)
    parser.add_argument("--from-fraction", type=float, default=0.0, help="lowest level as M / T; 0 = where motion is settled")
    parser.add_argument("--to-fraction", type=float, default=1.0, help="highest level as M / T")
    parser.add_argument("--pairs", type=int, default=2, help="antithetic pairs of noises a clip and level")
    parser.add_argument("--bucket", type=int, default=127, help="motion bucket that SVD is told; 0 = each clip's motion score")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    o = arguments_of(arguments)
    with processes.command():
        run(o)


@torch.no_grad()
def run(o: argparse.Namespace) -> None:
    """The command, its arguments read."""
    from . import verdict

    team = processes.team()
    clips, model = prepared.load(o.clips), load_checkpoint(o.model, o.variant)[0]
    if o.lora:
        model = comfy.sd.load_lora_for_models(model, None, comfy.utils.load_torch_file(o.lora, safe_load=True), 1.0, 0.0)[0]
    sampling = Sampling.of(model)
    chosen_levels = sampling.levels(o.levels, o.from_fraction, o.to_fraction)
    every = chosen(clips, o.most, o.seed)
    mine = every[team.rank :: team.world]

    def tick(place, level, predictions):
        if team.rank == 0 and level == len(chosen_levels) - 1 and sys.stderr.isatty():
            print(f"\r{place + 1} of {len(mine)} clips ", end="", file=sys.stderr, flush=True)

    evidence = gathered(calibrate(model, clips, mine, [s for _, s in chosen_levels], o.pairs, o.seed, o.bucket, tick))
    if team.rank:
        return
    found = verdict.Finding(evidence, sampling, chosen_levels)
    print("\n".join(["", found.sentence, *found.details, "", *found.table()]))
    if o.out:
        o.out.parent.mkdir(parents=True, exist_ok=True)
        o.out.write_text(
            json.dumps(found.report() | {"model": Path(o.model).name, "set": Path(o.clips).name, "seed": o.seed}, indent=1) + "\n", encoding="utf-8"
        )
        save_plot(found, o.out.with_suffix(".png"))


def save_plot(found: "Finding", path: Path) -> None:
    """The node's plot as a file."""
    from PIL import Image

    from . import plots

    plot = plots.probe_plot(found)[0]
    Image.fromarray((plot * 255).round().clamp(0, 255).byte().numpy()).save(path)
