"""The models as the host sees them: variants, configuration, and how conditioning reaches the network.

Latents are [frames, 4, h, w] as with SVD, not 5-D: the VAE is Stable Diffusion's, which the
host decodes frame by frame from such a batch (of a 5-D latent it would decode one frame), and
nodes that know SVD's layout work unchanged. So a run samples one clip.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import comfy.conds
import comfy.model_base
import comfy.supported_models
import comfy.utils
import torch

from .sampling import sampling_for
from .unet import LVDMUNet

T: TypeAlias = comfy.model_base.ModelType
FILM = 24  # frames a second


@dataclass(frozen=True)
class Variant:
    """What a checkpoint's weights do not say. From the released configurations.

    channels: the UNet's input channels. alpha: whether image attention has a learned weight.
    base_scale: where the dynamic rescale ends, 1 = none.
    fps: what the model takes where the conditioning does not say (256: the frame stride).
    """

    name: str
    channels: int
    alpha: bool
    prediction: T
    zsnr: bool
    base_scale: float
    fps: int

    def told(self, fps: float) -> int:
        """Frames a second as the network takes them: 256 counts from which frame to which, of a film's 24 a second."""
        return max(1, round(FILM / fps)) if self.alpha else round(fps)

    @property
    def sampling_settings(self) -> dict:
        """As the host's noise processes take them."""
        return {"zsnr": self.zsnr, "base_scale": self.base_scale}

    def __str__(self):
        noise = f"{'v' if self.prediction == T.V_PREDICTION else 'eps'}-prediction, {'zero terminal SNR' if self.zsnr else 'ordinary noise schedule'}"
        return f"{self.name} ({noise}, dynamic rescale {'to ' + format(self.base_scale, 'g') if self.base_scale != 1 else 'off'})"


VARIANTS = (
    Variant("DynamiCrafter 256", 8, True, T.EPS, False, 1.0, 3),
    Variant("DynamiCrafter 512", 8, False, T.V_PREDICTION, True, 0.7, 24),  # the interpolation model too
    Variant("DynamiCrafter 1024", 8, False, T.V_PREDICTION, True, 0.3, 10),
    Variant("VideoCrafter1 512", 4, False, T.EPS, False, 0.7, 16),
)


class LVDM(comfy.model_base.BaseModel):
    """What the two models share."""

    def __init__(self, model_config: "LVDMConfig", model_type: Any, device: torch.device | str | None = None):
        super().__init__(model_config, model_type, device=device, unet_model=LVDMUNet)
        self.model_sampling = sampling_for(model_config, model_type)

    def extra_conds(self, **kwargs) -> dict:
        out = super().extra_conds(**kwargs)
        seen, noise = kwargs.get("clip_vision_output"), kwargs["noise"]
        if seen is None:
            raise ValueError(
                f"{self.model_config.variant.name} needs a picture in its conditioning, but this one has none: put positive and negative through 'DynamiCrafter Conditioning (CIL)'"
            )
        fps = round(kwargs.get("fps", self.model_config.variant.fps))
        out["clip_fea"] = comfy.conds.CONDRegular(seen.last_hidden_state)
        out["fps"] = comfy.conds.CONDRegular(torch.tensor([fps]))
        out["num_video_frames"] = comfy.conds.CONDConstant(noise.shape[0])
        return out


class DynamiCrafter(LVDM):
    """The picture's latent stands beside every frame; between two pictures, at the ends only."""

    def extra_conds(self, **kwargs) -> dict:
        out = super().extra_conds(**kwargs)
        noise, image = kwargs["noise"], kwargs.get("concat_latent_image")
        image = torch.zeros_like(noise) if image is None else self.process_latent_in(image)  # [1 or frames, 4, h, w]
        if image.shape[0] not in (1, noise.shape[0]):
            raise ValueError(
                f"this conditioning was made for {image.shape[0]} frames but the latent has {noise.shape[0]}: take the latent of the same conditioning node"
            )
        if image.shape[2:] != noise.shape[2:]:
            image = comfy.utils.common_upscale(image, noise.shape[-1], noise.shape[-2], "bilinear", "center")
        out["c_concat"] = comfy.conds.CONDNoiseShape(image.expand(noise.shape[0], -1, -1, -1))
        return out


class VideoCrafter1(LVDM):
    """The picture comes through cross-attention alone."""

    def extra_conds(self, **kwargs) -> dict:
        image = kwargs.get("concat_latent_image")
        if image is not None and image.shape[0] > 1:
            raise ValueError("VideoCrafter1 cannot be given an end frame: disconnect end_image, or load DynamiCrafter's interpolation model")
        return super().extra_conds(**kwargs)


class LVDMConfig(comfy.supported_models.SD20):
    """SD 2's text encoder and VAE under the same prefixes, and another UNet."""

    unet_config: dict = {}
    unet_extra_config = {"attn_precision": torch.float32}
    clip_vision_prefix = "embedder.model.visual."
    memory_usage_factor = 2.0

    def __init__(self, variant: Variant, unet_config: dict):
        super().__init__(unet_config)
        self.variant = variant
        self.sampling_settings = variant.sampling_settings

    def model_type(self, state_dict: dict, prefix: str = "") -> Any:
        return self.variant.prediction

    def get_model(self, state_dict: dict, prefix: str = "", device: torch.device | str | None = None) -> "LVDM":
        kind = DynamiCrafter if self.variant.channels == 8 else VideoCrafter1
        return kind(self, self.model_type(state_dict, prefix), device=device)

    def process_unet_state_dict_for_saving(self, state_dict: dict) -> dict:
        """As the released files have it: the resampler beside the UNet."""
        outside = "image_proj_model."
        return {k if k.startswith(outside) else "model.diffusion_model." + k: v for k, v in state_dict.items()}
