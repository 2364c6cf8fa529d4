"""LeakageProbe: at which noise levels a model predicts too little motion, and where to start."""

import json

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io, ui

from ..cil import motion
from ..cil.prepared import ClipSet
from . import calibrate, pictures, plots
from .condition import KEPT, sources
from .host.evaluation import SamplingContext
from .host.latents import check_latent, frames_dim
from .host.models import model_family
from .host.notes import say
from .host.sampling import Sampling
from .host.types import Conditioning, Model, NodeIdLike, Vae
from .motion import flow_backend, flow_input
from .probe_clip import FROZEN, HALF_SPEED, Measured, check_picture, idle_settings, measure, second_of
from .training.nodes import ClipsType
from .verdict import Finding

CATEGORY = "image-to-video motion/measure"


class LeakageProbe(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LeakageProbe",
            display_name="Leakage Probe (CIL)",
            category=CATEGORY,
            description="At which noise levels does this model predict too little motion and copy its image? Takes several real clips from Prepare Clips and suggests a start for Truncated Sigma Schedule and Early Start. One clip alone shows a curve, without a verdict.",
            inputs=[
                io.Model.Input("model", tooltip="The image-to-video model, with whatever is patched into it (LoRA, TimeNoise)."),
                io.Conditioning.Input(
                    "positive",
                    optional=True,
                    tooltip="For one clip: conditioning made from its first frame, at its size and length. Clips from Prepare Clips bring their own.",
                ),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="For one clip, for guidance above 1. Unconnected: the conditional prediction alone, which is what can be judged.",
                ),
                io.Image.Input(
                    "images", optional=True, tooltip="One clip as frames; needs vae. As many frames, and of the size, that the conditioning was made for."
                ),
                io.Vae.Input(
                    "vae", optional=True, tooltip="The model's VAE: encodes images and decodes predictions for the sheet. Without it there is no sheet."
                ),
                io.Latent.Input("latent", optional=True, tooltip="One clip as latents, instead of images."),
                io.Image.Input(
                    "second_images",
                    optional=True,
                    tooltip="For one clip: another that begins with the same frame and then moves differently, for the picture of sensitivity. Unconnected: made from the first, see control.",
                ),
                io.Combo.Input(
                    "control",
                    options=[FROZEN, HALF_SPEED],
                    default=FROZEN,
                    tooltip="For one clip: the second one where none is connected, the frozen first frame of the first, or the first at half its speed. Acts on the picture of sensitivity alone.",
                ),
                io.Float.Input(
                    "cfg",
                    default=1.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="For one clip: guidance scale, with negative connected. 1 = the conditional prediction alone, for which the curve holds.",
                ),
                io.Int.Input(
                    "levels",
                    default=12,
                    min=2,
                    max=100,
                    tooltip="Number of noise levels, even in the logarithm of signal over noise. More: a finer curve, longer.",
                ),
                io.Float.Input(
                    "from_fraction",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Lowest level as a fraction of T. 0 = where the signal is twice the noise and motion is settled.",
                ),
                io.Float.Input("to_fraction", default=1.0, min=0.0, max=1.0, step=0.01, tooltip="Highest level as a fraction of T. 1 = pure noise."),
                io.Int.Input(
                    "draws", default=1, min=1, max=64, tooltip="Pairs of opposite noises a level and clip. More: surer figures, longer. For a verdict: 2."
                ),
                io.Int.Input(
                    "seed", default=0, min=0, max=0xFFFFFFFF, tooltip="Seed of the noises, and of which clips are taken; the same seed gives the same figures."
                ),
                flow_input(),
                ClipsType.Input(
                    "clips",
                    optional=True,
                    tooltip="From Prepare Clips, made with this model: 8 clips or more for a verdict, a fair draw of what the model was made for. Takes the place of positive, images and latent.",
                ),
                io.Int.Input(
                    "most_clips", default=16, min=0, max=100000, optional=True, tooltip="How many of clips to take, at random. More: surer, longer. 0 = all."
                ),
                io.Int.Input(
                    "motion_bucket_id",
                    default=127,
                    min=0,
                    max=1023,
                    optional=True,
                    tooltip="With clips: the motion bucket that SVD is told; others have none. 127 is the host's default. 0 = each clip's own motion score.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="plot",
                    tooltip="How much motion is missing from the model's prediction at each noise level, with its band, the verdict and the suggested start.",
                ),
                io.Image.Output(display_name="sheet", tooltip="The one-step predictions of a clip, a row a level."),
                io.Float.Output(
                    display_name="start_sigma",
                    tooltip="The suggested start as a sigma: for Truncated Sigma Schedule or Early Start, with start_as sigma. The model's largest, which is the ordinary start, where no leak is proved.",
                ),
                io.Float.Output(display_name="start_fraction", tooltip="The suggested start as M / T, 1 = the ordinary start."),
                io.String.Output(display_name="report", tooltip="All figures as JSON."),
                io.String.Output(
                    display_name="curve",
                    tooltip="By how much the predicted motion is to be multiplied at each sigma, as JSON; 1 where no leak is proved. For Motion Gain.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        model: Model,
        control: str,
        cfg: float,
        levels: int,
        from_fraction: float,
        to_fraction: float,
        draws: int,
        seed: int,
        flow: str,
        positive: Conditioning | None = None,
        negative: Conditioning | None = None,
        images: torch.Tensor | None = None,
        vae: Vae | None = None,
        latent: dict | None = None,
        second_images: torch.Tensor | None = None,
        clips: ClipSet | None = None,
        most_clips: int = 16,
        motion_bucket_id: int = 127,
    ) -> io.NodeOutput:
        if clips is not None:
            if any(given is not None for given in (images, latent, second_images)):
                raise ValueError("give clips, or one clip as images or latent, but not both")
            return cls.several(model, clips, vae, levels, from_fraction, to_fraction, draws, seed, most_clips, motion_bucket_id)
        sampling = Sampling.of(model)
        samples, second = cls.clips(model, images, vae, latent, second_images, control)
        if positive is None:
            raise ValueError("one clip needs its conditioning: connect positive, made from the clip's first frame")
        check_picture(model, positive, samples)
        chosen = sampling.levels(levels, from_fraction, to_fraction)
        bar = comfy.utils.ProgressBar(len(chosen) * draws)

        def tick():
            bar.update(1)
            comfy.model_management.throw_exception_if_processing_interrupted()

        context = SamplingContext(model, positive, negative, cfg, seed)
        found = measure(context, sampling.process, samples, second, chosen, seed, draws, tick)
        finding = Finding(found.evidence, sampling, chosen)
        sheet = cls.sheet(model, vae, found, images, flow, cls.hidden.unique_id)
        more = {
            "second_clip": "connected" if second_images is not None else control, "cfg": cfg if negative is not None else 1.0,
            "seed": seed, "draws": draws, "flow": flow if found.scores else None, "true_motion_score": found.true_score,
        }  # fmt: skip
        sensitivity = [
            {"read": r, "read_sd": rs, "readable": can, "gain": g, "gain_sd": gs, "motion_score": m}
            for r, rs, can, g, gs, m in zip(
                found.mean("response"), found.spread("response"), found.mean("readable"), found.mean("gain"), found.spread("gain"), found.scores or [None] * len(chosen)
            )
        ]  # fmt: skip
        notes = idle_settings(negative, cfg, second_images, control, vae, flow)
        if sources(model_family(model), positive) == [KEPT]:
            notes.insert(
                0, "this model is told its image by a frame of the latent that is kept, which the probe does not keep: these figures are those of text alone"
            )
        return cls.shown(finding, sheet, more, sensitivity, (found.mean("response"), found.mean("readable")), notes, levels)

    @classmethod
    def several(
        cls, model: Model, clips: ClipSet, vae: Vae | None, count: int, from_fraction: float, to_fraction: float, draws: int, seed: int, most: int, bucket: int
    ) -> io.NodeOutput:
        """Clips of a prepared set, each with its own conditions."""
        sampling = Sampling.of(model)
        chosen = sampling.levels(count, from_fraction, to_fraction)
        which = calibrate.chosen(clips, most, seed)
        bar, first = comfy.utils.ProgressBar(len(chosen) * draws * len(which)), Measured(chosen)

        def tick(place, level, predictions):
            if place == 0 and vae is not None and first.predictions[level] is None:
                first.predictions[level] = predictions[0].half().cpu()
            bar.update(1)
            comfy.model_management.throw_exception_if_processing_interrupted()

        evidence = calibrate.calibrate(model, clips, which, [s for _, s in chosen], draws, seed, bucket, tick)
        finding = Finding(evidence, sampling, chosen)
        sheet = cls.sheet(model, vae, first, None, None, cls.hidden.unique_id)
        notes = [] if len(which) == len(clips) else [f"{len(which)} of the set's {len(clips)} clips were taken: most_clips"]
        return cls.shown(finding, sheet, {"seed": seed, "draws": draws, "motion_bucket_id": bucket}, None, None, notes, count)

    @classmethod
    def shown(
        cls, finding: Finding, sheet: torch.Tensor, more: dict, sensitivity: list[dict] | None, curves: tuple | None, notes: list[str], count: int
    ) -> io.NodeOutput:
        """The outputs, and the words."""
        plot = plots.probe_plot(finding, curves)
        report = {**finding.report(), **more}
        for row, figures in zip(report["levels"], sensitivity or []):
            row |= figures
        if len(finding.chosen) < count:
            notes.append(f"{count - len(finding.chosen)} of the {count} levels would fall together and are left out")
        say(cls.hidden.unique_id, "\n".join([finding.sentence, *finding.details, *notes]))
        outputs = plot, sheet, finding.start, report["start_fraction"], json.dumps(report), json.dumps(finding.for_gain())
        return io.NodeOutput(*outputs, ui=ui.PreviewImage(plot, cls=cls))

    @staticmethod
    def clips(
        model: Model, images: torch.Tensor | None, vae: Vae | None, latent: dict | None, second_images: torch.Tensor | None, control: str
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """-> latents of the clip and of the second one, as a LATENT holds them."""
        if images is None and latent is None:
            raise ValueError("give clips from Prepare Clips, or one clip: as images (with vae), or as latent")
        if images is not None and latent is not None:
            raise ValueError("give the clip once: as images (with vae), or as latent")
        if vae is None and (images is not None or second_images is not None):
            raise ValueError("images must go through the model's VAE: connect vae, or give the clip as latent")
        if images is not None:
            motion.check_frames(images)
            samples = vae.encode(images[..., :3])
        else:
            samples = latent["samples"]
        check_latent(model, samples)
        if second_images is not None:
            motion.check_frames(second_images)
            second = vae.encode(second_images[..., :3])
        elif images is not None:
            second = vae.encode(second_of(images, control, 0)[..., :3])
        else:
            second = second_of(samples, control, frames_dim(samples))
        if second.shape != samples.shape:
            raise ValueError(f"the two clips must be of one size and length, but their latents are {tuple(samples.shape)} and {tuple(second.shape)}")
        return samples, second

    @staticmethod
    def sheet(model: Model, vae: Vae | None, found: Measured, images: torch.Tensor | None, flow: str | None, node_id: NodeIdLike) -> torch.Tensor:
        """Decode the predictions one at a time, score them by a flow (None = do not), and keep thumbnails; without a VAE a note."""
        if vae is None:
            return pictures.captioned(torch.ones(32, 512, 3), "connect vae to see the predictions")[None]
        process_out = model.get_model_object("process_latent_out")
        backend = None if flow is None else flow_backend(flow, node_id)
        strips, width = [], None
        if images is not None:
            found.true_score = motion.motion_score(images, backend)
            width = min(images.shape[2], pictures.THUMBNAIL)
            strips.append(pictures.film_strip(images, f"the clip: motion {found.true_score:.1f}", width=width))
        for (fraction, sigma), prediction in zip(found.levels, found.predictions):
            comfy.model_management.throw_exception_if_processing_interrupted()
            frames = vae.decode(process_out(prediction.float()))  # [T, H, W, 3] or [1, T, H, W, 3]
            frames = frames.reshape(-1, *frames.shape[-3:])
            width = width or min(frames.shape[2], pictures.THUMBNAIL)
            caption = f"sigma {sigma:.4g}, M / T {fraction:.2f}"
            if backend is not None:
                found.scores.append(motion.motion_score(frames, backend))
                caption += f": motion {found.scores[-1]:.1f}"
            strips.append(pictures.film_strip(frames, caption, width=width))
        return pictures.stacked(strips)


NODES = [LeakageProbe]
