"""What a family's network is told of a clip: encoded once, and put together again by the host's own code.

To train another family, add a ConditionAdapter to ADAPTERS. Its `encode` is what preparation keeps of a clip's
pictures; its `conditioning` is what the host's conditioning nodes would have written of it, for the
host's `extra_conds` to make the network's inputs of. So training shows what sampling shows.
"""

from dataclasses import dataclass
from typing import Any

import comfy.clip_vision
import comfy.model_base
import torch

from ...cil.training import TOKENS, Example
from ..host.types import BaseModel, ClipVision, Model, Vae
from ..lvdm.model import LVDM as LVDMModel
from ..lvdm.model import VideoCrafter1


@dataclass(frozen=True)
class Encoders:
    """The host's VAE, CLIP_VISION and CLIP that belong to a model; None for what is not there."""

    vae: Vae
    clip_vision: ClipVision | None = None
    clip: Any = None


class ConditionAdapter:
    """One way of telling a network of a clip, for one MODEL.

    name: as prepared sets carry it. text, vision: whether the network reads a text, an image
    encoder's output. frames_as_batch: its latents are [T, C, h, w] and not [1, C, T, h, w].
    """

    name = ""
    text, vision = True, True
    frames_as_batch = True

    def __init__(self, model: Model):
        self.base = model.model

    @staticmethod
    def matches(base: BaseModel) -> bool:
        """Whether a host's BaseModel is of this kind."""
        raise NotImplementedError

    def check_frames(self, frames: int) -> None:
        """Raise ValueError unless the model can have clips of so many frames."""

    def noised(self, tokens: bool) -> tuple[str, ...]:
        """The fields of a Clip on which TimeNoise acts, or TOKENS. tokens: on the image tokens too."""
        if tokens and not self.vision:
            raise ValueError("TimeNoise was asked for on the image tokens, but this model has none: switch image_tokens off")
        return ("image", "embed") if tokens else ("image",)

    def encode(self, pixels: torch.Tensor, encoders: Encoders) -> dict:
        """Of a clip's pictures [T, H, W, 3] in [0, 1] -> {"image": ..., "embed": ...} of a Clip."""
        raise NotImplementedError

    def unconditional(self, grey: torch.Tensor, encoders: Encoders, empty: torch.Tensor | None) -> dict | None:
        """What the negative conditioning holds instead of a Clip's fields. grey: a grey picture; empty: the empty text's embedding."""
        raise NotImplementedError

    def conditioning(self, example: Example, fps: float, bucket: int | None, device: torch.device) -> dict:
        """The entries of a conditioning -> dict for the host's extra_conds."""
        raise NotImplementedError


class SVD(ConditionAdapter):
    """SVD, SV3D and the demo: the picture's unscaled latent beside every frame, one image embedding, no text."""

    name, text = "SVD", False

    @staticmethod
    def matches(base: BaseModel) -> bool:
        return isinstance(base, comfy.model_base.SVD_img2vid)

    def encode(self, pixels: torch.Tensor, encoders: Encoders) -> dict:
        return {"image": encoders.vae.encode(pixels[:1])[0], "embed": encoders.clip_vision.encode_image(pixels[:1]).image_embeds}

    def unconditional(self, grey: torch.Tensor, encoders: Encoders, empty: torch.Tensor | None) -> dict | None:
        return None

    def conditioning(self, example: Example, fps: float, bucket: int | None, device: torch.device) -> dict:
        clip = example.clip
        bucket = round(min(255.0, clip.motion)) if bucket is None else bucket
        known = {"fps": fps, "motion_bucket_id": bucket, "augmentation_level": example.level}
        return {**known, "cross_attn": clip.embed[None].to(device), "concat_latent_image": clip.image[None].to(device)}


class LVDM(ConditionAdapter):
    """DynamiCrafter and VideoCrafter1, as CILDynamiCrafterConditioning writes it; one prepared set serves both."""

    name = "LVDM"

    @staticmethod
    def matches(base: BaseModel) -> bool:
        return isinstance(base, LVDMModel)

    def noised(self, tokens: bool) -> tuple[str, ...]:
        if isinstance(self.base, VideoCrafter1):
            return (TOKENS,)
        return ("image", TOKENS) if tokens else ("image",)

    def encode(self, pixels: torch.Tensor, encoders: Encoders) -> dict:
        image = self.base.process_latent_in(encoders.vae.encode(pixels[:1]))[0]  # [C, h, w]
        return {"image": image, "embed": self._hidden(pixels[:1], encoders)}

    def unconditional(self, grey: torch.Tensor, encoders: Encoders, empty: torch.Tensor | None) -> dict | None:
        return {"embed": self._hidden(grey, encoders), "text": empty}

    @staticmethod
    def _hidden(picture, encoders):
        return encoders.clip_vision.encode_image(picture, crop=False).last_hidden_state[0]

    def conditioning(self, example: Example, fps: float, bucket: int | None, device: torch.device) -> dict:
        clip, variant = example.clip, self.base.model_config.variant
        image = self.base.process_latent_out(clip.image[None].to(device))
        return {
            "cross_attn": clip.text[None].to(device), "concat_latent_image": image, "fps": variant.told(fps),
            "clip_vision_output": vision_output(last_hidden_state=clip.embed[None].to(device)),
        }  # fmt: skip


class Wan(ConditionAdapter):
    """Wan 2.1 and 2.2 14B image-to-video, as the host's WanImageToVideo writes it."""

    name, frames_as_batch = "Wan I2V", False
    STRIDE = 4  # frames a latent frame, after the first

    @staticmethod
    def matches(base: BaseModel) -> bool:
        if type(base) is not comfy.model_base.WAN21:
            return False
        # noisy latents, four mask channels, image latents; 2.2 is known by nothing else, others add a control
        return base.diffusion_model.patch_embedding.weight.shape[1] == 2 * base.latent_format.latent_channels + 4

    def __init__(self, model: Model):
        super().__init__(model)
        self.vision = self.base.diffusion_model.img_emb is not None  # 2.1; 2.2 has none

    def noised(self, tokens: bool) -> tuple[str, ...]:
        super().noised(tokens)  # refuses tokens that are not there
        return ("image", TOKENS) if tokens else ("image",)

    def check_frames(self, frames: int) -> None:
        if (frames - 1) % self.STRIDE:
            near = frames - (frames - 1) % self.STRIDE
            raise ValueError(f"Wan takes clips of 4 n + 1 frames, but {frames} were given: take {near} or {near + self.STRIDE}")

    def encode(self, pixels: torch.Tensor, encoders: Encoders) -> dict:
        image = encoders.vae.encode(torch.cat([pixels[:1], torch.full_like(pixels[1:], 0.5)]))  # [1, C, T, h, w]
        out = {"image": self.base.process_latent_in(image)[0], "embed": None}
        if self.vision:
            out["embed"] = encoders.clip_vision.encode_image(pixels[:1], crop=False).penultimate_hidden_states[0]
        return out

    def unconditional(self, grey: torch.Tensor, encoders: Encoders, empty: torch.Tensor | None) -> dict | None:
        return {"text": empty}

    def conditioning(self, example: Example, fps: float, bucket: int | None, device: torch.device) -> dict:
        clip = example.clip
        image = clip.image[None].to(device)  # [1, C, T, h, w]
        mask = torch.ones_like(image[:, :1])  # [1, 1, T, h, w]
        mask[:, :, :1] = 0
        told = {"cross_attn": clip.text[None].to(device), "concat_latent_image": self.base.process_latent_out(image), "concat_mask": mask}
        if clip.embed is not None:
            told["clip_vision_output"] = vision_output(penultimate_hidden_states=clip.embed[None].to(device))
        return told


ADAPTERS = (SVD, LVDM, Wan)


def adapter_of(model: Model) -> ConditionAdapter:
    """The ConditionAdapter of a MODEL. Raises ValueError for what the pack cannot train."""
    for adapter in ADAPTERS:
        if adapter.matches(model.model):
            return adapter(model)
    trained = "SVD's family (SVD, SV3D, the demo), DynamiCrafter, VideoCrafter1 and Wan 2.1 / 2.2 14B image-to-video"
    raise ValueError(f"training is there for {trained}, but a {type(model.model).__name__} came: connect such a model")


def check_encoders(adapter: ConditionAdapter, encoders: Encoders) -> None:
    """Raise ValueError where an encoder is missing that the network's inputs come from."""
    if encoders.vae is None:
        raise ValueError("this checkpoint brings no VAE: give the model's own (--vae)")
    if adapter.vision and encoders.clip_vision is None:
        raise ValueError("this model sees the picture through an image encoder, but none came: connect clip_vision (on the command line: --clip-vision)")
    if adapter.text and encoders.clip is None:
        raise ValueError(
            "this model reads a text, but no text encoder came: connect clip (on the command line: --text-encoder). Captions are .txt files beside the videos, or the prompt for all"
        )


def vision_output(**values) -> comfy.clip_vision.Output:
    """A CLIP_VISION_OUTPUT of the host with these fields."""
    out = comfy.clip_vision.Output()
    for name, value in values.items():
        out[name] = value
    return out


def text_embedding(clip: Any, text: str) -> torch.Tensor:
    """A text by the host's CLIP -> [tokens, d]."""
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))[0][0][0]
