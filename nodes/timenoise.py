"""TimeNoiseCondition: noise on the conditional image while sampling (Sec. 3.2, Eq. 6)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from comfy_api.latest import io

from ..cil.randomness import generator_for
from ..cil.timenoise import TimeNoise, add_noise, mix_noise
from .condition import ConditionChange, ConditionPatcher, patched, sources
from .families import Family
from .host.models import model_family
from .host.notes import say, unchanged
from .host.sampling import Sampling
from .host.types import Conditioning, Model

WRAPPER = "cil_time_noise"
CLEAN, FIXED, DRAWN, MEDIAN, CONSTANT, MIX = "clean", "fixed", "time-dependent", "time-dependent (median)", "constant rule", "mix"
MODES = [CLEAN, FIXED, DRAWN, MEDIAN, CONSTANT, MIX]
AS_SET, GENTLE, PAPER = "as set", "gentle", "paper (fine-tuned model)"
LTX, COGVIDEOX, H3 = "LTX: 0.15 t^2 (vendor)", "CogVideoX: 0.05 (experimental)", "MiniMax H3: mix 0.001 (vendor)"
FIXED_MIX = "fixed mix"  # of a preset alone: one level and one noise, mixed in
FRACTION, SHARE = "fraction of T", "sigma / largest sigma (authors' SVD)"
GENTLE_SHARE = 0.1  # of the standard deviation of the image's latents; a cautious guess, not measured


def noise_share(sampling: Sampling, sigma: float) -> float:
    """Noise over noise and signal: a flow's own time, and the like of it for other processes."""
    signal, noise = sampling.process.signal(sigma), sampling.process.noise(sigma)
    return min(noise / (signal + noise), 1.0)


@dataclass(frozen=True)
class Published:
    """A level that somebody has put in print. mode, noise, time_of: how it is made here. source: who, and what differs here."""

    mode: str
    noise: TimeNoise
    time_of: Callable
    source: str


PUBLISHED = {
    LTX: Published(
        CONSTANT, TimeNoise(0.15, 2.0), noise_share, "vendor: LTX-Video's own condition pipeline, new noise of 0.15 t^2 at every step, t its flow's time"
    ),
    COGVIDEOX: Published(
        FIXED,
        TimeNoise(math.exp(-3)),
        Sampling.fraction,
        "experimental: CogVideoX was trained with noise of exp(N(-3, 0.5)) on the picture; this is its median, 0.05, and lies on the latents",
    ),
    H3: Published(FIXED_MIX, TimeNoise(0.001), Sampling.fraction, "vendor: MiniMax H3's own, 0.999 of the picture and 0.001 of noise for the whole run"),
}


class Noised:
    """The noise of one run: at(sigma, time) -> the ConditionChange of ConditionPatcher.

    The level and the noise depend on the seed and the noise level alone, so that every call
    of one step sees the same, batched or not. A fixed level is one noise for the whole run,
    as if the image had been noised once.
    """

    def __init__(self, mode: str, noise: TimeNoise, seed: int, tokens: bool, tell: bool):
        self.mode, self.noise, self.seed = mode, noise, seed
        self.tokens, self.tell = tokens, tell

    def at(self, sigma: float, time: float) -> ConditionChange:
        level = self.level(sigma, time)
        mixed = mix_noise if self.mode in (MIX, FIXED_MIX) else add_noise

        def change(purpose, y, shared):
            return mixed(y, level, self.eps(purpose, y, shared, sigma))

        tokens, told = partial(change, "tokens") if self.tokens else None, level if self.tell else None
        return ConditionChange(partial(change, "image"), tokens, told, mixed=mixed is mix_noise)

    def level(self, sigma: float, time: float) -> float:
        """beta_s at one step."""
        if self.mode in (FIXED, FIXED_MIX):
            return self.noise.beta_m
        if self.mode == MEDIAN:
            return self.noise.median(time)
        if self.mode == CONSTANT:
            return self.noise.constant(time)
        return float(self.noise.sample(torch.tensor([time]), generator_for(self.seed, "level", sigma)))

    def eps(self, purpose: str, y: torch.Tensor, shared: tuple, sigma: float) -> torch.Tensor:
        """Unit noise like y, one for all along the dimensions `shared`; latents ("image") and "tokens" are drawn independently."""
        shape = list(y.shape)
        for dim in shared:
            shape[dim] = 1
        key = (self.seed, purpose) if self.mode in (FIXED, FIXED_MIX) else (self.seed, purpose, sigma)
        return torch.randn(shape, generator=generator_for(*key)).to(y)  # broadcasts over y


def share_of_largest(sampling: Sampling, sigma: float) -> float:
    """SVD's time in the paper and in the authors' training, sigma / 700."""
    return min(sigma / sampling.sigma_max, 1.0)


def settings(family: Family, mode: str, preset: str, level: float, a: float) -> TimeNoise | None:
    """-> TimeNoise of the widgets, or None where nothing is to be done. Raises ValueError."""
    if preset == GENTLE:
        level = GENTLE_SHARE * (1.0 if mode == MIX else family.image.std)
    elif preset == PAPER and mode == MIX:
        level = 1.0  # Eq. 20
    elif preset == PAPER:
        if family.beta_m is None:
            raise ValueError(f"the paper has no TimeNoise setting for {family.key}: choose '{GENTLE}', or '{AS_SET}' and a level")
        level = family.beta_m
    if mode == MIX and level > 1:
        raise ValueError(f"mode 'mix' takes the share (1 - level) of the image (Eq. 20), so its level is at most 1, but {level:g} was given")
    if mode == CLEAN or level == 0:
        return None
    return TimeNoise(level, a)


class TimeNoiseCondition(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TimeNoiseCondition",
            display_name="TimeNoise Condition (CIL)",
            category="image-to-video motion",
            description="Adds noise to the image that the model is given, and only to that, so that it cannot simply copy it. For models fine-tuned with TimeNoise, and in small doses for others. The video itself is not noised.",
            inputs=[
                io.Model.Input("model", tooltip="The image-to-video model."),
                io.Conditioning.Input("positive", tooltip="Conditioning with the image in it; it is passed on as it came."),
                io.Conditioning.Input(
                    "negative",
                    tooltip="Negative conditioning; it is passed on as it came. Where it holds the image too, it gets the same noise; where it holds none, none.",
                ),
                io.Combo.Input(
                    "mode",
                    options=MODES,
                    default=CLEAN,
                    tooltip="clean: nothing happens, to the bit (the paper's choice for a fine-tuned model). fixed: one level and one noise for the whole run. time-dependent: a new level at every step, drawn from the paper's distribution, high early and low late. (median): its middle, without chance. constant rule: level x t^a. mix: (1 - level) image + level noise with drawn levels; discolours SVD.",
                ),
                io.Combo.Input(
                    "preset",
                    options=[AS_SET, GENTLE, PAPER, *PUBLISHED],
                    default=GENTLE,
                    tooltip="gentle (experimental): a tenth of the spread of this model's image latents, for models that were not fine-tuned. paper: the paper's beta_m, for a model fine-tuned with it. LTX (vendor): LTX-Video's own noise at inference. CogVideoX (experimental): the middle of the level it was trained with, on the latents. MiniMax H3 (vendor): its own. These three bring mode and level along; mode clean still does nothing. as set: mode and level below.",
                ),
                io.Float.Input(
                    "level",
                    default=0.1,
                    min=0.0,
                    max=1000.0,
                    step=0.01,
                    tooltip="Noise on the image, as a standard deviation in the units of the latents that carry it: SVD's spread by about 5, all others' by about 1. 0 changes nothing. fixed: the level itself; other modes: the largest level, beta_m. Higher: more motion, less likeness to the image. Only with preset 'as set'.",
                ),
                io.Float.Input(
                    "a",
                    default=5.0,
                    min=0.01,
                    max=100.0,
                    step=0.01,
                    tooltip="How late the level rises with time, in the time-dependent modes; 5 in the paper. Smaller: more noise at middle steps too. Not used by mode fixed.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Seed of the noise and of the drawn levels. The same seed gives the same noise at the same noise levels.",
                ),
                io.Boolean.Input(
                    "image_tokens",
                    default=False,
                    tooltip="On: noise on the image tokens too (CLIP vision), where the model has them; they get the same level and a noise of their own. Where the network makes tokens of its own of them first (DynamiCrafter, VideoCrafter1, Wan 2.1, HunyuanVideo 1.5), on those, as the authors have it. Off: the image latents alone.",
                ),
                io.Boolean.Input(
                    "tell_model",
                    default=True,
                    tooltip="On: a model that can be told how noisy its image is (SVD's augmentation level) is told. MiniMax H3, which mixes noise into its image by itself, is told the level of mode mix and mixes it. Off: what the conditioning says stays.",
                ),
                io.Combo.Input(
                    "time",
                    options=[FRACTION, SHARE],
                    default=FRACTION,
                    optional=True,
                    tooltip="What the time-dependent modes take for the time t. fraction of T: how far a step lies up the model's schedule, for SVD in ln sigma; the levels then rise over the whole run. sigma / largest sigma: for SVD tuned by the authors' code, which takes sigma / 700, so that t is near 0 in all but the first steps and the levels stay low (at sigma 100 and level 100 a median of 27 instead of 47).",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model that sees the noised image. With mode clean or level 0: the model as it came."),
                io.Conditioning.Output(display_name="positive", tooltip="The positive conditioning, unchanged: the noise is added inside the model call."),
                io.Conditioning.Output(display_name="negative", tooltip="The negative conditioning, unchanged."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: Model,
        positive: Conditioning,
        negative: Conditioning,
        mode: str,
        preset: str,
        level: float,
        a: float,
        seed: int,
        image_tokens: bool,
        tell_model: bool,
        time: str = FRACTION,
    ) -> io.NodeOutput:
        family = model_family(model)
        time_of, published = share_of_largest if time == SHARE else Sampling.fraction, PUBLISHED.get(preset)
        if published is None:
            noise = settings(family, mode, preset, level, a)
        else:
            noise = None if mode == CLEAN else published.noise
            mode, time_of = (mode if noise is None else published.mode), published.time_of
        if noise is None:
            why = "the mode is clean" if mode == CLEAN else "the level is 0"
            return unchanged(cls.hidden.unique_id, why + (", and the preset does nothing" if published else ""), model, positive, negative)
        text = [described(family, positive, mode, noise, image_tokens, tell_model), evidence(preset)]
        if time == SHARE and (published or mode == FIXED):
            text.append("time does nothing: the preset has its own" if published else "time does nothing: the level is fixed")
        say(cls.hidden.unique_id, "\n".join(filter(None, text)))
        run = Noised(mode, noise, seed, image_tokens, tell_model)
        return io.NodeOutput(patched(model, WRAPPER, ConditionPatcher(family, run.at, time_of)), positive, negative)


def evidence(preset: str) -> str:
    """Where a preset's level comes from: one word first."""
    if preset in PUBLISHED:
        return PUBLISHED[preset].source
    return {GENTLE: "experimental: a cautious guess, not measured", PAPER: "paper: for a model fine-tuned with it"}.get(preset, "")


def described(family: Family, positive: Conditioning, mode: str, noise: TimeNoise, image_tokens: bool, tell_model: bool) -> str:
    """What the node does here, and what it cannot do, in words."""
    found = sources(family, positive)
    if not found and not (image_tokens and family.image.tokens):
        why = "this pack does not know where it takes its image" if family.key == "unknown" else "this conditioning holds no image that can be noised"
        return f"nothing to do for {family.key}: {why}"
    lines = [f"{family.key}, {mode}: level {noise.beta_m:g} on {' and '.join(found) or 'the image tokens'}"]
    if image_tokens and not family.image.tokens:
        lines.append("image_tokens does nothing: this model has none")
    if tell_model and not family.image.can_be_told:
        lines.append("tell_model does nothing: this model has no input for the level")
    elif tell_model and family.image.mixes and mode in (MIX, FIXED_MIX):
        lines.append("the model mixes the noise in by itself, being told the level; its noise is drawn from the sampler's seed")
    elif tell_model and family.image.mixes:
        lines.append(f"tell_model does nothing: this model knows mixed noise only, of mode '{MIX}' or the preset '{H3}'")
    return "\n".join(lines)


NODES = [TimeNoiseCondition]
