"""Checkpoints of DynamiCrafter and VideoCrafter1: which variant, what is in the file, and the host's objects.

Accepted: the released full checkpoints (.ckpt, read without executing anything), pruned
safetensors with or without text encoder, image encoder and VAE, and the authors' CIL
fine-tuned ones, which have the same layout.
"""

from pathlib import Path
from typing import Any

import comfy.clip_vision
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.utils
import folder_paths
import torch

from ..host.types import Model
from .model import VARIANTS, LVDMConfig, Variant
from .unet import INIT_HEADS

UNET, RESAMPLER, VAE, TEXT, VISION = "model.diffusion_model.", "image_proj_model.", "first_stage_model.", "cond_stage_model.", "embedder."
DEEPSPEED = "_forward_module."
AUTOMATIC = "automatic"
RESAMPLER_HEADS = 12  # in all released ones; no shape tells it


def read(path: str | Path) -> dict:
    """The tensors of a checkpoint by their released names. Raises ValueError for a file that cannot be read."""
    path = Path(path)
    try:
        found = comfy.utils.load_torch_file(str(path), safe_load=True)
    except Exception as error:  # both loaders raise nearly anything on a broken file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path.name} cannot be read: {reason}. The file is damaged, incomplete (compare its size with the download's) or no checkpoint"
        ) from None
    found = found.get("module", found) if isinstance(found, dict) else {}
    tensors = {k.removeprefix(DEEPSPEED): v for k, v in found.items() if torch.is_tensor(v)}
    if "input_blocks.0.0.weight" in tensors:  # a UNet by itself
        outside = (RESAMPLER, VAE, TEXT, VISION)
        tensors = {k if k.startswith(outside) else UNET + k: v for k, v in tensors.items()}
    # DynamiCrafter 256 calls the same layers otherwise
    return {k.replace(f"{UNET}framestride_embed.", f"{UNET}fps_embedding."): v for k, v in tensors.items()}


def inside(tensors: dict, prefix: str) -> dict:
    """The tensors below a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def check_kind(tensors: dict, name: str) -> None:
    """Raise ValueError, in words, unless these are an LVDM image-to-video model's tensors."""
    unet = inside(tensors, UNET)
    expected = "this node loads DynamiCrafter (256, 512, 1024, interpolation) and VideoCrafter1 image-to-video"
    if not unet:
        some = ", ".join(list(tensors)[:3]) or "no tensors"
        raise ValueError(f"{name} holds no UNet ({some}), but {expected}")
    if any(".time_stack." in k for k in unet):
        raise ValueError(f"{name} is a Stable Video Diffusion checkpoint, but {expected}: load it with 'Image Only Checkpoint Loader'")
    if not any(".temopral_conv." in k for k in unet):
        raise ValueError(f"{name} is a UNet without LVDM's temporal layers ({unet_summary(unet)}), but {expected}: load it with 'Load Checkpoint'")
    if not any(k.endswith(".to_k_ip.weight") for k in unet):
        raise ValueError(f"{name} is a text-to-video model of the same family, it has no attention to an image, but {expected}")
    if not inside(tensors, RESAMPLER):
        raise ValueError(
            f"{name} lacks the image resampler (the tensors {RESAMPLER}*), without which the picture cannot reach the UNet: it was pruned too far, take the full checkpoint or one that keeps them"
        )


def unet_summary(unet: dict) -> str:
    """What a UNet's tensors look like, for an error's words."""
    first = unet.get("input_blocks.0.0.weight")
    return f"{len(unet)} tensors" + (f", {first.shape[1]} input channels" if first is not None else "")


def variant_of(tensors: dict, name: str, wanted: str = AUTOMATIC) -> Variant:
    """The Variant of a checkpoint. 512 and 1024 have the same shapes: the file's own noise tables or its name tell them apart."""
    unet = inside(tensors, UNET)
    channels = unet["input_blocks.0.0.weight"].shape[1]
    alpha = any(k.endswith(".attn2.alpha") for k in unet)
    fitting = [v for v in VARIANTS if (v.channels, v.alpha) == (channels, alpha)]
    names = ", ".join(v.name for v in fitting)
    if not fitting:
        raise ValueError(f"{name} is of no variant that is known: {channels} input channels, image attention {'with' if alpha else 'without'} alpha")
    if wanted != AUTOMATIC:
        chosen = [v for v in fitting if v.name == wanted]
        if not chosen:
            raise ValueError(f"{name} cannot be {wanted}: its tensors are those of {names}")
        return chosen[0]
    if "scale_arr" in tensors:
        base = float(tensors["scale_arr"][-1])
        fitting = [v for v in fitting if abs(v.base_scale - base) < 0.01] or fitting
    for part in reversed(name.split("/")):  # the file's name, then its folder's
        if len(fitting) > 1:
            fitting = [v for v in fitting if v.name.split()[-1] in part] or fitting
    if len(fitting) > 1:
        raise ValueError(
            f"{name} may be {names}: they have the same tensors, and neither the file's noise tables nor its name says which. Choose it in `variant`; a wrong choice gives wrong contrast"
        )
    return fitting[0]


def unet_config(unet: dict, resampler: dict) -> dict:
    """Arguments of LVDMUNet from the tensors' names and shapes."""
    numbers = range(1, 1 + max(int(k.split(".")[1]) for k in unet if k.startswith("input_blocks.")))
    stages = [n for n in numbers if f"input_blocks.{n}.0.op.weight" not in unet]  # the others halve the size
    levels = len(numbers) - len(stages) + 1
    width, channels = unet["input_blocks.0.0.weight"].shape[:2]
    widths = [unet[f"input_blocks.{n}.0.out_layers.3.weight"].shape[0] for n in stages]
    return {
        "in_channels": channels,
        "out_channels": unet["out.2.weight"].shape[0],
        "model_channels": width,
        "channel_mult": tuple(w // width for w in widths[:: len(stages) // levels]),
        "res_blocks": len(stages) // levels,
        "head_channels": unet["init_attn.0.proj_in.weight"].shape[0] // INIT_HEADS,
        "context_dim": unet["middle_block.1.transformer_blocks.0.attn2.to_k.weight"].shape[1],
        "alpha": any(k.endswith(".attn2.alpha") for k in unet),
        "image_proj": resampler_config(resampler),
    }


def resampler_config(resampler: dict) -> dict:
    """Arguments of Resampler from the tensors' names and shapes."""
    _, queries, dim = resampler["latents"].shape
    return {
        "dim": dim,
        "depth": 1 + max(int(k.split(".")[1]) for k in resampler if k.startswith("layers.")),
        "heads": RESAMPLER_HEADS,
        "head_dim": resampler["layers.0.0.to_q.weight"].shape[0] // RESAMPLER_HEADS,
        "queries": queries,
        "embedding_dim": resampler["proj_in.weight"].shape[1],
        "output_dim": resampler["proj_out.weight"].shape[0],
    }


def build_model(tensors: dict, name: str, wanted: str = AUTOMATIC) -> Model:
    """The host's MODEL, weights and all. Raises ValueError if tensors are missing."""
    weights = inside(tensors, UNET) | {k: v for k, v in tensors.items() if k.startswith(RESAMPLER)}
    try:
        config = LVDMConfig(variant_of(tensors, name, wanted), unet_config(weights, inside(tensors, RESAMPLER)))
    except KeyError as error:
        raise ValueError(f"{name} is incomplete: it lacks the tensor {error}") from None
    manage = comfy.model_management
    device, supported = manage.get_torch_device(), config.supported_inference_dtypes
    dtype = manage.unet_dtype(
        model_params=comfy.utils.calculate_parameters(weights), supported_dtypes=supported, weight_dtype=comfy.utils.weight_dtype(weights)
    )
    config.set_inference_dtype(dtype, manage.unet_manual_cast(dtype, device, supported))
    model = config.get_model(weights)
    missing = model.diffusion_model.state_dict().keys() - weights.keys()
    if missing:
        raise ValueError(f"{name} is incomplete: {len(missing)} tensors of the UNet are missing, such as {min(missing)}. Download it again")
    model.load_model_weights(weights)
    offload = manage.unet_offload_device()
    return comfy.model_patcher.ModelPatcher(model.to(offload), load_device=device, offload_device=offload)


def build_clip(tensors: dict, config: LVDMConfig) -> Any:
    """The host's CLIP of SD 2 (OpenCLIP-H), or None where the file has no text encoder."""
    weights = config.process_clip_state_dict({k: v for k, v in tensors.items() if k.startswith(TEXT)})
    if not weights:
        return None
    clip = comfy.sd.CLIP(
        config.clip_target(),
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        tokenizer_data=weights,
        parameters=comfy.utils.calculate_parameters(weights),
    )
    clip.load_sd(weights, full_model=True)
    return clip


def build_clip_vision(tensors: dict, config: LVDMConfig) -> Any:
    """The host's CLIP_VISION (OpenCLIP-H), or None where the file has no image encoder."""
    weights = {k: v for k, v in tensors.items() if k.startswith(config.clip_vision_prefix)}
    return comfy.clip_vision.load_clipvision_from_sd(weights, config.clip_vision_prefix, True) if weights else None


def build_vae(tensors: dict) -> Any:
    """The host's VAE (Stable Diffusion's), or None where the file has none."""
    weights = inside(tensors, VAE)
    return comfy.sd.VAE(sd=weights) if weights else None


def load(path: str | Path, wanted: str = AUTOMATIC) -> tuple:
    """-> MODEL, CLIP, CLIP_VISION, VAE of a checkpoint; None for what the file leaves out but the model.

    wanted: a Variant's name, or AUTOMATIC. Raises ValueError.
    """
    return build(read(path), path, wanted)


def build(tensors: dict, path: str | Path, wanted: str = AUTOMATIC) -> tuple:
    """The same of the tensors that `read` gave."""
    path = Path(path)
    name = f"{path.parent.name}/{path.name}"  # the released files are all called model.ckpt
    check_kind(tensors, name)
    model = build_model(tensors, name, wanted)
    config = model.model.model_config
    return model, build_clip(tensors, config), build_clip_vision(tensors, config), build_vae(tensors)
