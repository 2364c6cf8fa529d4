"""CILMotionDial: ask for an amount of motion, get the setting of an ordinary node that gives it (cil/dial.py)."""

import json
import secrets
import time
from pathlib import Path

import comfy.samplers
import torch
from comfy_api.latest import io, ui
from comfy_execution.graph import ExecutionBlocker

from . import dial_memory, levers, motion_bucket, pictures, plots, preflight, previews
from .dial_memory import Curve
from .dial_search import MORE, SCORE, TIMES, WANTS, Search, Wish, nearest, opened, searched, sentence
from .host.notes import say
from .host.sampling import Sampling
from .host.types import Conditioning, Model, Vae
from .levers import Lever
from .motion import flow_backend, flow_input


class MotionDial(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CILMotionDial",
            display_name="Motion Dial (CIL)",
            category="image-to-video motion",
            description="Ask for an amount of motion and get it: samples small previews of your own graph, measures them, and searches the least setting of Motion Gain, the motion bucket (SVD), Early Start, Motion Slider, Adaptive Low-Pass Guidance or TimeNoise that gives the amount without breaking the clip. The model it hands on has that node on it. Stopped, it keeps the best so far. Experimental.",
            inputs=[
                io.Model.Input("model", tooltip="The image-to-video model as it goes into the sampler, of two stages the first (high noise)."),
                io.Conditioning.Input("positive", tooltip="The positive conditioning, with the image in it."),
                io.Conditioning.Input("negative", tooltip="The negative conditioning."),
                io.Latent.Input("latent", tooltip="The latent that will be sampled; of several clips the first is looked at."),
                io.Vae.Input("vae", tooltip="The model's VAE, to see and measure the previews."),
                io.Combo.Input("want", options=list(WANTS), default=MORE, tooltip="calm: half the plain clip's motion. as it is: what the plain clip has (nothing is turned). more: twice as much. as much as stays faithful: the most below `most_price`. times the plain clip's motion, a motion score: `amount` says how much."),
                io.Float.Input("amount", default=1.5, min=0.0, max=100000.0, step=0.05, tooltip="Only with the last two of `want`. As times: 1 = the plain clip, 0.5 calmer, 2 twice as much. As a score: consistent motion, pixels at 800 x 450 summed over the clip's pairs of frames; 0 = a still."),
                io.Combo.Input("lever", options=levers.LEVERS, default=levers.BEST, tooltip="What is turned. the best for this family: the motion bucket for SVD, which is told one, and Motion Gain for what it does not reach; Motion Gain for all others. early start only adds motion. adaptive low-pass guidance needs CFG above 1. timenoise: noise on the picture that the model is given, in small doses."),
                io.Int.Input("budget", default=7, min=1, max=64, tooltip="How many settings are looked at, the plain one among them. More: closer to the amount, longer."),
                io.Int.Input("seconds", default=0, min=0, max=86400, tooltip="No new preview is begun after this time, in seconds. 0 = no limit."),
                io.Float.Input("most_price", default=0.03, min=0.0, max=1.0, step=0.005, tooltip="What a clip may lose against the plain one before it counts as broken: likeness to the picture, and change that no motion explains, of 1. Higher lets more through. Never gone past."),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True, tooltip="The sampler's seed. All settings are looked at with the same seeds."),
                io.Int.Input("seeds", default=1, min=1, max=16, tooltip="Seeds a setting, from `seed` on; their mean counts. More: holds for other seeds too, and takes so many times as long."),
                io.Int.Input("steps", default=20, min=1, max=10000, tooltip="The sampler's steps, of both stages together."),
                io.Float.Input("cfg", default=2.5, min=0.0, max=100.0, step=0.1, tooltip="The sampler's CFG. 1: few-step LoRAs, no guidance."),
                io.Combo.Input("sampler_name", options=comfy.samplers.KSampler.SAMPLERS, default="euler", tooltip="The sampler's own."),
                io.Combo.Input("scheduler", options=comfy.samplers.KSampler.SCHEDULERS, default="karras", tooltip="The sampler's own. SVD: karras, Wan: simple."),
                io.Int.Input("preview_steps", default=0, min=0, max=10000, tooltip="Steps of a preview. 0: a third of the sampler's, not below 6; runs of 8 or fewer keep theirs. More: nearer to the full run, longer."),
                io.Float.Input("preview_size", default=1.0, min=0.25, max=1.0, step=0.05, tooltip="Width and height of the previews, of the latent's. 1 = full size. 0.5 is four times as quick and more, and another picture on models that want one size. A latent that holds the picture stays in full size."),
                flow_input(),
                io.Model.Input("model_low", optional=True, tooltip="Of two stages (Wan 2.2) the second, low noise. Needs `hand_over`."),
                io.Int.Input("hand_over", default=0, min=0, max=10000, optional=True, tooltip="The step at which the second stage takes over, as in KSampler (Advanced). 0 = one stage."),
                io.Image.Input("image", optional=True, tooltip="The conditional image, for the likeness. Unconnected: each clip's own first frame."),
                io.String.Input("measurements", default="", optional=True, tooltip="A file of measurements that somebody exported, below ComfyUI's input or output folder: a first guess, so fewer previews. Empty = none."),
                io.String.Input("export_as", default="", optional=True, tooltip="A name: what was measured is added to output/cil_dial/NAME.json, numbers alone, to hand on. Empty = not."),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model with the setting on it: exactly what the ordinary node gives. As it came where nothing is needed or nothing helps."),
                io.Model.Output(display_name="model_low", tooltip="The second stage's model, likewise."),
                io.Float.Output(display_name="gain", tooltip="For Motion Gain; 1 (neutral) where another lever was turned."),
                io.Float.Output(display_name="start_sigma", tooltip="For Early Start with start_as 'from the dial or probe'; the model's largest sigma (neutral) where another lever was turned."),
                io.Float.Output(display_name="gamma", tooltip="For Motion Slider; 0 (neutral) where another lever was turned."),
                io.Image.Output(display_name="sheet", tooltip="All settings that were looked at, each with its motion and price: a moving sheet, a frame each."),
                io.Image.Output(display_name="plot", tooltip="Motion against the setting, the asked amount drawn in."),
                io.String.Output(display_name="report", tooltip="All figures as JSON, with the widgets of the ordinary node that does the same."),
                io.Int.Output(display_name="motion_bucket_id", tooltip="For Motion Bucket; 0 (neutral) where another lever was turned."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
            is_output_node=True,
            is_experimental=True,
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model: Model, positive: Conditioning, negative: Conditioning, latent: dict, vae: Vae, want: str, amount: float, lever: str, budget: int,
        seconds: int, most_price: float, seed: int, seeds: int, steps: int, cfg: float, sampler_name: str, scheduler: str, preview_steps: int,
        preview_size: float, flow: str, model_low: Model | None = None, hand_over: int = 0, image: torch.Tensor | None = None, measurements: str = "",
        export_as: str = "",
    ) -> io.NodeOutput:  # fmt: skip
        check_stages(model_low, hand_over, steps)
        begun, node_id = time.monotonic(), cls.hidden.unique_id
        models = [model] if model_low is None else [model, model_low]
        to_turn = levers.levers_of(lever, models, positive, cfg)
        curves = dial_memory.imported(measurements.strip()) if measurements.strip() else []
        target = dial_memory.exported_file(export_as) if export_as.strip() else None
        one = previews.one_clip(latent)
        small, note = previews.smaller(model, one, preview_size)
        run = previews.Run(positive, negative, small, seed, steps, cfg, sampler_name, scheduler, hand_over).shorter(preview_steps)
        wish = Wish(want, amount, budget, seconds, most_price)
        backend = flow_backend(flow, node_id)
        searches = searched((opened(models, run, t, vae, backend, image, seeds, wish, curves, flow, node_id) for t in to_turn), curves)
        search = nearest(searches)
        turned, answer = search.lever, search.answer
        patched, result = turned.models(models, answer.reading.setting), sentence(answer, search)
        findings = preflight.findings(model, positive, negative, one, cfg, cls.hidden.prompt, node_id)
        beside = ((s.lever.name, s.answer) for s in searches if s is not search and len(s.kept) > 1)  # of one alone nothing was turned
        others = [f"{name} was turned too and came to motion {a.reading.amount:.3g}: {a.reason}" for name, a in beside]
        of_each = [n for s in searches for n in (s.book.note, *s.notes)]
        notes = [*others, *remarks(searches, curves, steps, time.monotonic() - begun), exported(searches, target), *of_each, note, *findings]
        notes = list(dict.fromkeys(n for n in notes if n))
        say(node_id, "\n".join([result, *notes]))
        tiles = [tile for s in searches for tile in s.tiles(plain=s is searches[0])]
        sheet = previews.moving(tiles) if tiles else pictures.captioned(torch.ones(32, 512, 3), "no tiles were kept")[None]
        plot = plots.dial_plot(search.readings(), answer, search.goal, turned, result)
        low = patched[1] if len(patched) > 1 else ExecutionBlocker("model_low: no second stage is connected to this Motion Dial, so there is none to hand on")
        report = json.dumps(report_of(searches, search, result, notes))
        stands = ordinary(turned, answer.reading.setting)
        # for the page's button, web/dial.js
        shown = {**animated(sheet).as_dict(), "ordinary": [json.dumps(stands)]}
        bucket = stands["widgets"].get(motion_bucket.TOLD, motion_bucket.AS_IT_IS) if stands else motion_bucket.AS_IT_IS
        return io.NodeOutput(patched[0], low, *plain_outputs(turned, answer.reading.setting, model), sheet, plot, report, bucket, ui=shown)


def remarks(searches: list[Search], curves: list[Curve], steps: int, seconds: float) -> list[str]:
    """What is worth saying beside the result. steps: of the full run; seconds: that all took."""
    run, wish, made = searches[0].run, searches[0].wish, sum(s.made for s in searches)
    known = sum(len(s.kept) for s in searches) - len(searches) + 1  # the plain clip is known to each
    abouts = [(s.book.about["model"], s.book.about["lever"]) for s in searches]
    same = sum((c.model, c.lever) in abouts for c in curves)
    return [
        f"{made} previews of {run.steps} steps, {known} settings known, {seconds:.0f} s",
        "" if made else "all was measured before",
        "the sampler goes on with it; stop again to stop that too" if searches[0].stopped else "",
        f"first guess from {same} measurements on this model" if same else "no measurement on this model in the file" if curves else "",
        f"Preview and full run differ: {steps} steps are sampled, {run.steps} were looked at" if run.steps != steps else "",
        f"amount is not used with '{wish.want}'" if wish.want not in (TIMES, SCORE) and wish.number != 1.5 else "",
    ]  # fmt: skip


def exported(searches: list[Search], path: Path | None) -> str:
    """Hand on what was measured in a file, None = not -> a note."""
    if path is None:
        return ""
    for search in searches:
        about = search.book.about
        dial_memory.export(path, dial_memory.Curve(about["model"], about["lever"], search.book.key, tuple(search.kept.values())))
    return f"written to output/{dial_memory.FOLDER}/{path.name}"


def report_of(searches: list[Search], search: Search, result: str, notes: list[str]) -> dict:
    """All figures, for JSON. search: the one of `searches` whose setting is handed on."""
    answer, lever = search.answer, search.lever
    setting = answer.reading.setting
    return {
        "result": result, "kind": answer.kind, "reason": answer.reason, "want": search.wish.want, "asked": search.goal.amount, "got": answer.reading.amount,
        "plain": search.plain.amount.motion, "lever": lever.name, "setting": setting, "ordinary_node": ordinary(lever, setting), "stopped": search.stopped,
        "readings": readings_of(search), "others": [{"lever": s.lever.name, "readings": readings_of(s)} for s in searches if s is not search],
        "previews": sum(s.made for s in searches), "model_steps": sum(s.calls for s in searches), "preview_steps": search.run.steps,
        "key": search.book.key, "model": search.book.about["model"], "notes": notes,
    }  # fmt: skip


def readings_of(search: Search) -> list[dict]:
    return [{"setting": s, "told": search.lever.told(s), **search.figures(s)} for s in sorted(search.kept)]


def check_stages(model_low: Model | None, hand_over: int, steps: int) -> None:
    """Raises ValueError where one of the two things that make a second stage is there without the other."""
    if model_low is not None and not 0 < hand_over < steps:
        raise ValueError(
            f"with a second stage, hand_over is the step at which it takes over, from 1 to {steps - 1} of {steps} steps, but {hand_over} was given"
        )
    if model_low is None and hand_over:
        raise ValueError(f"hand_over is {hand_over}, but no second stage is connected: connect model_low, or set hand_over to 0")


def ordinary(lever: Lever, setting: float) -> dict | None:
    """The ordinary node and its widgets that do the same; None where nothing is to be done."""
    if setting == lever.search.neutral:
        return None
    turned = lever.turned(setting)
    return {"node": turned.node, "widgets": turned.widgets, "stages": list(turned.stages)}


def plain_outputs(lever: Lever, setting: float, model: Model) -> tuple[float, ...]:
    """(gain, start_sigma, gamma), neutral where the lever is another."""
    neutral = (1.0, Sampling.of(model).sigma_max, 0.0)
    own = {levers.GAIN: (0, setting), levers.SLIDER: (2, setting)}
    if lever.name == levers.START and setting != lever.search.neutral:
        own[levers.START] = (1, lever.turned(setting).widgets["start"])
    index, value = own.get(lever.name, (0, neutral[0]))
    return tuple(value if i == index else n for i, n in enumerate(neutral))


def animated(sheet: torch.Tensor) -> ui.SavedImages:
    """The moving sheet for the node itself."""
    prefix = "ComfyUI_temp_dial_" + secrets.token_hex(3)
    saved = ui.ImageSaveHelper.save_animated_webp(sheet, prefix, io.FolderType.temp, None, 8.0, False, 85, 2)
    return ui.SavedImages([saved], is_animated=len(sheet) > 1)


NODES = [MotionDial]
