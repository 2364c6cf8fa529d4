"""Moments of your own clips: `python run.py do moments.estimate VIDEOS --vae VAE --out FILE`.

VIDEOS is a folder or a text file with one path a line. The same command under torchrun
splits the list over processes. Stopped or killed, the same command goes on where it was.
"""

import argparse
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch

from ..cil import clips, moments
from ..cil.estimate import Accumulator, Changed, Estimate, Skipped, all_reduce, content
from ..cil.files import claim
from ..cil.processes import command, disband, team
from ..nodes import fingerprint


def load_vae(name: str):
    """The host's VAE of a file, of a whole checkpoint, or the demo's."""
    import comfy.sd
    import comfy.utils

    if name == "demo":
        from ..demo import model

        parts = comfy.utils.load_torch_file(str(model.SOCKETS), safe_load=True)
        return model.vae({k.removeprefix("decoder."): v for k, v in parts.items() if k.startswith("decoder.")})
    if not Path(name).is_file():
        raise ValueError(f"there is no VAE file at {name}")
    state = comfy.utils.load_torch_file(name, safe_load=True)
    if any(k.startswith("first_stage_model.") for k in state):
        state = comfy.utils.state_dict_prefix_replace(state, {"first_stage_model.": ""}, filter_keys=True)
    vae = comfy.sd.VAE(sd=state)
    vae.throw_exception_if_invalid()
    return vae


def encoder(vae, space: str) -> Callable:
    """-> clip uint8 [T, H, W, 3] -> latents [C, T, h, w] as the network sees them."""
    from ..nodes.host.latents import clip_latents, latent_format_of

    latent_format = latent_format_of(space)
    return lambda clip: clip_latents(vae, latent_format.process_in, clip.float() / 255)


def arguments_of(arguments: list[str] | None) -> argparse.Namespace:
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


def main(arguments: list[str] | None = None):
    o = arguments_of(arguments)
    with command(patience=timedelta(days=7)):  # one process may have far longer videos than another
        estimate(o)


def estimate(o: argparse.Namespace):
    """The command, its arguments read."""
    spec = clips.ClipSpec(o.frames, o.fps, o.height, o.width, o.seed, o.flip)
    space, rank, world = o.space or ("demo" if o.vae == "demo" else "sd"), team().rank, team().world
    paths = clips.find(o.videos)
    if not paths:
        raise ValueError(f"{o.videos} holds no videos ({', '.join(sorted(clips.SUFFIXES))})")
    items = [clips.Draw(path, n) for path in paths for n in range(o.per_video)]
    suffix = ".partial.safetensors" if world == 1 else f".partial-{rank + 1}-of-{world}.safetensors"
    state = o.out.with_name(o.out.stem + suffix)
    vae = load_vae(o.vae)
    settings = {
        **vars(spec), "space": space, "vae": Path(o.vae).name, "vae_weights": fingerprint.of_encoder(vae),
        "files": clips.digest(path.name for path in paths), "per_video": o.per_video, "part": f"{rank + 1} of {world}",
    }  # fmt: skip
    with claim(state, *([o.out] if rank == 0 else [])):
        made = averaged(Estimate.resume(state, settings), items[rank::world], spec, encoder(vae, space), state)
        skipped, seconds, hashes = list(made.skipped), dict(made.seconds), list(made.hashes)
        if world > 1:
            gathered = [None] * world
            torch.distributed.all_gather_object(gathered, (skipped, seconds, hashes))
            skipped, hashes = [s for part in gathered for s in part[0]], [h for part in gathered for h in part[2]]
            all_reduce(made.accumulator)
            disband()
        if rank == 0:
            write(o, made.accumulator, space, len(paths), skipped, seconds, hashes)


def averaged(made: Estimate, items: list[clips.Draw], spec: clips.ClipSpec, encode: Callable, state: Path) -> Estimate:
    """The estimate with the rest of this process's clips in it, kept in `state`."""
    if made.done:
        print(f"going on after {made.done} of {len(items)}", flush=True)

    def progress(e, total):
        if sys.stderr.isatty() or e.done == total:
            print(f"\r{e.done}/{total}, {e.accumulator.count} clips averaged, {len(e.skipped)} skipped ", end="", file=sys.stderr, flush=True)

    try:
        read, stamp = lambda draw: clips.read(draw.path, spec, draw.n), lambda draw: clips.stamp(draw.path)
        made.run(items, read, encode, state, every=float(os.environ.get("CIL_SAVE_EVERY", 30)), progress=progress, stamp=stamp)
    except KeyboardInterrupt:
        raise SystemExit(f"\nstopped after {made.done} of {len(items)}; the same command goes on from there") from None
    except Changed as error:
        raise ValueError(f"{state}: {error}. Delete it to begin anew") from None
    finally:
        print(file=sys.stderr)
    return made


def write(o: argparse.Namespace, total: Accumulator, space: str, files: int, skipped: list[Skipped], seconds: dict, hashes: list[int]):
    """The moments file, and what was done in the terminal."""
    for one in skipped:
        print(f"skipped {one}")
    about = {
        "source": o.source or f"{files} files of {Path(o.videos).name}", "licence": o.licence, "scale": "latents as the network sees them",
        "frames": o.frames, "height": o.height, "width": o.width, "fps": o.fps, "content": content(hashes),
    }  # fmt: skip
    try:
        made = total.moments(space, about)
    except ValueError as error:
        raise ValueError(f"{error}; nothing was written") from None
    moments.save(made, o.out)
    whole = sum(seconds.values()) or 1
    print(f"{o.out}: {made}")
    print("time: " + ", ".join(f"{what} {s:.1f} s ({100 * s / whole:.1f} %)" for what, s in seconds.items()))
    if moments.warning(made):
        print(f"warning: {moments.warning(made)}")
