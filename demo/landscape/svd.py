"""The landscape's models of SVD's kind: the host's own classes, with attention at every level.

A subject goes far in this world, and its look stands in the picture where it began. The demo's network (demo/model.py)
looks across the frame at its coarser levels alone, and what it moved dissolved. Here every level does, with heads of
16 channels, and the coarsest level is left out. `load` gives what the host's image-only checkpoint loader gives.
"""

from pathlib import Path

from .. import model as host_model
from ..latents import socket
from . import latents, scenes

CHECKPOINTS = {name: scenes.FOLDER / f"{name}.safetensors" for name in ("svd_leaking", "svd_healthy")}
DECODER = scenes.FOLDER / "svd_decoder.safetensors"  # of the VAE: the landscape's own, trained on with the one balloon that these models know


class SVDLandscape(host_model.SVDDemo):
    """SVD_img2vid of the host with more heads, in the landscape's latent space."""

    cil_family = "landscape"  # see nodes/families.py
    unet_extra_config = host_model.SVDDemo.unet_extra_config | {"num_head_channels": 16}


UNET = host_model.UNET | {
    "channel_mult": (1, 1),
    "num_res_blocks": [1, 1],
    "transformer_depth": [1, 1],
    "transformer_depth_output": [1, 0, 1, 0],
}


def build():
    """With uninitialised float32 weights."""
    return host_model.build(SVDLandscape, UNET)


def load(name):
    """-> (ModelPatcher, ClipVisionModel, VAE) of a checkpoint of CHECKPOINTS, or of a file that demo.landscape.train made."""
    model = build()
    model.load_model_weights(host_model.weights(CHECKPOINTS.get(name, Path(name)), model.diffusion_model))
    vae = host_model.vae(socket(DECODER, "decoder."), latents.encoder_state_dict)
    return host_model.patcher_of(model), host_model.clip_vision(latents.socket("clip_vision.")), vae
