"""What the Motion Dial can turn: each lever is an ordinary node of this pack with one of its settings open.

A lever's setting is applied by that node's own `execute`, so the patched MODEL is the one that the
node gives in a graph, to the bit.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from ..cil import dial, levels
from . import motion_bucket
from .alg import AS_SET, AdaptiveLowPass
from .early_start import CILEarlyStart
from .families import Family
from .host import tokens
from .host.calls import TIME
from .host.models import model_family
from .host.sampling import Sampling
from .host.types import Conditioning, Model
from .motion_gain import CILMotionGain
from .motion_gain_run import OWN, SIGNAL_TO_NOISE
from .motion_slider import MotionSliderNode
from .timenoise import AS_SET as LEVEL_AS_SET
from .timenoise import FRACTION, MEDIAN, TimeNoiseCondition

GAIN, START, SLIDER, LOW_PASS = "motion gain", "early start", "motion slider", "adaptive low-pass guidance"
TIMENOISE, BUCKET = "timenoise", "motion bucket"
BEST = "the best for this family"
DEEPEST = 1.0  # signal over noise: no start lies below this level
MOST = 255  # the largest motion bucket of SVD's training

# The widgets of each node beside the one that is turned; as their nodes come, unless a run in stages asks for another.
GAIN_WIDGETS = {"end_as": SIGNAL_TO_NOISE, "end": 3.2, "shape": "constant", "reference": OWN, "protect": "nothing", "curve_strength": 1.0}
SLIDER_WIDGETS = {"share": 0.2, "share_of": TIME}
LOW_PASS_WIDGETS = {
    "preset": AS_SET, "filter": "down and up", "interval_in": TIME, "start_at": 0.0, "end_at": 0.2, "schedule": "constant", "decay": 10.0,
}  # fmt: skip
TIMENOISE_WIDGETS = {"mode": MEDIAN, "preset": LEVEL_AS_SET, "a": 5.0, "seed": 0, "image_tokens": False, "tell_model": True, "time": FRACTION}
NOISIEST = 2.0  # standard deviations of the latents that carry the image


@dataclass(frozen=True)
class Turned:
    """An ordinary node as it would stand in the graph. node: its id; widgets: {input: value}; stages: on which of the MODELs it goes."""

    node: str
    widgets: dict
    stages: tuple[int, ...]


@dataclass(frozen=True)
class Lever:
    """search: the range of its settings. turned(setting): the node that makes it so. refusal: why it cannot act here, or ''."""

    name: str
    search: dial.Lever
    turned: Callable[[float], Turned]
    refusal: str = ""

    def models(self, models: list, setting: float) -> list:
        """The MODELs of all stages with the lever at a setting; the very same ones where it is neutral."""
        if setting == self.search.neutral:
            return list(models)
        turned = self.turned(setting)
        return [applied(turned, model) if i in turned.stages else model for i, model in enumerate(models)]

    def fixed(self) -> dict:
        """The widgets that are not turned: {input: value}."""
        if self.name == START:
            return {"analytic_init": True}
        _, *others = self.turned(self.search.high).widgets.items()  # the first is the one that is turned, see `told`
        return dict(others)

    def told(self, setting: float) -> str:
        """A setting in the words of its node."""
        turned = self.turned(setting)
        name, value = next(iter(turned.widgets.items())) if self.name != START else ("start", turned.widgets["start"])
        return "plain" if setting == self.search.neutral else f"{name} {value:g}" if self.name != START else f"start sigma {value:g}"


NODES = {
    node.define_schema().node_id: node
    for node in (CILMotionGain, motion_bucket.CILMotionBucket, CILEarlyStart, MotionSliderNode, AdaptiveLowPass, TimeNoiseCondition)
}
PASSED_ON: dict = {"TimeNoiseCondition": {"positive": [], "negative": []}}  # what a node takes besides and hands on as it came


def applied(turned: Turned, model: Model) -> Model:
    """A MODEL through an ordinary node."""
    return NODES[turned.node].PREPARE_CLASS_CLONE(None).execute(model, **PASSED_ON.get(turned.node, {}), **turned.widgets).args[0]


def levers_of(name: str, models: list, positive: Conditioning, cfg: float) -> list[Lever]:
    """The lever of that name; for BEST those of this family in turn, each for what the one before does not reach."""
    names = in_turn(model_family(models[0])) if name == BEST else [name]
    return [lever_of(name, models, positive, cfg) for name in names]


def lever_of(name: str, models: list, positive: Conditioning, cfg: float) -> Lever:
    """The lever by its name, which is not BEST. Raises ValueError where it cannot act on this model."""
    lever = MADE[name](models, model_family(models[0]), positive)
    refusal = lever.refusal or ("at CFG 1 there is no guidance that it could act in" if name == LOW_PASS and math.isclose(cfg, 1.0) else "")
    if refusal:
        raise ValueError(f"the lever '{name}' cannot act here: {refusal}. Choose '{BEST}' or another")
    return lever


def in_turn(family: Family) -> list[str]:
    """The model's own motion bucket where it is told one; then Motion Gain, the best of what was measured here (bench.rivals, bench.dial)."""
    return [BUCKET, GAIN] if family.bucket else [GAIN]


def _gain(models, family, positive):
    turned = lambda setting: Turned("CILMotionGain", {"gain": setting, **GAIN_WIDGETS}, tuple(range(len(models))))
    return Lever(GAIN, dial.Lever(1.0, 0.0, 5.0, 0.5, 2), turned)


def _bucket(models, family, positive):
    own = motion_bucket.told(models[0], positive)
    turned = lambda setting: Turned("CILMotionBucket", {motion_bucket.TOLD: round(setting)}, tuple(range(len(models))))
    refusal = "" if family.bucket else motion_bucket.REFUSED
    return Lever(BUCKET, dial.Lever(own, min(own, 1), max(own, MOST), 48, 0), turned, refusal)


def _slider(models, family, positive):
    turned = lambda setting: Turned("CILMotionSlider", {"gamma": setting, **SLIDER_WIDGETS}, tuple(range(len(models))))
    return Lever(SLIDER, dial.Lever(0.0, -4.0, 4.0, 0.6, 2), turned, "" if family.key in tokens.ORDERS else tokens.why_not(family))


def _low_pass(models, family, positive):
    turned = lambda setting: Turned("CILAdaptiveLowPass", {"strength": setting, **LOW_PASS_WIDGETS}, tuple(range(len(models))))
    return Lever(LOW_PASS, dial.Lever(1.0, 1.0, 12.0, 1.5, 1), turned)


def _start(models, family, positive):
    """Settings are depths, ln of the signal-to-noise ratio over that of the ordinary start: even in what a start costs."""
    sampling = Sampling.of(models[0])
    process = sampling.process
    ratio = lambda sigma: max(levels.signal_to_noise(process, sigma), levels.PURE_NOISE)
    top = ratio(sampling.sigma_max)
    sigma = lambda depth: levels.sigma_at(process, top * math.exp(depth), sampling.sigma_min, sampling.sigma_max)
    stages = (0,) if family.experts else tuple(range(len(models)))

    def turned(depth):
        start = max(round(sigma(depth), 3), 0.001)
        start = 1.001 if start == 1 and sampling.sigma_max > 1 else start  # 1 is the widget's neutral value
        return Turned("CILEarlyStart", {"start_as": "sigma", "start": start, "analytic_init": True}, stages)

    refusal = "" if sampling.starts_from_noise else "this model samples from a picture, not from noise"
    return Lever(START, dial.Lever(0.0, 0.0, round(math.log(DEEPEST / top), 2), 2.0, 2), turned, refusal)


def _timenoise(models, family, positive):
    turned = lambda setting: Turned("TimeNoiseCondition", {"level": setting, **TIMENOISE_WIDGETS}, tuple(range(len(models))))
    unit = family.image.std
    refusal = "this pack does not know where this model takes its image" if family.key == "unknown" else ""
    return Lever(TIMENOISE, dial.Lever(0.0, 0.0, round(NOISIEST * unit, 2), round(0.2 * unit, 2), 2), turned, refusal)


MADE = {GAIN: _gain, BUCKET: _bucket, START: _start, SLIDER: _slider, LOW_PASS: _low_pass, TIMENOISE: _timenoise}
LEVERS = [BEST, *MADE]
