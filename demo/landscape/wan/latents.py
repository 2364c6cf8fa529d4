"""The Wan demo's latent space: a fixed linear code of four frames, in the host's own TAEHV layout.

Sixteen numbers for a block of 8 x 8 pixels and four frames, all of one orthonormal basis: the mean
colour in four time modes (12), and how luminance rises to the right and downwards, of the four's
mean and of their change (4). A rotation then spreads the variance evenly over the channels, as
Wan's normalised latents have it. The basis is orthonormal, so white noise hides as much of a motion
here as in the SVD demo's code of single frames; a code that gives each time mode unit variance of
its own would amplify the motion tenfold, and models trained in such a code did not leak.

As in Wan's encoder, what comes before the first frame is empty: the first latent codes one frame,
and is of another kind than the rest.
"""

import torch
import torch.nn.functional as F

from ...latents import MIX, Block, conv
from .. import latents as svd

CELL, FOUR = 8, 4  # pixels, frames
CHANNELS = 16
CENTRE = 0.45  # the RGB level that maps to 0
GAIN = 5.0
SCALE = 16.0  # the VAE's latents are the model's over this, so that TAEHV's clamp is as good as linear on them

WALSH = 0.5 * torch.tensor([[1.0, 1, 1, 1], [-1, -1, 1, 1], [1, -1, -1, 1], [-1, 1, -1, 1]])  # [mode, frame]


def _hadamard(n):
    if n == 1:
        return torch.ones(1, 1)
    half = _hadamard(n // 2) / 2**0.5
    return torch.cat([torch.cat([half, half], 1), torch.cat([half, -half], 1)])


def _luminance_first():
    """An orthonormal basis of colours: [3, 3]."""
    return torch.tensor([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]]) / torch.tensor([3.0, 2, 6]).sqrt()[:, None]


def _matrix():
    """From five numbers (red, green, blue, rise to the right, rise downwards) of four frames: [16, 4, 5]."""
    rows = torch.zeros(CHANNELS, FOUR, 5)
    colours = _luminance_first()
    for mode in range(FOUR):
        rows[3 * mode : 3 * mode + 3, :, :3] = WALSH[mode][None, :, None] * colours[:, None, :]
    for k in range(2):
        for mode in range(2):
            rows[12 + 2 * mode + k, :, 3 + k] = WALSH[mode]
    return torch.einsum("zk,kfc->zfc", _hadamard(CHANNELS), rows)


MATRIX = _matrix()


def cells(pixels):
    """RGB in [0, 1], [..., 3, H, W] -> means less CENTRE, and luminance's rise: [..., 5, H / 8, W / 8]."""
    flat = pixels.flatten(0, -4)
    halves = F.avg_pool2d(flat, CELL // 2)
    light = halves.sum(1, keepdim=True) / 3**0.5
    sign = lambda dim: torch.tensor([-1.0, 1.0], device=flat.device).repeat(light.shape[dim] // 2)
    right, down = light * sign(3), light * sign(2)[:, None]
    out = F.avg_pool2d(torch.cat([halves - CENTRE, right, down], 1), 2)
    return out.unflatten(0, pixels.shape[:-3])


def encode_cells(five):
    """[n, 4 k + 1, 5, h, w] -> the model's latents [n, 16, k + 1, h, w]."""
    five = F.pad(five, (0, 0) * 3 + (FOUR - 1, 0))
    return GAIN * torch.einsum("zfc,ntfchw->nzthw", MATRIX.to(five), five.unflatten(1, (-1, FOUR)))


def encode(pixels):
    """RGB in [0, 1], [n, 4 k + 1, 3, H, W] -> the model's latents [n, 16, k + 1, H / 8, W / 8]."""
    return encode_cells(cells(pixels))


def frame_cells(latents):
    """[n, 16, k + 1, h, w] -> [n, 4 k + 1, 5, h, w]: the code undone; of luminance's rise the part that it keeps."""
    out = torch.einsum("zfc,nzthw->ntfchw", MATRIX.to(latents), latents) / GAIN
    return out.flatten(1, 2)[:, FOUR - 1 :]


# ---- the same code as weights of the host's TAEHV -------------------------------------

WIDTH = 32  # channels of the decoder for one frame; TAEHV's carry four frames side by side
LATER = 32  # the channel from which the encoder keeps the group before


def _pass(weights, name, count, scale=1.0, at=(1, 1)):
    """The first `count` channels go through a convolution."""
    k = range(count)
    weights[name][k, k, at[0], at[1]] = scale


def encoder_state_dict(template):
    """`encode`, over SCALE, as weights of TAEHV's encoder; `template` gives names and shapes.

    Colours are not negative, so ReLU and residual blocks with zero branches let them pass. TAEHV's
    groups end at the frames 3, 7, 11, ... and this code's at 0, 4, 8, ...: the last blocks, which see
    the group before, keep its frames, and a 1 that says that there was one.
    """
    w = {name: torch.zeros_like(value) for name, value in template.items()}
    _pass(w, "0.weight", 3)
    for pool, count in (("2", 3), ("7", 6)):  # two in one
        conv, k = w[pool + ".conv.weight"], torch.arange(count)
        conv[k, k], conv[count + k, conv.shape[1] // 2 + k] = 1, 1
        down = str(int(pool) + 1)
        for y in (1, 2):
            for x in (1, 2):
                _pass(w, down + ".weight", 2 * count, 0.25, (y, x))
    k = torch.arange(3 * FOUR)
    w["12.conv.weight"][k, k] = 1
    last = w["13.weight"]
    for y in (1, 2):
        for x in (1, 2):
            last[k, k, y, x] = 0.25
    for f in range(FOUR):  # luminance of the right half, and of the lower half
        last[3 * FOUR + f, 3 * f : 3 * f + 3, 1:, 2] = 0.25 / 3**0.5
        last[4 * FOUR + f, 3 * f : 3 * f + 3, 2, 1:] = 0.25 / 3**0.5
    one = 5 * FOUR
    w["14.conv.4.bias"][one] = 1
    k, half = torch.arange(one + 1), w["15.conv.0.weight"].shape[1] // 2
    w["15.conv.0.weight"][k, half + k, 1, 1] = 1
    w["15.conv.2.weight"][k, k, 1, 1] = 1
    w["15.conv.4.weight"][LATER + k, k, 1, 1] = 1
    out, bias = w["17.weight"], w["17.bias"]
    code = MATRIX * GAIN / SCALE
    for f in range(FOUR):
        base, frame = (0, 0) if f == FOUR - 1 else (LATER, f + 1)
        for c in range(3):
            out[:, base + 3 * frame + c, 1, 1] += code[:, f, c]
            if base:
                out[:, LATER + one, 1, 1] -= CENTRE * code[:, f, c]
            else:
                bias -= CENTRE * code[:, f, c]
        for k in range(2):
            out[:, base + (3 + k) * FOUR + frame, 1, 1] += 2 * code[:, f, 3 + k]
            out[:, base + 3 * frame : base + 3 * frame + 3, 1, 1] -= code[:, f, 3 + k, None] / 3**0.5
    return w


def decoder():
    """Redraws one frame from its cells, [n, 5, h, w] times GAIN -> RGB [n, 3, H, W]: TAEHV's layers, one frame wide."""
    layers = [conv(5, WIDTH), torch.nn.ReLU()]
    for out in (WIDTH, WIDTH, 2 * WIDTH):
        layers += [Block(WIDTH), Block(WIDTH), Block(WIDTH), torch.nn.Upsample(scale_factor=2), conv(WIDTH, out, bias=False)]
    return torch.nn.Sequential(*layers, torch.nn.ReLU(), conv(2 * WIDTH, 3))


def one_frame(pixels):
    """Pictures [n, 3, H, W] -> what `decoder` takes. Of luminance's rise in half of them only half: as much as the code keeps of what moves."""
    kept = cells(pixels)
    kept[1::2, 3:] *= 0.5
    return GAIN * kept


def from_svd_decoder(weights):
    """The decoder's initial weights from those of the landscape's other kind (../latents.py), whose last block at full size TAEHV has no place for."""
    new, old = decoder(), {k: v.float() for k, v in weights.items()}
    state = new.state_dict()
    first = old["1.weight"]
    state["0.weight"][:, :3] = torch.einsum("okyx,kc->ocyx", first, MIX)
    state["0.weight"][:, 3:] = 0
    shift = (CENTRE - svd.CENTRE) * svd.GAIN * MIX.sum(1)
    state["0.bias"] = old["1.bias"] + torch.einsum("okyx,k->o", first, shift)
    for name, value in state.items():
        at, _, rest = name.partition(".")
        twin = f"{int(at) + 1}.{rest}"
        if 2 <= int(at) <= 16:
            state[name] = old[twin] if at != "16" else torch.cat([old[twin], value[WIDTH:]])
    state["18.weight"] = torch.cat([old["19.weight"], torch.zeros_like(old["19.weight"])], 1)
    state["18.bias"] = old["19.bias"]
    return state


def _beside(weight, frames):
    """The weight of `frames` frames side by side, none of which sees another."""
    o, i = weight.shape[:2]
    out = weight.new_zeros(o * frames, i * frames, *weight.shape[2:])
    for f in range(frames):
        out[f * o : (f + 1) * o, f * i : (f + 1) * i] = weight
    return out


def decoder_state_dict(one_frame, template):
    """`decoder`'s weights as TAEHV's: four frames side by side at 1/8 and 1/4 of the size, two at 1/2, one at full size."""
    w = {name: torch.zeros_like(value) for name, value in template.items()}
    one = {k: v.float() for k, v in one_frame.items()}

    def put(name, value):
        w[name][tuple(slice(n) for n in value.shape)] = value

    unmix = MATRIX * SCALE / GAIN
    first = torch.einsum("ocyx,zfc->fozyx", one["0.weight"] * GAIN, unmix).flatten(0, 1)
    put("1.weight", first)
    put("1.bias", one["0.bias"].repeat(FOUR))
    for stage, frames in enumerate((4, 4, 2)):
        theirs, mine = (3, 9, 15)[stage], (2, 7, 12)[stage]
        for b in range(3):
            for layer in (0, 2, 4):
                put(f"{theirs + b}.conv.{layer}.weight", _beside(one[f"{mine + b}.conv.{layer}.weight"], frames))
                put(f"{theirs + b}.conv.{layer}.bias", one[f"{mine + b}.conv.{layer}.bias"].repeat(frames))
        grow, later = w[f"{theirs + 4}.conv.weight"], (4, 2, 1)[stage]
        k = torch.arange(WIDTH * later)
        for part in range(frames // later):
            grow[part * (grow.shape[0] // (frames // later)) + k, part * len(k) + k] = 1
        put(f"{theirs + 5}.weight", _beside(one[f"{mine + 4}.weight"], later))
    put("22.weight", one["18.weight"])
    put("22.bias", one["18.bias"])
    return w
