"""CILMotionSlider: less or more attention to the reference frame (DyMoS, arXiv 2605.19398)."""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import comfy.ldm.modules.attention as host_attention
import comfy.patcher_extension
import torch
from comfy_api.latest import io

from ..cil import attention_bias
from .families import Family
from .host import tokens
from .host.calls import STEPS, TIME, elapsed, marked, step_of
from .host.models import cloned, model_family
from .host.notes import say, unchanged
from .host.types import BaseModel, Executor, Guider, Model, NodeIdLike

WRAPPER = "cil_motion_slider"
RUN, ACTIVE, CALL = "cil_motion_slider_run", "cil_motion_slider_active", "cil_motion_slider"  # keys of transformer_options
OVERRIDE = "optimized_attention_override"  # the host's hook
NO_ROW = ("attention_flash", "attention_xformers")  # take a bias only by failing over, or by building queries x keys of it
FALLBACK = "the attention in use takes no bias: PyTorch's own does those calls"


@dataclass(frozen=True)
class Call:
    """What `biased` does in one call of the network. inner: another pack's override, or None. fallback: leave the chosen attention out."""

    keys: attention_bias.Keys
    gamma: float
    inner: object
    fallback: bool
    run: SimpleNamespace


def biased(func: Callable, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, *args, **kwargs) -> torch.Tensor:
    """The host's attention override: self-attentions over the whole video get the bias in their conditional rows."""
    options = kwargs["transformer_options"]
    call = options[CALL]
    conditionings = options.get("cond_or_uncond", [0])
    if _tokens(k, kwargs) != call.keys.total or k.shape[0] % len(conditionings) or 0 not in conditionings:
        return _chain(call, func)(q, k, v, heads, *args, **kwargs)
    call.run.acted = True
    mask, *more = args or [kwargs.pop("mask", None)]
    if 1 not in conditionings:
        return _attend(call, func, True, q, k, v, heads, mask, more, kwargs)
    parts = [t.chunk(len(conditionings)) for t in (q, k, v)]  # of each conditioning its own rows
    masks = mask.chunk(len(conditionings)) if mask is not None and mask.ndim > 2 and mask.shape[0] == k.shape[0] else [mask] * len(conditionings)
    rows = zip(conditionings, *parts, masks)
    return torch.cat([_attend(call, func, which == 0, q, k, v, heads, m, more, kwargs) for which, q, k, v, m in rows])


def _tokens(k, kwargs):
    return k.shape[2] if kwargs.get("skip_reshape") else k.shape[1]


def _chain(call, func):
    return func if call.inner is None else lambda *args, **kwargs: call.inner(func, *args, **kwargs)


def _attend(call, func, with_bias, q, k, v, heads, mask, args, kwargs):
    attend = _chain(call, func)
    if with_bias:
        mask = attention_bias.with_mask(call.keys.bias(call.gamma, q), mask)
        attend = host_attention.attention_pytorch if call.fallback else attend
    return attend(q, k, v, heads, mask, *args, **kwargs)


def takes_bias(inner: Callable | None, dtype: torch.dtype, device: torch.device | str) -> bool:
    """Whether the chosen attention, through another pack's override, heeds a bias of one row: tried on eight keys in 64.

    All logits equal and log 8 more on eight keys: they get 64 / 120 of the weight; unheeded, an eighth.
    """
    if inner is None and host_attention.optimized_attention.__name__ in NO_ROW:
        return False
    q, v = torch.zeros(1, 64, 128, dtype=dtype, device=device), torch.zeros(1, 64, 128, dtype=dtype, device=device)
    v[:, :8] = 1
    row = attention_bias.Keys(0, 8, 64).bias(-2.0794415, q)
    options = {} if inner is None else {OVERRIDE: inner}
    try:
        out = host_attention.optimized_attention(q, q, v, 2, mask=row, transformer_options=options)
    except Exception:  # an attention of another pack may raise anything at what it cannot do
        return False
    return bool((out.float() - 64 / 120).abs().max() < 0.03)


class MotionSlider:
    """The wrappers of one MODEL. It keeps nothing between calls: what a run needs travels in its transformer_options."""

    def __init__(self, family: Family, gamma: float, share: float, share_of: str, node_id: NodeIdLike):
        self.family, self.gamma = family, gamma
        self.share, self.share_of, self.node_id = share, share_of, node_id

    def sample(self, executor: Executor, guider: Guider, sigmas: torch.Tensor, extra_args: dict, *args, **kwargs) -> torch.Tensor:
        """SAMPLER_SAMPLE: afterwards it says what was done."""
        run = new_run()
        out = executor(guider, sigmas, {**extra_args, "model_options": marked(extra_args["model_options"], **{RUN: run})}, *args, **kwargs)
        say(self.node_id, self.told(run, len(sigmas) - 1))
        return out

    def told(self, run: SimpleNamespace, steps: int) -> str:
        if not run.acted:
            return f"nothing changed in {steps} steps: {run.reason or 'none of them lay in the first share, or the network has no such attention'}"
        return "\n".join(filter(None, [f"attention to the first frame {-self.gamma:+g} at {len(run.levels)} noise levels of a run of {steps} steps", run.note]))

    def predict(self, executor: Executor, model: BaseModel, conds: list, x: torch.Tensor, timestep: torch.Tensor, model_options: dict) -> list:
        """CALC_COND_BATCH: marks the calls at the first noise levels, where the host's row 0 is the conditional one."""
        options, sigma = model_options.get("transformer_options", {}), float(timestep.flatten()[0])
        run = options.get(RUN) or new_run()
        if len(conds) > 2:
            run.reason = "this guider asks for three conditionings, and which is the conditional one cannot be told"
        elif self.active(model, sigma, options):
            run.levels.add(sigma)
            model_options = marked(model_options, **{ACTIVE: True, RUN: run})
        return executor(model, conds, x, timestep, model_options)

    def active(self, model: BaseModel, sigma: float, options: dict) -> bool:
        window = options.get("context_window")
        if window is not None and 0 not in window.index_list[:1]:
            return False  # this part of the video does not begin with the first frame
        step = step_of(options, sigma)
        if self.share_of == STEPS and step is not None:
            return attention_bias.in_first_share(*step, self.share)
        return elapsed(model, sigma) < self.share - 1e-5

    def apply(
        self,
        executor: Executor,
        x: torch.Tensor,
        t: torch.Tensor,
        c_concat: torch.Tensor | None = None,
        c_crossattn: torch.Tensor | None = None,
        control: dict | None = None,
        transformer_options: dict = {},
        **kwargs,
    ) -> torch.Tensor:
        """APPLY_MODEL: puts the bias before the attention of this one call."""
        if transformer_options.get(ACTIVE):
            base, run, inner = executor.class_obj, transformer_options[RUN], transformer_options.get(OVERRIDE)
            try:
                keys = tokens.first_frame(self.family, base, x, {**kwargs, "c_crossattn": c_crossattn})
            except ValueError as reason:
                run.reason = str(reason)
            else:
                if run.fallback is None:
                    run.fallback = not takes_bias(inner, base.get_dtype() if base.manual_cast_dtype is None else base.manual_cast_dtype, x.device)
                    run.note = FALLBACK if run.fallback else None
                call = Call(keys, self.gamma, inner, run.fallback, run)
                transformer_options = {**transformer_options, OVERRIDE: biased, CALL: call}
        return executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)


def new_run() -> SimpleNamespace:
    """What one run has seen: an object, since the host copies dicts on their way."""
    return SimpleNamespace(levels=set(), acted=False, fallback=None, note=None, reason=None)


class MotionSliderNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CILMotionSlider",
            display_name="Motion Slider (CIL)",
            category="image-to-video motion",
            description="One dial for the amount of motion (DyMoS): how much the frames of the video attend to its first frame, at the first steps. Above 0 more motion, below 0 less, 0 changes nothing. No extra evaluations; works at CFG 1 and with few-step LoRAs. No training.",
            inputs=[
                io.Model.Input("model", tooltip="The image-to-video model: Wan, HunyuanVideo, LTXV, CogVideoX, Cosmos. SVD and DynamiCrafter have no attention over all frames and are left alone."),
                io.Float.Input("gamma", default=attention_bias.PUBLISHED_GAMMA, min=-10.0, max=10.0, step=0.05, tooltip="What is taken off every attention logit to the first latent frame. 0 changes nothing, to the bit. 0.6: the authors' setting for Wan 2.2. Higher: more motion, less likeness to the image. Below 0: calmer."),
                io.Float.Input("share", default=attention_bias.PUBLISHED_SHARE, min=0.0, max=1.0, step=0.01, tooltip="How much of the run it acts in, from the beginning. 0.2: the authors' first 8 of 40 steps. 0 changes nothing. Higher: stronger, and detail suffers."),
                io.Combo.Input("share_of", options=[TIME, STEPS], default=TIME, tooltip="noise level: until the noise has fallen by this fraction of T; the same in a run that is cut into two stages. steps: the first steps of each run. With the scheduler 'simple' in one run both are the same."),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The model with the slider on it; with gamma or share 0, or a family that it cannot act on: the model as it came.")],
            hidden=[io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def execute(cls, model: Model, gamma: float, share: float, share_of: str) -> io.NodeOutput:
        if not 0 <= share <= 1:
            raise ValueError(f"share is a part of the run between 0 and 1, but {share:g} was given")
        family = model_family(model)
        if gamma == 0 or share == 0 or family.key not in tokens.ORDERS:
            why = "the setting is neutral" if gamma == 0 or share == 0 else tokens.why_not(family)
            return unchanged(cls.hidden.unique_id, why, model)
        out, slider, kinds = cloned(model), MotionSlider(family, gamma, share, share_of, cls.hidden.unique_id), comfy.patcher_extension.WrappersMP
        for kind, wrapper in {kinds.SAMPLER_SAMPLE: slider.sample, kinds.CALC_COND_BATCH: slider.predict, kinds.APPLY_MODEL: slider.apply}.items():
            out.remove_wrappers_with_key(kind, WRAPPER)  # of two sliders the last one counts
            out.add_wrapper_with_key(kind, WRAPPER, wrapper)
        say(
            cls.hidden.unique_id,
            f"{family.key}: attention to the first frame {-gamma:+g} in the first {share:g} of the {'steps' if share_of == STEPS else 'noise levels'}",
        )
        return io.NodeOutput(out)


NODES = [MotionSliderNode]
