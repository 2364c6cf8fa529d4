"""Prepare a folder of videos for training: `python run.py do nodes.training.prepare VIDEOS --model MODEL --out SET`.

VIDEOS is a folder or a text file with one path a line; MODEL an image-only checkpoint (SVD's
layout), or `demo:leaking`, `demo:healthy`, `demo:FILE`. Stopped, the same command goes on.
"""

import argparse
import hashlib
import sys
from pathlib import Path

import torch

import comfy.sd

from ...cil import clips, motion, prepared
from ...cil.training import Clip
from ..host import clip_latents, model_family
from ..motion import DIS, flow_backend
from .model import check_trainable

NO_FLOW = "none"


def load_checkpoint(name):
    """-> (MODEL, CLIP_VISION, VAE) as the host's image-only checkpoint loader gives them, or the demo's."""
    if name.startswith("demo:"):
        from ...demo import model

        return model.load(name.removeprefix("demo:"))
    if not Path(name).is_file():
        raise ValueError(f"there is no checkpoint at {name}")
    model, _, vae, clip_vision = comfy.sd.load_checkpoint_guess_config(name, output_vae=True, output_clip=False, output_clipvision=True)[:4]
    if clip_vision is None or vae is None:
        raise ValueError(f"{name} brings no image encoder or no VAE: give an image-only checkpoint, as SVD's")
    return model, clip_vision, vae


@torch.no_grad()
def encoded(frames, vae, clip_vision, process_in, flow):
    """One clip, uint8 [T, H, W, 3] -> Clip: latents, the first frame's latents and embedding, motion score."""
    pixels = frames.float() / 255
    return Clip(
        clip_latents(vae, process_in, pixels),
        vae.encode(pixels[:1])[0],
        clip_vision.encode_image(pixels[:1]).image_embeds,
        motion.motion_score(pixels, flow) if flow else 0.0,
    )


def prepare(model, clip_vision, vae, videos, spec, flow, folder, per_video=1, progress=None):
    """Videos -> a ClipSet in `folder`. flow: a name of nodes/motion.py, or NO_FLOW."""
    check_trainable(model)
    paths = clips.find(videos)
    if not paths:
        raise ValueError(f"{videos} holds no videos ({', '.join(sorted(clips.SUFFIXES))})")
    items = [clips.Draw(path, n) for path in paths for n in range(per_video)]
    listing = hashlib.sha256("\n".join(path.name for path in paths).encode()).hexdigest()[:16]
    settings = {**vars(spec), "space": model_family(model).space, "flow": flow, "files": listing, "per_video": per_video}
    process_in = model.get_model_object("process_latent_in")
    backend = None if flow == NO_FLOW else flow_backend(flow)
    encode = lambda frames: encoded(frames, vae, clip_vision, process_in, backend)
    made = prepared.prepare(folder, settings, items, lambda d: clips.read(d.path, spec, d.n), encode, progress=progress)
    if not len(made):
        reasons = "; ".join(f"{name}: it {reason}" for name, reason in made.skipped[:3])
        raise ValueError(f"none of the {len(items)} files of {videos} gives a clip ({reasons})")
    return made


def arguments_of(arguments):
    parser = argparse.ArgumentParser(prog="nodes.training.prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", help="folder of videos, or a text file with one path a line")
    parser.add_argument("--model", required=True, help="image-only checkpoint, or demo:leaking, demo:healthy, demo:FILE")
    parser.add_argument("--out", type=Path, required=True, help="folder for the data set, of its own")
    parser.add_argument("--frames", type=int, default=14)
    parser.add_argument("--fps", type=float, default=3.0)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--height", type=int, default=320)
    parser.add_argument("--seed", type=int, default=0, help="of the random starts")
    parser.add_argument("--flip", action="store_true", help="mirror half of the clips")
    parser.add_argument("--per-video", type=int, default=1, help="clips to take from each file")
    parser.add_argument("--flow", default=DIS, help=f"optical flow of the motion scores, as the nodes name it, or '{NO_FLOW}'")
    return parser.parse_args(arguments)


def main(arguments=None):
    o = arguments_of(arguments)

    def progress(done, skipped, total):
        if sys.stderr.isatty() or done == total:
            print(f"\r{done}/{total}, {skipped} skipped ", end="", file=sys.stderr, flush=True)

    try:
        spec = clips.ClipSpec(o.frames, o.fps, o.height, o.width, o.seed, o.flip)
        made = prepare(*load_checkpoint(o.model), o.videos, spec, o.flow, o.out, o.per_video, progress)
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from None
    except KeyboardInterrupt:
        raise SystemExit("\nstopped; the same command goes on from there") from None
    print(file=sys.stderr)
    for name, reason in made.skipped:
        print(f"skipped {name}: it {reason}")
    print(f"{o.out}: {len(made)} clips, latents of {' x '.join(map(str, made.shape))}")
