"""Moments of your own clips: `python run.py do moments.estimate VIDEOS --vae VAE --out FILE`.

VIDEOS is a folder or a text file with one path a line. The same command under torchrun
splits the list over processes. Stopped or killed, the same command goes on where it was.
"""

import argparse
import hashlib
import os
import sys
from pathlib import Path

import torch

from ..cil import clips, moments
from ..cil.estimate import Estimate, all_reduce


def load_vae(name):
    """The host's VAE of a file, of a whole checkpoint, or the demo's."""
    import comfy.sd
    import comfy.utils

    if name == "demo":
        from ..demo import model

        parts = comfy.utils.load_torch_file(str(model.SOCKETS), safe_load=True)
        return model.vae({k.removeprefix("decoder."): v for k, v in parts.items() if k.startswith("decoder.")})
    if not Path(name).is_file():
        raise SystemExit(f"there is no VAE file at {name}")
    state = comfy.utils.load_torch_file(name, safe_load=True)
    if any(k.startswith("first_stage_model.") for k in state):
        state = comfy.utils.state_dict_prefix_replace(state, {"first_stage_model.": ""}, filter_keys=True)
    vae = comfy.sd.VAE(sd=state)
    vae.throw_exception_if_invalid()
    return vae


def encoder(vae, space):
    """-> clip uint8 [T, H, W, 3] -> latents [C, T, h, w] as the network sees them."""
    from ..nodes.host.latents import clip_latents, latent_format_of

    latent_format = latent_format_of(space)
    return lambda clip: clip_latents(vae, latent_format.process_in, clip.float() / 255)


def arguments_of(arguments):
    defaults = clips.ClipSpec()
    parser = argparse.ArgumentParser(prog="moments.estimate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", help="folder of videos, or a text file with one path a line")
    parser.add_argument("--vae", required=True, help="VAE file or checkpoint of the model the moments are for, or 'demo'")
    parser.add_argument("--space", default=None, help="latent space: sd (SVD, DynamiCrafter, VideoCrafter), wan21, ... Default: sd, or demo with --vae demo")
    parser.add_argument("--out", type=Path, required=True, help="moments file to write; put it into models/cil_moments")
    parser.add_argument("--frames", type=int, default=defaults.frames)
    parser.add_argument("--fps", type=float, default=defaults.fps)
    parser.add_argument("--width", type=int, default=defaults.width)
    parser.add_argument("--height", type=int, default=defaults.height)
    parser.add_argument("--seed", type=int, default=defaults.seed, help="of the random starts")
    parser.add_argument("--flip", action="store_true", help="mirror half of the clips")
    parser.add_argument("--per-video", type=int, default=1, help="clips to take from each file")
    parser.add_argument("--source", default="", help="what the clips are, for the file's metadata")
    parser.add_argument("--licence", default="", help="their licence, for the file's metadata")
    return parser.parse_args(arguments)


def main(arguments=None):
    o = arguments_of(arguments)
    spec = clips.ClipSpec(o.frames, o.fps, o.height, o.width, o.seed, o.flip)
    space = o.space or ("demo" if o.vae == "demo" else "sd")
    try:
        paths = clips.find(o.videos)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    if not paths:
        raise SystemExit(f"{o.videos} holds no videos ({', '.join(sorted(clips.SUFFIXES))})")
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if world > 1:
        torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    items = [clips.Draw(path, n) for path in paths for n in range(o.per_video)]
    listing = hashlib.sha256("\n".join(path.name for path in paths).encode()).hexdigest()[:16]
    settings = {**vars(spec), "space": space, "vae": Path(o.vae).name, "files": listing, "per_video": o.per_video, "part": f"{rank + 1} of {world}"}
    suffix = ".partial.safetensors" if world == 1 else f".partial-{rank + 1}-of-{world}.safetensors"
    state = o.out.with_name(o.out.stem + suffix)
    try:
        estimate = Estimate.resume(state, settings)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    mine = items[rank::world]
    if estimate.done:
        print(f"going on after {estimate.done} of {len(mine)}", flush=True)

    def progress(e, total):
        if sys.stderr.isatty() or e.done == total:
            print(f"\r{e.done}/{total}, {e.accumulator.count} clips averaged, {len(e.skipped)} skipped ", end="", file=sys.stderr, flush=True)

    encode = encoder(load_vae(o.vae), space)
    try:
        read = lambda draw: clips.read(draw.path, spec, draw.n)
        estimate.run(mine, read, encode, state, every=float(os.environ.get("CIL_SAVE_EVERY", 30)), progress=progress)
    except KeyboardInterrupt:
        raise SystemExit(f"\nstopped after {estimate.done} of {len(mine)}; the same command goes on from there") from None
    finally:
        print(file=sys.stderr)
    skipped, seconds = list(estimate.skipped), dict(estimate.seconds)
    if world > 1:
        gathered = [None] * world
        torch.distributed.all_gather_object(gathered, (skipped, seconds))
        skipped = [s for part, _ in gathered for s in part]
        all_reduce(estimate.accumulator)
        torch.distributed.destroy_process_group()
        if rank > 0:
            return
    for name, reason in skipped:
        print(f"skipped {name}: it {reason}")
    about = {
        "source": o.source or f"{len(paths)} files of {Path(o.videos).name}", "licence": o.licence, "scale": "latents as the network sees them",
        "frames": o.frames, "height": o.height, "width": o.width, "fps": o.fps,
    }  # fmt: skip
    try:
        made = estimate.accumulator.moments(space, about)
    except ValueError as error:
        raise SystemExit(f"{error}; nothing was written") from None
    moments.save(made, o.out)
    total = sum(seconds.values()) or 1
    print(f"{o.out}: {made}")
    print("time: " + ", ".join(f"{what} {s:.1f} s ({100 * s / total:.1f} %)" for what, s in seconds.items()))
    if moments.warning(made):
        print(f"warning: {moments.warning(made)}")
