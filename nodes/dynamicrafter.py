"""DynamiCrafter and VideoCrafter1 in the graph: load, condition, and a start for kijai's wrapper."""

import folder_paths
import node_helpers
import torch
from comfy_api.latest import io
from comfy_execution.graph import ExecutionBlocker

from ..cil import analytic_init
from ..cil import moments as cil_moments
from ..cil.clips import covering
from ..cil.moments import Moments
from .host.notes import say
from .host.sampling import Sampling
from .host.types import ClipVision, Conditioning, Vae
from .lvdm import checkpoint
from .lvdm.model import VARIANTS, Variant
from .lvdm.sampling import sampling_for
from .moments import PACKAGED, MomentsType

CATEGORY = "image-to-video motion/dynamicrafter"
DCNoiseType = io.Custom("DCNOISE")
MISSING = {
    "clip": "its text encoder is Stable Diffusion 2.1's (OpenCLIP-H): load it with 'Load CLIP', type stable_diffusion",
    "clip_vision": "its image encoder is CLIP-ViT-H-14 (laion2b): load it with 'Load CLIP Vision'",
    "vae": "its VAE is Stable Diffusion's, for example vae-ft-mse-840000-ema-pruned: load it with 'Load VAE'",
}


class LoadDynamiCrafter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CILLoadDynamiCrafter",
            display_name="Load DynamiCrafter / VideoCrafter1 (CIL)",
            category=CATEGORY,
            description="Loads DynamiCrafter (256, 512, 1024, interpolation) or VideoCrafter1 image-to-video as a model of the host: samplers, LoRA, offloading and previews work as for any other.",
            inputs=[
                io.Combo.Input(
                    "ckpt_name",
                    options=folder_paths.get_filename_list("checkpoints"),
                    tooltip="A checkpoint in models/checkpoints: the released model.ckpt (rename it, e.g. dynamicrafter_512.ckpt), a pruned safetensors that keeps the image resampler, or the paper's fine-tuned (CIL) weights.",
                ),
                io.Combo.Input(
                    "variant",
                    options=[checkpoint.AUTOMATIC, *(v.name for v in VARIANTS)],
                    default=checkpoint.AUTOMATIC,
                    tooltip="Which model it is. automatic: from the tensors, and 512 or 1024 from the file's noise tables or its name. Choose it when the node cannot tell; the interpolation model is DynamiCrafter 512.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The image-to-video model, with its exact noise process."),
                io.Clip.Output(display_name="clip", tooltip="Its text encoder (OpenCLIP-H), where the file has it."),
                io.ClipVision.Output(display_name="clip_vision", tooltip="Its image encoder (OpenCLIP-H), where the file has it."),
                io.Vae.Output(display_name="vae", tooltip="Its VAE (Stable Diffusion's), where the file has it."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, ckpt_name: str, variant: str) -> io.NodeOutput:
        model, *others = checkpoint.load(folder_paths.get_full_path_or_raise("checkpoints", ckpt_name), variant)
        left_out = [name for name, part in zip(MISSING, others) if part is None]
        note = f"\nnot in the file: {', '.join(left_out)}" if left_out else ""
        say(cls.hidden.unique_id, f"{model.model.model_config.variant}{note}")
        blocked = {name: ExecutionBlocker(f"{ckpt_name} holds no {name}: {hint}") for name, hint in MISSING.items()}
        return io.NodeOutput(model, *(blocked[name] if part is None else part for name, part in zip(MISSING, others)))


def fitted(image: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """The first picture of an IMAGE, resized to cover the size and cropped to its middle: [1, height, width, 3]."""
    return covering(image[:1, ..., :3].movedim(-1, 1), height, width).movedim(1, -1)


class DynamiCrafterConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CILDynamiCrafterConditioning",
            display_name="DynamiCrafter Conditioning (CIL)",
            category=CATEGORY,
            description="Adds the picture to positive and negative for DynamiCrafter and VideoCrafter1, and makes the empty latent. The result is plain conditioning, so masks, areas, TimeNoise and the probe work on it.",
            inputs=[
                io.Conditioning.Input("positive", tooltip="What happens in the clip, from CLIP Text Encode with the model's own text encoder."),
                io.Conditioning.Input("negative", tooltip="For guidance; an empty text as the authors have it."),
                io.ClipVision.Input("clip_vision", tooltip="The model's image encoder (OpenCLIP-H)."),
                io.Vae.Input("vae", tooltip="The model's VAE (Stable Diffusion's)."),
                io.Image.Input(
                    "image", tooltip="The picture to animate; of several the first. It is resized to cover width x height and cropped to the middle."
                ),
                io.Int.Input(
                    "width", default=512, min=64, max=8192, step=64, tooltip="Width of the clip in pixels. The models know 256 x 256, 512 x 320 and 1024 x 576."
                ),
                io.Int.Input("height", default=320, min=64, max=8192, step=64, tooltip="Height of the clip in pixels."),
                io.Int.Input(
                    "frames",
                    default=16,
                    min=1,
                    max=256,
                    tooltip="Frames of the clip. The models were trained on 16; with another number all frames share all image tokens, and far from 16 motion gets worse.",
                ),
                io.Int.Input(
                    "fps",
                    default=24,
                    min=1,
                    max=120,
                    tooltip="Frames a second that the model is told: lower = more motion. The authors use 24 (512), 10 (1024), 5 (interpolation), 8 (VideoCrafter1). DynamiCrafter 256 reads it as the frame stride, where higher = more motion; the authors use 3.",
                ),
                io.Image.Input(
                    "end_image",
                    optional=True,
                    tooltip="The last frame, for DynamiCrafter's interpolation model only. The same picture as `image` makes a loop. Unconnected: the picture stands beside every frame.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="Text and picture."),
                io.Conditioning.Output(
                    display_name="negative", tooltip="Negative text, the same latent, and for the image encoder a grey picture, as the authors have it."
                ),
                io.Latent.Output(display_name="latent", tooltip="Empty latent of the clip, frames as the batch, as with SVD."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        positive: Conditioning,
        negative: Conditioning,
        clip_vision: ClipVision,
        vae: Vae,
        image: torch.Tensor,
        width: int,
        height: int,
        frames: int,
        fps: float,
        end_image: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        if end_image is not None and frames < 2:
            raise ValueError(f"an end frame needs at least 2 frames, but frames is {frames}")
        picture = fitted(image, width, height)
        latent = vae.encode(picture)
        if end_image is not None:
            # as the interpolation model was trained: nothing beside the frames in between
            between = latent.new_zeros((frames - 2, *latent.shape[1:]))
            latent = torch.cat([latent, between, vae.encode(fitted(end_image, width, height))])
        # the image encoder is given the whole picture, squeezed to its square; a grey one where nothing is to be seen
        seen, unseen = (clip_vision.encode_image(p, crop=False) for p in (picture, torch.full_like(picture, 0.5)))
        known = {"concat_latent_image": latent, "fps": fps}
        positive = node_helpers.conditioning_set_values(positive, {**known, "clip_vision_output": seen})
        negative = node_helpers.conditioning_set_values(negative, {**known, "clip_vision_output": unseen})
        if frames != 16:
            say(cls.hidden.unique_id, f"{frames} frames: the models were trained on 16, all frames share all image tokens")
        return io.NodeOutput(positive, negative, {"samples": torch.zeros(frames, 4, height // 8, width // 8)})


def wrapper_noise(variant: Variant, moments: Moments, timestep: int, frames: int, height: int, width: int) -> dict:
    """kijai's DCNOISE: the start at `timestep` (1-based, M) in x_t, what its sampler begins with.

    x_t = alpha s z, so mean and deviation of Analytic-Init are those of z times alpha s; the
    wrapper's own files leave s out. Its sampler rounds sizes down to multiples of 64 pixels.
    """
    sampling = Sampling(sampling_for(variant, variant.prediction))
    sigma = sampling.sigma(timestep / 1000)
    gain, std = analytic_init.optimal_start(sampling.process, sigma, moments.variance)
    scale = float(sampling.process.scale(sigma))
    shape = (1, 4, frames, height // 64 * 8, width // 64 * 8)
    return {
        "mu_p": cil_moments.fit(moments, shape, "sd") * gain / scale,
        "sigma_p": torch.full((1, 1, 1, 1, 1), std / scale, dtype=torch.float32),
        "M": timestep,
        "analytic_init": True,
    }


WRAPPED = {v.name: v for v in VARIANTS if v.name.startswith("DynamiCrafter")}


class DynamiCrafterWrapperNoise(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CILDynamiCrafterWrapperNoise",
            display_name="Init Noise for DynamiCrafterWrapper (CIL)",
            category=CATEGORY,
            description="Early start with Analytic-Init for kijai's ComfyUI-DynamiCrafterWrapper, for any size and number of frames. Connect it to its sampler's init_noise.",
            inputs=[
                io.Combo.Input(
                    "variant",
                    options=list(WRAPPED),
                    default="DynamiCrafter 512",
                    tooltip="The model that the wrapper has loaded: its noise levels and dynamic rescale are used.",
                ),
                io.Float.Input(
                    "start",
                    default=0.96,
                    min=0.05,
                    max=1.0,
                    step=0.001,
                    round=0.001,
                    tooltip="M / T: where sampling starts. 1 = the ordinary start, 0.96 = the paper's setting. Lower gives more motion and, too low, breaks the picture.",
                ),
                io.Int.Input("width", default=512, min=64, max=8192, step=64, tooltip="Width in pixels of the picture that the wrapper's sampler is given."),
                io.Int.Input("height", default=320, min=64, max=8192, step=64, tooltip="Height in pixels of that picture."),
                io.Int.Input("frames", default=16, min=1, max=256, tooltip="Frames, the same number as in the wrapper's sampler."),
                MomentsType.Input(
                    "moments",
                    optional=True,
                    tooltip="Mean and variance of the data, from Load Moments. Unconnected: the packaged ones of Stable Diffusion latents.",
                ),
            ],
            outputs=[
                DCNoiseType.Output(
                    display_name="init_noise",
                    tooltip="Mean, deviation (in full precision) and M, for the wrapper's sampler. It switches the wrapper to trailing timesteps and its guidance rescale off.",
                )
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, variant: str, start: float, width: int, height: int, frames: int, moments: Moments | None = None) -> io.NodeOutput:
        moments = moments or cil_moments.load(PACKAGED / "sd.safetensors")
        noise = wrapper_noise(WRAPPED[variant], moments, round(1000 * start), frames, height, width)
        say(cls.hidden.unique_id, f"M = {noise['M']}: mean {float(noise['mu_p'].abs().mean()):.3g} on average, deviation {float(noise['sigma_p'].mean()):.5f}")
        return io.NodeOutput(noise)


NODES = [LoadDynamiCrafter, DynamiCrafterConditioning, DynamiCrafterWrapperNoise]
