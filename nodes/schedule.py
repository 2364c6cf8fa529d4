"""TruncatedSigmaSchedule: the steps of a run that starts earlier."""

import torch
from comfy_api.latest import io

from ..cil import schedules
from .host.models import model_family
from .host.notes import say
from .host.sampling import Sampling
from .host.schedule import ANEW, BY_SIGNAL, CUT, START_AS, check_meant, scheduler_names, start_sigma
from .host.types import Model

LAYOUTS = [ANEW, CUT]

START_TOOLTIPS = {
    "start_as": "What `start` means. family preset: the default for this model (the paper's: sigma 100 for SVD, 0.96 of T for DynamiCrafter and VideoCrafter1; the ordinary start for models without evidence). fraction: M / T, 1 = the ordinary start. sigma: the noise level itself, another quantity in each family. paper's signal to noise (experimental): where this model's latents are as deep in noise as SVD's at the paper's sigma 100; nobody has measured whether that is the right start for it. from the dial or probe: a sigma that is wired in, start_sigma of Motion Dial or Leakage Probe.",
    "start": "Where sampling starts; not used with 'family preset' and 'signal to noise'. As a fraction: 1.0 changes nothing, 0.96 is the paper's setting for DynamiCrafter and VideoCrafter1. As a sigma: 100 is the paper's setting for SVD (its maximum, 700, changes nothing); exactly 1 is refused there, since it is the fraction's neutral value. Lower gives more motion and, too low, breaks the picture.",
}


def start_inputs() -> list[io.Input]:
    """The two widgets by which every node of the pack sets a start."""
    return [
        io.Combo.Input("start_as", options=START_AS, default=START_AS[0], tooltip=START_TOOLTIPS["start_as"]),
        io.Float.Input("start", default=1.0, min=0.0, max=20000.0, step=0.001, tooltip=START_TOOLTIPS["start"]),
    ]


def start_note(start_as: str, start: float) -> str:
    """A note where `start` was set but cannot act."""
    if start_as in (START_AS[0], BY_SIGNAL) and start != 1:
        return f"start {start:g} is not used with '{start_as}': choose fraction or sigma in start_as"
    return ""


class TruncatedSigmaSchedule(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TruncatedSigmaSchedule",
            display_name="Truncated Sigma Schedule (CIL)",
            category="image-to-video motion",
            description="Sigmas that start at M < T, so that the model is not asked for motion where it only copies its image. Feed them to SamplerCustom or SamplerCustomAdvanced.",
            inputs=[
                io.Model.Input("model", tooltip="The model that will be sampled: its noise levels are used."),
                io.Combo.Input(
                    "scheduler",
                    options=scheduler_names(),
                    default="karras",
                    tooltip="Any scheduler of the host. 'trailing (paper)' is the authors' spacing of DDIM timesteps, for models with discrete timesteps. SVD: karras, as in the paper.",
                ),
                io.Int.Input("steps", default=25, min=1, max=10000, tooltip="Number of steps. The paper takes 25 for SVD and 50 for DynamiCrafter."),
                *start_inputs(),
                io.Combo.Input(
                    "layout",
                    options=LAYOUTS,
                    default=LAYOUTS[0],
                    tooltip="all steps below the start: the paper's way, every step is spent between M and 0. cut the full schedule: what remains of the ordinary schedule, fewer steps at the same density, so faster.",
                ),
            ],
            outputs=[
                io.Sigmas.Output(
                    display_name="sigmas", tooltip="Falling noise levels, the first exactly the start; with the ordinary start the scheduler's own, untouched."
                ),
                io.Float.Output(display_name="start_sigma", tooltip="The start as a sigma."),
                io.Float.Output(display_name="start_fraction", tooltip="The start as M / T, 1 = the ordinary start."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model: Model, scheduler: str, steps: int, start_as: str, start: float, layout: str) -> io.NodeOutput:
        if steps < 1:
            raise ValueError(f"steps must be at least 1, but {steps} was given")
        sampling, family = Sampling.of(model), model_family(model)
        check_meant(sampling, start_as, start)
        sigma = start_sigma(sampling, family, start_as, start)
        sigmas = truncated_sigmas(sampling, scheduler, steps, sigma, layout)
        schedules.check(sigmas)
        fraction = sampling.fraction(sigma)
        why = f" ({family.key}: {family.evidence})" if start_as == START_AS[0] else ""
        uncut = layout == LAYOUTS[1] and sigma >= sampling.sigma_max
        notes = [
            f"{len(sigmas) - 1} steps from sigma {sigma:g}, {fraction:.3f} of T{why}",
            start_note(start_as, start),
            f"'{layout}' has nothing to cut at the ordinary start" if uncut else "",
        ]
        say(cls.hidden.unique_id, "\n".join(filter(None, notes)))
        return io.NodeOutput(sigmas, sigma, fraction)


def truncated_sigmas(sampling: Sampling, scheduler: str, steps: int, start: float, layout: str) -> torch.Tensor:
    """The sigmas of TruncatedSigmaSchedule: [steps + 1] or fewer, on the CPU.

    From the ordinary start they are the scheduler's own, to the bit.
    """
    full = start >= sampling.sigma_max
    sigmas = sampling.schedule(scheduler, steps, sampling.sigma_max if layout == LAYOUTS[1] else start)
    if full and torch.isfinite(sigmas).all():
        return sigmas
    return schedules.from_start(sigmas, start)  # also mends the first of kl_optimal's one step, 0 / 0


NODES = [TruncatedSigmaSchedule]
