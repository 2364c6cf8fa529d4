"""CILAdaptiveLowPass, CILAdaptiveLowPassGuider: adaptive low-pass guidance as published (arXiv 2506.08456)."""

import math
import uuid
from functools import partial
from types import SimpleNamespace

import comfy.patcher_extension
import comfy.samplers
import torch
from comfy_api.latest import io

from ..cil import adaptive_low_pass as alg
from ..cil.low_pass import FILTERS, NEUTRAL
from .condition import ConditionChange, ConditionPatcher, sources
from .families import Family
from .host.calls import STEPS, TIME, elapsed, marked
from .host.models import cloned, model_family
from .host.notes import say, unchanged
from .host.types import BaseModel, Conditioning, Executor, Guider, Model, NodeIdLike

WRAPPER = "cil_adaptive_low_pass"
FILTERED, RUN = "cil_adaptive_low_pass", "cil_adaptive_low_pass_run"  # keys of transformer_options: of one call, of one run
FAMILY_PRESET, AS_SET = "family preset", "as set"
OF_FAMILY = {"Wan": "Wan 2.1", "CogVideoX": "CogVideoX", "HunyuanVideo": "HunyuanVideo"}  # 2.1 and 2.2 are one class of the host's
CFG1 = "CFG is 1: there is no difference of two predictions to guide by, so nothing changes"


class Guidance:
    """The wrappers of one MODEL. It keeps nothing between calls: what a run needs travels in its transformer_options."""

    def __init__(self, settings: tuple, node_id: NodeIdLike):
        self.filter, self.strength, self.interval_in, start, end, schedule, decay = settings  # of settings_of
        self.node_id = node_id
        self.weight = partial(alg.weight, schedule, start=start, end=end, decay=decay)

    def sample(self, executor: Executor, guider: Guider, sigmas: torch.Tensor, extra_args: dict, *args, **kwargs) -> torch.Tensor:
        """SAMPLER_SAMPLE: switched off at CFG 1; afterwards it says what was done."""
        run = SimpleNamespace(off=without_guidance(guider), levels=set())
        out = executor(guider, sigmas, {**extra_args, "model_options": marked(extra_args["model_options"], **{RUN: run})}, *args, **kwargs)
        say(self.node_id, CFG1 if run.off else self.told(run, len(sigmas) - 1))
        return out

    def told(self, run: SimpleNamespace, steps: int) -> str:
        count = len(run.levels)
        if not count:
            return f"no evaluation lay in the interval, or the sampler asks for no pair of positive and negative: nothing changed in {steps} steps"
        return f"guided by the filtered image at {count} noise levels of a run of {steps} steps, one more evaluation at each"

    def predict(self, executor: Executor, model: BaseModel, conds: list, x: torch.Tensor, timestep: torch.Tensor, model_options: dict) -> list:
        """CALC_COND_BATCH: [cond, uncond] -> the pair out of which the host's CFG makes ALG. Other lists pass through."""
        if len(conds) != 2 or conds[0] is None or conds[1] is None:
            return executor(model, conds, x, timestep, model_options)
        step = self.step(model, timestep, model_options.get("transformer_options", {}))
        if step is None:
            return executor(model, conds, x, timestep, model_options)
        text, null = executor(model, conds, x, timestep, marked(model_options, **{FILTERED: step}))
        sharp = executor(model, [None, apart(conds[1])], x, timestep, model_options)[1]
        return list(alg.as_pair(sharp, text, null))

    def step(self, model: BaseModel, timestep: torch.Tensor, options: dict) -> ConditionChange | None:
        """What happens to the image at this noise level, or None."""
        run, sigma = options.get(RUN) or SimpleNamespace(off=False, levels=set()), float(timestep.flatten()[0])
        weight = 0.0 if run.off else self.weight(self.progress(model, sigma, options.get("sample_sigmas")))
        if weight == 0:
            return None
        run.levels.add(sigma)
        strength = alg.weakened(self.filter, self.strength, weight)
        return ConditionChange(lambda y, shared: FILTERS[self.filter](y, strength), everywhere=True)

    def progress(self, model: BaseModel, sigma: float, sigmas: torch.Tensor | None) -> float:
        """0 at the beginning, 1 at the end."""
        if self.interval_in == TIME or sigmas is None:
            return elapsed(model, sigma)
        return alg.step_progress(sigmas, sigma)


class FilteredCalls(ConditionPatcher):
    """Wraps the host's APPLY_MODEL: changes the image in the calls that `Guidance.predict` has marked."""

    def change(self, base: BaseModel, sigma: float, transformer_options: dict) -> ConditionChange | None:
        return transformer_options.get(FILTERED)


def without_guidance(guider: Guider) -> bool:
    """Whether it is the host's guider at CFG 1; one that guides in its own way keeps no scale under this name."""
    own = type(guider).predict_noise is not comfy.samplers.CFGGuider.predict_noise
    return not own and math.isclose(guider.cfg, 1.0)


def apart(conds: list) -> list[dict]:
    """The same conditionings under names of their own: caches of other packs (EasyCache) tell evaluations apart by them."""
    return [{**c, "uuid": uuid.uuid5(c["uuid"], WRAPPER)} if "uuid" in c else c for c in conds]


def guided(model: Model, settings: tuple, node_id: NodeIdLike) -> Model:
    """A clone of the MODEL with the guidance on it; one that was there is replaced."""
    out, guidance, kinds = cloned(model), Guidance(settings, node_id), comfy.patcher_extension.WrappersMP
    wrappers = {kinds.SAMPLER_SAMPLE: guidance.sample, kinds.CALC_COND_BATCH: guidance.predict, kinds.APPLY_MODEL: FilteredCalls(model_family(model), None)}
    for kind, wrapper in wrappers.items():
        out.remove_wrappers_with_key(kind, WRAPPER)
        out.add_wrapper_with_key(kind, WRAPPER, wrapper)
    return out


def settings_of(
    family: Family, preset: str, filter: str, strength: float, interval_in: str, start_at: float, end_at: float, schedule: str, decay: float
) -> tuple[tuple | None, list[str]]:
    """-> (settings of Guidance or None, notes). Raises ValueError."""
    if not 0 <= start_at <= end_at <= 1:
        raise ValueError(f"the interval must be 0 <= start_at <= end_at <= 1, but from {start_at:g} to {end_at:g} was given")
    if strength < NEUTRAL[filter]:
        raise ValueError(f"the strength of '{filter}' is {NEUTRAL[filter]:g} (nothing) or more, but {strength:g} was given")
    name, notes = OF_FAMILY.get(family.key) if preset == FAMILY_PRESET else preset, []
    if name is None:
        return None, [f"no setting is published for {family.key}. Choose '{AS_SET}' and try your own"]
    if name != AS_SET:
        published = alg.PUBLISHED[name]
        filter, strength, schedule = "down and up", published.strength, "constant"
        if published.end is not None:
            interval_in, start_at, end_at = STEPS, 0.0, published.end
        notes.append(f"{name}, {published.source}")
    if strength == NEUTRAL[filter]:
        return None, ["the strength is neutral"]
    span = f"{start_at:g}" if schedule == "exponential" else f"{start_at:g} to {end_at:g}"
    notes.append(f"{filter} {strength:g}, {schedule}, from {span} of the {'steps' if interval_in == STEPS else 'model time'}")
    if schedule == "exponential" and end_at < 1:
        notes.append(f"end_at does nothing: exponential ends where it falls below {alg.LEAST_WEIGHT:g}")
    return (filter, strength, interval_in, start_at, end_at, schedule, decay), notes


def widgets() -> list[io.Input]:
    """The inputs that both nodes share."""
    presets = [FAMILY_PRESET, *alg.PUBLISHED, AS_SET]
    return [
        io.Combo.Input("preset", options=presets, default=FAMILY_PRESET, tooltip="family preset: the authors' published setting for this model's family; a family without one is left alone. A name: that model's setting. Wan 2.2: their strength, with the interval below, since theirs is not published. as set: the inputs below."),
        io.Combo.Input("filter", options=list(FILTERS), default="down and up", tooltip="down and up: the image's latents shrunk and enlarged again, bilinear (the authors' choice). gaussian: a blur. Only with preset 'as set'."),
        io.Float.Input("strength", default=2.5, min=0.0, max=64.0, step=0.1, tooltip="down and up: the factor of shrinking, 1 changes nothing, 2.5 is the authors' for Wan. gaussian: the standard deviation in latent cells, 0 changes nothing. Higher: more motion, less likeness. Only with preset 'as set'."),
        io.Combo.Input("interval_in", options=[STEPS, TIME], default=STEPS, tooltip="What start_at and end_at count. steps: the steps of the run, step i of N at i / (N - 1), as the authors do. noise level: 1 minus the noise level as a fraction of T, the same whatever the number of steps or stages."),
        io.Float.Input("start_at", default=0.0, min=0.0, max=1.0, step=0.01, tooltip="Where it begins: 0 = the first step, 1 = the last."),
        io.Float.Input("end_at", default=0.2, min=0.0, max=1.0, step=0.01, tooltip="Where it ends, itself included: 0.2 in steps is the first fifth, 10 of 50. Higher: more motion, less detail of the image kept."),
        io.Combo.Input("schedule", options=list(alg.SCHEDULES), default="constant", tooltip="How the filter's strength goes over the interval. constant: as set. linear: from the strength at start_at down to nothing at end_at. exponential: exp(-decay x progress), until it falls below a tenth; end_at is not used. Only with preset 'as set'."),
        io.Float.Input("decay", default=10.0, min=0.0, max=1000.0, step=0.1, tooltip="How fast an exponential schedule falls: at 10 it is down to a tenth after 23 % of the run. 0: it never falls. Only with schedule 'exponential'."),
    ]  # fmt: skip


class AdaptiveLowPass(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CILAdaptiveLowPass",
            display_name="Adaptive Low-Pass Guidance (CIL)",
            category="image-to-video motion",
            description="ALG as published: at the first steps the guidance is taken with the image without fine detail, its base with the sharp image. More motion with little loss; three evaluations instead of two at those steps. Needs CFG above 1. No training.",
            inputs=[
                io.Model.Input("model", tooltip="The image-to-video model, on its way to any sampler with a positive and a negative conditioning."),
                *widgets(),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model",
                    tooltip="The model with the guidance on it. With a neutral strength, or a family without a published setting: the model as it came.",
                )
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, model: Model, preset: str, filter: str, strength: float, interval_in: str, start_at: float, end_at: float, schedule: str, decay: float
    ) -> io.NodeOutput:
        settings, notes = settings_of(model_family(model), preset, filter, strength, interval_in, start_at, end_at, schedule, decay)
        if settings is None:
            return unchanged(cls.hidden.unique_id, "; ".join(notes), model)
        say(cls.hidden.unique_id, "\n".join(notes))
        return io.NodeOutput(guided(model, settings, cls.hidden.unique_id))


class AdaptiveLowPassGuider(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CILAdaptiveLowPassGuider",
            display_name="Adaptive Low-Pass Guider (CIL)",
            category="image-to-video motion",
            description="ALG as published, as a guider for SamplerCustomAdvanced: like CFGGuider, but at the first steps the guidance is taken with the image without fine detail, its base with the sharp image. Needs CFG above 1.",
            inputs=[
                io.Model.Input("model", tooltip="The image-to-video model."),
                io.Conditioning.Input("positive", tooltip="The positive conditioning, with the image in it."),
                io.Conditioning.Input("negative", tooltip="The negative conditioning, with the image in it."),
                io.Float.Input(
                    "cfg",
                    default=5.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="The guidance scale. 1: no guidance, and then this node changes nothing. The authors use 5 for Wan, 6 for CogVideoX. Higher: closer to the text, and the filtered image counts for more.",
                ),
                *widgets(),
            ],
            outputs=[io.Guider.Output(display_name="guider", tooltip="For SamplerCustomAdvanced.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: Model,
        positive: Conditioning,
        negative: Conditioning,
        cfg: float,
        preset: str,
        filter: str,
        strength: float,
        interval_in: str,
        start_at: float,
        end_at: float,
        schedule: str,
        decay: float,
    ) -> io.NodeOutput:
        family = model_family(model)
        settings, notes = settings_of(family, preset, filter, strength, interval_in, start_at, end_at, schedule, decay)
        if settings is not None and math.isclose(cfg, 1.0):
            notes.append(CFG1)
        if settings is not None and not sources(family, positive):
            notes.append(f"this pack finds no image to filter in this conditioning of {family.key}")
        say(cls.hidden.unique_id, "\n".join(notes))
        guider = comfy.samplers.CFGGuider(model if settings is None else guided(model, settings, cls.hidden.unique_id))
        guider.set_conds(positive, negative)
        guider.set_cfg(cfg)
        return io.NodeOutput(guider)


NODES = [AdaptiveLowPass, AdaptiveLowPassGuider]
