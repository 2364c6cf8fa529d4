"""Procedural clips: one flat sprite gliding over a patterned ground.

A clip is a function of few parameters. All but the heading can be read off the first
frame and the motion bucket, so the posterior of a clip given its first frame is a
uniform mixture over eight headings, and the exact (Bayes) denoiser is a sum of eight
terms: `exact_denoised`.
"""

import math
from dataclasses import dataclass, fields

import torch

SIZE = 128  # pixels, both sides
FRAMES = 12
HEADINGS = 8  # compass directions, 45 degrees apart
MAX_BUCKET = 255
MAX_SPEED = 2.0  # pixels a frame at MAX_BUCKET; 22 pixels over a clip
FPS = 6
SHAPES = ("disk", "square", "diamond")  # the demo's world has disks alone; its training begins with all three


@dataclass
class Scenes:
    """Parameters of n clips, all float32 tensors with the batch first.

    ground [n, 2, 3] two dark colours; slope [n] gradient direction in radians;
    waves [n, 2, 3] two gratings (cycles a frame in x and y, phase in radians);
    depth [n] grating amplitude; shape [n] index into SHAPES; colour [n, 3];
    radius [n] pixels; start [n, 2] sprite centre in the first frame (x, y), pixels;
    heading [n] index into HEADINGS; bucket [n] motion bucket, 0..MAX_BUCKET.
    """

    ground: torch.Tensor
    slope: torch.Tensor
    waves: torch.Tensor
    depth: torch.Tensor
    shape: torch.Tensor
    colour: torch.Tensor
    radius: torch.Tensor
    start: torch.Tensor
    heading: torch.Tensor
    bucket: torch.Tensor

    def __len__(self):
        return len(self.heading)

    def __getitem__(self, index):
        """A subset; `index` is a slice or an index tensor."""
        return Scenes(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def replace(self, **changes):
        """A copy with some parameters changed; a number stands for all clips."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in changes.items():
            values[name] = torch.as_tensor(value, dtype=torch.float32).expand(values[name].shape)
        return Scenes(**values)


def _vivid(hue):
    """Fully saturated colours of the given hues in [0, 1): [n] -> [n, 3]."""
    offsets = hue.new_tensor([0.0, 2 / 3, 1 / 3])
    return ((((hue[:, None] + offsets) % 1) * 6 - 3).abs() - 1).clamp(0, 1)


def sample(n, generator, shapes=1):
    """Draw the parameters of n clips, with the first `shapes` of SHAPES. `generator` is a CPU torch.Generator."""
    uniform = lambda *shape: torch.rand(*shape, generator=generator)
    hue = uniform(n)
    # the sprite's hue keeps a third of the circle's distance from the ground's, so that it is visible
    grounds = torch.stack([_vivid((hue + 0.25 * uniform(n)) % 1) for _ in range(2)], 1)
    dark = (0.10 + 0.30 * uniform(n, 2, 1)) * (0.35 + 0.65 * grounds)
    angle = 2 * math.pi * uniform(n, 2)
    cycles = 1.5 + 2.0 * uniform(n, 2)
    return Scenes(
        ground=dark,
        slope=2 * math.pi * uniform(n),
        waves=torch.stack([cycles * angle.cos(), cycles * angle.sin(), 2 * math.pi * uniform(n, 2)], -1),
        depth=0.15 + 0.35 * uniform(n),
        shape=(torch.randint(len(SHAPES), (n,), generator=generator) % shapes).float(),
        colour=0.35 + 0.65 * _vivid((hue + 0.35 + 0.3 * uniform(n)) % 1),
        radius=24 + 6 * uniform(n),
        start=SIZE / 2 + 12 * (uniform(n, 2) - 0.5),
        heading=torch.randint(HEADINGS, (n,), generator=generator).float(),
        bucket=torch.randint(MAX_BUCKET + 1, (n,), generator=generator).float(),
    )


def speed(bucket):
    """Motion bucket -> pixels a frame."""
    return bucket * (MAX_SPEED / MAX_BUCKET)


def velocity(scenes):
    """Pixels a frame, (x, y): [n, 2]."""
    angle = scenes.heading * (2 * math.pi / HEADINGS)
    return speed(scenes.bucket)[:, None] * torch.stack([angle.cos(), angle.sin()], -1)


def _ground(scenes):
    """The still background: [n, 3, SIZE, SIZE]."""
    axis = (torch.arange(SIZE, device=scenes.slope.device) + 0.5) / SIZE - 0.5
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    at = lambda p: p[:, None, None]
    mix = 0.5 + 0.6 * (at(scenes.slope.cos()) * x + at(scenes.slope.sin()) * y)
    for wave in scenes.waves.unbind(1):
        mix = mix + at(scenes.depth) * torch.sin(2 * math.pi * (at(wave[:, 0]) * x + at(wave[:, 1]) * y) + at(wave[:, 2]))
    a, b = scenes.ground[..., None, None].unbind(1)
    return a + (b - a) * mix.clamp(0, 1)[:, None]


def _coverage(scenes, centre):
    """How much of each pixel the sprite covers, in [0, 1]: centre [n, t, 2] -> [n, t, SIZE, SIZE]."""
    axis = torch.arange(SIZE, device=centre.device) + 0.5
    dx = (axis - centre[..., 0:1]).abs()[:, :, None, :]
    dy = (axis - centre[..., 1:2]).abs()[:, :, :, None]
    shape = scenes.shape[:, None, None, None]
    # signed distances to three shapes of about one area
    disk = (dx**2 + dy**2).sqrt()
    square = torch.maximum(dx, dy) / 0.886
    diamond = (dx + dy) / 1.253
    distance = torch.where(shape == 0, disk, torch.where(shape == 1, square, diamond))
    return (0.5 + scenes.radius[:, None, None, None] - distance).clamp(0, 1)


def render(scenes, frames=FRAMES):
    """The clips as RGB in [0, 1]: [n, frames, 3, SIZE, SIZE]."""
    steps = torch.arange(frames, device=scenes.start.device)
    centre = scenes.start[:, None] + steps[None, :, None] * velocity(scenes)[:, None]
    cover = _coverage(scenes, centre)[:, :, None]
    return _ground(scenes)[:, None] * (1 - cover) + scenes.colour[:, None, :, None, None] * cover


def headings(scenes):
    """Each clip in all its possible headings: n scenes -> HEADINGS lists of n scenes."""
    return [scenes.replace(heading=float(k)) for k in range(HEADINGS)]


def posterior(x, sigma, candidates):
    """How likely each heading is, given the noisy clip: softmax(-||x - X^h||^2 / (2 sigma^2)), [HEADINGS, n].

    x = X_0 + sigma eps, [n, ...]; sigma [n] or a number; candidates [HEADINGS, n, ...] the latents of `headings`.
    """
    sigma = torch.as_tensor(sigma, dtype=torch.float64, device=x.device).reshape(-1)
    gap = (x[None].double() - candidates.double()).flatten(2).square().sum(-1)  # [h, n]
    return torch.softmax(-gap / (2 * sigma**2), 0).to(candidates.dtype)


def exact_denoised(x, sigma, candidates):
    """E[X_0 | x, first frame, bucket]: the ideal predictor. Arguments as for `posterior`."""
    return torch.einsum("hn,hn...->n...", posterior(x, sigma, candidates), candidates)
