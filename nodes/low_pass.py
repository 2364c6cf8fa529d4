"""CILLowPassCondition: the conditional image without detail at the first steps, in every evaluation alike."""

from collections.abc import Callable
from functools import partial

import torch
from comfy_api.latest import io

from ..cil.low_pass import FILTERS, NEUTRAL
from .condition import ConditionChange, ConditionPatcher, patched, sources
from .host.models import model_family
from .host.notes import say, unchanged
from .host.types import Conditioning, Model

WRAPPER = "cil_low_pass"


class LowPassed:
    """The filter of one run: at(sigma, time) -> the ConditionChange of ConditionPatcher inside the interval, None outside."""

    def __init__(self, kind: str, strength: float, start: float, end: float):
        self.step = ConditionChange(partial(filtered, FILTERS[kind], strength))
        self.start, self.end = start, end

    def at(self, sigma: float, time: float) -> ConditionChange | None:
        # a sigma and its fraction are each other's inverse to about six digits only
        return self.step if self.end + 1e-5 < time <= self.start + 1e-5 else None


def filtered(low_pass: Callable, strength: float, y: torch.Tensor, shared: tuple) -> torch.Tensor:
    """`low_pass` in the signature of ConditionChange.image; each frame is filtered by itself."""
    return low_pass(y, strength)


class LowPassCondition(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CILLowPassCondition",
            display_name="Low-Pass Condition (CIL)",
            category="image-to-video motion",
            description="At the first steps the model is given its image without fine detail, in every evaluation alike; afterwards the image as it is. No training, no extra evaluations, and it acts at CFG 1 too. Adaptive low-pass guidance as published is another node.",
            inputs=[
                io.Model.Input("model", tooltip="The image-to-video model."),
                io.Conditioning.Input("positive", tooltip="Conditioning with the image in it; it is passed on as it came."),
                io.Conditioning.Input(
                    "negative", tooltip="Negative conditioning; it is passed on as it came. Where it holds the image too, that is filtered in the same way."
                ),
                io.Combo.Input(
                    "filter",
                    options=list(FILTERS),
                    default="down and up",
                    tooltip="down and up: the image's latents shrunk and enlarged again, bilinear (the filter of adaptive low-pass guidance). gaussian: a blur.",
                ),
                io.Float.Input(
                    "strength",
                    default=4.0,
                    min=0.0,
                    max=64.0,
                    step=0.1,
                    tooltip="down and up: the factor of shrinking, 1 changes nothing, 4 keeps a quarter of the size. gaussian: the standard deviation in latent cells (8 or 16 pixels each), 0 changes nothing. Higher: more motion, less likeness to the image.",
                ),
                io.Float.Input(
                    "start_at",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Noise level at which filtering begins, as a fraction of T; 1 = from the first step on.",
                ),
                io.Float.Input(
                    "end_at",
                    default=0.94,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Noise level at which it ends, as a fraction of T, itself left out: 0.94 with start 1 is the first 6 % of the schedule, 3 of 50 steps. The same as start_at: nothing is filtered. Lower: more motion, less detail kept. With an early start, count from there.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model that sees the filtered image at its first steps."),
                io.Conditioning.Output(display_name="positive", tooltip="The positive conditioning, unchanged: the filter acts inside the model call."),
                io.Conditioning.Output(display_name="negative", tooltip="The negative conditioning, unchanged."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, model: Model, positive: Conditioning, negative: Conditioning, filter: str, strength: float, start_at: float, end_at: float
    ) -> io.NodeOutput:
        if not 0 <= end_at <= start_at <= 1:
            raise ValueError(f"the interval must be 0 <= end_at <= start_at <= 1, but from {start_at:g} to {end_at:g} was given")
        if strength < NEUTRAL[filter]:
            raise ValueError(f"the strength of '{filter}' is {NEUTRAL[filter]:g} (nothing) or more, but {strength:g} was given")
        family = model_family(model)
        found = sources(family, positive)
        if strength == NEUTRAL[filter] or start_at == end_at:
            return unchanged(cls.hidden.unique_id, "the setting is neutral", model, positive, negative)
        if found:
            say(cls.hidden.unique_id, f"{family.key}: {filter} {strength:g} from {start_at:g} to {end_at:g} of T on {' and '.join(found)}")
        else:
            say(cls.hidden.unique_id, f"nothing to do for {family.key}: this pack finds no image to filter in this conditioning")
        run = LowPassed(filter, strength, start_at, end_at)
        return io.NodeOutput(patched(model, WRAPPER, ConditionPatcher(family, run.at)), positive, negative)


NODES = [LowPassCondition]
