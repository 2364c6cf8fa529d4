"""Icon and banner for the registry, drawn from the demo's data: `python run.py do bench.artwork`."""

from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

from ..demo import scenes

FOLDER = Path(__file__).parent.parent / "nodes" / "web"
ICON, BANNER = 400, (1260, 540)  # a square of at most 400 pixels; 21 : 9
NIGHT, PAPER = (18, 20, 28), (240, 240, 240)


def scene(seed, **changes):
    return scenes.sample(1, torch.Generator().manual_seed(seed)).replace(bucket=float(scenes.MAX_BUCKET), **changes)


def picture(pixels, size):
    """RGB [3, h, w] in [0, 1] -> a PIL image of size x size."""
    sized = F.interpolate(pixels[None], (size, size), mode="bicubic").clamp(0, 1)[0]
    return Image.fromarray((sized.movedim(0, -1) * 255).round().byte().numpy())


def icon():
    """One disk that leaves a fading trail: a picture that moves."""
    moving = scene(4, heading=1.0, radius=17.0, start=40.0)
    ground, colour = scenes.render(moving.replace(radius=-2.0), 1)[0, 0], moving.colour[0, :, None, None]
    out = ground
    for frame, strength in zip(scenes.render(moving, 31)[0, ::10], (0.25, 0.45, 0.7, 1.0)):
        cover = (frame - ground).norm(dim=0) / (colour - ground).norm(dim=0)
        out = out + strength * cover * (colour - out)
    return picture(out, ICON)


def banner():
    """Left noise, right a moving clip, and the name."""
    out = Image.new("RGB", BANNER, NIGHT)
    side, count = 240, 5
    generator = torch.Generator().manual_seed(1)
    clip = scenes.render(scene(4), 12)[0]
    for i in range(count):
        share = 1 - i / (count - 1)
        noise = torch.randn(3, 32, 32, generator=generator).mul(0.25).add(0.4)
        noise = F.interpolate(noise[None], (128, 128), mode="nearest")[0]
        out.paste(picture(share * noise + (1 - share) * clip[i * 11 // (count - 1)], side), (i * (side + 15), 0))
    draw = ImageDraw.Draw(out)
    draw.text((30, 290), "Image-to-Video Motion", PAPER, ImageFont.load_default(size=84))
    draw.text((34, 400), "early start, Analytic-Init, TimeNoise and a leakage probe for ComfyUI", PAPER, ImageFont.load_default(size=34))
    return out


def main(arguments=None):
    icon().quantize(128).save(FOLDER / "icon.png", optimize=True)
    banner().save(FOLDER / "banner.jpg", quality=45, optimize=True)
    for name in ("icon.png", "banner.jpg"):
        print(f"{name}: {Image.open(FOLDER / name).size}, {(FOLDER / name).stat().st_size} bytes")
