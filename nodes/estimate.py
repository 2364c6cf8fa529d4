"""CILEstimateMoments: mean and variance of one's own clips, from a folder, from frames or from latents."""

import json
from collections.abc import Callable
from pathlib import Path

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io, ui

from ..cil import clips
from ..cil import moments as cil_moments
from ..cil.estimate import Changed, Estimate
from ..cil.files import claim
from . import fingerprint, pictures
from .host.inputs import clip_roots, listing
from .host.latents import clip_latents, parts_of
from .host.models import model_family
from .host.notes import say
from .host.types import Model, NodeIdLike, Vae
from .moments import CATEGORY, MomentsType, own_folder

SMALLEST = 16  # pixels of a clip's side


class EstimateMoments(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        spec = clips.ClipSpec()
        return io.Schema(
            node_id="CILEstimateMoments",
            display_name="Estimate Moments (CIL)",
            category=CATEGORY,
            description="Makes moments from your own clips: a folder of videos, frames from the graph, or latents. Stopped, it keeps what it has and goes on there the next time.",
            inputs=[
                io.Model.Input("model", tooltip="The model the moments are for: its latent space and scale are used."),
                io.Vae.Input("vae", optional=True, tooltip="Its VAE. Needed for a folder and for images."),
                io.String.Input(
                    "folder",
                    default="",
                    tooltip="A folder of videos (with the folders below it) or a text file with one path a line, inside ComfyUI's input or output folder or one registered as cil_clips; a relative path is looked for there. Empty: use images or latents.",
                ),
                io.Image.Input("images", optional=True, tooltip="Frames of clips one after another; every `frames` of them are one clip."),
                io.Latent.Input(
                    "latents", optional=True, tooltip="Latents: one clip (frames as the batch, as with SVD) or a batch of clips (5-D, as with Wan)."
                ),
                io.Int.Input("frames", default=spec.frames, min=1, max=512, tooltip="Frames of a clip. The paper: 16."),
                io.Float.Input("fps", default=spec.fps, min=0.1, max=120.0, step=0.1, tooltip="Frames a second to take from a video. The paper: 3."),
                io.Int.Input(
                    "width",
                    default=spec.width,
                    min=SMALLEST,
                    max=4096,
                    step=8,
                    tooltip="Width in pixels to which videos are resized and cropped. The paper: 512.",
                ),
                io.Int.Input("height", default=spec.height, min=SMALLEST, max=4096, step=8, tooltip="Height in pixels. The paper: 320."),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFF, tooltip="Seed of the random starts within the videos."),
                io.Boolean.Input("flip", default=False, tooltip="Mirror half of the clips, which makes the mean symmetric. Off changes nothing."),
            ],
            outputs=[
                MomentsType.Output(display_name="moments", tooltip="Mean and variance of these clips, in full detail."),
                io.Image.Output(display_name="picture", tooltip="Mean and standard deviation of each channel: a watermark or a black border is seen here."),
                io.String.Output(display_name="report", tooltip="Figures and skipped files, as JSON."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        model: Model,
        folder: str,
        frames: int,
        fps: float,
        width: int,
        height: int,
        seed: int,
        flip: bool,
        vae: Vae | None = None,
        images: torch.Tensor | None = None,
        latents: dict | None = None,
    ) -> io.NodeOutput:
        spec, folder = clips.ClipSpec(frames, fps, height, width, seed, flip), clips.unquoted(folder)
        sources = {"folder": folder or None, "images": images, "latents": latents}
        given = [name for name, value in sources.items() if value is not None]
        if not given:
            raise ValueError("nothing to estimate from: fill in folder, or connect images or latents")
        if len(given) > 1:
            raise ValueError(f"give one of folder, images and latents; {', '.join(given)} came")
        if vae is None and latents is None:
            raise ValueError(f"{given[0]} must go through the model's VAE: connect vae")
        if images is not None and min(images.shape[1:3]) < SMALLEST:
            raise ValueError(f"images of {images.shape[2]} x {images.shape[1]} pixels are too small for a VAE: {SMALLEST} on each side is the least")
        process_in = model.get_model_object("process_latent_in")
        if folder:
            interrupted = comfy.model_management.throw_exception_if_processing_interrupted
            items = [clips.Draw(path, 0) for path in clips.find(folder, clip_roots(), interrupted)]
            read = lambda draw: clips.read(draw.path, spec, draw.n, interrupted)
            encode = lambda clip: clip_latents(vae, process_in, clip.float() / 255)
        elif images is not None:
            items, read = whole_clips(images, frames), lambda clip: clip
            encode = lambda clip: clip_latents(vae, process_in, clip)
        else:
            items, read = latent_clips(parts_of(latents["samples"])[0]), lambda clip: clip
            encode = lambda clip: process_in(clip[None])[0]
        if not items:
            raise ValueError(f"{Path(folder).name or folder} holds no videos ({', '.join(sorted(clips.SUFFIXES))})")
        settings = {"space": model_family(model).space, "vae_weights": fingerprint.of_encoder(vae)}
        about = {
            "source": f"{len(items)} clips of {Path(folder).name or given[0]}",
            "scale": "latents as the network sees them",
            "frames": frames,
            "height": height,
            "width": width,
            "fps": fps,
        }
        progress = cls.progress(cls.hidden.unique_id, len(items))
        if folder:
            made, estimate = cls.from_files(items, spec, settings, about, read, encode, progress)
        else:
            estimate = Estimate(settings)
            estimate.run(items, read, encode, progress=progress)
            made = cls.finished(estimate, about)
        std = (estimate.accumulator.m2 / (estimate.accumulator.count - 1)).sqrt().float()
        decoded = None if vae is None else cls.decoded(model, vae, made)
        picture = pictures.moments_sheet(made.mean, std, decoded)
        warning = cil_moments.warning(made)
        report = {
            "moments": str(made), "variance": made.variance, "clips": made.count, "warning": warning,
            "skipped": [str(skipped) for skipped in estimate.skipped],
            "seconds": {k: round(v, 2) for k, v in estimate.seconds.items()},
        }  # fmt: skip
        say(cls.hidden.unique_id, "\n".join(filter(None, (str(made), warning, idle_settings(spec, given[0])))))
        return io.NodeOutput(made, picture, json.dumps(report, ensure_ascii=False), ui=ui.PreviewImage(picture, cls=cls))

    @classmethod
    def fingerprint_inputs(cls, folder: str = "", **others) -> str | None:
        """The host keeps a result until this changes: what is in the folder belongs to it."""
        return listing(folder) if folder else None

    @classmethod
    def from_files(
        cls, items: list, spec: clips.ClipSpec, settings: dict, about: dict, read: Callable, encode: Callable, progress: Callable
    ) -> tuple[cil_moments.Moments, Estimate]:
        """-> (Moments, Estimate) of video files; what was estimated is kept on the disk while it is under way."""
        state = cls.state_file(items, spec, settings)
        with claim(state):
            estimate = Estimate.resume(state, settings)
            stamp = lambda draw: clips.stamp(draw.path)
            try:
                estimate.run(items, read, encode, state, progress=progress, stamp=stamp)
            except Changed:  # files that were averaged already are others now
                estimate = Estimate(settings)
                estimate.run(items, read, encode, state, progress=progress, stamp=stamp)
            made = cls.finished(estimate, about)
            state.unlink(missing_ok=True)
        return made, estimate

    @staticmethod
    def finished(estimate: Estimate, about: dict) -> cil_moments.Moments:
        """-> Moments. Raises ValueError, with the reasons, where too few files gave a clip."""
        try:
            return estimate.accumulator.moments(estimate.settings["space"], about | {"content": estimate.content})
        except ValueError as error:
            reasons = "; ".join(map(str, estimate.skipped[:3]))
            raise ValueError(f"{error}{f' ({len(estimate.skipped)} files gave none: {reasons})' if reasons else ''}") from None

    @staticmethod
    def progress(node_id: NodeIdLike, total: int) -> Callable:
        bar = comfy.utils.ProgressBar(total)

        def show(e, total):
            say(node_id, f"{e.done} of {total}: {e.accumulator.count} clips averaged, {len(e.skipped)} skipped")
            bar.update_absolute(e.done, total)
            comfy.model_management.throw_exception_if_processing_interrupted()

        return show

    @staticmethod
    def state_file(items: list, spec: clips.ClipSpec, settings: dict) -> Path:
        """Where an estimate of these files with these settings is kept while it is under way."""
        key = clips.digest([*(str(draw.path) for draw in items), repr(spec), repr(settings)])
        return own_folder() / f"{key}.partial"  # an ending that no list of files shows

    @staticmethod
    def decoded(model: Model, vae: Vae, made: cil_moments.Moments) -> torch.Tensor:
        """The mean as a picture: what a start from it looks like."""
        mean = made.mean.mean(1)[None]  # [1, C, h, w]
        if model.get_model_object("latent_format").latent_dimensions == 3:
            mean = mean[:, :, None]  # [1, C, 1, h, w]
        picture = vae.decode(model.get_model_object("process_latent_out")(mean))
        return picture.reshape(-1, *picture.shape[-3:])[:1]


FOR_VIDEOS = ("fps", "width", "height", "seed", "flip")
IDLE = {"folder": (), "images": FOR_VIDEOS, "latents": ("frames", *FOR_VIDEOS)}


def idle_settings(spec: clips.ClipSpec, source: str) -> str:
    """A note about the settings that were changed but cannot act on this source."""
    changed = [name for name in IDLE[source] if getattr(spec, name) != getattr(clips.ClipSpec(), name)]
    return f"not used with {source}: {', '.join(changed)}" if changed else ""


def whole_clips(images: torch.Tensor, frames: int) -> list[torch.Tensor]:
    """IMAGE [n, H, W, 3] -> clips of `frames` frames; a rest that does not fill a clip is an error."""
    if len(images) < frames or len(images) % frames:
        raise ValueError(f"{len(images)} images do not make whole clips of {frames} frames: set frames, or connect a multiple of it")
    return list(images.split(frames))


def latent_clips(samples: torch.Tensor) -> list[torch.Tensor]:
    """LATENT samples -> clips [C, T, h, w]."""
    return list(samples) if samples.ndim == 5 else [samples.movedim(0, 1)]


NODES = [EstimateMoments]
