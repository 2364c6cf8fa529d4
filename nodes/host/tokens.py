"""Where the tokens of the first latent frame lie in a network's self-attention.

Known for the families whose self-attention runs over all frames at once. Where the order
changed between hosts, the network itself is asked.
"""

import math

from ...cil.attention_bias import Keys


def first_frame(family, base, x, inputs):
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


def why_not(family):
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
    return Keys(first, size, first + frames * size)


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
