"""CILPrepareClips and CILTimeNoiseTrain."""

import hashlib
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
from comfy_api.latest import io, ui

from ...cil import clips as cil_clips
from ...cil import prepared
from ...cil.files import check_name, claim
from ...cil.timenoise import TimeNoise
from ...cil.training import EVERY_SIGMA, Recipe
from .. import plots
from ..host.inputs import clip_roots, listing
from ..host.notes import say, to_go
from ..host.types import ClipVision, Model, NodeIdLike, Vae
from ..motion import flow_input
from . import model as trainable
from . import prepare, train
from .conditions import Encoders, adapter_of
from .watch import Watch

CATEGORY = "image-to-video motion/training"
ClipsType = io.Custom("CIL_CLIPS")
TIMENOISE, NAIVE = "TimeNoise", "naive (the paper's baseline)"
NEW_LORA = "[new]"
ANY_SIGMA = 100000.0  # above the largest of every model
PREPARED: set[Path] = set()  # folders of data sets that have been handed on in this session


def own_folder(kind: str) -> Path:
    """A folder of the pack below the host's output folder."""
    return Path(folder_paths.get_output_directory()) / "cil" / kind


class PrepareClips(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        spec = cil_clips.ClipSpec(frames=14)
        flow = flow_input()
        flow.options = [prepare.NO_FLOW, *flow.options]
        flow.tooltip += " none: no motion scores, which only a training with a motion bucket of 0 needs."
        return io.Schema(
            node_id="CILPrepareClips",
            display_name="Prepare Clips (CIL)",
            category=CATEGORY,
            description="Makes a data set for training from a folder of videos: latents, the first frame's latents and embedding, the text, and the motion score of each clip. Stopped, it goes on there the next time; finished, it is only read.",
            inputs=[
                io.Model.Input("model", tooltip="The model to be trained: SVD's family, DynamiCrafter, VideoCrafter1, Wan 2.1 or 2.2 14B image-to-video."),
                io.Vae.Input("vae", tooltip="Its VAE."),
                io.String.Input(
                    "folder",
                    default="",
                    tooltip="A folder of videos (with the folders below it) or a text file with one path a line, inside ComfyUI's input or output folder or one registered as cil_clips; a relative path is looked for there. Empty: take the prepared data set of this name as it is.",
                ),
                io.String.Input("name", default="my_clips", tooltip="Name of the data set: a folder below output/cil/clips."),
                io.Int.Input(
                    "frames",
                    default=spec.frames,
                    min=2,
                    max=512,
                    tooltip="Frames of a clip. The paper: 16, as DynamiCrafter and VideoCrafter1 were made for; SVD 14, SVD-XT 25, Wan 81 (always 4 n + 1).",
                ),
                io.Float.Input(
                    "fps",
                    default=spec.fps,
                    min=1.0,
                    max=120.0,
                    step=0.1,
                    tooltip="Frames a second to take from a video; the model is told the same number, where it can be told. The paper: 3; Wan's own: 16.",
                ),
                io.Int.Input(
                    "width",
                    default=spec.width,
                    min=16,
                    max=4096,
                    step=8,
                    tooltip="Width in pixels to which videos are resized and cropped. The paper: 512. Larger needs more memory in training.",
                ),
                io.Int.Input("height", default=spec.height, min=16, max=4096, step=8, tooltip="Height in pixels. The paper: 320."),
                io.Int.Input(
                    "clips_per_video", default=1, min=1, max=10000, tooltip="How many clips to take from each video, each from another random place. 1 = one."
                ),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFF, tooltip="Seed of the random starts within the videos."),
                io.Boolean.Input(
                    "flip", default=False, tooltip="Mirror half of the clips: more variety where left and right do not matter. Off changes nothing."
                ),
                flow,
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="Text of the videos that have no caption, for models that read a text. A caption is a .txt file beside the video, with its name. Empty: the empty text.",
                ),
                io.ClipVision.Input("clip_vision", optional=True, tooltip="Its image encoder. Not needed for Wan 2.2, which has none."),
                io.Clip.Input("clip", optional=True, tooltip="Its text encoder, for captions and prompt. SVD has none."),
            ],
            outputs=[
                ClipsType.Output(display_name="clips", tooltip="The data set, for TimeNoise Train."),
                io.String.Output(display_name="report", tooltip="Number of clips, their motion scores and the skipped files, as JSON."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        model: Model,
        vae: Vae,
        folder: str,
        name: str,
        frames: int,
        fps: float,
        width: int,
        height: int,
        clips_per_video: int,
        seed: int,
        flip: bool,
        flow: str,
        prompt: str = "",
        clip_vision: ClipVision | None = None,
        clip: Any | None = None,
    ) -> io.NodeOutput:
        folder = cil_clips.unquoted(folder)
        target = own_folder("clips") / check_name(name, "a folder's name")
        if folder:
            spec = cil_clips.ClipSpec(frames, fps, height, width, seed, flip)
            progress = cls.progress(cls.hidden.unique_id)
            made = prepare.prepare(model, Encoders(vae, clip_vision, clip), folder, spec, flow, target, clips_per_video, prompt, progress, roots=clip_roots())
        elif target.is_dir():
            made = prepared.load(target)
        else:
            raise ValueError(f"there is no prepared data set '{target.name}' in {target.parent} yet: fill in folder, with your videos, to prepare one")
        PREPARED.add(target)
        motion = {name: round(score, 2) for name, score in zip(made.names, made.motion)}
        report = {"clips": len(made), "latents": made.shape, **made.settings, "motion": motion, "skipped": [str(skipped) for skipped in made.skipped]}
        text = f"{len(made)} clips of {' x '.join(map(str, made.shape))} in {target.name}, {len(made.skipped)} files skipped"
        if "captions" in made.settings:
            text += f"\n{made.settings['captions']} videos have a caption"
        elif prompt.strip() and not adapter_of(model).text:
            text += "\nthe prompt does nothing: this model reads no text"
        say(cls.hidden.unique_id, text)
        return io.NodeOutput(made, json.dumps(report, ensure_ascii=False), ui=ui.PreviewText(text))

    @classmethod
    def fingerprint_inputs(cls, folder: str = "", name: str = "", **others) -> tuple | str | None:
        """The host keeps a result, and all that was trained on it, until this changes: with the videos, or where the set itself is read or gone."""
        target = own_folder("clips") / str(name).strip()
        shards = cil_clips.digest(f"{path.name} {cil_clips.stamp(path)}" for path in sorted(target.glob("*.safetensors")))
        if not folder:
            return shards
        return listing(folder), target in PREPARED and not target.is_dir()

    @staticmethod
    def progress(node_id: NodeIdLike) -> Callable:
        bar = comfy.utils.ProgressBar(1)

        def show(done, skipped, total):
            say(node_id, f"{done} of {total}, {skipped} skipped")
            bar.update_absolute(done, total)
            comfy.model_management.throw_exception_if_processing_interrupted()

        return show


class TimeNoiseTrain(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CILTimeNoiseTrain",
            display_name="TimeNoise Train (CIL)",
            category=CATEGORY,
            description="Fine-tunes an image-to-video model against conditional image leakage by a LoRA: in training the image is noised the more, the noisier the video is, so that the model cannot copy it. Stopped, it keeps its state and goes on there the next time.",
            inputs=[
                io.Model.Input("model", tooltip="The model to train: SVD's family, DynamiCrafter, VideoCrafter1, Wan 2.1 or 2.2 14B image-to-video. It is not changed; LoRAs that are on it stay on."),
                ClipsType.Input("clips", tooltip="From Prepare Clips, made with this model."),
                io.Combo.Input("tuning", options=[TIMENOISE, NAIVE], default=TIMENOISE, tooltip="TimeNoise: noise on the image, the paper's cure. naive: the same training with a clean image, to compare with; beta_m and a then do nothing."),
                io.Float.Input("beta_m", default=100.0, min=0.001, max=10000.0, step=0.001, tooltip="Largest level of the noise on the image, in units of the image's latents (SVD's have a deviation of about 5, all others' of about 1). The paper: 100 for SVD and DynamiCrafter, 25 for VideoCrafter1; the authors' released settings for SVD: 15; nobody has tried Wan. Larger: more motion, less likeness to the image."),
                io.Float.Input("a", default=5.0, min=0.01, max=100.0, step=0.01, tooltip="How late the levels rise with the noise of the video. The paper: 5. Smaller: more noise earlier, more motion, less likeness."),
                io.Int.Input("rank", default=16, min=1, max=1024, tooltip="Rank of the LoRA, for every matrix and convolution. Larger: learns more, needs more memory. An existing LoRA keeps its own."),
                io.Float.Input("learning_rate", default=1e-4, min=1e-8, max=1.0, step=1e-8, tooltip="Step size of AdamW. The paper: 0.00003 for all weights; a LoRA bears a few times that. Too large: the training stops and says so."),
                io.Int.Input("steps", default=1000, min=1, max=10000000, tooltip="Updates. The paper: 20000 with batch 48."),
                io.Int.Input("batch", default=1, min=1, max=1024, tooltip="Clips that go through the model at once. Memory grows with it."),
                io.Int.Input("accumulation", default=1, min=1, max=4096, tooltip="Batches an update: acts as a batch that many times larger, for time instead of memory. 1 = none."),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFF, tooltip="Seed of everything random. The same seed gives the same training; naive and TimeNoise then see the same clips and noise."),
                io.Combo.Input("precision", options=list(trainable.PRECISIONS), default="bf16", tooltip="Numbers the model computes in; the LoRA itself is always kept in fp32. fp32: slower, twice the memory, exact."),
                io.Boolean.Input("gradient_checkpointing", default=True, tooltip="On: compute activations twice instead of keeping them, a third slower for several times less memory. The result is the same."),
                io.Float.Input("condition_dropout", default=0.1, min=0.0, max=1.0, step=0.01, tooltip="Share of examples without their condition, which guidance (CFG) needs: SVD without its image; the others with the empty text, DynamiCrafter and VideoCrafter1 also with a grey picture for the image encoder, as in sampling. The paper: 0.1. 0 = none."),
                io.Float.Input("ema", default=0.999, min=0.0, max=0.99999, step=0.00001, tooltip="Decay of the running average of the LoRA, which is what comes out. The paper: 0.9999 over 20000 steps. 0 = the last weights."),
                io.Float.Input("clip_norm", default=1.0, min=0.0, max=1000.0, step=0.01, tooltip="Gradients longer than this are shortened to it. 0 = never."),
                io.Float.Input("weight_decay", default=0.01, min=0.0, max=10.0, step=0.001, tooltip="AdamW's pull of the LoRA towards nothing. The paper: 0.01. 0 = none."),
                io.Int.Input("motion_bucket_id", default=20, min=0, max=1023, tooltip="Motion bucket that SVD is told in training; others have none. The paper: 20 for every clip. 0 = each clip's own motion score."),
                io.Float.Input("P_mean", default=-1.2, min=-10.0, max=10.0, step=0.1, tooltip="Mean of ln(sigma) in training, for SVD; the others draw their time evenly. The paper: -1.2. Higher trains the noisy end more, where the levels of TimeNoise are high."),
                io.Float.Input("P_std", default=1.2, min=0.01, max=10.0, step=0.1, tooltip="Deviation of ln(sigma) in training, for SVD. The paper: 1.2. Larger reaches the noisy end more often."),
                io.Combo.Input("existing_lora", options=[NEW_LORA, *folder_paths.get_filename_list("loras")], default=NEW_LORA, tooltip="A LoRA of this model to train on. [new]: begin with one that changes nothing."),
                io.Boolean.Input("resume", default=True, tooltip="On: go on from a stopped training of these settings (steps, learning_rate and clip_norm may differ). Off: begin anew."),
                io.Boolean.Input("image_tokens", default=False, optional=True, tooltip="On: TimeNoise on what the image encoder says too, at the same level, as the paper has it for DynamiCrafter. Off: on the image's latents alone. VideoCrafter1 sees nothing but the tokens, so they are noised there anyway; Wan 2.2 has none."),
                io.Float.Input("sigma_from", default=0.0, min=0.0, max=ANY_SIGMA, step=0.001, optional=True, tooltip="Least noise level to train, in sigma. 0 = all. Wan 2.2's high-noise model works above 0.9: 0.9."),
                io.Float.Input("sigma_to", default=ANY_SIGMA, min=0.0, max=ANY_SIGMA, step=0.001, optional=True, tooltip="Largest noise level to train, in sigma. 100000 = all. Wan 2.2's low-noise model works below 0.9: 0.9."),
                io.Int.Input("sample_every", default=250, min=0, max=10000000, optional=True, tooltip="To watch: every so many updates, one clip of the data set's first picture, with the same noise each time, beside the one from before the training. Coarse colours, 12 steps, no guidance. 0 = never. It does not change the training."),
                io.Int.Input("probe_clips", default=4, min=0, max=1000, optional=True, tooltip="To watch: on so many clips of the data set the leakage is measured before and after the training, at 8 levels with a clean image: 32 forward passes a clip in all. From 8 on the curves mean something. 0 = none. It does not change the training."),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model with the LoRA on at strength 1."),
                io.Custom("LORA_MODEL").Output(display_name="lora", tooltip="The LoRA, for the host's Save LoRA Weights and Load LoRA Model."),
                io.Image.Output(display_name="loss_curve", tooltip="Loss of each update and its running mean. Levels differ from update to update, so only the mean tells."),
                io.Image.Output(display_name="samples", tooltip="The clips of sample_every, from before the training to its end, side by side and moving: frames for Save Animated WEBP or Create Video. Coarse colours."),
                io.Image.Output(display_name="leakage", tooltip="How much motion is missing from the prediction at each noise level, before and after the training, on probe_clips of the data set's clips, with their bands."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model: Model, clips: prepared.ClipSet, tuning: str, beta_m: float, a: float, rank: int, learning_rate: float, steps: int, batch: int,
        accumulation: int, seed: int, precision: str, gradient_checkpointing: bool, condition_dropout: float, ema: float, clip_norm: float,
        weight_decay: float, motion_bucket_id: int, P_mean: float, P_std: float, existing_lora: str, resume: bool, image_tokens: bool = False,
        sigma_from: float = 0.0, sigma_to: float = ANY_SIGMA, sample_every: int = 250,
        probe_clips: int = 4,
    ) -> io.NodeOutput:  # fmt: skip
        noise = TimeNoise(beta_m, a) if tuning == TIMENOISE else None
        recipe = Recipe(steps, batch, accumulation, learning_rate, weight_decay, clip_norm, condition_dropout, ema, seed, noise)
        lora = None if existing_lora == NEW_LORA else train.read_lora(folder_paths.get_full_path_or_raise("loras", existing_lora))
        config = train.TrainConfig(
            rank,
            lora,
            precision,
            gradient_checkpointing,
            motion_bucket_id,
            P_mean,
            P_std,
            tokens=image_tokens,
            sigmas=(sigma_from, math.inf if sigma_to >= ANY_SIGMA else sigma_to),
        )
        state, watch = cls.state_file(clips, recipe, config), Watch(sample_every, probe_clips)
        with claim(state):
            result = train.tune(model, clips, recipe, config, state, resume, cls.progress(cls.hidden.unique_id, state, watch), watch=watch)
            state.unlink(missing_ok=True)
        picture = plots.loss_plot(result.losses, f"{tuning}, {len(result.losses)} steps of {batch * accumulation} clips")
        with_lora = trainable.with_lora(model, result.values)
        return io.NodeOutput(with_lora, result.values, picture, watch.sheet(), watch.leakage(), ui=ui.PreviewImage(picture, cls=cls))

    @staticmethod
    def state_file(clips: prepared.ClipSet, recipe: Recipe, config: train.TrainConfig) -> Path:
        """Where a training with these settings is kept while it is under way."""
        stable = (recipe.noise, recipe.batch, recipe.accumulation, recipe.weight_decay, recipe.dropout, recipe.ema, recipe.seed)
        lora = None if config.lora is None else sorted(config.lora)
        name = clips.folder.name if isinstance(clips, prepared.ClipSet) else clips.names  # Demo Clips lie in no folder
        key = repr(
            (name, stable, config.rank, lora, config.precision, config.bucket, config.P_mean, config.P_std)
            + ("tokens",) * config.tokens
            + config.sigmas * (config.sigmas != EVERY_SIGMA)
        )
        return own_folder("training") / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.partial"

    @staticmethod
    def progress(node_id: NodeIdLike, state: Path, watch: Watch) -> Callable:
        bar = comfy.utils.ProgressBar(1, node_id)
        first: list[tuple[int, float]] = []  # the first step of this run, and when it was done

        def show(run):
            if not first and run.step > 1:
                say(node_id, f"going on after step {run.step - 1}, from {state.name}")
            elif run.step % 10 == 0 or run.step == run.recipe.steps:
                recent = run.losses[-50:]
                text = f"step {run.step} of {run.recipe.steps}: mean loss of the last {len(recent)}: {sum(recent) / len(recent):.4f}"
                if left := run.recipe.steps - run.step:
                    step, began = first[0]
                    text += f"; {to_go((time.monotonic() - began) / (run.step - step) * left)} to go. Stop keeps its state"
                say(node_id, text)
            if not first:
                first.append((run.step, time.monotonic()))
            watch.after(run.step, run.recipe.steps)
            bar.update_absolute(run.step, run.recipe.steps, watch.preview(run.step) if bar.hook else None)
            comfy.model_management.throw_exception_if_processing_interrupted()

        return show


NODES = [PrepareClips, TimeNoiseTrain]
