"""What a node is given, checked against its own schema before it runs.

Hosts check a widget's value, some of them not every combo's, and none what comes through a
link. So each node of the pack is wrapped once, where they are listed: options, limits and kinds
of things are those that its `define_schema` names, and whoever sends others is told so.
"""

import functools
import inspect
import math
import numbers
from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths
import torch
from comfy_api.latest import io

from ...cil import clips
from ...cil.moments import Moments
from .latents import parts_of
from .types import Conditioning

CLIPS = "cil_clips"  # of extra_model_paths.yaml
SHOWN = 12  # options, in a message


def clip_roots() -> list[Path]:
    """The folders from which a graph may read clips: ComfyUI's input and output, and what its owner registered as cil_clips."""
    registered = folder_paths.folder_names_and_paths.get(CLIPS, ([], set()))[0]
    return [Path(p) for p in (folder_paths.get_input_directory(), folder_paths.get_output_directory(), *registered)]


def listing(folder: str) -> str | None:
    """Of a folder that a graph names: what is in it now, or None. The host asks before a run, where an interrupt must stay for the run to see."""

    def check() -> None:
        if comfy.model_management.processing_interrupted():
            raise ValueError("interrupted")

    return clips.listing(clips.unquoted(folder), clip_roots(), check)


def checked(node: type[io.ComfyNode]) -> type[io.ComfyNode]:
    """The node class itself, its execute given nothing but what its schema allows. Raises ValueError there, in words."""
    execute = node.execute.__func__

    @functools.wraps(execute)
    def guarded(cls, *args, **kwargs):
        given = inspect.signature(execute).bind(cls, *args, **kwargs)
        for one in cls.define_schema().inputs:
            if given.arguments.get(one.id) is not None:
                given.arguments[one.id] = accepted(one, given.arguments[one.id])
            elif one.id in given.arguments and not getattr(one, "optional", False):
                raise ValueError(f"{one.id} is needed, but nothing came: connect it, or set it")
        return execute(*given.args, **given.kwargs)

    node.execute = classmethod(guarded)
    return node


def accepted(one: io.Input, value: Any) -> Any:
    """What comes in at an input, as the node takes it. Raises ValueError for what it does not take."""
    kind = one.get_io_type()
    take = TAKEN.get("COMBO" if isinstance(kind, list) else kind)
    return take(one, value) if take else value


# ---- settings -------------------------------------------------------------------------


def refusal(one: io.Input, wanted: str, value: Any) -> ValueError:
    return ValueError(f"{one.id} takes {wanted}, but {described(value)} came")


def described(value: Any) -> str:
    """A value or the kind of a thing, short enough for a message."""
    if isinstance(value, torch.Tensor):
        return f"a tensor of {' x '.join(map(str, value.shape)) or 'one number'} ({str(value.dtype).removeprefix('torch.')})"
    if isinstance(value, numbers.Integral) and abs(int(value)) >= 10**20:
        return "a whole number of more than 20 digits"
    if value is None or isinstance(value, (bool, numbers.Number)):
        return str(value)
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:60] + " ...")
    return f"something of the type {type(value).__name__}"


def option(one: io.Input, value: Any) -> Any:
    if not any(type(value) is type(known) and value == known for known in one.options):
        more = f" and {len(one.options) - SHOWN} more" if len(one.options) > SHOWN else ""
        raise refusal(one, f"one of {', '.join(map(str, one.options[:SHOWN])) or 'nothing: there is nothing to choose from'}{more}", value)
    return value


def within(one: io.Input, value: Any) -> Any:
    low, high = -math.inf if one.min is None else one.min, math.inf if one.max is None else one.max
    if not low <= value <= high:
        raise refusal(one, f"numbers from {low:g} to {high:g}" if high < 1e15 else f"numbers from {low:g} up", value)
    return value


def whole(one: io.Input, value: Any) -> int:
    real = isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral)
    if real and float(value).is_integer():
        value = int(value)
    if not isinstance(value, numbers.Integral):
        raise refusal(one, "a whole number", value)
    return within(one, int(value))


def number(one: io.Input, value: Any) -> Any:
    real = isinstance(value, numbers.Real)
    if not real or not -1e300 < value < 1e300:  # NaN is neither; a huge int is no float
        raise refusal(one, "a finite number", value)
    return within(one, value)


def text(one: io.Input, value: Any) -> str:
    if not isinstance(value, str):
        raise refusal(one, "a text", value)
    return value


def switch(one: io.Input, value: Any) -> bool:
    if not isinstance(value, numbers.Integral) or value not in (0, 1):
        raise refusal(one, "true or false", value)
    return bool(value)


# ---- things ---------------------------------------------------------------------------


def check_finite(one: io.Input, what: str, tensor: torch.Tensor) -> None:
    """One pass without a copy: NaN and infinities come out at an end of the range."""
    if tensor.is_floating_point() and not torch.isfinite(torch.stack(torch.aminmax(tensor.detach()))).all():
        raise ValueError(f"{what} at {one.id} has values that are no numbers (NaN or infinite): look at the node that made it")


def picture(one: io.Input, value: Any) -> torch.Tensor:
    """IMAGE [n, H, W, 3 or more]; numbers of half precision become float32, which every device can reckon with."""
    if not isinstance(value, torch.Tensor) or value.ndim != 4 or value.shape[-1] < 3 or not value.numel():
        raise refusal(one, "pictures of [frames, height, width, 3]", value)
    check_finite(one, "the picture", value)
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def latent(one: io.Input, value: Any) -> dict:
    samples = value.get("samples") if isinstance(value, dict) else None
    if samples is None or not hasattr(samples, "is_nested"):  # of tensors and of several in one
        raise refusal(one, "a latent", value)
    for part in parts_of(samples):
        if not isinstance(part, torch.Tensor) or part.ndim < 3 or not part.numel():
            raise refusal(one, "latents of [frames, channels, height, width] or [batch, channels, frames, height, width], at least one of them", part)
        check_finite(one, "the latent", part)
    return value


def sigmas(one: io.Input, value: Any) -> torch.Tensor:
    if not isinstance(value, torch.Tensor) or value.ndim != 1:
        raise refusal(one, "a row of noise levels", value)
    check_finite(one, "the schedule", value)
    return value


def conditioning(one: io.Input, value: Any) -> Conditioning:
    right = isinstance(value, (list, tuple)) and all(isinstance(c, (list, tuple)) and len(c) == 2 and isinstance(c[1], dict) for c in value)
    if not right:
        raise refusal(one, "a conditioning", value)
    return value


def thing(wanted: str, *attributes: str, of: Callable = all) -> Callable:
    """A check that what came has what the node asks of it: all of these attributes, or any."""

    def take(one, value):
        if isinstance(value, (str, bytes)) or not of(hasattr(value, name) for name in attributes):  # a text has `encode` too
            raise refusal(one, wanted, value)
        return value

    return take


def made_by(wanted: str, kind: type) -> Callable:
    def take(one, value):
        if not isinstance(value, kind):
            raise refusal(one, wanted, value)
        return value

    return take


TAKEN = {
    "COMBO": option,
    "INT": whole,
    "FLOAT": number,
    "STRING": text,
    "BOOLEAN": switch,
    "IMAGE": picture,
    "LATENT": latent,
    "SIGMAS": sigmas,
    "CONDITIONING": conditioning,
    "MODEL": thing("a model that KSampler takes", "get_model_object", "clone"),
    "VAE": thing("a VAE", "encode", "decode", of=any),  # some packs' can do one of the two alone
    "CLIP": thing("a text encoder", "tokenize"),
    "CLIP_VISION": thing("an image encoder", "encode_image"),
    "GUIDER": thing("a guider", "model_patcher", "sample"),
    "SAMPLER": thing("a sampler", "sample"),
    "OPTICAL_FLOW": thing("an optical flow model, from Load Optical Flow Model", "model", "load_device"),
    "CIL_MOMENTS": made_by("moments, from Load Moments or Estimate Moments", Moments),
    "CIL_DEMO_SCENE": thing("a scene of the landscape, from Simulated Leak or Demo Scene", "motion", "start", "kind"),
    "CIL_CLIPS": thing("a prepared data set, from Prepare Clips or Demo Clips", "motion", "settings", "shape"),
}
