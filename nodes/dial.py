"""CILMotionDial: ask for an amount of motion, get the setting of an ordinary node that gives it (cil/dial.py)."""

import json
import secrets
import time

import comfy.model_management
import comfy.samplers
import torch
from comfy_api.latest import io, ui
from comfy_execution.graph import ExecutionBlocker

from ..cil import amount as amounts
from ..cil import dial
from . import dial_memory, fingerprint, levers, pictures, preflight, previews
from .dial_memory import Kept
from .host.models import model_family
from .host.notes import say
from .host.sampling import Sampling
from .motion import flow_backend, flow_input

CALM, AS_IT_IS, MORE, FAITHFUL = "calm", "as it is", "more", "as much as stays faithful"
TIMES, SCORE = "times the plain clip's motion", "a motion score"
WANTS = {CALM: 0.5, AS_IT_IS: 1.0, MORE: 2.0, FAITHFUL: None, TIMES: None, SCORE: None}
TOLERANCE = 0.1  # of the amount asked for
STILL = 0.05  # pixels a pair at 800 x 450: less is a still, of which no multiple is asked
MEASURE = 1  # raised when the same clip would be measured otherwise


def goal_of(want: str, number: float, plain: amounts.Amount, frames: int) -> dial.Goal:
    """What is asked for, once the plain clip is known."""
    if want == FAITHFUL:
        return dial.Goal(None)
    factor = number if want == TIMES else WANTS[want]
    asked = number if want == SCORE else factor * max(plain.motion, STILL * (frames - 1))
    return dial.Goal(asked, TOLERANCE * asked)


class Search:
    """One search: its previews, what was measured, and what came of it. Keeps tiles, no clip."""

    def __init__(self, models, run, lever, vae, flow, image, seeds, limit, watch, book):
        self.models, self.run, self.lever, self.vae, self.flow = models, run, lever, vae, flow
        self.image, self.seeds, self.limit, self.watch = image, seeds, limit, watch
        self.book, self.notes = book, []
        self.kept: dict[float, Kept] = {}
        self.frames, self.made, self.calls, self.stopped = 2, 0, 0, False

    # ---- what is known ----

    def use(self, readings):
        """Take readings that were kept, as far as this lever has such settings."""
        search = self.lever.search
        for kept in readings:
            if search.low <= kept.setting <= search.high:
                self.kept.setdefault(round(kept.setting, search.digits), kept)

    @property
    def plain(self) -> Kept:
        return self.kept[self.lever.search.neutral]

    def readings(self) -> list[dial.Reading]:
        return [dial.Reading(s, k.amount.motion, k.amount.price(self.plain.amount) <= self.limit) for s, k in self.kept.items()]

    # ---- looking ----

    def look(self, setting: float) -> None:
        """Sample and measure one setting. Raises the host's exception where it is stopped."""
        models, found, shown = self.lever.models(self.models, setting), [], None
        self.caption(None, f"{self.lever.told(setting)} ...")
        for i in range(self.seeds):
            samples = previews.sampled(models, self.run, (self.run.seed + i) % 2**64, lambda: self.watch.tick(1))
            self.calls += self.run.steps
            frames = previews.decoded(self.vae, samples).float().cpu().clamp(0, 1)
            del samples
            found.append(amounts.read(frames, frames[:1] if self.image is None else self.image, self.flow, self.watch.tick))
            shown = previews.tile(frames) if shown is None else shown
            del frames
        mean = lambda name: sum(getattr(a, name) for a in found) / len(found)
        amount = amounts.Amount(mean("motion"), mean("likeness"), mean("flicker"))
        self.kept[setting] = Kept(setting, amount, previews.strip_of(shown))
        self.made += self.seeds
        self.book.write(list(self.kept.values()))
        self.caption(setting)

    def caption(self, setting, text=""):
        """Put a setting's tile up, or a grey one for the one that is being made."""
        tiles = self.watch.tiles
        if setting is None:
            like = tiles[-1] if tiles else torch.zeros(1, 90, previews.TILE, 3, dtype=torch.uint8)
            tiles.append(previews.captioned(torch.full_like(like[:1, : min(90, like.shape[1])], 200), text))
            return
        if tiles:
            tiles.pop()
        shown = previews.tile_of(self.kept[setting].strip)
        if shown is not None:
            tiles.append(previews.captioned(shown, self.told(setting)))

    def told(self, setting: float) -> str:
        kept, text = self.kept[setting], self.lever.told(setting)
        price = kept.amount.price(self.plain.amount)
        return f"{'plain' if setting == self.lever.search.neutral else text}: motion {kept.amount.motion:.3g}, price {price:.3f}" + (
            " (breaks)" if price > self.limit else ""
        )

    def goal(self, want, number) -> dial.Goal:
        return goal_of(want, number, self.plain.amount, self.frames)

    def go(self, want, number, budget, seconds, curves, node_id):
        """Look until the amount is met, nothing is left to try, the budget is spent or the run is stopped."""
        search, begun, looks, request = self.lever.search, time.monotonic(), 0, f"{want} {number:g} {budget} {self.limit:g}"
        try:
            if search.neutral not in self.kept:
                self.look(search.neutral)
                looks = 1
            goal = self.goal(want, number)
            hint = hint_of(curves, self.book.about, goal, self.plain.amount.motion, search.neutral)
            while request not in self.book.done:
                setting = dial.next_setting(search, self.readings(), goal, hint) if looks < budget else None
                if setting is None:
                    self.book.write(list(self.kept.values()), request)
                    break
                used = time.monotonic() - begun
                if seconds and used > seconds:
                    self.notes.append(f"the time, {seconds} s, was up")
                    break
                left = f"; at most {previews.to_go(used / looks * (budget - looks))} to go" if looks else ""
                say(node_id, f"preview {looks + 1} of at most {budget}: {self.lever.told(setting)}{left}. Stop keeps the best so far")
                self.look(setting)
                looks += 1
        except comfy.model_management.InterruptProcessingException:
            if search.neutral not in self.kept:
                raise
            self.stopped = True
        return dial.answer(search, self.readings(), self.goal(want, number))


def hint_of(curves, about, goal, plain, neutral):
    """A first guess from others' measurements on the same weights: the median of what their curves say."""
    if goal.amount is None or plain <= 0:
        return None
    found = [c.setting_for(goal.amount / plain, neutral) for c in curves if (c.model, c.lever) == (about["model"], about["lever"])]
    found = sorted(s for s in found if s is not None)
    return found[len(found) // 2] if found else None


def sentence(answer, goal, plain, lever, stopped):
    """The result in one sentence."""
    got = answer.reading
    times = f" ({got.amount / plain:.2f} x plain)" if plain > 0 else ""
    asked = "" if goal.amount is None else f", asked {goal.amount:.3g}"
    end = "Stopped; best so far: " if stopped else ""
    if answer.kind == dial.AS_IT_IS:
        return f"{end}Left as it is: {answer.reason}."
    if answer.kind == dial.FOUND:
        return f"{end}{lever.told(got.setting)} gives motion {got.amount:.3g}{times}{asked}."
    if answer.kind == dial.NEAREST:
        why = "" if stopped else f"; {answer.reason}"
        return f"{end}{lever.told(got.setting)} comes nearest: motion {got.amount:.3g}{times}{asked}{why}."
    return f"{end}Cannot{asked.replace(', asked', ': motion')} is asked, and {answer.reason}. The model stays as it is."


class MotionDial(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CILMotionDial",
            display_name="Motion Dial (CIL)",
            category="image-to-video motion",
            description="Ask for an amount of motion and get it: samples small previews of your own graph, measures them, and searches the least setting of Motion Gain, Early Start, Motion Slider or Adaptive Low-Pass Guidance that gives the amount without breaking the clip. The model it hands on has that node on it. Stopped, it keeps the best so far. Experimental.",
            inputs=[
                io.Model.Input("model", tooltip="The image-to-video model as it goes into the sampler, of two stages the first (high noise)."),
                io.Conditioning.Input("positive", tooltip="The positive conditioning, with the image in it."),
                io.Conditioning.Input("negative", tooltip="The negative conditioning."),
                io.Latent.Input("latent", tooltip="The latent that will be sampled; of several clips the first is looked at."),
                io.Vae.Input("vae", tooltip="The model's VAE, to see and measure the previews."),
                io.Combo.Input("want", options=list(WANTS), default=MORE, tooltip="calm: half the plain clip's motion. as it is: what the plain clip has (nothing is turned). more: twice as much. as much as stays faithful: the most below `most_price`. times the plain clip's motion, a motion score: `amount` says how much."),
                io.Float.Input("amount", default=1.5, min=0.0, max=100000.0, step=0.05, tooltip="Only with the last two of `want`. As times: 1 = the plain clip, 0.5 calmer, 2 twice as much. As a score: consistent motion, pixels at 800 x 450 summed over the clip's pairs of frames; 0 = a still."),
                io.Combo.Input("lever", options=levers.LEVERS, default=levers.BEST, tooltip="What is turned. the best for this family: Motion Slider for Wan, Motion Gain for all others. early start only adds motion. adaptive low-pass guidance needs CFG above 1."),
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
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
            is_output_node=True,
            is_experimental=True,
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model, positive, negative, latent, vae, want, amount, lever, budget, seconds, most_price, seed, seeds, steps, cfg, sampler_name, scheduler,
        preview_steps, preview_size, flow, model_low=None, hand_over=0, image=None, measurements="", export_as="",
    ):  # fmt: skip
        check_stages(model_low, hand_over, steps)
        begun, node_id = time.monotonic(), cls.hidden.unique_id
        models = [model] if model_low is None else [model, model_low]
        turned = levers.lever_of(lever, models, cfg)
        curves = dial_memory.imported(measurements.strip()) if measurements.strip() else []
        one = previews.one_clip(latent)
        small, note = previews.smaller(model, one, preview_size)
        run = previews.Run(positive, negative, small, seed, steps, cfg, sampler_name, scheduler, hand_over).shorter(preview_steps)
        about = {"model": fingerprint.of_weights(model.model.state_dict().items()), "family": model_family(model).key, "lever": turned.name}
        widgets = turned.turned(turned.search.high).widgets if turned.name != levers.START else {"analytic_init": True}
        fixed = {name: value for name, value in widgets.items() if name not in ("gain", "gamma", "strength")}
        encoder = fingerprint.of_encoder(vae)
        key = fingerprint.of_anything(MEASURE, about, fixed, models, run_key(run), seeds, flow, encoder, image)
        watch = previews.Watch(budget * seeds * run.steps, node_id)
        book = dial_memory.Notebook.opened(key, about)
        search = Search(models, run, turned, vae, flow_backend(flow, node_id), image, seeds, most_price, watch, book)
        search.use(book.readings)
        search.use(k for c in curves if c.key == key for k in c.readings)
        search.frames = frames_of(small)
        for setting in list(search.kept) if turned.search.neutral in search.kept else ():
            watch.tiles.append(None)
            search.caption(setting)
        answer = search.go(want, amount, budget, seconds, curves, node_id)
        goal, plain = search.goal(want, amount), search.plain.amount.motion
        patched = turned.models(models, answer.reading.setting)
        result = sentence(answer, goal, plain, turned, search.stopped)
        same = sum(c.model == about["model"] and c.lever == turned.name for c in curves)
        exported = ""
        if export_as.strip():
            path = dial_memory.export(export_as, dial_memory.Curve(about["model"], turned.name, key, tuple(search.kept.values())))
            exported = f"written to output/{dial_memory.FOLDER}/{path.name}"
        notes = [
            result,
            f"{search.made} previews of {run.steps} steps, {len(search.kept)} settings known, {time.monotonic() - begun:.0f} s" + ("" if search.made else ": all was measured before"),
            "the sampler goes on with it; stop again to stop that too" if search.stopped else "",
            f"first guess from {same} measurements on this model" if same else "no measurement on this model in the file" if curves else "",
            f"Preview and full run differ: {steps} steps are sampled, {run.steps} were looked at" if run.steps != steps else "",
            exported, book.note, *search.notes, note,
            f"amount is not used with '{want}'" if want not in (TIMES, SCORE) and amount != 1.5 else "",
            *preflight.findings(model, positive, negative, one, cfg, cls.hidden.prompt, node_id),
        ]  # fmt: skip
        say(node_id, "\n".join(filter(None, notes)))
        settings = sorted(search.kept)
        tiles = [previews.captioned(t, search.told(s)) for s in settings if (t := previews.tile_of(search.kept[s].strip)) is not None]
        sheet = previews.moving(tiles) if tiles else pictures.captioned(torch.ones(32, 512, 3), "no tiles were kept")[None]
        plot = pictures.dial_plot(search.readings(), answer, goal, turned, result)
        report = {
            "result": result, "kind": answer.kind, "reason": answer.reason, "want": want, "asked": goal.amount, "got": answer.reading.amount, "plain": plain,
            "lever": turned.name, "setting": answer.reading.setting, "ordinary_node": ordinary(turned, answer.reading.setting), "stopped": search.stopped,
            "readings": [{"setting": s, "told": turned.told(s), **vars_of(search, s)} for s in settings], "previews": search.made, "model_steps": search.calls,
            "preview_steps": run.steps, "key": key, "model": about["model"], "notes": [n for n in notes[1:] if n],
        }  # fmt: skip
        low = patched[1] if len(patched) > 1 else ExecutionBlocker("model_low: no second stage is connected to this Motion Dial, so there is none to hand on")
        return io.NodeOutput(patched[0], low, *plain_outputs(turned, answer.reading.setting, model), sheet, plot, json.dumps(report), ui=animated(sheet))


def check_stages(model_low, hand_over, steps):
    """Raises ValueError where one of the two things that make a second stage is there without the other."""
    if model_low is not None and not 0 < hand_over < steps:
        raise ValueError(
            f"with a second stage, hand_over is the step at which it takes over, from 1 to {steps - 1} of {steps} steps, but {hand_over} was given"
        )
    if model_low is None and hand_over:
        raise ValueError(f"hand_over is {hand_over}, but no second stage is connected: connect model_low, or set hand_over to 0")


def run_key(run):
    return (run.positive, run.negative, run.latent, run.seed, run.steps, run.cfg, run.sampler, run.scheduler, run.hand_over)


def frames_of(latent):
    """Latent frames of a clip, for what counts as a still."""
    samples = latent["samples"]
    return 2 if samples.is_nested else max(2, samples.shape[0 if samples.ndim == 4 else 2])


def vars_of(search, setting):
    kept = search.kept[setting]
    price = kept.amount.price(search.plain.amount)
    return {"motion": kept.amount.motion, "likeness": kept.amount.likeness, "flicker": kept.amount.flicker, "price": price, "whole": price <= search.limit}


def ordinary(lever, setting):
    """The ordinary node and its widgets that do the same; None where nothing is to be done."""
    if setting == lever.search.neutral:
        return None
    turned = lever.turned(setting)
    return {"node": turned.node, "widgets": turned.widgets, "stages": list(turned.stages)}


def plain_outputs(lever, setting, model):
    """(gain, start_sigma, gamma), neutral where the lever is another."""
    neutral = (1.0, Sampling.of(model).sigma_max, 0.0)
    own = {levers.GAIN: (0, setting), levers.SLIDER: (2, setting)}
    if lever.name == levers.START and setting != lever.search.neutral:
        own[levers.START] = (1, lever.turned(setting).widgets["start"])
    index, value = own.get(lever.name, (0, neutral[0]))
    return tuple(value if i == index else n for i, n in enumerate(neutral))


def animated(sheet):
    """The moving sheet for the node itself."""
    prefix = "ComfyUI_temp_dial_" + secrets.token_hex(3)
    saved = ui.ImageSaveHelper.save_animated_webp(sheet, prefix, io.FolderType.temp, None, 8.0, False, 85, 2)
    return ui.SavedImages([saved], is_animated=len(sheet) > 1)


NODES = [MotionDial]
