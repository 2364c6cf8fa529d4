"""A MODEL of video and sound in one latent, as newer hosts have them (LTX-2), for the host that is tested.

That host packs and unpacks such latents already, but has no model for them. This one takes what
LTX-2's class takes: both parts packed while sampling, apart in the network, and a mask for each.
"""

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_patcher
import comfy.samplers
import comfy.supported_models_base
import comfy.utils
import pytest
import torch

# newer hosts take a mask for each part and pack them themselves
TAKES_MASKS_APART = "denoise_masks" in comfy.samplers.CFGGuider.sample.__code__.co_varnames

VIDEO, SOUND = (1, 128, 4, 6, 8), (1, 8, 20, 16)


def nested(parts):
    """Latents of several kinds in one."""
    return pytest.importorskip("comfy.nested_tensor", reason="this host has no latents of video and sound").NestedTensor(parts)


class Both(torch.nn.Module):
    """[video, sound] -> (video, sound): each from its own channels and the other's mean."""

    dtype = torch.float32

    def __init__(self):
        super().__init__()
        draw = lambda *shape: torch.nn.Parameter(0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(1)), requires_grad=False)
        self.video, self.sound = draw(VIDEO[1], VIDEO[1]), draw(SOUND[1], SOUND[1])

    def forward(self, x, timesteps, context=None, **kwargs):
        video, sound = x
        return torch.einsum("dc,ncthw->ndthw", self.video, video) + sound.mean(), torch.einsum("dc,nctf->ndtf", self.sound, sound) + video.mean()


class LTXAV(comfy.model_base.BaseModel):
    """By this name a host's LTX-2 is known."""

    def extra_conds(self, **kwargs):
        out, shapes = super().extra_conds(**kwargs), kwargs["latent_shapes"]
        out["latent_shapes"] = comfy.conds.CONDConstant(shapes)
        if kwargs.get("denoise_mask") is not None:
            video, sound = comfy.utils.unpack_latents(kwargs["denoise_mask"], shapes)
            out["denoise_mask"], out["audio_denoise_mask"] = comfy.conds.CONDRegular(video), comfy.conds.CONDRegular(sound)
        return out

    def scale_latent_inpaint(self, latent_image, **kwargs):
        return latent_image


class Config(comfy.supported_models_base.BASE):
    unet_config, unet_extra_config = {}, {}
    latent_format = comfy.latent_formats.LTXV
    sampling_settings = {"shift": 2.37}


def model():
    """-> MODEL."""
    base = LTXAV(Config({"disable_unet_model_creation": True, "in_channels": VIDEO[1]}), comfy.model_base.ModelType.FLUX)
    base.diffusion_model = Both()
    return comfy.model_patcher.ModelPatcher(base, torch.device("cpu"), torch.device("cpu"))


def latent(video=None, sound=None):
    """-> LATENT; empty where nothing is given."""
    return {"samples": nested([torch.zeros(VIDEO) if video is None else video, torch.zeros(SOUND) if sound is None else sound])}


def keeping_the_first_frame(video):
    """-> LATENT whose mask keeps the first frame of `video`, in the form in which a host samples it."""
    mask = torch.ones(VIDEO)
    mask[:, :, 0] = 0
    masks = [mask, torch.ones(SOUND)]
    return {**latent(video), "noise_mask": nested(masks) if TAKES_MASKS_APART else comfy.utils.pack_latents(masks)[0]}
