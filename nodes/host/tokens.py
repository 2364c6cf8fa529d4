"""Tokens inside a network: where the first latent frame's lie in its self-attention, and what it makes of an image encoder's.

The former is known for the families whose self-attention runs over all frames at once. Where the
order changed between hosts, the network itself is asked.
"""

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from ...cil.attention_bias import Keys
from ..families import Family
from .types import BaseModel


def first_frame(family: Family, base: BaseModel, x: torch.Tensor, inputs: dict) -> Keys:
    """Keys of the first latent frame in a call of `base` (the host's BaseModel) -> Keys. Raises ValueError in words.

    x: [b, channels, frames, h, w]. inputs: what the host hands to apply_model beside x and t.
    """
    if family.key not in ORDERS:
        raise ValueError(why_not(family))
    if x.ndim != 5:
        raise ValueError("this latent is not one of video alone")
    keys = ORDERS[family.key](base.diffusion_model, x, inputs)
    if keys.total in (lengths := [inputs[name].shape[1] for name in ("c_crossattn", "clip_fea") if inputs.get(name) is not None]):
        raise ValueError(
            f"the video has as many tokens, {keys.total}, as its text or image ({lengths}), so that the attentions cannot be told apart: change the size by a little"
        )
    return keys


def why_not(family: Family) -> str:
    return f"{family.key} has no self-attention over the tokens of all frames, or this pack does not know where the first frame's lie in it"


def _grid(x, patch):
    """(frames, tokens a frame) of [b, c, t, h, w] in patches (t, h, w), rounded up as the host pads."""
    t, h, w = (math.ceil(n / p) for n, p in zip(x.shape[2:], patch))
    return t, h * w


def _wan(net, x, inputs):
    frames, size = _grid(x, net.patch_size)
    more = inputs.get("time_dim_concat")
    frames += 0 if more is None else _grid(more, net.patch_size)[0]
    reference = getattr(net, "ref_conv", None) is not None and inputs.get("reference_latent") is not None
    first = size if reference else 0  # a reference's own tokens stand before the video's
    behind = sum(math.prod(_grid(one, net.patch_size)) for one in inputs.get("context_latents") or ())  # Bernini's
    return Keys(first, size, first + frames * size + behind)


def _hunyuan(net, x, inputs):
    frames, size = _grid(x, net.patch_size)
    present = lambda name, layer: inputs[name].shape[1] if inputs.get(name) is not None and getattr(net, layer, None) is not None else 0
    text = inputs["c_crossattn"].shape[1] + present("txt_byt5", "byt5_in") + present("clip_fea", "vision_in")
    before = math.prod(_grid(inputs["ref_latent"], net.patch_size)) if inputs.get("ref_latent") is not None else 0
    if not getattr(net.double_blocks[0], "flipped_img_txt", False):  # newer hosts put the text first
        before += text
        return Keys(before, size, before + frames * size)
    return Keys(before, size, before + frames * size + text)


def _ltxv(net, x, inputs):
    if inputs.get("keyframe_idxs") is not None:
        raise ValueError("the guides of LTXVAddGuide stand behind the video, not in its first frame: use LTXVImgToVideo")
    frames, size = _grid(x, (1, 1, 1))
    return Keys(0, size, frames * size)


def _cogvideox(net, x, inputs):
    frames, size = _grid(x, (net.patch_size_t or 1, net.patch_size, net.patch_size))
    text = inputs["c_crossattn"].shape[1]
    return Keys(text, size, text + frames * size)


def _cosmos(net, x, inputs):
    frames, size = _grid(x, (net.patch_temporal, net.patch_spatial, net.patch_spatial))
    return Keys(0, size, frames * size)


ORDERS = {
    "Wan": _wan, "Wan 2.2 5B": _wan, "Wan VACE": _wan,
    "HunyuanVideo": _hunyuan, "HunyuanVideo 1.5": _hunyuan,
    "LTXV": _ltxv, "CogVideoX": _cogvideox, "Cosmos": _cosmos, "Cosmos Predict2": _cosmos,
}  # fmt: skip


# ---- an image encoder's tokens ---------------------------------------------------------

ENCODED = ("clip_fea", "clip_fea_ref", "clip_fea_pose")  # the inputs of a network that take them
PROJECTORS = (
    "image_proj_model",
    "img_emb",
    "img_emb_refimage",
    "vision_in",
)  # of LVDM, Wan, WanDancer, HunyuanVideo 1.5: what makes of them the tokens that attention sees


class Changed(torch.nn.Module):
    """A projector whose output is changed: change(tokens [rows, n, d]) -> the same shape."""

    def __init__(self, projector: torch.nn.Module, change: Callable[[torch.Tensor], torch.Tensor]):
        super().__init__()
        self.projector, self.change = projector, change

    def forward(self, *args, **kwargs) -> torch.Tensor:
        return self.change(self.projector(*args, **kwargs))


def projectors_of(network: torch.nn.Module) -> list[str]:
    """The names of the network's projectors; none where attention sees the encoder's tokens themselves."""
    return [name for name in PROJECTORS if isinstance(getattr(network, name, None), torch.nn.Module)]


@contextmanager
def changed_tokens(network: torch.nn.Module, change: Callable[[torch.Tensor], torch.Tensor] | None) -> Iterator[None]:
    """For the calls inside it, what the network's projectors make is changed; None changes nothing. Afterwards the network is as before."""
    network = getattr(network, "_orig_mod", network)  # of a compiled one
    before = {} if change is None else {name: getattr(network, name) for name in projectors_of(network)}
    try:
        for name, projector in before.items():
            stand_in = Changed(projector, change)
            if "torch._dynamo" in sys.modules:  # a compiled network would keep the first call's noise
                vars(stand_in)["forward"] = torch.compiler.disable(stand_in.forward)
            setattr(network, name, stand_in)
        yield
    finally:
        for name, projector in before.items():
            setattr(network, name, projector)
