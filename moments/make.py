"""Write the packaged moments files: `python run.py do moments.make`. See README.md here."""

import functools
from pathlib import Path

import torch

from ..cil import moments
from ..cil.estimate import Accumulator
from ..demo import latents, scenes
from ..demo.landscape import latents as code
from ..demo.landscape import scenes as landscape

FOLDER = Path(__file__).parent


def sd():
    """Per channel, from the figures published for the DynamiCrafter 320 x 512 file."""
    mean = torch.tensor([0.302, -0.325, 0.232, 0.133])[:, None, None, None]
    about = {
        "source": "channel means and tr(Cov)/d of the public DynamiCrafter 320x512 initial-noise file (5000 WebVid-2M clips)",
        "scale": "latents times 0.18215",
        "frames": 16, "height": 320, "width": 512, "fps": 3,
        "licence": "figures only",
    }  # fmt: skip
    return moments.Moments(mean, 0.808, "sd", 5000, about)


def of_world(space, world, encode, drawn, clips):
    """Per channel, from clips of a world of the demo's. drawn(n, generator): its Scenes."""
    accumulator = Accumulator()
    for seed in range(clips // 64):
        batch = drawn(64, torch.Generator().manual_seed(10_000 + seed))
        accumulator.add(encode(world.render(batch)).movedim(1, 2))
    about = {
        "source": f"{world.__name__.partition('.')[2].replace('.', '/')}.py, seeds 10000 and up",
        "scale": "latents as the network sees them",
        "frames": world.FRAMES, "height": world.SIZE, "width": world.SIZE, "fps": world.FPS,
        "licence": "GPL-3.0",
    }  # fmt: skip
    return moments.simplify(accumulator.moments(space, about), "channel")


def demo(clips=4096):
    return of_world("demo", scenes, latents.encode, scenes.sample, clips)


def of_landscape(clips=2048):
    return of_world("landscape", landscape, code.encode, functools.partial(landscape.sample, told=0.0, alike=True), clips)


FILES = {"sd.safetensors": sd, "demo.safetensors": demo, "landscape.safetensors": of_landscape}


def main(arguments=None):
    for name, make in FILES.items():
        made = make()
        moments.save(made, FOLDER / name)
        print(f"{name}: {made}")
