"""A host's LATENT: its spaces, its parts, its mask."""

import inspect
from collections.abc import Callable
from typing import Any

import comfy.latent_formats
import comfy.sample
import comfy.utils
import torch

from ..families import SPACES
from .models import model_family
from .types import Model, Vae

KEPT, FREE = 1e-3, 1 - 1e-3  # a mask at or below the one keeps a picture to the last; above the other it keeps nothing


def to_latent(model: Model, x: torch.Tensor) -> torch.Tensor:
    """The network's space -> a LATENT's, so that the host's `process_latent_in` brings it back.

    The host leaves a latent of only zeros as it is, so zeros stay zeros.
    """
    return x if not x.any() else model.get_model_object("process_latent_out")(x)


def sized_for(model: Model, latent: dict) -> torch.Tensor:
    """A LATENT's samples as the host's samplers size an empty one for a MODEL: channels, dimensions and, on newer hosts, scale.

    Raises ValueError for one of another make, which the model could not be sampled with.
    """
    fix = comfy.sample.fix_empty_latent_channels
    known = [name for name in ("downscale_ratio_spacial", "downscale_ratio_temporal") if name in inspect.signature(fix).parameters]
    samples = fix(model, latent["samples"], **{name: latent.get(name) for name in known})
    if not samples.is_nested:
        check_layout(model, samples)
    return samples


def sound_gain(model: Model) -> float:
    """What the host multiplies the sound of a LATENT by on its way into sampling (MiniMax H3); 1 for all others."""
    return float(getattr(model.get_model_object("model_sampling"), "audio_scale", 1.0))


def parts_of(latent: torch.Tensor) -> list[torch.Tensor]:
    """The tensors of a LATENT's samples or mask: [video], or [video, sound] where a model makes both."""
    return list(latent.unbind()) if latent.is_nested else [latent]


def like_parts(latent: torch.Tensor, parts: list[torch.Tensor]) -> torch.Tensor:
    """Tensors as the samples of a LATENT of the same make as `latent`: the inverse of `parts_of`."""
    return type(latent)(parts) if latent.is_nested else parts[0]


def unpacked(flat: torch.Tensor, shapes: list | None) -> list[torch.Tensor]:
    """`parts_of` what the host samples: it packs several parts into one flat tensor. shapes: theirs; None from an older host."""
    return list(comfy.utils.unpack_latents(flat, shapes)) if shapes is not None and len(shapes) > 1 else [flat]


def packed(parts: list[torch.Tensor]) -> torch.Tensor:
    """The inverse of `unpacked`."""
    return comfy.utils.pack_latents(parts)[0] if len(parts) > 1 else parts[0]


def free_of(noise_mask: torch.Tensor, samples: torch.Tensor) -> torch.Tensor:
    """Where a LATENT's mask leaves sampling entirely free, like `samples`: bool.

    Where it is between 0 and 1 the host blends the picture in at every step, so that is kept.
    """
    return comfy.utils.reshape_mask(noise_mask, samples.shape).to(samples.device) > FREE


def partly_kept(noise_mask: torch.Tensor, samples: torch.Tensor) -> torch.Tensor:
    """Where a LATENT's mask keeps the picture in part, like `samples`: bool."""
    mask = comfy.utils.reshape_mask(noise_mask, samples.shape).to(samples.device)
    return (mask > KEPT) & (mask < FREE)


def latent_format_of(space: str) -> Any:
    """The host's latent format of a latent space by its name, for work without a MODEL."""
    names = {value: key for key, value in SPACES.items()} | {"demo": "SD15", "landscape": "SD15"}
    if space not in names or not hasattr(comfy.latent_formats, names[space]):
        raise ValueError(f"'{space}' is not a latent space that this host knows; it knows {', '.join(sorted(names))}")
    return getattr(comfy.latent_formats, names[space])()


@torch.no_grad()  # the host switches gradients off for nodes, but not for commands
def clip_latents(vae: Vae, process_in: Callable, frames: torch.Tensor) -> torch.Tensor:
    """One clip through the host's VAE: IMAGE frames [T, H, W, 3] -> latents [C, T, h, w] as the network sees them."""
    latents = vae.encode(frames[..., :3])
    latents = latents[0] if latents.ndim == 5 else latents.movedim(0, 1)
    return process_in(latents[None])[0]


def check_latent(model: Model, samples: torch.Tensor) -> None:
    """Raise ValueError unless a clip's latents are what the model can take: channels, dimensions, frames, numbers."""
    if samples.is_nested:
        raise ValueError("this latent holds video and sound together, and a model of both cannot be asked about a clip alone: there is no probe for it")
    check_layout(model, samples, "encode the clip with the model's own VAE")
    if samples.shape[frames_dim(samples)] < 2:
        raise ValueError("a clip of at least two frames is needed, but one frame came: connect all the frames")
    if not torch.isfinite(samples).all():
        raise ValueError("the clip's latents have values that are not numbers (NaN): the picture or the VAE broke before they came here")


def check_layout(model: Model, samples: torch.Tensor, advice: str = "take the empty latent, or the VAE, that belongs to this model") -> None:
    """Raise ValueError unless latents have the channels and dimensions of the model's own."""
    latent_format = model.get_model_object("latent_format")
    channels, dimensions = latent_format.latent_channels, latent_format.latent_dimensions + 2
    if samples.ndim != dimensions or samples.shape[1] != channels:
        wanted = {4: f"[frames, {channels}, h, w]", 5: f"[1, {channels}, frames, h, w]"}.get(dimensions, f"{dimensions} dimensions and {channels} channels")
        raise ValueError(f"this model takes latents of '{model_family(model).space}', {wanted}, but {tuple(samples.shape)} came: {advice}")


def frames_dim(samples: torch.Tensor) -> int:
    """Which dimension of a clip's latents is time."""
    return 0 if samples.ndim == 4 else 2
