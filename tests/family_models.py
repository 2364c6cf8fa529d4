"""Tiny random instances of the host's own model classes, one for each family of the table.

The host's network, its BaseModel and its own image-to-video node make everything; only the
sizes are small, and the VAE is a fixed random map of block means.
"""

import dataclasses
import importlib.util
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
import pytest
import torch
from comfy.ldm.hunyuan_video.model import HunyuanVideoParams
from node_calls import execute

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


def known(name):
    """A family's tiny model; a test that wants one which this host has not is skipped."""
    if name not in TINY | SOUND:
        pytest.skip(f"this host has no {name}")
    return (TINY | SOUND)[name]


def model(name):
    """-> MODEL."""
    tiny = known(name)
    kind = type(tiny.config.__name__, (tiny.config,), {"unet_config": {}, "clip_vision_prefix": None})
    config = kind({**tiny.unet})
    config.set_inference_dtype(torch.float32, None)
    torch.manual_seed(0)
    base = config.get_model({}).eval()
    randomise(base.diffusion_model)
    for buffer in base.diffusion_model.buffers():  # H3's inverse frequencies, which a checkpoint brings
        if name in SOUND and buffer.is_floating_point():
            buffer.copy_(torch.linspace(1.0, 0.1, buffer.numel()).view(buffer.shape))
    return comfy.model_patcher.ModelPatcher(base, torch.device("cpu"), torch.device("cpu"))


def picture(frames=1, size=64, seed=3):
    return torch.rand(frames, size, size, 3, generator=torch.Generator().manual_seed(seed))


def conditioning(name, image=None):
    """-> (positive, negative, LATENT) by the host's own node for this model."""
    tiny = known(name)
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
HUNYUAN = {name: value for name, value in HUNYUAN.items() if name == "image_model" or name in {f.name for f in dataclasses.fields(HunyuanVideoParams)}}
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
        positive, latent = execute(
            hunyuan.HunyuanImageToVideo, positive, FakeVAE(16, 8, 4), length=13, batch_size=1, guidance_type=mode, start_image=image, **SIZE
        ).args
        return positive, negative, latent

    return make


def _hunyuan15(positive, negative, image):
    vae = FakeVAE(32, 16, 4)
    return execute(
        hunyuan.HunyuanVideo15ImageToVideo, positive, negative, vae, length=13, batch_size=1, start_image=image, clip_vision_output=clip_output(8), **SIZE
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


def _of(module, name):
    """A node class of the host by name, asked for when it is used: older hosts have not all of them."""
    return getattr(importlib.import_module(f"comfy_extras.{module}"), name)


def _fun_reference(positive, negative, image):
    return wan.Wan22FunControlToVideo.execute(
        positive, negative, WAN21_VAE, length=13, batch_size=1, control_video=picture(13, seed=6), ref_image=image, **SIZE
    ).args


def _phantom(positive, negative, image):
    positive, negative, _, latent = wan.WanPhantomSubjectToVideo.execute(positive, negative, WAN21_VAE, length=13, batch_size=1, images=image, **SIZE).args
    return positive, negative, latent


def _bernini(positive, negative, image):
    """A video to edit and one reference picture: of the two streams in the context the second is the image."""
    node = _of("nodes_bernini", "BerniniConditioning")
    return node.execute(
        positive, negative, WAN21_VAE, length=13, batch_size=1, source_video=picture(13, seed=6), reference_images={"reference_image_0": image}, **SIZE
    ).args


def _s2v(positive, negative, image):
    return wan.WanSoundImageToVideo.execute(positive, negative, WAN21_VAE, length=13, batch_size=1, ref_image=image, **SIZE).args


def _humo(positive, negative, image):
    """With sound: the silence that the host's node fills in does not fit its network's frames."""
    generator = torch.Generator().manual_seed(10)
    heard = {"encoded_audio_all_layers": [torch.randn(1, 40, 1280, generator=generator) for _ in range(33)], "audio_samples": 20 * 640}
    return wan.WanHuMoImageToVideo.execute(positive, negative, WAN21_VAE, length=13, batch_size=1, ref_image=image, audio_encoder_output=heard, **SIZE).args


def _scail(references=1, continued=False):
    def make(positive, negative, image):
        node, pictures = _of("nodes_scail", "WanSCAILToVideo"), torch.cat([image, *(picture(seed=9 + i) for i in range(references - 1))])
        given = {"previous_frames": pictures.repeat(5, 1, 1, 1)} if continued else {"reference_image": pictures}
        given |= {} if continued else {"clip_vision_output": clip_output()}
        return node.execute(
            positive, negative, WAN21_VAE, length=13, batch_size=1, pose_strength=1.0, pose_start=0.0, pose_end=1.0, video_frame_offset=0,
            previous_frame_count=5, pose_video=picture(13, seed=6), **given, **SIZE,
        ).args[:3]  # fmt: skip

    return make


def _animate(positive, negative, image):
    return wan.WanAnimateToVideo.execute(
        positive, negative, WAN21_VAE, length=13, batch_size=1, continue_motion_max_frames=5, video_frame_offset=0, reference_image=image,
        clip_vision_output=clip_output(), **SIZE,
    ).args[:3]  # fmt: skip


def _animate2(positive, negative, image):
    return wan.WanAnimate2ToVideo.execute(
        positive, negative, WAN21_VAE, length=13, batch_size=1, video_frame_offset=0, reference_image=image, pose_video=picture(13, seed=6),
        clip_vision_output=clip_output(), **SIZE,
    ).args[:3]  # fmt: skip


def _wandancer(positive, negative, image):
    node = _of("nodes_wandancer", "WanDancerVideo")
    return node.execute(
        positive, negative, WAN21_VAE, length=13, start_image=image, clip_vision_output=clip_output(), clip_vision_output_ref=clip_output(), **SIZE
    ).args


def _cogvideox(positive, negative, image):
    """The host has no node of its own for this one: the picture is encoded alone, and concat_cond fills the other frames with zeros."""
    encoded = FakeVAE(16, 8, 4).encode(image)
    told = [[text, {**more, "concat_latent_image": encoded}] for text, more in (*positive, *negative)]
    return told[:1], told[1:], {"samples": torch.zeros(1, 16, 4, 8, 8)}


def _cogvideox_inpaint(positive, negative, image):
    node, mask = _of("nodes_void", "VOIDInpaintConditioning"), torch.zeros(13, 64, 64)
    mask[:, 16:40, 16:40] = 1
    return node.execute(positive, negative, FakeVAE(16, 8, 4), torch.cat([image, picture(12, seed=6)]), mask, 64, 64, 13, 1).args


def _kandinsky5(positive, negative, image):
    node = _of("nodes_kandinsky5", "Kandinsky5ImageToVideo")
    return node.execute(positive, negative, FakeVAE(16, 8, 4), length=13, batch_size=1, start_image=image, **SIZE).args[:3]


def _with_sound(video, sound):
    """Two LATENTs as one, by the host's own node."""
    return _of("nodes_lt", "LTXVConcatAVLatent").execute(video, sound).args[0]


def _ltx2(positive, negative, image):
    positive, negative, video = _ltxv(1.0)(positive, negative, image)
    return positive, negative, _with_sound(video, {"samples": torch.zeros(1, 8, 20, 16)})


class ReadsNothing:
    """A CLIP whose answer to any text and pictures is a fixed conditioning."""

    def __init__(self, conditioning):
        self.conditioning = conditioning

    def tokenize(self, text, **kwargs):
        return text

    def encode_from_tokens_scheduled(self, tokens):
        return self.conditioning


def _h3(positive, negative, image):
    """A first and a last frame; the negative is a text alone."""
    node, vae = _of("nodes_minimax_h3", "MiniMaxH3ImageToVideo"), FakeVAE(24, 16, 4)
    told, latent = node.execute(ReadsNothing(positive), vae, "", 64, 64, 22, image, picture(seed=4)).args
    return told, negative, latent


def _mochi(positive, negative, image):
    return positive, negative, {"samples": torch.zeros(1, 12, 3, 8, 8)}


def config(name):
    """The host's class in supported_models; None where this host has none of that name."""
    return getattr(supported, name, None)


def has(module):
    """Whether this host has a module of nodes."""
    return importlib.util.find_spec(f"comfy_extras.{module}") is not None


COGVIDEOX = {
    "image_model": "cogvideox", "num_attention_heads": 2, "attention_head_dim": 16, "time_embed_dim": 16, "text_embed_dim": 8, "num_layers": 1,
    "sample_width": 8, "sample_height": 8, "sample_frames": 13, "max_text_seq_length": 5, "use_rotary_positional_embeddings": True,
}  # fmt: skip
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
    "Wan 2.2 Fun reference": Tiny(supported.WAN21_I2V, {**WAN, "in_dim": 52, "model_type": "t2v", "in_dim_ref_conv": 16}, TEXT8, _fun_reference, "Wan"),
    "Phantom": Tiny(supported.WAN21_T2V, {**WAN, "in_dim": 16, "model_type": "t2v"}, TEXT8, _phantom, "Wan"),
    "Bernini": Tiny(supported.WAN21_T2V if has("nodes_bernini") else None, {**WAN, "in_dim": 16, "model_type": "t2v"}, TEXT8, _bernini, "Wan"),
    "Wan S2V": Tiny(config("WAN22_S2V"), {**WAN, "in_dim": 16, "model_type": "s2v", "audio_dim": 16, "audio_inject_layers": [0]}, TEXT8, _s2v, "Wan S2V"),
    "HuMo 17B": Tiny(config("WAN21_HuMo"), {**WAN, "in_dim": 36, "model_type": "humo"}, TEXT8, _humo, "HuMo"),
    "HuMo 1.7B": Tiny(config("WAN21_HuMo"), {**WAN, "in_dim": 16, "model_type": "humo"}, TEXT8, _humo, "HuMo"),
    "SCAIL": Tiny(config("WAN21_SCAIL"), {**WAN, "in_dim": 20, "model_type": "scail"}, TEXT8, _scail(), "SCAIL"),
    "SCAIL-2": Tiny(config("WAN21_SCAIL2"), {**WAN, "in_dim": 20, "model_type": "scail2"}, TEXT8, _scail(2), "SCAIL-2"),
    "SCAIL-2 continued": Tiny(config("WAN21_SCAIL2"), {**WAN, "in_dim": 20, "model_type": "scail2"}, TEXT8, _scail(continued=True), "SCAIL-2"),
    "Wan Animate": Tiny(config("WAN22_Animate"), {**WAN, "in_dim": 36, "model_type": "animate"}, TEXT8, _animate, "Wan Animate"),
    "Wan Animate 2": Tiny(config("WAN_Animate2"), {**WAN, "in_dim": 36, "model_type": "animate2"}, TEXT8, _animate2, "Wan Animate 2"),
    "WanDancer": Tiny(config("WAN22_WanDancer"), {**WAN, "in_dim": 36, "model_type": "wandancer", "audio_inject_layers": [0]}, TEXT8, _wandancer, "WanDancer"),
    "CogVideoX I2V": Tiny(config("CogVideoX_I2V"), {**COGVIDEOX, "in_channels": 32}, TEXT8, _cogvideox, "CogVideoX"),
    "CogVideoX inpaint": Tiny(config("CogVideoX_Inpaint"), {**COGVIDEOX, "in_channels": 48, "patch_size_t": 2}, TEXT8, _cogvideox_inpaint, "CogVideoX"),
    "Kandinsky 5 I2V": Tiny(config("Kandinsky5"), {"image_model": "kandinsky5", "in_text_dim": 8, "in_text_dim2": 16, "time_dim": 16, "model_dim": 24, "ff_dim": 32, "visual_embed_dim": 132, "num_text_blocks": 1, "num_visual_blocks": 1, "axes_dims": (4, 4, 4)}, POOLED, _kandinsky5, "Kandinsky 5"),
}  # fmt: skip
TINY = {name: tiny for name, tiny in TINY.items() if tiny.config}  # those that this host has

LTX2 = {
    "image_model": "ltxav", "attention_head_dim": 12, "num_attention_heads": 2, "cross_attention_dim": 24, "audio_attention_head_dim": 12,
    "audio_num_attention_heads": 2, "audio_cross_attention_dim": 24, "caption_channels": 24, "num_layers": 1, "connector_attention_head_dim": 12,
    "connector_num_attention_heads": 2, "connector_num_layers": 1,
}  # fmt: skip
LTX23 = {**LTX2, "cross_attention_adaln": True, "apply_gated_attention": True, "caption_proj_before_connector": True, "caption_projection_first_linear": False}
LTX25 = {**LTX23, "use_keyframes_abs_pos_embedding": True, "ff_bias": False, "audio_ff_bias": False}
H3 = {
    "image_model": "minimax_h3", "hidden_size": 16, "num_layers": 1, "token_refiner_num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 8,
    "ffn_hidden_size": 16, "text_dim": 8, "timestep_input_dim": 8, "time_embed_hidden_size": 8, "time_embed_dim": 8, "rope_inv_freq_len": 1,
}  # fmt: skip
AV_TEXT = {"width": 48, "more": {"attention_mask": torch.ones(1, 5, dtype=torch.int64)}}
# video and sound in one latent
SOUND = {
    "LTX-2": Tiny(config("LTXAV"), LTX2, AV_TEXT, _ltx2, "LTX-2"),
    "LTX-2.3": Tiny(config("LTXAV"), LTX23, AV_TEXT, _ltx2, "LTX-2"),
    "LTX-2.5": Tiny(config("LTXAV"), LTX25, AV_TEXT, _ltx2, "LTX-2"),
    "MiniMax H3": Tiny(config("MiniMaxH3"), H3, TEXT8, _h3, "MiniMax H3"),
}
SOUND = {name: tiny for name, tiny in SOUND.items() if tiny.config}
