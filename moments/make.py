"""Write the packaged moments files: `python run.py do moments.make`. See README.md here."""

from pathlib import Path

import torch

from ..cil import moments
from ..cil.estimate import Accumulator
from ..demo import latents, scenes

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


def demo(clips=4096):
    """Per channel, from clips of the demo's own world."""
    accumulator = Accumulator()
    for seed in range(clips // 64):
        batch = scenes.sample(64, torch.Generator().manual_seed(10_000 + seed))
        accumulator.add(latents.encode(scenes.render(batch)).movedim(1, 2))
    about = {
        "source": "demo/scenes.py, seeds 10000 and up",
        "scale": "latents as the network sees them",
        "frames": scenes.FRAMES, "height": scenes.SIZE, "width": scenes.SIZE, "fps": scenes.FPS,
        "licence": "GPL-3.0",
    }  # fmt: skip
    return moments.simplify(accumulator.moments("demo", about), "channel")


FILES = {"sd.safetensors": sd, "demo.safetensors": demo}


def main(arguments=None):
    for name, make in FILES.items():
        made = make()
        moments.save(made, FOLDER / name)
        print(f"{name}: {made}")
