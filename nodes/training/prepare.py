"""Prepare a folder of videos for training: `python run.py do nodes.training.prepare VIDEOS --model MODEL --out SET`.

VIDEOS is a folder or a text file with one path a line; MODEL a checkpoint of SVD,
DynamiCrafter or VideoCrafter1, a diffusion model file of Wan 2.1 / 2.2 14B image-to-video, or
`demo:leaking`, `demo:healthy`, `demo:FILE`. What MODEL does not bring comes from --vae,
--clip-vision and --text-encoder. A video's text is a .txt file of its name beside it; others
get --prompt. Stopped, the same command goes on.
"""

import argparse
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path

import comfy.clip_vision
import comfy.model_management
import comfy.sd
import comfy.utils
import torch

from ...cil import clips, motion, prepared
from ...cil.processes import command, team
from ...cil.training import Clip
from .. import fingerprint
from ..host.latents import clip_latents
from ..host.models import model_family
from ..host.types import Model
from ..lvdm import checkpoint as lvdm_checkpoint
from ..lvdm.model import VARIANTS
from ..motion import DIS, flow_backend
from .conditions import SVD, ConditionAdapter, Encoders, Wan, adapter_of, check_encoders, text_embedding

NO_FLOW = "none"


def load_checkpoint(name: str, variant: str = lvdm_checkpoint.AUTOMATIC) -> tuple:
    """-> (MODEL, Encoders) with what the file brings of them. variant: of DynamiCrafter, where its file does not tell."""
    if name.startswith("demo:"):
        from ...demo import model

        made, clip_vision, vae = model.load(name.removeprefix("demo:"))
        return made, Encoders(vae, clip_vision)
    if not Path(name).is_file():
        raise ValueError(f"there is no checkpoint at {name}")
    tensors = lvdm_checkpoint.read(name)
    if any(".temopral_conv." in key for key in tensors):
        made, clip, clip_vision, vae = lvdm_checkpoint.build(tensors, name, variant)
        return made, Encoders(vae, clip_vision, clip)
    del tensors
    try:
        made, _, vae, clip_vision = comfy.sd.load_checkpoint_guess_config(name, output_vae=True, output_clip=False, output_clipvision=True)[:4]
    except RuntimeError as error:
        raise ValueError(f"{name} is no checkpoint that this host knows: {str(error).splitlines()[0]}") from None
    return made, Encoders(vae if vae is not None and vae.first_stage_model is not None else None, clip_vision)


def with_files(
    encoders: Encoders, adapter: ConditionAdapter, vae: str | None = None, clip_vision: str | None = None, text_encoder: str | None = None
) -> Encoders:
    """Encoders with what files of their own bring instead."""
    read = functools.partial(comfy.utils.load_torch_file, safe_load=True)
    clip_type = comfy.sd.CLIPType.WAN if isinstance(adapter, Wan) else comfy.sd.CLIPType.STABLE_DIFFUSION
    return Encoders(
        comfy.sd.VAE(sd=read(vae)) if vae else encoders.vae,
        comfy.clip_vision.load(clip_vision) if clip_vision else encoders.clip_vision,
        comfy.sd.load_clip([text_encoder], clip_type=clip_type) if text_encoder else encoders.clip,
    )


@torch.no_grad()
def encoded(
    frames: torch.Tensor,
    adapter: ConditionAdapter,
    encoders: Encoders,
    process_in: Callable,
    flow: Callable | None,
    text: torch.Tensor | None,
    dropped: dict | None,
) -> Clip:
    """One clip, uint8 [T, H, W, 3] -> Clip. text: its embedding or None; dropped: see Clip."""
    pixels = frames.float() / 255  # [T, H, W, 3]
    return Clip(
        clip_latents(encoders.vae, process_in, pixels),
        **adapter.encode(pixels, encoders),
        motion=motion.motion_score(pixels, flow) if flow else 0.0,
        text=text,
        dropped=dropped,
    )


def prepare(
    model: Model, encoders: Encoders, videos: str, spec: clips.ClipSpec, flow: str, folder: Path, per_video: int = 1, prompt: str = "",
    progress: Callable | None = None, every: float = 60.0, roots: list[Path] | None = None,
) -> prepared.ClipSet:  # fmt: skip
    """Videos -> a ClipSet in `folder`. flow: a name of nodes/motion.py, or NO_FLOW; prompt: of videos without a caption; roots: as in `clips.find`."""
    adapter = adapter_of(model)
    check_encoders(adapter, encoders)
    adapter.check_frames(spec.frames)
    interrupted = comfy.model_management.throw_exception_if_processing_interrupted
    paths = clips.find(clips.unquoted(str(videos)), roots, interrupted)
    if not paths:
        raise ValueError(f"{Path(videos).name or videos} holds no videos ({', '.join(sorted(clips.SUFFIXES))})")
    items = [clips.Draw(path, n) for path in paths for n in range(per_video)]
    settings = {**vars(spec), "space": model_family(model).space, "flow": flow, "files": clips.digest(path.name for path in paths), "per_video": per_video}
    settings |= {f"{name}_weights": fingerprint.of_encoder(encoder) for name, encoder in vars(encoders).items()}
    if not isinstance(adapter, SVD):  # whose sets are older than this
        settings["kind"] = adapter.name
    captions = clips.captions(paths, roots) if adapter.text else {}
    text_of = lambda path: prompt.strip() if captions.get(path) is None else captions[path]
    if adapter.text:
        settings |= {"captions": sum(c is not None for c in captions.values()), "texts": clips.digest(map(text_of, paths))}
    embedded = functools.lru_cache(64)(lambda text: text_embedding(encoders.clip, text) if adapter.text else None)
    dropped = functools.cache(lambda: adapter.unconditional(torch.full((1, spec.height, spec.width, 3), 0.5), encoders, embedded("")))
    process_in = model.get_model_object("process_latent_in")
    backend = None if flow == NO_FLOW else flow_backend(flow)
    read = lambda draw: (clips.read(draw.path, spec, draw.n, interrupted), draw.path)
    encode = lambda clip: encoded(clip[0], adapter, encoders, process_in, backend, embedded(text_of(clip[1])), dropped())
    made = prepared.prepare(folder, settings, items, read, encode, every, progress, stamp=lambda draw: clips.stamp(draw.path))
    if not len(made):
        reasons = "; ".join(map(str, made.skipped[:3]))
        raise ValueError(f"none of the {len(items)} files of {Path(videos).name or videos} gives a clip ({reasons})")
    return made


def add_variant(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--variant",
        choices=[lvdm_checkpoint.AUTOMATIC, *(v.name for v in VARIANTS)],
        default=lvdm_checkpoint.AUTOMATIC,
        help="which DynamiCrafter it is, where neither the file nor its name tells",
    )


def arguments_of(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nodes.training.prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", help="folder of videos, or a text file with one path a line")
    parser.add_argument("--model", required=True, help="checkpoint, diffusion model, or demo:leaking, demo:healthy, demo:FILE")
    add_variant(parser)
    parser.add_argument("--vae", help="file with the model's VAE, where --model does not bring it")
    parser.add_argument("--clip-vision", help="the same of its image encoder")
    parser.add_argument("--text-encoder", help="the same of its text encoder")
    parser.add_argument("--prompt", default="", help="text of the videos that have no caption: no .txt file of their name beside them")
    parser.add_argument("--out", type=Path, required=True, help="folder for the data set, of its own")
    parser.add_argument("--frames", type=int, default=14, help="DynamiCrafter and VideoCrafter1: 16; Wan: 4 n + 1")
    parser.add_argument("--fps", type=float, default=3.0)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--height", type=int, default=320)
    parser.add_argument("--seed", type=int, default=0, help="of the random starts")
    parser.add_argument("--flip", action="store_true", help="mirror half of the clips")
    parser.add_argument("--per-video", type=int, default=1, help="clips to take from each file")
    parser.add_argument("--flow", default=DIS, help=f"optical flow of the motion scores, as the nodes name it, or '{NO_FLOW}'")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    o = arguments_of(arguments)

    def progress(done, skipped, total):
        if sys.stderr.isatty() or done == total:
            print(f"\r{done}/{total}, {skipped} skipped ", end="", file=sys.stderr, flush=True)

    with command():
        if team().world > 1:
            raise ValueError("clips are prepared by one process: start this without torchrun")
        spec = clips.ClipSpec(o.frames, o.fps, o.height, o.width, o.seed, o.flip)
        model, encoders = load_checkpoint(o.model, o.variant)
        encoders = with_files(encoders, adapter_of(model), o.vae, o.clip_vision, o.text_encoder)
        every = float(os.environ.get("CIL_SAVE_EVERY", 60))
        made = prepare(model, encoders, o.videos, spec, o.flow, o.out, o.per_video, o.prompt, progress, every)
        print(file=sys.stderr)
        for skipped in made.skipped:
            print(f"skipped {skipped}")
        print(f"{o.out}: {len(made)} clips, latents of {' x '.join(map(str, made.shape))}")
