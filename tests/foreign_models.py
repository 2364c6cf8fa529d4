"""MODELs as two other packs make them of the host's classes, in what our nodes meet of them.

ComfyUI_Native_DynamiCrafter hands its conditioning to the network through a bound
`model_function_wrapper` and `transformer_options`; ComfyUI-AnimateDiff-Evolved puts PIA's
image beside the frames while the host evaluates the conditionings, and the motion module's
beta schedule into the MODEL as an object patch. Nothing of the packs is needed.
"""

from types import SimpleNamespace

import comfy.conds
import comfy.model_base
import comfy.model_patcher
import comfy.model_sampling
import comfy.patcher_extension
import comfy.supported_models_base
import torch

FRAMES, HEIGHT, WIDTH = 6, 8, 12
CPU = torch.device("cpu")


def draw(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def conditioning():
    """-> (positive, negative, empty LATENT): text alone, the image is in the MODEL."""
    text = lambda seed: [[draw(seed, 1, 5, 8), {}]]
    return text(1), text(2), {"samples": torch.zeros(FRAMES, 4, HEIGHT, WIDTH)}


def patcher(config, model_type, network):
    """A MODEL of the host's plain BaseModel."""
    base = comfy.model_base.BaseModel(config({"disable_unet_model_creation": True, "in_channels": 4}), model_type)
    base.diffusion_model = network
    return comfy.model_patcher.ModelPatcher(base, CPU, CPU)


class DynamiCrafterBase(comfy.supported_models_base.BASE):
    """By this name that pack's configuration is known."""

    unet_config, unet_extra_config = {}, {}
    latent_format = comfy.latent_formats.SD15


class SD15(comfy.supported_models_base.BASE):
    unet_config, unet_extra_config = {}, {}
    latent_format = comfy.latent_formats.SD15


class VideoNetwork(torch.nn.Module):
    """[1, 4, T, h, w] and the image beside it -> the same shape; every input counts."""

    dtype = torch.float32

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(draw(9, 4, 8), requires_grad=False)

    def forward(
        self, x, timesteps, context=None, control=None, transformer_options=None, context_in=None, cc_concat=None, img_emb=None, fs=None, num_video_frames=None
    ):
        assert x.shape[2] == num_video_frames and len(x) == len(cc_concat) == len(context_in) == len(img_emb) == len(fs) == 1
        mixed = torch.einsum("oc,bcthw->bothw", self.weight, torch.cat([x, cc_concat], 1))
        return 0.05 * mixed + 0.1 * context_in.mean() + 0.1 * img_emb.mean()


class Processor:
    """Holds the MODEL and evaluates it clip by clip, for the picture that stands in the MODEL's own options."""

    def __init__(self, model):
        self.model_patcher = model

    def forward(self, apply_model, call):
        known = self.model_patcher.model_options["transformer_options"]["conditioning"]
        inputs, frames = dict(call["c"]), known["num_video_frames"]
        texts, tokens = inputs.pop("c_crossattn")[::frames], [known["image_emb"], known["image_emb_uncond"]]
        clips = call["input"].split(frames)
        image = known["c_concat"].movedim(0, 1)[None]
        out = []
        # the positive first; the host has it last
        for clip, text, seen in zip(clips, reversed(texts), tokens):
            clip = clip.movedim(0, 1)[None]
            out.append(
                apply_model(
                    clip,
                    t=call["timestep"][:1],
                    context_in=text[None],
                    c_crossattn=texts,
                    cc_concat=image,
                    num_video_frames=frames,
                    img_emb=seen,
                    fs=known["fs"],
                    **inputs,
                )
            )
        return torch.cat([clip[0].movedim(1, 0) for clip in reversed(out)])


def native_dynamicrafter(frames=FRAMES):
    """-> MODEL with a picture beside each of its frames."""
    model = patcher(DynamiCrafterBase, comfy.model_base.ModelType.V_PREDICTION, VideoNetwork())
    model.set_model_unet_function_wrapper(Processor(model).forward)
    model.model_options["transformer_options"]["conditioning"] = {
        "c_concat": 0.18215 * 5 * draw(3, 1, 4, HEIGHT, WIDTH).repeat(frames, 1, 1, 1),
        "image_emb": draw(4, 1, 16, 8),
        "image_emb_uncond": draw(5, 1, 16, 8),
        "fs": torch.tensor([10]),
        "num_video_frames": frames,
    }
    return model


class WideNetwork(torch.nn.Module):
    """[T, 4 + 5, h, w] -> [T, 4, h, w]."""

    dtype = torch.float32

    def forward(self, x, timesteps, context=None, control=None, transformer_options=None):
        return 0.1 * x[:, :4] + 0.1 * x[:, 4:5] + 0.1 * x[:, 5:]


def pia_image(rows):
    """One channel of how alike each frame is to be, then the picture: [rows, 5, h, w]."""
    alike = torch.linspace(1, 0.5, rows)[:, None, None, None].expand(-1, 1, HEIGHT, WIDTH)
    return torch.cat([alike, 0.9 * draw(6, 1, 4, HEIGHT, WIDTH).repeat(rows, 1, 1, 1)], 1)


def with_pia_image(executor, model, conds, x, timestep, model_options):
    concat = comfy.conds.CONDNoiseShape(pia_image(len(x)))
    beside = lambda cond: [{**entry, "model_conds": {**entry["model_conds"], "c_concat": concat}} for entry in cond]
    return executor(model, [cond and beside(cond) for cond in conds], x, timestep, model_options)


def pia():
    """-> MODEL of SD 1.5 with a motion module of PIA, whose beta schedule is another than SD's."""
    model = patcher(SD15, comfy.model_base.ModelType.EPS, WideNetwork())
    module = torch.nn.Module()
    module.mm_info = SimpleNamespace(mm_format="PIA")
    model.set_additional_models("ADE", [comfy.model_patcher.ModelPatcher(module, CPU, CPU)])
    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.CALC_COND_BATCH, "ADE", with_pia_image)
    return rescheduled(model)


def rescheduled(model, schedule="sqrt_linear", **settings):
    """A clone with another beta schedule patched in, as nodes that change the sampling do it."""
    config = SimpleNamespace(sampling_settings={"beta_schedule": schedule, **settings})
    out = model.clone()
    out.add_object_patch("model_sampling", comfy.model_base.model_sampling(config, model.model.model_type))
    return out
