"""The demo model inside the host: SVD's own classes at a small size, and its sockets.

Needs the host (ComfyUI) on the path. `load` gives what the host's image-only checkpoint
loader gives for a real SVD checkpoint: MODEL, CLIP_VISION, VAE.
"""

from pathlib import Path

import comfy.clip_vision
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import comfy.utils
import torch

from . import latents

FOLDER = Path(__file__).parent
CHECKPOINTS = {"healthy": FOLDER / "healthy.safetensors", "leaking": FOLDER / "leaking.safetensors"}
SOCKETS = FOLDER / "sockets.safetensors"  # VAE decoder and image encoder, shared by both

WIDTH = 64  # one attention head of SVD's size
CONTEXT = 64


class SVDDemo(comfy.supported_models.SVD_img2vid):
    """SVD_img2vid of the host at 1/5 of its width and three levels."""

    unet_config = {}
    clip_vision_prefix = None
    cil_family = "demo"  # see nodes/families.py


UNET = {
    "image_size": 16,
    "in_channels": 8,
    "out_channels": 4,
    "model_channels": WIDTH,
    "channel_mult": (1, 1, 1),
    "num_res_blocks": [1, 1, 1],
    "transformer_depth": [0, 1, 0],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [0, 0, 1, 1, 0, 0],
    "num_classes": "sequential",
    "adm_in_channels": 768,
    "context_dim": CONTEXT,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": True,
    "use_temporal_attention": True,
    "use_temporal_resblock": True,
    "use_spatial_context": True,
    "extra_ff_mix_layer": True,
    "merge_strategy": "learned_with_images",
    "merge_factor": 0.0,
    "video_kernel_size": [3, 1, 1],
    "disable_temporal_crossattention": False,
    "legacy": False,
}


def build(kind=SVDDemo, unet=UNET):
    """An SVD_img2vid of the host with uninitialised float32 weights. kind: its configuration, of another family; unet: its network's."""
    config = kind(unet)
    config.set_inference_dtype(torch.float32, None)
    return config.get_model({})


def initialise(module):
    """Give the layers PyTorch's initial weights, which the host's operations leave out."""
    kinds = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.Conv3d, torch.nn.GroupNorm, torch.nn.LayerNorm, torch.nn.Embedding)
    for layer in module.modules():
        for kind in kinds:
            if isinstance(layer, kind):
                kind.reset_parameters(layer)


def vae(decoder, encoder=latents.encoder_state_dict):
    """The host's VAE from the trained decoder weights (see latents.py); encoder(template) gives its encoder's."""
    template = comfy.taesd.taesd.TAESD().state_dict()
    inside = lambda part: {k.removeprefix(part): v for k, v in template.items() if k.startswith(part)}
    state = {"taesd_encoder." + k: v for k, v in encoder(inside("taesd_encoder.")).items()}
    for name, value in inside("taesd_decoder.").items():
        state["taesd_decoder." + name] = latents.pad_to(decoder[name].float(), value.shape)
    state["vae_scale"] = torch.tensor(latents.SCALE)
    state["vae_shift"] = torch.tensor(0.0)
    return comfy.sd.VAE(sd=state)


def clip_vision(state=None):
    """The host's CLIP vision model at a tiny size; random weights that were kept, not trained."""
    encoder = comfy.clip_vision.ClipVisionModel(str(FOLDER / "clip_vision.json"))
    if state is not None:
        encoder.load_sd({k: v.float() for k, v in state.items()})
    return encoder


def own_clip_vision():
    """The image encoder that all the demo's models share."""
    return clip_vision(latents.socket(SOCKETS, "clip_vision."))


def weights(path, network):
    """The tensors of a checkpoint of the demo model. Raises ValueError, before anything is loaded, for any other file."""
    if not path.is_file():
        raise ValueError(
            f"there is no checkpoint at {path}: demo: takes {', '.join(CHECKPOINTS)}, or a file that demo.train or nodes.training.train --full made"
        )
    try:
        state = comfy.utils.load_torch_file(str(path), safe_load=True)
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    except Exception as error:  # the host's loader raises nearly anything on a file of another kind
        raise ValueError(
            f"{path} cannot be read as a checkpoint of the demo model ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        ) from None
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    if shapes != wanted:
        name = min(name for name in shapes.keys() | wanted.keys() if shapes.get(name) != wanted.get(name))
        raise ValueError(
            f"{path} is no checkpoint of the demo model: its '{name}' is {shapes.get(name, 'not there')}, the model's is {wanted.get(name, 'not there')}"
        )
    if bad := [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]:
        raise ValueError(f"{path} has values that are no numbers (NaN or infinite) in '{bad[0]}': it is damaged, or its training went astray")
    return state


def patcher_of(model):
    """A model of the host as the MODEL of a graph."""
    return comfy.model_patcher.ModelPatcher(
        model.eval(), load_device=comfy.model_management.get_torch_device(), offload_device=comfy.model_management.unet_offload_device()
    )


def load(name):
    """-> (ModelPatcher, ClipVisionModel, VAE) of the checkpoint `healthy` or `leaking`, or of a file of the same model."""
    model = build()
    model.load_model_weights(weights(CHECKPOINTS.get(name, Path(name)), model.diffusion_model))
    return patcher_of(model), own_clip_vision(), vae(latents.socket(SOCKETS, "decoder."))
