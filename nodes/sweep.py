"""CILStartSweep: one picture, many starts. Fig. 3 and Tables 8 and 9 of the paper for one's own image."""

import json
import math
from collections.abc import Callable, Iterable
from typing import Any

import comfy.model_management
import comfy.patcher_extension
import comfy.utils
import torch
from comfy_api.latest import io, ui

from ..cil import consistency, motion
from ..cil.moments import Moments
from . import pictures, plots
from .analytic_init import AnalyticNoise, starts
from .early_start import WRAPPER
from .host.inputs import described
from .host.latents import like_parts, parts_of, sized_for
from .host.models import model_family
from .host.notes import say
from .host.sampling import Sampling
from .host.schedule import scheduler_names, start_sigma
from .host.types import Guider, Model, Sampler, Vae
from .moments import MomentsType, default_moments, idle_moments
from .motion import CATEGORY, flow_backend, flow_input, flow_name, network_input
from .schedule import LAYOUTS, truncated_sigmas

FRACTION, SIGMA = "fraction", "sigma"
MOST_STARTS = 100  # of one sweep
ENOUGH = 0.8  # of the most consistent motion of whole clips: the last fifth costs more than it shows
# broken: times the highest start's, and in units of the picture; between the demo models' clips that are whole and those that are not
WORSE, SLACK = 1.5, 0.003


def parse_starts(text: str) -> list[float]:
    """'1, 0.96, 0.92' or '1:0.8:5' (from, to, how many) -> numbers, at most MOST_STARTS."""
    try:
        if ":" in text:
            ends = text.split(":")
            first, last, count = float(ends[0]), float(ends[1]), int(":".join(ends[2:]))
            few = range(min(count, MOST_STARTS + 1))
            found = [first + (last - first) * i / (count - 1) for i in few] if count >= 2 else []
        else:
            found = [float(word) for word in text.replace(";", ",").split(",") if word.strip()]
    except (ValueError, IndexError):
        found = []
    if not found or not all(map(math.isfinite, found)):
        raise ValueError(f"starts are numbers with commas between them ('1, 0.96, 0.92') or from:to:count ('1:0.8:5'), but {described(text)} was given")
    if len(found) > MOST_STARTS:
        raise ValueError(f"starts: at most {MOST_STARTS} are sampled in one sweep, but {described(text)} asks for more")
    return found


class Column:
    """Means over the seeds of one start: consistent motion, likeness, flicker."""

    def __init__(self, start: float, runs: list[dict]):
        self.start, self.sigma = start, runs[0]["sigma"]
        self.motion, self.likeness, self.flicker = (sum(run[name] for run in runs) / len(runs) for name in ("consistent", "likeness", "flicker"))

    def broken(self, first: "Column") -> bool:
        """Whether its clips fall apart, held against those of the highest start."""
        worse = lambda ours, theirs: ours > WORSE * theirs + SLACK
        return worse(1 - self.likeness, 1 - first.likeness) or worse(self.flicker, first.flicker)


def judged(runs: list[dict], wanted: float = 0.0) -> tuple[float | None, float, list[float]]:
    """-> (the highest start with enough steady motion or None, how much is enough, the starts whose clips are broken).

    runs: dicts with start, sigma, consistent, likeness, flicker. wanted: consistent motion; 0 = ENOUGH of the most
    that unbroken clips show. Never the start with the highest score: broken clips score highest.
    """
    starts = dict.fromkeys(run["start"] for run in runs)
    columns = sorted((Column(s, [run for run in runs if run["start"] == s]) for s in starts), key=lambda c: -c.sigma)
    broken = [c.start for c in columns if c.broken(columns[0])]
    whole = [c for c in columns if c.start not in broken]
    enough = wanted or ENOUGH * max(c.motion for c in whole)
    return next((c.start for c in whole if c.motion >= enough), None), enough, broken


def advice(start: float | None, enough: float, broken: list[float], wanted: float) -> list[str]:
    """`judged` in words."""
    if start is None:
        first = f"no start has the {wanted:g} pixels of consistent motion that are wanted, with clips that hold together"
    else:
        first = f"start {start:g}: the highest with enough steady motion ({enough:.2f}{'' if wanted else f', {ENOUGH:.0%} of the most that whole clips show'})"
    return [first, f"broken clips (likeness lost, or flicker): start {', '.join(f'{s:g}' for s in broken)}" if broken else ""]


def check_unpatched(model: Model) -> None:
    """Raise ValueError where Early Start sits on the model: it would move the sweep's own starts."""
    if model.get_wrappers(comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, WRAPPER):
        raise ValueError("the guider's model has Early Start on it, which would move the starts of this sweep: connect the model from before Early Start")


def idle_parts(latent: dict, moments: Moments | None, analytic_init: bool) -> list[str]:
    """Notes about what is connected but cannot act."""
    given = latent.get("noise_mask") is not None or any(part.any() for part in parts_of(latent["samples"]))
    notes = ["the latent's picture and mask are not used: every run starts from noise"] if given else []
    return [*notes, idle_moments(moments, analytic_init)]


class StartSweep(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CILStartSweep",
            display_name="Start Sweep (CIL)",
            category=CATEGORY,
            description="Samples one picture from several starts and shows them side by side with their motion and likeness, so that the right start can be seen instead of guessed. Names the highest start with enough steady motion and marks broken clips. Stopped, it shows what it has.",
            inputs=[
                io.Guider.Input("guider", tooltip="From CFGGuider or another guider: the model with its conditioning."),
                io.Sampler.Input("sampler", tooltip="From KSamplerSelect."),
                io.Latent.Input("latent", tooltip="Empty latent of the size to sample."),
                io.Vae.Input("vae", tooltip="The model's VAE, to see and score the clips."),
                io.Image.Input("image", optional=True, tooltip="The conditional image, for the likeness. Unconnected: each clip's first frame."),
                MomentsType.Input("moments", optional=True, tooltip="Mean and variance of the data. Unconnected: those of the model's family."),
                io.String.Input(
                    "starts",
                    default="1, 0.96, 0.92, 0.88",
                    tooltip="The starts: numbers with commas between them, or from:to:count. As fractions 1 is the ordinary start.",
                ),
                io.Combo.Input("start_as", options=[FRACTION, SIGMA], default=FRACTION, tooltip="What the numbers mean: M / T, or noise levels."),
                io.Boolean.Input(
                    "analytic_init", default=True, tooltip="On: start from mean and variance of the data (Analytic-Init). Off: from plain noise of that level."
                ),
                io.Combo.Input("scheduler", options=scheduler_names(), default="karras", tooltip="Spacing of the steps below each start."),
                io.Int.Input("steps", default=25, min=1, max=10000, tooltip="Steps of every run."),
                io.Int.Input(
                    "seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True, tooltip="First seed; the same seed for every start."
                ),
                io.Int.Input("seeds", default=1, min=1, max=64, tooltip="How many seeds: a row each in the sheet, mean and standard deviation in the plot."),
                flow_input(),
                io.Float.Input(
                    "wanted",
                    default=0.0,
                    min=0.0,
                    max=100000.0,
                    step=0.1,
                    optional=True,
                    tooltip="How much consistent motion is enough, as Motion Score gives it: the highest start that has it is named. 0: four fifths of the most that whole clips show.",
                ),
                network_input(),
            ],
            outputs=[
                io.Image.Output(
                    display_name="sheet", tooltip="A column a start, a row a seed: frames from top to bottom, motion and likeness below. Broken columns say so."
                ),
                io.Image.Output(display_name="plot", tooltip="Consistent motion and likeness to the image against the start; broken starts are grey."),
                io.String.Output(display_name="report", tooltip="All figures as JSON."),
                io.Float.Output(
                    display_name="start",
                    tooltip="The highest start with enough steady motion, as start_as means it; where none has it, the highest start of all.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        guider: Guider,
        sampler: Sampler,
        latent: dict,
        vae: Vae,
        starts: str,
        start_as: str,
        analytic_init: bool,
        scheduler: str,
        steps: int,
        seed: int,
        seeds: int,
        flow: str,
        image: torch.Tensor | None = None,
        moments: Moments | None = None,
        wanted: float = 0.0,
        optical_flow: Any | None = None,
    ) -> io.NodeOutput:
        model = guider.model_patcher
        sampling, family = Sampling.of(model), model_family(model)
        check_unpatched(model)
        chosen = [(value, start_sigma(sampling, family, start_as, value)) for value in parse_starts(starts)]
        samples = sized_for(model, latent)
        notes = idle_parts(latent, moments, analytic_init)
        if moments is None and analytic_init:
            moments, note = default_moments(family, parts_of(samples)[0].shape[1])
            notes.append(note)
        backend = flow_backend(flow, cls.hidden.unique_id, optical_flow)
        bar = comfy.utils.ProgressBar(len(chosen) * seeds)
        runs, stopped = [], False
        try:
            for i in range(seeds):
                for value, sigma in chosen:
                    of_run = (seed + i) % 2**64  # seeds have 64 bits
                    frames = cls.sampled(guider, sampler, vae, sampling, scheduler, steps, sigma, samples, moments if analytic_init else None, of_run)
                    run = {"start": value, "sigma": sigma, "seed": of_run, **cls.measured(frames, backend, image)}
                    runs.append({**run, "picture": torch.cat(list(pictures.thumbnails(frames)))})  # of the clip itself nothing is kept
                    del frames
                    bar.update(1)
        except comfy.model_management.InterruptProcessingException:
            if not runs:
                raise
            stopped = True
        start, enough, broken = judged(runs, wanted)
        sheet = cls.sheet(runs, [v for v, _ in chosen], broken)
        plot = plots.sweep_plot(runs, start_as, start, broken)
        figures = [{k: v for k, v in run.items() if k != "picture"} for run in runs]
        report = {
            "runs": figures,
            "flow": flow_name(flow, optical_flow),
            "analytic_init": analytic_init,
            "scheduler": scheduler,
            "steps": steps,
            "stopped": stopped,
        }
        report |= {"recommended": start, "enough": enough, "broken": broken}
        summary = f"{'stopped; ' if stopped else ''}{len(runs)} clips"
        say(cls.hidden.unique_id, "\n".join(filter(None, [summary, *advice(start, enough, broken, wanted), *notes])))
        highest = max(runs, key=lambda run: run["sigma"])["start"]
        return io.NodeOutput(sheet, plot, json.dumps(report), highest if start is None else start, ui=ui.PreviewImage(sheet, cls=cls))

    @staticmethod
    def measured(frames: torch.Tensor, backend: Callable, image: torch.Tensor | None) -> dict:
        """A clip's figures for the report."""
        step = comfy.model_management.throw_exception_if_processing_interrupted
        found = consistency.measured(frames, backend, image, between=step)
        steady = {"consistent": sum(found.motion), "flicker": sum(found.flicker) / len(found.flicker), "likeness": found.likeness}
        return {"motion_score": motion.motion_score(frames, backend), **steady}

    @staticmethod
    def sampled(
        guider: Guider,
        sampler: Sampler,
        vae: Vae,
        sampling: Sampling,
        scheduler: str,
        steps: int,
        sigma: float,
        samples: torch.Tensor,
        moments: Moments | None,
        seed: int,
    ) -> torch.Tensor:
        """One clip from one start -> IMAGE frames."""
        sigmas = truncated_sigmas(sampling, scheduler, steps, sigma, LAYOUTS[0])
        empty = [torch.zeros_like(part) for part in parts_of(samples)]
        first = starts(guider.model_patcher, sampling, float(sigmas[0]), moments, empty)
        latent = like_parts(samples, [start.latent for start in first])
        noise = AnalyticNoise(seed, [start.noise_gain for start in first]).generate_noise({"samples": latent})
        out = guider.sample(noise, latent, sampler, sigmas, disable_pbar=True, seed=seed)
        frames = vae.decode(parts_of(out)[0])  # [t, H, W, 3] or [1, t, H, W, 3]
        return frames.reshape(-1, *frames.shape[-3:])

    @staticmethod
    def cell(run: dict, broken: Iterable[float]) -> torch.Tensor:
        """One run in the sheet: four of its frames from top to bottom, and its figures."""
        mark = "BROKEN. " if run["start"] in broken else ""
        caption = f"{mark}start {run['start']:g}, seed {run['seed']}: motion {run['consistent']:.1f}, likeness {run['likeness']:.3f}"
        return pictures.captioned(run["picture"], caption)

    @classmethod
    def sheet(cls, runs: list[dict], values: list[float], broken: Iterable[float] = ()) -> torch.Tensor:
        """Columns are starts, rows seeds."""
        cells = {(run["seed"], run["start"]): cls.cell(run, broken) for run in runs}
        blank = torch.ones_like(next(iter(cells.values())))
        seeds = list(dict.fromkeys(run["seed"] for run in runs))
        return pictures.grid([cells.get((s, v), blank) for s in seeds for v in values], columns=len(values))


NODES = [StartSweep]
