"""The demo's latent space: a small autoencoder in the host's TAESD layout, trained on the demo's pictures.

The code is the sampler's own space: about unit variance, `SCALE` times what the host's VAE
node hands out, as with SVD. Both nets are narrower than the host's; padded with zeros (demo/latents.py, `pad_to`) its VAE loader reads them.
"""

from functools import lru_cache
from pathlib import Path

from safetensors.torch import load_file
from torch.nn import Sequential

from ..latents import SCALE, Block, conv, decoder  # noqa: F401  # SCALE is the demo's too

SOCKETS = Path(__file__).parent / "sockets.safetensors"  # autoencoder and image encoder, shared by the checkpoints
CHANNELS = 4
WIDTH = 32  # channels of the trained nets, zero-padded to TAESD's 64


def encoder(width=WIDTH):
    """TAESD's encoder at another width, RGB [n, 3, H, W] -> code [n, 4, H / 8, W / 8]; the module names are the host's."""
    layers = [conv(3, width), Block(width)]
    for _ in range(3):
        layers += [conv(width, width, stride=2, bias=False), Block(width), Block(width), Block(width)]
    return Sequential(*layers, conv(width, CHANNELS))


def part(name):
    """One of the sockets' parts, float32: "encoder.", "decoder." or "clip_vision." -> state dict without that prefix."""
    return {k.removeprefix(name): v.float() for k, v in load_file(SOCKETS).items() if k.startswith(name)}


@lru_cache
def _trained(name, device):
    net = {"encoder.": encoder, "decoder.": decoder}[name](WIDTH)
    net.load_state_dict(part(name))
    return net.requires_grad_(False).eval().to(device)


def encode(pixels):
    """RGB in [0, 1], [..., 3, H, W] -> code [..., 4, H / 8, W / 8]."""
    return _trained("encoder.", pixels.device)(pixels.flatten(0, -4)).unflatten(0, pixels.shape[:-3])


def decode(code):
    """Code [..., 4, h, w] -> RGB in [0, 1], [..., 3, 8 h, 8 w]."""
    return _trained("decoder.", code.device)(code.flatten(0, -4)).unflatten(0, code.shape[:-3]).clamp(0, 1)
