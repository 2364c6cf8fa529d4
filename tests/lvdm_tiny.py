"""Small DynamiCrafter and VideoCrafter1 checkpoints in the released layout, and models made of them."""

from types import SimpleNamespace

import comfy.ops
import lvdm_weights
import torch

from cil_pack.nodes.lvdm import checkpoint
from cil_pack.nodes.lvdm.sampling import dynamic_rescale
from cil_pack.nodes.lvdm.unet import LVDMUNet

BASE_SCALES = {"DynamiCrafter 256": None, "DynamiCrafter 512": 0.7, "DynamiCrafter 1024": 0.3, "VideoCrafter1 512": 0.7}


def unet(network, **changes):
    """The UNet of lvdm_weights.NETWORKS with its seeded weights, float32."""
    channels, alpha, per_frame = lvdm_weights.NETWORKS[network]
    queries = 16 * (lvdm_weights.FRAMES if per_frame else 1)
    settings = {
        **lvdm_weights.UNET,
        "image_proj": {**lvdm_weights.RESAMPLER, "queries": queries},
        "dtype": torch.float32,
        "operations": comfy.ops.disable_weight_init,
    }
    made = LVDMUNet(channels, alpha=alpha, **settings | changes)
    made.load_state_dict(lvdm_weights.weights({k: v.shape for k, v in made.state_dict().items()}))
    return made.eval()


def tensors(variant, **changes):
    """A checkpoint's tensors under the released names: UNet, resampler and noise tables."""
    network = {"DynamiCrafter 1024": "DynamiCrafter 512", "VideoCrafter1 512": "VideoCrafter1"}.get(variant, variant)
    out = {}
    for name, value in unet(network, **changes).state_dict().items():
        prefix = "" if name.startswith(checkpoint.RESAMPLER) else checkpoint.UNET
        out[prefix + name] = value
    base = BASE_SCALES[variant]
    if base is None:  # the 256 model calls its embedding otherwise and has no rescale
        return {k.replace("fps_embedding", "framestride_embed"): v for k, v in out.items()}
    return out | {"scale_arr": dynamic_rescale(base, 1000).float()}


def model(variant, **changes):
    """A MODEL of the host made of such a checkpoint."""
    tensors_by_name = {k.replace("framestride_embed", "fps_embedding"): v for k, v in tensors(variant, **changes).items()}
    return checkpoint.build_model(tensors_by_name, "tiny", variant)


def picture_conditioning(frames=lvdm_weights.FRAMES, height=8, width=12, seed=0):
    """-> (positive, negative, LATENT) of the shape that CILDynamiCrafterConditioning gives, with random contents."""
    draw = lambda k, *shape: lvdm_weights.draw(shape, 2000 + 10 * seed + k)
    seen = lambda k: SimpleNamespace(last_hidden_state=draw(k, 1, 5, lvdm_weights.RESAMPLER["embedding_dim"]))
    known = {"concat_latent_image": draw(0, 1, 4, height, width) / 0.18215, "fps": 24}
    text = lambda k: draw(k, 1, 77, lvdm_weights.UNET["context_dim"])
    positive = [[text(1), {**known, "clip_vision_output": seen(2)}]]
    negative = [[text(3), {**known, "clip_vision_output": seen(4)}]]
    return positive, negative, {"samples": torch.zeros(frames, 4, height, width)}
