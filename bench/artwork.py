"""Icon and banner for the registry, drawn from the landscape's data: `python run.py do bench.artwork`."""

from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

from ..demo.landscape import scenes

FOLDER = Path(__file__).parent.parent / "nodes" / "web"
ICON, BANNER = 400, (1260, 540)  # a square of at most 400 pixels; 21 : 9
NIGHT, PAPER = (18, 20, 28), (240, 240, 240)


def scene(seed, **changes):
    """A subject that glides fast through the frame's middle."""
    return scenes.gliding(scenes.sample(1, torch.Generator().manual_seed(seed)).replace(**changes), scenes.MAX_SPEED)


def picture(pixels, size):
    """RGB [3, h, w] in [0, 1] -> a PIL image of size x size."""
    sized = F.interpolate(pixels[None], (size, size), mode="bicubic").clamp(0, 1)[0]
    return Image.fromarray((sized.movedim(0, -1) * 255).round().byte().numpy())


def icon():
    """A kite that leaves fading copies of itself: a picture that moves."""
    moving = scene(7, kind=1.0, radius=18.0)
    clip = scenes.render(moving, 12)[0]
    out = scenes.render(moving.replace(radius=0.01), 1)[0, 0]
    ground = out
    for frame, strength in zip(clip[[0, 4, 8, 11]], (0.3, 0.45, 0.7, 1.0)):
        there = (frame - ground).abs().amax(0) > 0.02
        out = torch.where(there, out + strength * (frame - out), out)
    return picture(out, ICON)


def banner():
    """Left noise, right a moving clip, and the name."""
    out = Image.new("RGB", BANNER, NIGHT)
    side, count = 240, 5
    generator = torch.Generator().manual_seed(1)
    clip = scenes.render(scene(4), 12)[0]
    for i in range(count):
        share = (1 - i / (count - 1)) ** 1.5
        noise = torch.randn(3, 32, 32, generator=generator).mul(0.25).add(0.4)
        noise = F.interpolate(noise[None], (128, 128), mode="nearest")[0]
        out.paste(picture(share * noise + (1 - share) * clip[i * 11 // (count - 1)], side), (i * (side + 15), 0))
    draw = ImageDraw.Draw(out)
    draw.text((30, 290), "Image-to-Video Motion", PAPER, ImageFont.load_default(size=84))
    draw.text((34, 400), "clips that stand still: how much, why, and what to do. For ComfyUI", PAPER, ImageFont.load_default(size=34))
    return out


def main(arguments=None):
    icon().quantize(128).save(FOLDER / "icon.png", optimize=True)
    banner().save(FOLDER / "banner.jpg", quality=45, optimize=True)
    for name in ("icon.png", "banner.jpg"):
        print(f"{name}: {Image.open(FOLDER / name).size}, {(FOLDER / name).stat().st_size} bytes")
