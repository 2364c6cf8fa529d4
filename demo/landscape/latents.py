"""The landscape's latent space: the demo's linear code of 8 x 8 pixel means, centred for brighter pictures, with a decoder of its own.

A code that is trained with its encoder was tried: models trained in it did not leak, and the means keep the moments of the pixels.
"""

import torch

from .. import latents
from ..latents import SCALE  # noqa: F401  # the demo's too
from . import scenes

GAIN, CENTRE = 5.0, 0.5
WIDTH = 32  # channels of the trained decoder, zero-padded to TAESD's 64
SOCKETS = scenes.FOLDER / "sockets.safetensors"  # VAE decoder and image encoder


def encode(pixels):
    """RGB in [0, 1], [..., 3, H, W] -> scaled latents [..., 4, H / 8, W / 8]."""
    return latents.encode(pixels, GAIN, CENTRE)


def encoder_state_dict(template):
    return latents.encoder_state_dict(template, GAIN, CENTRE)


def decoder():
    return latents.decoder(WIDTH)


def socket(part):
    """A part of this world's own, see demo/latents.py."""
    return latents.socket(SOCKETS, part)


@torch.no_grad()
def decode(code):
    """Scaled latents [..., 4, h, w] -> RGB in [0, 1], [..., 3, 8 h, 8 w]: what the host's VAE computes, at the width that was trained."""
    net = decoder()
    net.load_state_dict(socket("decoder."))
    return net(code.flatten(0, -4)).unflatten(0, code.shape[:-3]).clamp(0, 1)
