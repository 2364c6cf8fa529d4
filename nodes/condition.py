"""The conditional image inside the model call, handed to a function that changes it.

`ConditionPatcher` finds the image wherever the family's network takes it (families.py) and
replaces it by what a `Change` makes of it. Nothing else is touched: mask channels, control
channels, padding frames and the image-free unconditional rows stay bit for bit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.patcher_extension
import torch

from .families import Family, ImageInput, channels
from .host.latents import packed, unpacked
from .host.models import cloned
from .host.sampling import Sampling
from .host.tokens import ENCODED, changed_tokens, projectors_of
from .host.types import BaseModel, Conditioning, Executor, Model

KEPT = "the frames that the latent's mask keeps, as the model sees them"
SOME = 1e-3  # a frame whose latents all lie below this is padding, not a picture


@dataclass(frozen=True)
class ConditionChange:
    """What happens to the image at one noise level.

    image(y, shared): latents y -> latents; along the dimensions `shared` y is one image.
    tokens(y, shared): the same for image tokens, as cross-attention sees them; None leaves them.
    level: what to tell a model that can be told the level of noise on its image, or None.
    mixed: whether the image is mixed with noise, (1 - level) image + level noise, and not added to.
    everywhere: the frames that only fill up are changed too, as long as they stand beside the video.
    """

    image: Callable
    tokens: Callable | None = None
    level: float | None = None
    everywhere: bool = False
    mixed: bool = False


class ConditionPatcher:
    """Wraps the host's APPLY_MODEL. at(sigma, time) -> the ConditionChange there, or None to leave the call alone.

    time_of(sampling, sigma): the noise level as a time in [0, 1]; by default as a fraction of T.
    """

    def __init__(self, family: Family, at: Callable, time_of: Callable = Sampling.fraction):
        self.family, self.at, self.time_of = family, at, time_of

    def __call__(
        self,
        executor: Executor,
        x: torch.Tensor,
        t: torch.Tensor,
        c_concat: torch.Tensor | None = None,
        c_crossattn: torch.Tensor | None = None,
        control: dict | None = None,
        transformer_options: dict = {},
        **kwargs,
    ) -> torch.Tensor:
        base, sigma = executor.class_obj, float(t.flatten()[0])
        change = self.change(base, sigma, transformer_options)
        if change is None:
            return executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)
        call = ModelCall(base, self.family.image, change, len(transformer_options.get("cond_or_uncond", [0])))
        inputs = {**kwargs, "c_concat": c_concat, "c_crossattn": c_crossattn}
        x = call.with_kept_frames(x, t, inputs)
        projected = call.change_of_projected(inputs)
        inputs = call.with_level(call.with_image(inputs))
        with changed_tokens(base.diffusion_model, projected):
            return executor(x, t, inputs.pop("c_concat"), inputs.pop("c_crossattn"), control, transformer_options, **inputs)

    def change(self, base: BaseModel, sigma: float, transformer_options: dict) -> ConditionChange | None:
        """What happens to the image in this call, or None."""
        return self.at(sigma, self.time_of(Sampling(base.model_sampling), sigma))


class ModelCall:
    """One call of the model. rows: how many conditionings the host has put into the batch, one after another."""

    def __init__(self, base: BaseModel, image: ImageInput, change: ConditionChange, rows: int):
        self.base, self.image, self.change, self.rows = base, image, change, rows
        self.latent_channels = base.latent_format.latent_channels
        self.projected = tuple(name for name in image.tokens if name in ENCODED) if projectors_of(base.diffusion_model) else ()

    def with_image(self, inputs: dict) -> dict:
        """The inputs of the network with the image in them changed; a new dict."""
        out = dict(inputs)
        for name, place in {} if self.mixed_by_network(inputs) else self.image.places.items():
            if (held := inner(out, name)) is not None and place.of_image:
                out = with_inner(out, name, self._in_layout(held, place.layouts))
        for name in self.image.tokens if self.change.tokens else ():
            if out.get(name) is not None and name not in self.projected:
                out[name] = self._where(_not_empty(out[name]), out[name], self.change.tokens, (0,))
        return out

    def mixed_by_network(self, inputs: dict) -> bool:
        """Whether the network is to mix the noise into its image by itself, being told how much."""
        told = self.change.mixed and self.change.level is not None
        return told and self.image.mixes is not None and any(inner(inputs, name) is not None for name in self.image.places)

    def change_of_projected(self, inputs: dict) -> Callable | None:
        """What happens to the tokens that the network's projectors make of the image encoder's; None where nothing does."""
        seen = next((inputs[name] for name in self.projected if inputs.get(name) is not None), None)
        if self.change.tokens is None or seen is None:
            return None
        where = _not_empty(seen)  # [rows, or rows x frames, 1, 1]
        return lambda tokens: self._where(where[:: len(where) // len(tokens)], tokens, self.change.tokens, (0,))

    def _in_layout(self, tensor, layouts):
        """The image channels of [rows, channels, (frames,) h, w] changed, where the image is given; of a list, in its single pictures."""
        if isinstance(tensor, list):
            return [self._in_layout(one, layouts) if one.shape[-3] == 1 else one for one in tensor]
        dim = -3 if tensor.ndim == 4 else -4
        parts = layout_parts(layouts, tensor.shape[dim], self.latent_channels)
        if "image" not in parts:
            return tensor
        image = tensor.narrow(dim, *parts["image"])  # [rows, C, (T,) h, w]
        where = image.new_ones((1,) * image.ndim, dtype=torch.bool) if self.change.everywhere else image_mask(tensor, parts, dim)
        changed = self._where(where, image, self.change.image, self._shared(tensor.ndim))
        first, count = parts["image"]
        after = tensor.narrow(dim, first + count, tensor.shape[dim] - first - count)
        return torch.cat([tensor.narrow(dim, 0, first), changed, after], dim)

    def _shared(self, dimensions):
        """The dimensions along which the image is the same one."""
        return ((0,) if dimensions == 4 else (-3,)) if self.image.repeated else ()

    def _where(self, where, y, change, shared):
        """change(y) where `where`, each conditioning of the batch by itself and so all alike."""
        if not where.any():
            return y
        rows = self.rows if y.shape[0] % self.rows == 0 else 1
        return torch.where(where, torch.cat([change(part, shared) for part in y.chunk(rows)]), y)

    def with_kept_frames(self, x: torch.Tensor, t: torch.Tensor, inputs: dict) -> torch.Tensor:
        """x with the frames changed in which sampling keeps the image.

        The host shows the network a kept frame scaled by a factor that its scale_latent_inpaint
        knows; what sampling makes of that frame is thrown away, so the frame stays exactly kept.
        """
        shapes = inputs.get("latent_shapes")
        if shapes is not None and len(shapes) > 1:  # sound beside the video, in one flat tensor
            video, *rest = unpacked(x, shapes)
            return packed([self.with_kept_frames(video, t, {**inputs, "latent_shapes": None}), *rest])
        where = self._kept_mask(x, inputs)
        if where is None:
            return x
        one = x.new_ones((1,) * x.ndim)  # a number with x's dimensions
        factor = self.base.scale_latent_inpaint(x=one, sigma=t[:1], noise=0 * one, latent_image=one)
        return self._where(where, x, lambda y, shared: self.change.image(y / factor, shared) * factor, ())

    def _kept_mask(self, x, inputs):
        """1 where x holds a kept frame: broadcasts to x; None where there is none to be seen."""
        if self.image.kept is None or x.ndim != 5:
            return None
        told = inputs.get(self.image.kept)  # a mask, or an index
        if told is None:
            return None
        if self.image.kept == "guiding_frame_index":
            return (torch.arange(x.shape[2], device=x.device) == 0).view(1, 1, -1, 1, 1)
        if self.image.kept == "denoise_mask":
            return (told < SOME).to(x.device)
        parts = layout_parts(self.image.places[self.image.kept].layouts, told.shape[1], self.latent_channels)
        return (told.narrow(1, *parts["mask"]).amin(1, keepdim=True) > 1 - SOME).to(x.device) if "mask" in parts else None

    def with_level(self, inputs: dict) -> dict:
        """The inputs with the level written where the family reads it."""
        if self.mixed_by_network(inputs):
            return with_inner(inputs, self.image.mixes, 1 - self.change.level)
        y = inputs.get("y")
        if self.change.level is None or self.image.level is None or y is None:
            return inputs
        first, last = self.image.level
        embedded = self.base.embedder(torch.tensor([self.change.level])).to(y).expand(y.shape[0], -1)  # [rows, last - first]
        return {**inputs, "y": torch.cat([y[:, :first], embedded, y[:, last:]], 1)}


def inner(inputs: dict, name: str) -> Any:
    """An input of the network, or "input.key" of one that is a dict; None where it is not there."""
    name, _, key = name.partition(".")
    held = inputs.get(name)
    return held if not key or held is None else held.get(key)


def with_inner(inputs: dict, name: str, value: Any) -> dict:
    """A copy of the inputs with another `inner` in it."""
    name, _, key = name.partition(".")
    return {**inputs, name: {**inputs[name], key: value} if key else value}


def layout_parts(layouts: tuple, width: int, latent_channels: int) -> dict:
    """The parts of the first layout that is `width` wide; none fits: {}."""
    return next(filter(None, (channels(layout, width, latent_channels) for layout in layouts)), {})


def image_mask(tensor: torch.Tensor, parts: dict, dim: int) -> torch.Tensor:
    """Where the image is given: by the layout's mask, otherwise the frames that are not empty."""
    if "mask" in parts:
        return tensor.narrow(dim, *parts["mask"]).amax(dim, keepdim=True) > SOME
    if "hole" in parts:
        return tensor.narrow(dim, *parts["hole"]).amax(dim, keepdim=True) < 1 - SOME
    return tensor.narrow(dim, *parts["image"]).abs().amax((dim, -2, -1), keepdim=True) > SOME


def _not_empty(tokens):
    """Which rows of [rows, tokens, width] are of an image: [rows, 1, 1] bool."""
    return tokens.abs().amax((-2, -1), keepdim=True) > 0


def _holds(value):
    """Whether an entry of a conditioning holds latents that are not all zero."""
    if torch.is_tensor(value):
        return bool(value.any())
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(_holds(part) for part in parts)


def patched(model: Model, key: str, condition: ConditionPatcher) -> Model:
    """A clone of the MODEL with one more ConditionPatcher on it."""
    out = cloned(model)
    out.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, key, condition)
    return out


def sources(family: Family, conditioning: Conditioning) -> list[str]:
    """What carries the image into this family's network, in words; [] where the conditioning has none.

    Frames that a mask keeps are in the LATENT, which a conditioning does not show.
    """
    settings, image, found = [entry[1] for entry in conditioning], family.image, []
    for place in image.places.values():
        if place.of_image and not image.in_model and any(_holds(s.get(name)) for s in settings for name in place.settings):
            found.append(place.words)
    if image.in_model:
        found.append("the image latents that the model brings along")
    if image.kept and (image.kept != "guiding_frame_index" or any("guiding_frame_index" in s for s in settings)):
        found.append(KEPT)
    return found
