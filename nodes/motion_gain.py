"""CILMotionGain: motion gain as a patch on the MODEL, for any sampler, guider and guidance."""

import math

import comfy.patcher_extension
import torch
from comfy_api.latest import io

from ..cil import motion_gain
from .host.latents import parts_of
from .host.models import cloned, model_family
from .host.notes import say, unchanged
from .host.sampling import Sampling
from .host.types import Model
from .motion_gain_run import FRACTION, IMAGE, MEAN, OWN, SIGMA, SIGNAL_TO_NOISE, WRAPPER, MotionGain


class CILMotionGain(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CILMotionGain",
            display_name="More Motion: Motion Gain (CIL)",
            category="image-to-video motion",
            description="More motion, or less, from any image-to-video model: at high noise levels, where such models hold motion back, what each prediction moves away from its first frame is multiplied. Put it between the model loader and any sampler. Experimental.",
            inputs=[
                io.Model.Input("model", tooltip="The image-to-video model. With two stages (Wan 2.2) on both, or on the first alone: it acts by noise level."),
                io.Float.Input(
                    "gain",
                    default=1.4,
                    min=0.0,
                    max=5.0,
                    step=0.01,
                    tooltip="What motion is multiplied by at high noise levels. 1 changes nothing, to the bit. Above 1: more motion; too high distorts what moves, and colours. Below 1 calms. Not used while a curve is connected.",
                ),
                io.Combo.Input(
                    "end_as",
                    options=[SIGNAL_TO_NOISE, FRACTION, SIGMA],
                    default=SIGNAL_TO_NOISE,
                    tooltip="How `end` is meant. signal to noise: of the whole picture, signal / noise x the square root of its latent cells; the same for every model and size. fraction: M / T, 1 = the ordinary start. sigma: the noise level itself.",
                ),
                io.Float.Input(
                    "end",
                    default=3.2,
                    min=0.0,
                    max=20000.0,
                    step=0.01,
                    tooltip="The noise level down to which the gain acts; below it the prediction stays as it is. signal to noise: higher acts longer; 3.2 is sigma 5 of the demo model, about 30 of SVD at 1024 x 576, the first 7 of 40 steps of Wan 2.1 at 832 x 480 with shift 5. As a fraction or sigma: lower acts longer, 0 to the end. Longer: stronger, and harder on the picture.",
                ),
                io.Combo.Input(
                    "shape",
                    options=list(motion_gain.SHAPES),
                    default="constant",
                    tooltip="constant: the full gain down to `end`, then none. smooth: it falls to 1 around `end`, over a factor of 4 in signal to noise. Not used while a curve is connected.",
                ),
                io.Combo.Input(
                    "reference",
                    options=[OWN, IMAGE, MEAN],
                    default=OWN,
                    tooltip="The still clip from which motion is counted. own first frame: of the prediction itself (its second latent for Wan and others whose first latent is of its own kind). image: the conditional image's latents, or `still`. mean over time: motion about the middle of the clip, for text-to-video models.",
                ),
                io.Combo.Input(
                    "protect",
                    options=list(motion_gain.PROTECTED),
                    default=motion_gain.NOTHING,
                    tooltip="What is not multiplied along with the motion: changes of brightness and colour, or of contrast too, over the whole frame. nothing: everything is.",
                ),
                io.Float.Input(
                    "curve_strength",
                    default=1.0,
                    min=0.0,
                    max=3.0,
                    step=0.05,
                    tooltip="Only with a curve: how much of the measured lack is given back. 1 = as measured, 0 = nothing, to the bit, 1.5 = half more.",
                ),
                io.Latent.Input(
                    "still",
                    optional=True,
                    tooltip="For reference 'image': the picture, repeated to all frames of the clip and encoded with the model's VAE. Needed for Wan, Hunyuan 1.5 and Cosmos; others find the image themselves.",
                ),
                io.String.Input(
                    "curve",
                    optional=True,
                    force_input=True,
                    tooltip="The curve of Leakage Probe (its report will do): the gain follows its measured curve, level by level, instead of gain, end and shape.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The model with the gain on it; with gain 1 the model as it came.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: Model,
        gain: float,
        end_as: str,
        end: float,
        shape: str,
        reference: str,
        protect: str,
        curve_strength: float,
        still: dict | None = None,
        curve: str | None = None,
    ) -> io.NodeOutput:
        # a wrong setting is an error here, in this node, not later in the sampler
        checked_settings(Sampling.of(model), gain, end_as, end)
        family = model_family(model)
        measured = None if curve is None else motion_gain.curve_of(curve)
        samples = None if still is None else checked_still(model, still["samples"])
        if (gain == 1 and measured is None) or (measured is not None and curve_strength == 0):
            return unchanged(cls.hidden.unique_id, "the setting is neutral", model)
        patched = cloned(model)
        wrapper = MotionGain(gain, end_as, end, shape, reference, protect, samples, measured, curve_strength, cls.hidden.unique_id)
        patched.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, WRAPPER, wrapper)
        notes = [
            f"{family.key}: "
            + (f"motion x {gain:g} at high noise levels" if measured is None else f"motion by the measured curve, its excess x {curve_strength:g}"),
            f"still is not used with reference '{reference}'" if samples is not None and reference != IMAGE else "",
            "gain, end and shape are not used while a curve is connected" if measured is not None else "",
        ]
        say(cls.hidden.unique_id, "\n".join(filter(None, notes)))
        return io.NodeOutput(patched)


def checked_settings(sampling: Sampling, gain: float, end_as: str, end: float) -> None:
    """Raises ValueError for settings that no sampler could follow."""
    if not math.isfinite(gain) or gain < 0:
        raise ValueError(f"the gain must be 0 or more (1 changes nothing), but {gain} was given")
    if not math.isfinite(end) or end < 0:
        raise ValueError(f"the end of the gain must be 0 or more, but {end} was given")
    if end_as == FRACTION and end > 1:
        raise ValueError(f"as a fraction the end is 0 to 1, but {end:g} was given: set end_as to '{SIGNAL_TO_NOISE}' or '{SIGMA}'")


def checked_still(model: Model, samples: torch.Tensor) -> torch.Tensor:
    """The samples of `still`, those of the video where it has sound. Raises ValueError for another model's."""
    video = parts_of(samples)[0]
    latent_format = model.get_model_object("latent_format")
    if video.shape[1] != latent_format.latent_channels:
        raise ValueError(
            f"`still` has {video.shape[1]} channels, but this model's latents have {latent_format.latent_channels}: encode the picture with the model's own VAE"
        )
    return video


NODES = [CILMotionGain]
