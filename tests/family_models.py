"""Tiny random instances of the host's own model classes, one for each family of the table.

The host's network, its BaseModel and its own image-to-video node make everything; only the
sizes are small, and the VAE is a fixed random map of block means.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import comfy.clip_vision
import comfy.model_patcher
import comfy.supported_models as supported
import comfy_extras.nodes_cosmos as cosmos
import comfy_extras.nodes_hunyuan as hunyuan
import comfy_extras.nodes_lt as lt
import comfy_extras.nodes_stable3d as stable3d
import comfy_extras.nodes_video_model as video
import comfy_extras.nodes_wan as wan
import torch
from comfy.ldm.hunyuan_video.model import HunyuanVideoParams

from cil_pack.demo.model import UNET

WIDTH = 24  # of the networks: two heads of 12


class FakeVAE:
    """Block means of the pixels through a fixed random matrix: [T, H, W, 3] -> [1, C, t, h, w] (or [T, C, h, w])."""

    def __init__(self, latent_channels, space, time, dimensions=3):
        self.latent_channels, self.space, self.time, self.dimensions = latent_channels, space, time, dimensions
        self.downscale_index_formula = (time, space, space)
        self.matrix = torch.randn(latent_channels, 3, generator=torch.Generator().manual_seed(5))

    def spacial_compression_encode(self):
        return self.space

    def encode(self, pixels):
        means = torch.nn.functional.avg_pool2d(pixels.movedim(-1, 1) - 0.5, self.space)
        latents = torch.einsum("zc,tchw->tzhw", self.matrix, means)
        return latents if self.dimensions == 2 else latents[:: self.time].movedim(0, 1)[None]


@dataclass(frozen=True)
class Tiny:
    """One model. config: the host's class in supported_models. make(positive, negative, image) -> (positive, negative, LATENT)."""

    config: type
    unet: dict
    text: dict
    make: Callable
    family: str


def randomise(module, seed=0):
    """Small random weights in every parameter; the host's operations leave them uninitialised."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data.copy_(0.05 * torch.randn(parameter.shape, generator=generator))


def model(name):
    """-> MODEL."""
    tiny = TINY[name]
    kind = type(tiny.config.__name__, (tiny.config,), {"unet_config": {}, "clip_vision_prefix": None})
    config = kind({**tiny.unet})
    config.set_inference_dtype(torch.float32, None)
    torch.manual_seed(0)
    base = config.get_model({}).eval()
    randomise(base.diffusion_model)
    return comfy.model_patcher.ModelPatcher(base, torch.device("cpu"), torch.device("cpu"))


def picture(frames=1, size=64, seed=3):
    return torch.rand(frames, size, size, 3, generator=torch.Generator().manual_seed(seed))


def conditioning(name, image=None):
    """-> (positive, negative, LATENT) by the host's own node for this model."""
    tiny = TINY[name]
    text = lambda seed: [[torch.randn(1, 5, tiny.text["width"], generator=torch.Generator().manual_seed(seed)), dict(tiny.text.get("more", {}))]]
    return tiny.make(text(1), text(2), picture() if image is None else image)


def clip_output(width=1280):
    out = comfy.clip_vision.Output()
    out.penultimate_hidden_states = torch.randn(1, 3, width, generator=torch.Generator().manual_seed(7))
    out.last_hidden_state = out.penultimate_hidden_states
    return out


class FakeClipVision:
    def encode_image(self, image, crop=True):
        out = comfy.clip_vision.Output()
        out.image_embeds = torch.randn(1, 64, generator=torch.Generator().manual_seed(8))
        return out


SIZE = {"width": 64, "height": 64}
WAN21_VAE, WAN22_VAE = FakeVAE(16, 8, 4), FakeVAE(48, 16, 4)
WAN = {
    "dim": WIDTH, "ffn_dim": 32, "freq_dim": 16, "text_dim": 8, "num_heads": 2, "num_layers": 1, "out_dim": 16, "model_type": "i2v",
}  # fmt: skip
HUNYUAN = {
    **{f.name: False for f in dataclasses.fields(HunyuanVideoParams)},  # what newer hosts ask for besides
    "image_model": "hunyuan_video", "patch_size": [1, 2, 2], "out_channels": 16, "vec_in_dim": 16, "context_in_dim": 8, "hidden_size": 32,
    "mlp_ratio": 2.0, "num_heads": 2, "axes_dim": [4, 6, 6], "depth": 1, "depth_single_blocks": 1, "theta": 256, "qkv_bias": True,
    "guidance_embed": True, "byt5": False, "meanflow": False, "use_cond_type_embedding": False, "vision_in_dim": None,
}  # fmt: skip
DIT = {
    "max_img_h": 24, "max_img_w": 24, "max_frames": 16, "out_channels": 16, "patch_spatial": 2, "patch_temporal": 1, "concat_padding_mask": True,
    "model_channels": 32, "num_blocks": 1, "num_heads": 2, "crossattn_emb_channels": 8, "pos_emb_cls": "rope3d", "pos_emb_interpolation": "crop",
}  # fmt: skip


def _svd(positive, negative, image):
    return video.SVD_img2vid_Conditioning().encode(FakeClipVision(), image, FakeVAE(4, 8, 1, 2), 64, 64, 5, 127, 6, 0.0)


def _sv3d(positive, negative, image):
    return stable3d.SV3D_Conditioning.execute(FakeClipVision(), image, FakeVAE(4, 8, 1, 2), 64, 64, 5, 10.0).args


def _wan(positive, negative, image):
    return wan.WanImageToVideo.execute(positive, negative, WAN21_VAE, length=13, batch_size=1, start_image=image, clip_vision_output=clip_output(), **SIZE).args


def _wan_flf(positive, negative, image):
    last = picture(seed=4)
    return wan.WanFirstLastFrameToVideo.execute(positive, negative, WAN21_VAE, length=13, batch_size=1, start_image=image, end_image=last, **SIZE).args


def _wan_fun_inpaint(positive, negative, image):
    return wan.WanFunInpaintToVideo.execute(
        positive, negative, WAN21_VAE, length=13, batch_size=1, start_image=image, end_image=picture(seed=4), clip_vision_output=clip_output(), **SIZE
    ).args


def _wan_fun_control(positive, negative, image):
    return wan.WanFunControlToVideo.execute(
        positive, negative, WAN21_VAE, length=13, batch_size=1, start_image=image, control_video=picture(13, seed=6), **SIZE
    ).args


def _wan22_fun_control(positive, negative, image):
    return wan.Wan22FunControlToVideo.execute(
        positive, negative, WAN21_VAE, length=13, batch_size=1, control_video=picture(13, seed=6), start_image=image, **SIZE
    ).args


def _wan_camera(positive, negative, image):
    return wan.WanCameraImageToVideo.execute(positive, negative, WAN21_VAE, length=13, batch_size=1, start_image=image, **SIZE).args


def _wan_vace(positive, negative, image):
    """Two frames given: the host's mask looks at the second frame of each four, so it would not tell of one."""
    control = torch.full((13, 64, 64, 3), 0.5)
    control[:2] = image
    masks = torch.ones(13, 64, 64)
    masks[:2] = 0
    return wan.WanVaceToVideo.execute(
        positive, negative, WAN21_VAE, length=13, batch_size=1, strength=1.0, control_video=control, control_masks=masks, **SIZE
    ).args[:3]


def _wan22_5b(positive, negative, image):
    latent = wan.Wan22ImageToVideoLatent.execute(WAN22_VAE, length=13, batch_size=1, start_image=image, **SIZE).args[0]
    return positive, negative, latent


def _hunyuan(mode):
    def make(positive, negative, image):
        positive, latent = hunyuan.HunyuanImageToVideo.execute(
            positive, FakeVAE(16, 8, 4), length=13, batch_size=1, guidance_type=mode, start_image=image, **SIZE
        ).args
        return positive, negative, latent

    return make


def _hunyuan15(positive, negative, image):
    vae = FakeVAE(32, 16, 4)
    return hunyuan.HunyuanVideo15ImageToVideo.execute(
        positive, negative, vae, length=13, batch_size=1, start_image=image, clip_vision_output=clip_output(8), **SIZE
    ).args


def _ltxv(strength):
    def make(positive, negative, image):
        return lt.LTXVImgToVideo.execute(positive, negative, image, FakeVAE(128, 32, 8), width=128, height=128, length=25, batch_size=1, strength=strength).args

    return make


def _ltxv_guide(positive, negative, image):
    latent = lt.EmptyLTXVLatentVideo.execute(128, 128, 25).args[0]
    mask = torch.ones(1, 1, 4, 4, 4)
    return lt.LTXVAddGuide.execute(positive, negative, FakeVAE(128, 32, 8), {**latent, "noise_mask": mask}, image, 0, 1.0).args


def _cosmos(positive, negative, image):
    latent = cosmos.CosmosImageToVideoLatent.execute(FakeVAE(16, 8, 8), length=25, batch_size=1, start_image=image, **SIZE).args[0]
    return positive, negative, latent


def _predict2(positive, negative, image):
    latent = cosmos.CosmosPredict2ImageToVideoLatent.execute(WAN21_VAE, length=13, batch_size=1, start_image=image, **SIZE).args[0]
    return positive, negative, latent


def _mochi(positive, negative, image):
    return positive, negative, {"samples": torch.zeros(1, 12, 3, 8, 8)}


TEXT8 = {"width": 8}
POOLED = {"width": 8, "more": {"pooled_output": torch.zeros(1, 16)}}
WITH_MASK = {"width": 8, "more": {"attention_mask": torch.ones(1, 5, dtype=torch.int64)}}
TINY = {
    "SVD": Tiny(supported.SVD_img2vid, UNET, {"width": 64}, _svd, "SVD"),
    "SV3D u": Tiny(supported.SV3D_u, {**UNET, "adm_in_channels": 256}, {"width": 64}, _sv3d, "SV3D"),
    "SV3D p": Tiny(supported.SV3D_p, {**UNET, "adm_in_channels": 1280}, {"width": 64}, _sv3d, "SV3D"),
    "Wan 2.1 I2V": Tiny(supported.WAN21_I2V, {**WAN, "in_dim": 36}, TEXT8, _wan, "Wan"),
    "Wan 2.1 FLF2V": Tiny(supported.WAN21_I2V, {**WAN, "in_dim": 36}, TEXT8, _wan_flf, "Wan"),
    "Wan 2.2 14B I2V": Tiny(supported.WAN21_I2V, {**WAN, "in_dim": 36, "model_type": "t2v"}, TEXT8, _wan, "Wan"),
    "Wan 2.1 Fun inpaint": Tiny(supported.WAN21_I2V, {**WAN, "in_dim": 36}, TEXT8, _wan_fun_inpaint, "Wan"),
    "Wan 2.1 Fun control": Tiny(supported.WAN21_FunControl2V, {**WAN, "in_dim": 48}, TEXT8, _wan_fun_control, "Wan"),
    "Wan 2.2 Fun control": Tiny(supported.WAN21_I2V, {**WAN, "in_dim": 52, "model_type": "t2v"}, TEXT8, _wan22_fun_control, "Wan"),
    "Wan 2.1 Camera": Tiny(supported.WAN21_Camera, {**WAN, "in_dim": 32, "model_type": "camera"}, TEXT8, _wan_camera, "Wan"),
    "Wan 2.2 Camera": Tiny(supported.WAN22_Camera, {**WAN, "in_dim": 36, "model_type": "camera_2.2"}, TEXT8, _wan_camera, "Wan"),
    "Wan VACE": Tiny(supported.WAN21_Vace, {**WAN, "in_dim": 16, "model_type": "vace", "vace_layers": 1, "vace_in_dim": 96}, TEXT8, _wan_vace, "Wan VACE"),
    "Wan 2.2 5B": Tiny(supported.WAN22_T2V, {**WAN, "in_dim": 48, "out_dim": 48, "model_type": "t2v"}, TEXT8, _wan22_5b, "Wan 2.2 5B"),
    "Hunyuan I2V concat": Tiny(supported.HunyuanVideoI2V, {**HUNYUAN, "in_channels": 33}, POOLED, _hunyuan("v1 (concat)"), "HunyuanVideo"),
    "Hunyuan I2V replace": Tiny(supported.HunyuanVideo, {**HUNYUAN, "in_channels": 16}, POOLED, _hunyuan("v2 (replace)"), "HunyuanVideo"),
    "Hunyuan reference": Tiny(supported.HunyuanVideo, {**HUNYUAN, "in_channels": 16}, POOLED, _hunyuan("custom"), "HunyuanVideo"),
    "SkyReels I2V": Tiny(supported.HunyuanVideoSkyreelsI2V, {**HUNYUAN, "in_channels": 32}, POOLED, _hunyuan("v1 (concat)"), "HunyuanVideo"),
    "Hunyuan 1.5 I2V": Tiny(
        getattr(supported, "HunyuanVideo15", None), {**HUNYUAN, "patch_size": [1, 1, 1], "in_channels": 65, "out_channels": 32, "vision_in_dim": 8, "use_cond_type_embedding": True, "guidance_embed": False},
        POOLED, _hunyuan15, "HunyuanVideo 1.5",
    ),
    "LTXV": Tiny(supported.LTXV, {"image_model": "ltxv", "attention_head_dim": 12, "num_attention_heads": 2, "cross_attention_dim": 24, "caption_channels": 8, "num_layers": 1}, WITH_MASK, _ltxv(1.0), "LTXV"),
    "LTXV guide": Tiny(supported.LTXV, {"image_model": "ltxv", "attention_head_dim": 12, "num_attention_heads": 2, "cross_attention_dim": 24, "caption_channels": 8, "num_layers": 1}, WITH_MASK, _ltxv_guide, "LTXV"),
    "Cosmos": Tiny(supported.CosmosI2V, {**DIT, "in_channels": 17, "block_config": "FA-CA-MLP", "block_x_format": "THWBD", "use_adaln_lora": True, "adaln_lora_dim": 8, "affline_emb_norm": True, "extra_per_block_abs_pos_emb": True, "extra_per_block_abs_pos_emb_type": "learnable"}, TEXT8, _cosmos, "Cosmos"),
    "Cosmos Predict2": Tiny(supported.CosmosI2VPredict2, {**DIT, "in_channels": 17, "use_adaln_lora": True, "adaln_lora_dim": 8}, TEXT8, _predict2, "Cosmos Predict2"),
    "Mochi": Tiny(
        supported.GenmoMochi,
        {"depth": 1, "patch_size": 2, "num_heads": 2, "hidden_size_x": 24, "hidden_size_y": 24, "mlp_ratio_x": 512.0, "mlp_ratio_y": 2.0, "learn_sigma": False, "in_channels": 12, "qk_norm": True, "qkv_bias": False, "out_bias": True, "attn_drop": 0.0, "patch_embed_bias": True, "posenc_preserve_area": True, "timestep_mlp_bias": True, "attend_to_padding": False, "timestep_scale": 1000.0, "use_t5": True, "t5_feat_dim": 16, "t5_token_length": 5, "rope_theta": 10000.0},
        {"width": 16, "more": {"attention_mask": torch.ones(1, 5, dtype=torch.int64)}}, _mochi, "Mochi",
    ),
}  # fmt: skip
TINY = {name: tiny for name, tiny in TINY.items() if tiny.config}  # those that this host has
