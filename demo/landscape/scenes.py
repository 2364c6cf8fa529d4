"""Procedural clips: a balloon or a kite over hills that stand still.

A clip is a function of few parameters. All but the motion can be read off the first frame,
and nobody needs to be told how much of it there is: the motion is one of the rows of
MOTIONS (stand still, glide in one of sixteen directions at one of eight speeds, pan, zoom,
and glides under a camera that moves), those that would leave the frame excepted. So the
posterior of a clip given its first frame is a mixture of a few hundred clips, and the exact
(Bayes) denoiser is a sum of as many terms: `exact_denoised`.
"""

import math
from dataclasses import dataclass, fields
from pathlib import Path

import torch

FOLDER = Path(__file__).parent
SIZE = 128  # pixels, both sides
FRAMES = 12
FPS = 6
KINDS = ("balloon", "kite")
WINDOW = 60  # pixels, both sides: the largest subject fits into it
MAX_BUCKET = 255
OPEN = 127  # the motion bucket of a clip whose amount of motion is not told, and the host's default
SEEN_BY_NO_TRAINING = 3_000_000_019  # a seed: what it draws, no training has drawn
MARGIN, ROOM = 17, 24  # pixels that a subject's centre keeps from the frame's edge, always and in the first frame
HEADINGS = 16
SPEEDS = (1.2, 1.5, 1.8, 2.1, 2.4, 2.7, 3.0, 3.3)  # pixels a frame: a tenth to more than a quarter of the frame in a clip
MAX_SPEED = SPEEDS[-1]
PAN, ZOOM = 1.2, 0.010  # pixels a frame; growth a frame
RED_AND_WHITE = torch.tensor([[0.90, 0.12, 0.10], [1.0, 0.92, 0.85]])
STILL_SHARE, CAMERA_SHARE = 0.15, 0.15  # of all clips, before those that leave the frame are taken out


def _directions(n):
    return [(math.cos(2 * math.pi * k / n), math.sin(2 * math.pi * k / n)) for k in range(n)]


def _motions():
    """The rows of MOTIONS and their shares."""
    glides = [(s * x, s * y) for s in SPEEDS for x, y in _directions(HEADINGS)]
    some = [(s * x, s * y) for s in SPEEDS[2::3] for x, y in _directions(8)]
    cameras = [(PAN * x, PAN * y, 0.0) for x, y in _directions(8)] + [(0.0, 0.0, ZOOM), (0.0, 0.0, -ZOOM)]
    gliding = 1 - STILL_SHARE - CAMERA_SHARE
    rows = [(0.0, 0.0, 0.0, 0.0, 0.0, STILL_SHARE)]
    rows += [(*glide, 0.0, 0.0, 0.0, gliding / len(glides)) for glide in glides]
    for camera in cameras:
        alone, both = 0.4 * CAMERA_SHARE / len(cameras), 0.6 * CAMERA_SHARE / len(cameras) / len(some)
        rows += [(0.0, 0.0, *camera, alone)] + [(*glide, *camera, both) for glide in some]
    table = torch.tensor(rows)
    return table[:, :5], table[:, 5]


MOTIONS, SHARES = _motions()  # [m, 5]: the subject's velocity (x, y), pan (x, y), pixels a frame; zoom, log growth a frame


@dataclass
class Scenes:
    """Parameters of n clips, all float32 tensors with the batch first.

    sky [n, 2, 3] its colours above and at the horizon; sun [n, 3] x, y, radius in frames;
    clouds [n, 3, 4] x, y, width, height in frames; hills [n, 3, 3] colours from far to near;
    ridges [n, 3, 3, 3] three waves a hill: height, cycles a frame, phase; base [n, 3] their
    mean heights; trees [n, 3] height, cycles a frame, phase of the near hill's tree line;
    fields [n, 3, 4] a hill's furrows: depth, cycles in x and y, phase; kind [n] index into
    KINDS; colours [n, 2, 3] of the subject; radius [n] pixels; start [n, 2] the subject's
    centre in the first frame (x, y), pixels; motion [n, 5] as a row of MOTIONS; bucket [n]
    the motion bucket that the model is told, OPEN where it is not.
    """

    sky: torch.Tensor
    sun: torch.Tensor
    clouds: torch.Tensor
    hills: torch.Tensor
    ridges: torch.Tensor
    base: torch.Tensor
    trees: torch.Tensor
    fields: torch.Tensor
    kind: torch.Tensor
    colours: torch.Tensor
    radius: torch.Tensor
    start: torch.Tensor
    motion: torch.Tensor
    bucket: torch.Tensor

    def __len__(self):
        return len(self.motion)

    def __getitem__(self, index):
        """A subset; `index` is a slice or an index tensor."""
        return Scenes(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def to(self, device):
        return Scenes(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})

    def replace(self, **changes):
        """A copy with some parameters changed; a number or a row stands for all clips."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in changes.items():
            values[name] = torch.as_tensor(value, dtype=torch.float32, device=values[name].device).expand(values[name].shape)
        return Scenes(**values)


def _vivid(hue):
    """Fully saturated colours of the given hues in [0, 1): [...] -> [..., 3]."""
    offsets = hue.new_tensor([0.0, 2 / 3, 1 / 3])
    return ((((hue[..., None] + offsets) % 1) * 6 - 3).abs() - 1).clamp(0, 1)


def sample(n, generator, told=0.5, frames=FRAMES, alike=False):
    """Draw the parameters of n clips whose subject stays in the frame for `frames`.

    The share `told` of them has its amount of motion as bucket. `generator` is a CPU torch.Generator.
    alike: all subjects are the same red balloon, over green hills under a blue sky.
    """
    uniform = lambda *shape: torch.rand(*shape, generator=generator)
    between = lambda low, high, *shape: low + (high - low) * uniform(*shape)
    tone = (0.28 + 0.16 * uniform(n)) if alike else uniform(n)  # the landscape's hue; the subject's is kept away from it
    hue = lambda shift, spread: (tone + shift + spread * (uniform(n) - 0.5)) % 1
    tint = lambda hues, grey, light: light[:, None] * (grey + (1 - grey) * _vivid(hues))
    hills = [tint(hue(0.02 * k, 0.1), 0.45 - 0.1 * k, between(0.50 - 0.13 * k, 0.60 - 0.13 * k, n)) for k in range(3)]
    bright = hue(0.45, 0.2)
    start = ROOM + (SIZE - 2 * ROOM) * uniform(n, 2)
    motion = _draw_motions(start, generator, frames)
    open_ = uniform(n) >= told
    drawn = Scenes(
        sky=torch.stack(
            [tint(hue(0.22 if alike else 0.5, 0.1 if alike else 0.2), 0.55, between(0.50, 0.75, n)), tint(hue(0.1, 0.3), 0.80, between(0.80, 0.95, n))], 1
        ),
        sun=torch.stack([between(0.1, 0.9, n), between(0.08, 0.3, n), between(0.035, 0.06, n)], 1),
        clouds=torch.stack([between(0, 1, n, 3), between(0.05, 0.32, n, 3), between(0.07, 0.16, n, 3), between(0.018, 0.04, n, 3)], -1),
        hills=torch.stack(hills, 1),
        ridges=torch.stack(
            [
                torch.tensor([0.045, 0.02, 0.009]) * between(0.6, 1.4, n, 3, 3),
                torch.tensor([1.0, 2.6, 6.0]) * between(0.8, 1.3, n, 3, 3),
                2 * math.pi * uniform(n, 3, 3),
            ],
            -1,
        ),
        base=torch.tensor([0.46, 0.60, 0.78]) + between(-0.03, 0.03, n, 3),
        trees=torch.stack([between(0.02, 0.045, n), between(9, 14, n), 2 * math.pi * uniform(n)], 1),
        fields=torch.stack([between(0.10, 0.22, n, 3), between(-6, 6, n, 3), between(5, 11, n, 3), 2 * math.pi * uniform(n, 3)], -1),
        kind=torch.randint(len(KINDS), (n,), generator=generator).float(),
        colours=torch.stack([0.95 * _vivid(bright), 0.35 + 0.65 * _vivid((bright + between(0.1, 0.2, n)) % 1)], 1),
        radius=between(15.0, 18.0, n),
        start=start,
        motion=motion,
        bucket=torch.where(open_, torch.tensor(float(OPEN)), bucket(motion)),
    )
    return drawn.replace(kind=KINDS.index("balloon"), colours=RED_AND_WHITE) if alike else drawn


def stays(start, motions=MOTIONS, frames=FRAMES):
    """Which motions keep the subject in the frame: start [n, 2] -> [n, m]. Straight paths, so their ends decide."""
    end = _places(start[:, None], motions[None], frames - 1)
    return ((end >= MARGIN) & (end <= SIZE - MARGIN)).all(-1)


def _draw_motions(start, generator, frames):
    weights = SHARES * stays(start, frames=frames)
    return MOTIONS[torch.multinomial(weights, 1, generator=generator)[:, 0]]


def amount(motion):
    """How much moves in a clip: the subject's way through the frame, or the camera's, whichever is more, in pixels a frame. [..., 5] -> [...]."""
    velocity, pan, zoom = motion[..., :2], motion[..., 2:4], motion[..., 4]
    return torch.maximum((velocity + pan).norm(dim=-1), torch.maximum(pan.norm(dim=-1), zoom.abs() * SIZE / 4))


def bucket(motion):
    """The motion bucket that tells an amount: 0 = still, 255 = the fastest."""
    return (amount(motion) * (MAX_BUCKET / (MAX_SPEED + PAN))).round()


def pixels_of(bucket):
    """The other way round, for a subject under a camera that stands: pixels a frame."""
    return bucket * (MAX_SPEED + PAN) / MAX_BUCKET


def gliding(scenes, pixels, other=False, frames=FRAMES):
    """The same first frames, the subject gliding `pixels` a frame under a camera that stands, through the frame's middle.

    other: as true a clip, the other way as far as the frame has room for it.
    """
    ways = torch.tensor(_directions(HEADINGS))
    end = scenes.start[:, None] + (frames - 1) * pixels * ways
    outside = (MARGIN - end).clamp(min=0).sum(-1) + (end - (SIZE - MARGIN)).clamp(min=0).sum(-1)  # [n, HEADINGS]
    through_the_middle = ((SIZE / 2 - scenes.start)[:, None] * ways).sum(-1) / SIZE
    first = ways[(through_the_middle - 1000 * outside).argmax(1)]
    way = ways[(-(first[:, None] * ways).sum(-1) - 1000 * outside).argmax(1)] if other else first
    return scenes.replace(motion=torch.cat([pixels * way, torch.zeros(len(scenes), 3)], 1))


def _places(start, motion, k):
    """Where the subject is in the frame after k frames, pixels: start [..., 2], motion [..., 5], k a number or [...] -> [..., 2]."""
    k = torch.as_tensor(k, dtype=torch.float32, device=start.device)[..., None]
    grown = (motion[..., 4:5] * k).exp()
    return SIZE / 2 + (start - SIZE / 2 + k * (motion[..., :2] + motion[..., 2:4])) * grown


def path(scenes, frames=FRAMES):
    """The subject's centre in each frame, pixels: [n, frames, 2]."""
    k = torch.arange(frames, device=scenes.start.device)
    return _places(scenes.start[:, None], scenes.motion[:, None], k.expand(len(scenes), -1))


def _waves(rows, x):
    """Sums of sine waves: rows [n, ..., 3] height, cycles, phase; x [n, t, H, W] -> [n, t, H, W]."""
    total = 0
    for height, cycles, phase in ((r[:, 0], r[:, 1], r[:, 2]) for r in rows.unbind(1)):
        at = lambda v: v[:, None, None, None]
        total = total + at(height) * torch.sin(2 * math.pi * at(cycles) * x + at(phase))
    return total


def _landscape(scenes, k):
    """Sky and hills as the camera sees them in the frames k [t]: [n, t, 3, SIZE, SIZE]."""
    device = scenes.start.device
    axis = (torch.arange(SIZE, device=device) + 0.5) / SIZE
    k = k.float()[None, :, None, None]
    at = lambda v: v[:, None, None, None]
    shrunk = (-at(scenes.motion[:, 4]) * k).exp()
    x = 0.5 + (axis[None, None, None, :] - 0.5) * shrunk - k * at(scenes.motion[:, 2]) / SIZE
    y = 0.5 + (axis[None, None, :, None] - 0.5) * shrunk - k * at(scenes.motion[:, 3]) / SIZE
    x, y = torch.broadcast_tensors(x, y)
    colour = lambda c: c[:, None, :, None, None]
    soft = lambda d, width: (0.5 + d * SIZE / width).clamp(0, 1)[:, :, None]  # d: frames inside an edge
    lean = (y / 0.55).clamp(0, 1)[:, :, None]
    picture = colour(scenes.sky[:, 0]) * (1 - lean) + colour(scenes.sky[:, 1]) * lean
    away = ((x - at(scenes.sun[:, 0])) ** 2 + (y - at(scenes.sun[:, 1])) ** 2).sqrt()
    glow = torch.exp(-away / 0.09)[:, :, None] * 0.35
    light = picture.new_tensor([1.0, 0.95, 0.78])[None, None, :, None, None]
    for cover in (glow, soft(at(scenes.sun[:, 2]) - away, 2)):
        picture = picture + (light - picture) * cover
    for cloud in scenes.clouds.unbind(1):
        cx, cy, width, height = (at(v) for v in cloud.unbind(-1))
        inside = 1 - (((x - cx) / width) ** 2 + ((y - cy) / height) ** 2).sqrt()
        picture = picture + (0.97 - picture) * (inside * 1.6).clamp(0, 1)[:, :, None] * 0.8
    for j in range(3):
        top = at(scenes.base[:, j]) + _waves(scenes.ridges[:, j], x)
        if j == 2:
            height, cycles, phase = (at(v) for v in scenes.trees.unbind(-1))
            saw = (torch.asin(torch.sin(2 * math.pi * cycles * x + phase)) / math.pi + 0.5) * (0.6 + 0.4 * torch.sin(5.1 * x * cycles))
            top = top - height * saw
        depth, fx, fy, phase = (at(v) for v in scenes.fields[:, j].unbind(-1))
        below = y - top
        furrows = 1 + depth * torch.sin(2 * math.pi * (fx * x + fy * below) + phase)
        hill = colour(scenes.hills[:, j]) * (furrows * (1.12 - 0.5 * below.clamp(0, 0.5)))[:, :, None]
        picture = picture + (hill - picture) * soft(below, 1)
    return picture.clamp(0, 1)


def subject(scenes, centre, grown=1.0, window=SIZE):
    """The subject alone in a window: centre [n, t, 2] pixels from the window's corner, grown [n, t] its growth.

    -> cover [n, t, 1, w, w] in [0, 1], colour [n, t, 3, w, w].
    """
    axis = torch.arange(window, device=centre.device) + 0.5
    size = scenes.radius[:, None] * torch.as_tensor(grown, device=centre.device).expand(centre.shape[:2])
    at = lambda v: v[..., None, None]
    x = (axis[None, None, None, :] - at(centre[..., 0])) / at(size)
    y = (axis[None, None, :, None] - at(centre[..., 1])) / at(size)
    edge = lambda d: (0.5 + d * at(size)).clamp(0, 1)  # d: radii inside the outline
    ellipse = lambda cx, cy, rx, ry: (1 - (((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2).sqrt()) * min(rx, ry)
    side = x.abs()
    first, second = (c[:, None, :, None, None] for c in scenes.colours.unbind(1))
    dark = first.new_tensor([0.16, 0.11, 0.10])[None, None, :, None, None]
    light = (1.05 - 0.30 * (x + y)).clamp(0.55, 1.25)[:, :, None]  # from above and left

    envelope = torch.maximum(ellipse(0, -0.25, 0.78, 0.75), torch.minimum(0.42 - 0.62 * (y - 0.35) - side, torch.minimum(y, 0.72 - y)))
    basket = torch.minimum(0.2 - side, 0.14 - (y - 0.92).abs())
    stripes = torch.sin(9.5 * x / (1.02 - 0.5 * (y + 0.25) ** 2).clamp(min=0.4)) > 0
    balloon = edge(torch.maximum(envelope, basket)), torch.where((basket > envelope)[:, :, None], dark, torch.where(stripes[:, :, None], first, second) * light)

    diamond = 0.62 * (1 - side / 0.78 - torch.where(y < -0.15, (-0.15 - y) / 0.75, (y + 0.15) / 0.95))
    tail = torch.maximum(ellipse(0.14, 0.92, 0.13, 0.10), ellipse(-0.12, 1.12, 0.13, 0.10))
    quarters = (x > 0) == (y > -0.15)
    kite = edge(torch.maximum(diamond, tail)), torch.where((tail > diamond)[:, :, None], first, torch.where(quarters[:, :, None], first, second) * light)

    cover, colour = 0, 0
    for k, (c, rgb) in enumerate((balloon, kite)):
        mine = (scenes.kind == k)[:, None, None, None].to(c)
        cover, colour = cover + c * mine, colour + rgb * mine[:, :, None]
    return cover[:, :, None], colour.clamp(0, 1)


def render(scenes, frames=FRAMES, only_last=False):
    """The clips as RGB in [0, 1]: [n, frames, 3, SIZE, SIZE], or [n, 1, ...] their last frame."""
    k = torch.arange(frames, device=scenes.start.device)[-1 if only_last else 0 :]
    centre = _places(scenes.start[:, None], scenes.motion[:, None], k.expand(len(scenes), -1))
    picture = scenes.start.new_empty(*centre.shape[:2], 3, SIZE, SIZE)
    moving = scenes.motion[:, 2:].any(1)
    for camera, frame in ((moving, k), (~moving, k[:1])):  # a camera that stands sees one picture
        if camera.any():
            picture[camera] = _landscape(scenes[camera], frame)
    corner = (centre - WINDOW / 2).floor().clamp(0, SIZE - WINDOW)
    cover, colour = subject(scenes, centre - corner, (scenes.motion[:, 4:5] * k).exp(), WINDOW)
    n, t, rgb = (torch.arange(m, device=centre.device) for m in (*centre.shape[:2], 3))
    x, y = (corner.long()[..., None] + torch.arange(WINDOW, device=centre.device)[:, None].mT[None, None]).unbind(2)
    at = (n[:, None, None, None, None], t[:, None, None, None], rgb[:, None, None], y[:, :, None, :, None], x[:, :, None, None, :])
    picture[at] += (colour - picture[at]) * cover
    return picture


def candidates(scene, frames=FRAMES):
    """Every motion that one scene (n = 1) allows -> Scenes of m clips, and their shares [m], which sum to one."""
    allowed = stays(scene.start, frames=frames)[0]
    row = scene[torch.zeros(int(allowed.sum()), dtype=torch.long)]
    shares = SHARES[allowed]
    return row.replace(motion=MOTIONS[allowed]), shares / shares.sum()


def posterior(x, sigma, clips, shares):
    """How likely each candidate is, given the noisy clip: [m], proportional to shares exp(-||x - X^m||^2 / (2 sigma^2)).

    x = X_0 + sigma eps, [...]; clips [m, ...] the latents of `candidates`; shares [m].
    """
    gap = (x[None].double() - clips.double()).flatten(1).square().sum(-1)
    return torch.softmax(shares.double().log() - gap / (2 * float(sigma) ** 2), 0)


def exact_denoised(x, sigma, clips, shares):
    """E[X_0 | x, first frame], the amount of motion left open: the ideal predictor. Arguments as for `posterior`."""
    return torch.einsum("m,m...->...", posterior(x, sigma, clips, shares).to(clips.dtype), clips)
