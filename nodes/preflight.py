"""CILPreflight: why a clip may stand still, or fall apart, that has nothing to do with leakage. Read from the graph's own objects."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from comfy_api.latest import io

from .families import Family
from .host.latents import frames_dim, parts_of, sized_for
from .host.models import model_family
from .host.notes import say
from .host.types import Conditioning, Model, NodeIdLike
from .motion import CATEGORY

CACHES = re.compile(r"easy_?cache|lazy_?cache|tea_?cache|mag_?cache|first_?block|fb_?cache|wavespeed|step_?cache", re.IGNORECASE)
STILLING = re.compile(r"lightx2v|lightning|causvid|accvid|fusionx|fastwan|lcm", re.IGNORECASE)  # few-step LoRAs, which users find to move less


@dataclass(frozen=True)
class Trained:
    """What a family was trained on. cell: pixels a latent cell is wide; grid: cells that a side must be a multiple of; areas: widths and heights, pixels; frames: latent frames of the shortest clips, as their authors give them; said: in the videos' own frames."""

    cell: int
    grid: int
    areas: tuple[tuple[int, int], ...]
    frames: int
    said: str


# From the authors' papers and model cards.
TRAINED = {
    "SVD": Trained(8, 8, ((1024, 576),), 14, "14 frames (XT: 25)"),
    "DynamiCrafter": Trained(8, 8, ((256, 256), (512, 320), (1024, 576)), 16, "16 frames"),
    "Native DynamiCrafter": Trained(8, 8, ((256, 256), (512, 320), (1024, 576)), 16, "16 frames"),
    "VideoCrafter1": Trained(8, 8, ((512, 320), (1024, 576)), 16, "16 frames"),
    "Wan": Trained(8, 2, ((832, 480), (1280, 720)), 21, "81 frames"),
    "Wan VACE": Trained(8, 2, ((832, 480), (1280, 720)), 21, "81 frames"),
    "Wan 2.2 5B": Trained(16, 2, ((1280, 704),), 31, "121 frames"),
    "HunyuanVideo": Trained(8, 2, ((960, 544), (1280, 720)), 33, "129 frames"),
    "HunyuanVideo 1.5": Trained(16, 1, ((848, 480), (1280, 720)), 31, "121 frames"),
    "LTXV": Trained(32, 1, ((768, 512), (1216, 704)), 13, "97 frames"),
    "Cosmos": Trained(8, 2, ((1280, 704),), 16, "121 frames"),
    "demo": Trained(8, 4, ((128, 128),), 12, "12 frames"),
    "landscape": Trained(8, 4, ((128, 128),), 12, "12 frames"),
}
FEWER = 0.75  # of the frames: below it, it is said
AREA = (0.35, 2.0)  # of the smallest and largest trained area: outside, it is said


def findings(
    model: Model, positive: Conditioning, negative: Conditioning, latent: dict, cfg: float, prompt: dict | None = None, node_id: NodeIdLike | None = None
) -> list[str]:
    """What is likely to go wrong, a sentence each. negative may be None; prompt: the queued graph, with the id of the node that asks.

    Raises ValueError for a latent that the model cannot be sampled with.
    """
    family = model_family(model)
    return [
        *of_size(family, parts_of(sized_for(model, latent))[0]),
        *of_guidance(positive, negative, cfg),
        *of_conditioning(family, positive),
        *of_patches(model),
        *(of_loras(prompt, node_id) if prompt else ()),
    ]


def of_size(family: Family, video: torch.Tensor) -> list[str]:
    """The latent's width, height and length against what the family was trained on."""
    if video.ndim not in (4, 5):
        return ["this latent is no video: the model makes one picture, and nothing moves in it"]
    frames = video.shape[frames_dim(video)]
    if frames < 2:
        return ["the latent has one frame, and nothing moves in it: ask for more frames"]
    known = TRAINED.get(family.key)
    if known is None:
        return []
    h, w = video.shape[-2:]
    out, size = [], f"{w * known.cell} x {h * known.cell}"
    if h % known.grid or w % known.grid:
        unit = known.cell * known.grid
        out.append(
            f"{size} is not a multiple of {unit} pixels on both sides, which {family.key} takes: choose {nearest(w * known.cell, unit)} x {nearest(h * known.cell, unit)}"
        )
    areas = [a * b for a, b in known.areas]
    if not AREA[0] * min(areas) <= h * w * known.cell**2 <= AREA[1] * max(areas):
        trained = ", ".join(f"{a} x {b}" for a, b in known.areas)
        out.append(f"{size} is far from what {family.key} was trained on ({trained}): clips of such a size stand still or fall apart more easily")
    if frames < FEWER * known.frames:
        out.append(f"the clip is short: {frames} latent frames, while {family.key} was trained on {known.frames} ({known.said}); short clips move less")
    return out


def nearest(pixels: int, unit: int) -> int:
    return max(unit, round(pixels / unit) * unit)


def of_guidance(positive: Conditioning, negative: Conditioning, cfg: float) -> list[str]:
    if not math.isclose(cfg, 1.0) or not negative or same_text(positive, negative):
        return []
    if not any(entry[0] is not None and bool(entry[0].any()) for entry in negative):
        return []
    return ["at CFG 1 the negative prompt is not evaluated: what it forbids ('static', for example) has no effect"]


def same_text(positive: Conditioning, negative: Conditioning) -> bool:
    """Whether both conditionings are one and the same text."""
    texts = [[entry[0] for entry in c] for c in (positive, negative)]
    return len(texts[0]) == len(texts[1]) and all(
        a is b or (a is not None and b is not None and a.shape == b.shape and bool((a == b).all())) for a, b in zip(*texts)
    )


def of_conditioning(family: Family, positive: Conditioning) -> list[str]:
    out = []
    for entry in positive:
        bucket = entry[1].get("motion_bucket_id")
        if bucket is not None and family.bucket and bucket <= 20:
            out.append(f"motion_bucket_id is {bucket}: it asks this model for next to no motion (127 is the usual setting)")
            break
    return out


def of_patches(model: Model) -> list[str]:
    """Step caches, by the names that they leave in the MODEL."""
    names = set(all_names(model.model_options)) | set(all_names(getattr(model, "wrappers", {}))) | set(all_names(getattr(model, "object_patches", {})))
    found = sorted({match[0] for name in names if (match := CACHES.search(name))})
    return [f"a step cache is on this model ({', '.join(found)}): it reuses the first steps, where motion is decided. Try without it"] if found else []


def all_names(thing: Any, depth: int = 0) -> Iterator[str]:
    """The names in a MODEL's options: keys, and the classes and functions that other nodes put there."""
    if depth > 6:
        return
    if isinstance(thing, dict):
        for key, value in thing.items():
            if value is not None and value is not False:
                yield str(key)
                yield from all_names(value, depth + 1)
    elif isinstance(thing, (list, tuple)):
        for value in thing:
            yield from all_names(value, depth + 1)
    elif callable(thing) or hasattr(thing, "__dict__"):
        yield getattr(thing, "__qualname__", "")
        yield type(thing).__qualname__


def of_loras(prompt: dict, node_id: NodeIdLike) -> list[str]:
    """LoRAs before this node in the graph whose names are those of few-step LoRAs."""
    seen, ahead, found = set(), [str(node_id)], []
    while ahead:
        at = ahead.pop()
        if at in seen or not isinstance(prompt.get(at), dict):
            continue
        seen.add(at)
        for name, value in prompt[at].get("inputs", {}).items():
            if isinstance(value, (list, tuple)) and len(value) == 2:
                ahead.append(str(value[0]))
            elif name.startswith("lora_name") and isinstance(value, str) and STILLING.search(value):
                found.append(value)
    return [
        f"{name} is a few-step LoRA; such LoRAs often calm the motion: on Wan 2.2, try it in the second stage alone, or at less strength in the first"
        for name in sorted(set(found))
    ]


class Preflight(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CILPreflight",
            display_name="Motion Preflight: Why So Slow? (CIL)",
            category=CATEGORY,
            description="Before a run: causes of still or broken clips that are not leakage, in words. A size that the model does not take, too few frames, a negative prompt at CFG 1, a step cache, a low motion bucket, a few-step LoRA. It runs no model.",
            inputs=[
                io.Model.Input("model", tooltip="The model as it goes into the sampler."),
                io.Conditioning.Input("positive", tooltip="The positive conditioning as it goes into the sampler."),
                io.Latent.Input("latent", tooltip="The latent as it goes into the sampler."),
                io.Float.Input("cfg", default=1.0, min=0.0, max=100.0, step=0.1, tooltip="The sampler's CFG. At 1 a negative prompt is not evaluated."),
                io.Conditioning.Input("negative", optional=True, tooltip="The negative conditioning, to see whether it can act."),
            ],
            outputs=[
                io.String.Output(display_name="report", tooltip="What was found, a line each; as JSON: [] where nothing was."),
                io.Boolean.Output(display_name="clear", tooltip="True where nothing was found."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model: Model, positive: Conditioning, latent: dict, cfg: float, negative: Conditioning | None = None) -> io.NodeOutput:
        found = findings(model, positive, negative, latent, cfg, cls.hidden.prompt, cls.hidden.unique_id)
        text = "\n".join(found) or "nothing was found that would hold this clip back"
        say(cls.hidden.unique_id, text)
        return io.NodeOutput(json.dumps(found), not found)


NODES = [Preflight]
