"""The UNet, the resampler and the noise tables against tensors that the published code made."""

from pathlib import Path

import comfy.ops
import lvdm_tiny
import lvdm_weights
import pytest
import torch
from safetensors.torch import load_file

from cil_pack.nodes.lvdm import checkpoint
from cil_pack.nodes.lvdm.sampling import dynamic_rescale
from cil_pack.nodes.lvdm.unet import LVDMUNet

GOLDEN = load_file(Path(__file__).parent.parent / "golden" / "lvdm.safetensors")


@pytest.fixture(params=list(lvdm_weights.NETWORKS))
def network(request):
    return request.param


def answer(unet, given, frames, **kwargs):
    """The UNet's prediction for the first `frames` frames of both clips, [b, C, t, h, w]."""
    each = lambda v: v.repeat_interleave(frames, 0)
    x = given["x"][:, :, :frames].transpose(1, 2).flatten(0, 1)
    with torch.no_grad():
        y = unet(
            x,
            each(given["timesteps"]).float(),
            each(given["text"]),
            clip_fea=each(given["clip"]),
            fps=each(given["fps"]),
            num_video_frames=frames,
            transformer_options={},
            **kwargs,
        )
    return y.unflatten(0, (2, frames)).transpose(1, 2)


@pytest.mark.parametrize("frames", [lvdm_weights.FRAMES, lvdm_weights.FRAMES + 1])
def test_the_unet_is_the_published_one(network, frames):
    channels = lvdm_weights.NETWORKS[network][0]
    # 16 image tokens for each frame, so that 4 frames are to this network what 16 are to the released one
    y = answer(lvdm_tiny.unet(network), lvdm_weights.inputs(channels), frames)
    assert (y - GOLDEN[f"{network} {frames} frames"]).abs().max() < 1e-5


def test_half_precision_weights_are_cast_as_they_are_used(network):
    """The host's manual cast, as on cards that compute in another precision than the file's."""
    channels, frames = lvdm_weights.NETWORKS[network][0], lvdm_weights.FRAMES
    unet = lvdm_tiny.unet(network, dtype=torch.float16, operations=comfy.ops.manual_cast)
    assert {p.dtype for p in unet.parameters()} == {torch.float16}
    y = answer(unet, lvdm_weights.inputs(channels), frames)
    golden = GOLDEN[f"{network} {frames} frames"]
    assert y.dtype == torch.float32 and 0 < (y - golden).abs().max() < 0.02 * golden.abs().max()


def test_a_controlnet_s_residues_reach_their_places(network):
    channels, frames = lvdm_weights.NETWORKS[network][0], lvdm_weights.FRAMES
    unet, given = lvdm_tiny.unet(network), lvdm_weights.inputs(channels)
    residues = lambda value: {"middle": [torch.full((2 * frames, 64, 4, 6), value)], "output": [torch.full((2 * frames, 64, 4, 6), value)]}
    plain = answer(unet, given, frames)
    assert torch.equal(answer(unet, given, frames, control=residues(0.0)), plain)
    assert (answer(unet, given, frames, control=residues(1.0)) - plain).abs().max() > 0.01


def test_the_resampler_is_the_published_one(network):
    given = lvdm_weights.inputs(4)["clip"]
    with torch.no_grad():
        tokens = lvdm_tiny.unet(network).image_proj_model(given)
    assert (tokens - GOLDEN[f"{network} tokens"]).abs().max() < 1e-5


@pytest.mark.parametrize("base", [0.7, 0.3])
def test_the_dynamic_rescale_is_the_published_one(base):
    assert (dynamic_rescale(base, 1000) - GOLDEN[f"scale {base}"]).abs().max() < 1e-12


FULL = {"model_channels": 320, "channel_mult": (1, 2, 4, 4), "res_blocks": 2, "head_channels": 64, "context_dim": 1024, "out_channels": 4}
FULL_RESAMPLER = {"dim": 1024, "depth": 4, "heads": 12, "head_dim": 64, "embedding_dim": 1280, "output_dim": 1024, "queries": 256}


def test_the_full_width_builds_and_is_read_off_its_tensors():
    """DynamiCrafter 512 at its released size, without memory for its weights."""
    settings = FULL | {"in_channels": 8, "alpha": False, "image_proj": FULL_RESAMPLER}
    made = LVDMUNet(**settings, dtype=torch.float16, device="meta", operations=comfy.ops.disable_weight_init)
    tensors = made.state_dict()
    read = checkpoint.unet_config(tensors, {k.removeprefix(checkpoint.RESAMPLER): v for k, v in tensors.items() if k.startswith(checkpoint.RESAMPLER)})
    assert {k: read[k] for k in settings} == settings
    assert round(sum(v.numel() for k, v in tensors.items() if not k.startswith(checkpoint.RESAMPLER)) / 1e9, 1) == 1.4  # as published
