"""The Wan demo inside the host: Wan's own classes at a small size, and its VAE in the TAEHV layout.

Needs the host (ComfyUI) on the path. `load` gives what the host's loaders give for a real
Wan image-to-video model: MODEL, VAE, and the CONDITIONING of the one text that it knows.
"""

from pathlib import Path

import comfy.latent_formats
import comfy.sd
import comfy.supported_models
import comfy.taesd.taehv
import torch

from ...latents import socket
from ...model import patcher_of, weights
from . import latents

FOLDER = Path(__file__).parent
CHECKPOINTS = {name: FOLDER / f"{name}.safetensors" for name in ("wan_leaking", "wan_healthy")}
DECODER = FOLDER / "decoder.safetensors"  # of the VAE, for one frame; shared by both
TEXT = 32  # width of the text embedding, which is constant
SHIFT = 5.0  # of the times, in training and sampling: the real one's 8 is for pictures of thirty times the size


class Wan21(comfy.latent_formats.Wan21):
    """Wan's latent format with this code's statistics in place of the real VAE's."""

    def __init__(self):
        super().__init__()
        self.latents_mean = torch.zeros_like(self.latents_mean)
        self.latents_std = torch.full_like(self.latents_std, 1 / latents.SCALE)


class WanDemo(comfy.supported_models.WAN21_I2V):
    """WAN21_I2V of the host at a thirtieth of its width and an eighth of its depth."""

    unet_config = {}
    latent_format = Wan21
    sampling_settings = {"shift": SHIFT}


NETWORK = {
    "model_type": "t2v",  # what reads no CLIP vision tokens, as in Wan 2.2
    "patch_size": (1, 2, 2),
    "in_dim": 36,
    "out_dim": latents.CHANNELS,
    "dim": 160,
    "ffn_dim": 640,
    "freq_dim": 128,
    "text_dim": TEXT,
    "num_heads": 5,
    "num_layers": 5,
}


def build(**changes):
    """A WAN21 of the host with uninitialised float32 weights."""
    config = WanDemo(NETWORK | changes)
    config.set_inference_dtype(torch.float32, None)
    return config.get_model({})


def initialise(network, seed):
    """Weights that Wan's training begins from: small time embeddings, and residual branches and a head of zero."""
    torch.manual_seed(seed)
    for name, p in network.named_parameters():
        if name.endswith("modulation"):
            torch.nn.init.normal_(p, std=p.shape[-1] ** -0.5)
        elif "norm" in name:
            torch.nn.init.constant_(p, float(name.endswith("weight")))
        elif name.endswith(("bias", ".o.weight", "ffn.2.weight")) or name.startswith("head.head"):
            torch.nn.init.zeros_(p)
        elif name.startswith(("time_embedding", "time_projection")):
            torch.nn.init.normal_(p, std=0.02)
        else:
            torch.nn.init.xavier_uniform_(p.flatten(1))
    return network


def decoder_weights():
    """Those of the VAE's decoder for one frame."""
    return socket(DECODER, "decoder.")


def vae(decoder):
    """The host's VAE from the decoder for one frame (latents.py)."""
    template = comfy.taesd.taehv.TAEHV(latent_channels=latents.CHANNELS).state_dict()
    inside = lambda part: {k.removeprefix(part): v.float() for k, v in template.items() if k.startswith(part)}
    state = {"encoder." + k: v for k, v in latents.encoder_state_dict(inside("encoder.")).items()}
    state |= {"decoder." + k: v for k, v in latents.decoder_state_dict(decoder, inside("decoder.")).items()}
    return comfy.sd.VAE(sd=state)


def text():
    """The one text that the models know, as CONDITIONING."""
    return [[torch.zeros(1, 1, TEXT), {}]]


def load(name):
    """-> (ModelPatcher, VAE) of a checkpoint of CHECKPOINTS, or of a file that demo.landscape.train made."""
    model = build()
    model.load_model_weights(weights(CHECKPOINTS.get(name, Path(name)), model.diffusion_model), "")
    return patcher_of(model), vae(decoder_weights())
