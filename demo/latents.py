"""The demo's latent space: a fixed linear code of 8 x 8 pixel means, in the host's own TAESD layout.

The encoder is linear by construction, so the moments of the latents follow from those of
the pixels. Only the decoder is trained: it redraws the sharp picture that the means imply.
"""

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

CELL = 8  # pixels a latent cell, as in Stable Diffusion
GAIN = 6.0
CENTRE = 0.35  # RGB level that maps to latent 0
SCALE = 0.18215  # the host multiplies SVD's latents by this on their way in
WIDTH = 24  # channels of the trained decoder, zero-padded to TAESD's 64

# three orthonormal columns of a 4 x 4 Hadamard matrix: 3 colours -> 4 channels
MIX = 0.5 * torch.tensor([[1.0, 1, 1], [-1, 1, -1], [1, -1, -1], [-1, -1, 1]])


def encode(pixels, gain=GAIN, centre=CENTRE):
    """RGB in [0, 1], [..., 3, H, W] -> scaled latents [..., 4, H / 8, W / 8]."""
    cells = F.avg_pool2d(pixels.flatten(0, -4), CELL).unflatten(0, pixels.shape[:-3])
    return gain * torch.einsum("zc,...chw->...zhw", MIX.to(pixels), cells - centre)


def encoder_state_dict(template, gain=GAIN, centre=CENTRE):
    """`encode` written as weights of the host's TAESD encoder; `template` gives names and shapes.

    Colours ride through in the first three channels: identity blocks (their branch is zero
    and RGB is not negative, so ReLU passes it) and stride-2 convolutions that take 2 x 2 means.
    """
    weights = {name: torch.zeros_like(value) for name, value in template.items()}
    convolutions = [n for n, v in weights.items() if n.endswith("weight") and ".conv." not in n]
    rgb = range(3)
    for name in convolutions:
        w = weights[name]
        if name == convolutions[0]:
            w[rgb, rgb, 1, 1] = 1
        elif name == convolutions[-1]:
            w[:, :3, 1, 1] = gain * MIX
            weights[name.replace("weight", "bias")][:] = -gain * centre * MIX.sum(1)
        else:
            w[rgb, rgb, 1:, 1:] = 0.25
    return weights


def conv(i, o, **options):
    """TAESD's convolution."""
    return torch.nn.Conv2d(i, o, 3, padding=1, **options)


class Block(torch.nn.Module):
    """TAESD's residual block."""

    def __init__(self, width):
        super().__init__()
        relu = torch.nn.ReLU
        self.conv = torch.nn.Sequential(conv(width, width), relu(), conv(width, width), relu(), conv(width, width))

    def forward(self, x):
        return F.relu(self.conv(x) + x)


class Clamp(torch.nn.Module):
    def forward(self, x):
        return torch.tanh(x / 3) * 3


def decoder(width=WIDTH):
    """TAESD's decoder at another width; the module names are the host's, from 1 on."""
    layers = [Clamp(), conv(4, width), torch.nn.ReLU()]
    for _ in range(3):
        layers += [Block(width), Block(width), Block(width), torch.nn.Upsample(scale_factor=2), conv(width, width, bias=False)]
    return torch.nn.Sequential(*layers, Block(width), conv(width, 3))


def socket(path, part):
    """One part of a sockets file, "decoder." or "clip_vision.": a state dict in float32 without that prefix."""
    return {name.removeprefix(part): value.float() for name, value in load_file(path).items() if name.startswith(part)}


def pad_to(value, shape):
    """Zero-pad a weight at the end of each dimension: a narrower net inside a wider one."""
    out = value.new_zeros(shape)
    out[tuple(slice(n) for n in value.shape)] = value
    return out
