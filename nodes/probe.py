"""LeakageProbe: at which noise levels a model predicts too little motion, and where to start."""

import json
import statistics

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io, ui

from ..cil import calibration, motion, probe
from . import calibrate, pictures
from .condition import KEPT, sources
from .host.evaluation import SamplingContext
from .host.latents import check_latent, frames_dim
from .host.models import model_family
from .host.notes import say
from .host.sampling import Sampling
from .motion import DIS, flow_backend, flow_input
from .training.conditions import ADAPTERS
from .training.nodes import ClipsType
from .verdict import Finding

CATEGORY = "image-to-video motion/measure"
HALF_SPEED, FROZEN = "half speed", "frozen"
MOVES = 0.02  # rms of the clip's motion over rms of its latents, below which it counts as still
SAME_PICTURE = 0.3  # correlation of the conditioning's image with the clip's first frame, below which it is another picture


def second_of(clip, control, dim):
    """The clip to compare with, made from the first."""
    return (probe.slowed if control == HALF_SPEED else probe.frozen)(clip, dim)


def idle_settings(negative, cfg, second_images, control, vae, flow):
    """Notes about what was set or connected but cannot act, of one clip."""
    notes = {
        "cfg is not used: connect negative": negative is None and cfg != 1,
        "negative is not used at cfg 1": negative is not None and cfg == 1,
        "control is not used: a second clip is connected": second_images is not None and control != FROZEN,
        "flow is not used: without vae no picture is scored": vae is None and flow != DIS,
        "guidance is no prediction: the curve holds for cfg 1 alone": negative is not None and cfg != 1,
    }
    return [note for note, idle in notes.items() if idle]


def check_picture(model, positive, samples):
    """Raise ValueError where the conditioning's image is of another size, length or picture than the clip."""
    dim = frames_dim(samples)
    for _, entries in positive:
        image = entries.get("concat_latent_image")
        if image is None:
            continue
        if image.shape[-2:] != samples.shape[-2:]:
            size = lambda x: f"latents of {x.shape[-1]} x {x.shape[-2]}"
            raise ValueError(
                f"the conditioning was made for {size(image)} cells, but the clip has {size(samples)}: make it from the clip's first frame, at the clip's size"
            )
        frames = image.shape[2] if image.ndim == 5 else image.shape[0]
        if frames not in (1, samples.shape[dim]):
            raise ValueError(f"the conditioning was made for {frames} frames of latents, but the clip has {samples.shape[dim]}: give it the clip's length")
        first = lambda x: x.narrow(2 if x.ndim == 5 else 0, 0, 1).flatten().float().cpu()
        if any(adapter.matches(model.model) for adapter in ADAPTERS) and image.shape[1] == samples.shape[1]:
            alike = float(torch.corrcoef(torch.stack([first(image), first(samples)]))[0, 1])
            if alike < SAME_PICTURE:  # nan of an image that was left out passes
                raise ValueError(
                    f"the conditioning was made from another picture than the clip's first frame (their latents correlate by {alike:.2f}): make it from the clip's first frame"
                )


class Measured:
    """What one clip showed: its evidence, and lists with an entry a level, each a list over draws."""

    def __init__(self, levels):
        self.levels = levels  # (fraction, sigma)
        self.evidence = None
        self.gain, self.response, self.readable = ([[] for _ in levels] for _ in range(3))
        self.predictions = [None] * len(levels)  # the first draw's of each level, in half precision, for the sheet
        self.scores, self.true_score = [], None  # motion scores, where a VAE and a flow are there

    def mean(self, name):
        return [statistics.fmean(v) for v in getattr(self, name)]

    def spread(self, name):
        return [statistics.stdev(v) if len(v) > 1 else 0.0 for v in getattr(self, name)]


def measure(context, process, samples, second, levels, seed, draws, tick):
    """Calibration of one clip, and what is read of its difference from a second one that begins with the same frame -> Measured."""
    found = Measured(levels)
    dim = frames_dim(samples)
    as_clip = (lambda x: x.movedim(1, 0)) if samples.ndim == 4 else (lambda x: x[0])
    sigmas = [s for _, s in levels]

    def work(denoise, a):
        b = context.model.get_model_object("process_latent_in")(second).to(a)
        still = probe.frozen(a, dim)
        check_motion(a, b, still)

        def with_second(noisy, sigma):
            *pair, other = denoise([*noisy, noisy[0] + process.signal(sigma) * (b - a)], sigma)
            level = sigmas.index(sigma)
            found.gain[level].append(probe.motion_gain(pair[0], a, still))
            found.response[level].append(probe.responsiveness(pair[0], other, a, b))
            return pair

        def each(level, predictions):
            if found.predictions[level] is None:
                found.predictions[level] = predictions[0].half().cpu()
            tick()

        evidence = calibration.Evidence(process, sigmas, 2 * draws)
        evidence.add(*calibration.measure(with_second, process, a, sigmas, draws, seed, as_clip, each))
        found.evidence = evidence
        found.readable = [[probe.readable(process, sigma, a, b)] for sigma in sigmas]

    context.run(samples, sigmas, work)
    return found


def check_motion(a, b, still):
    """Raise ValueError for a clip that stands still, or a second one that is the first."""
    if float((a - still).square().mean().sqrt()) < MOVES * float(a.square().mean().sqrt()):
        raise ValueError("this clip does not move, so nothing can be said of leakage: take one with visible motion")
    if not (a - b).any():
        raise ValueError("the second clip is the same as the first: it must begin with the same frame and then move differently")


class LeakageProbe(io.ComfyNode):
    @classmethod
    def define_schema(cls):
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
        model,
        control,
        cfg,
        levels,
        from_fraction,
        to_fraction,
        draws,
        seed,
        flow,
        positive=None,
        negative=None,
        images=None,
        vae=None,
        latent=None,
        second_images=None,
        clips=None,
        most_clips=16,
        motion_bucket_id=127,
    ):
        if clips is not None:
            if any(given is not None for given in (images, latent, second_images)):
                raise ValueError("give clips, or one clip as images or latent, but not both")
            return cls.several(model, clips, vae, levels, from_fraction, to_fraction, draws, seed, most_clips, motion_bucket_id)
        sampling = Sampling.of(model)
        samples, second = cls.clips(model, images, vae, latent, second_images, control)
        if positive is None:
            raise ValueError("one clip needs its conditioning: connect positive, made from the clip's first frame")
        check_picture(model, positive, samples)
        chosen = calibrate.levels_of(sampling, levels, from_fraction, to_fraction)
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
    def several(cls, model, clips, vae, count, from_fraction, to_fraction, draws, seed, most, bucket):
        """Clips of a prepared set, each with its own conditions."""
        sampling = Sampling.of(model)
        chosen = calibrate.levels_of(sampling, count, from_fraction, to_fraction)
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
    def shown(cls, finding, sheet, more, sensitivity, curves, notes, count):
        """The outputs, and the words."""
        plot = pictures.probe_plot(finding, curves)
        report = {**finding.report(), **more}
        for row, figures in zip(report["levels"], sensitivity or []):
            row |= figures
        if len(finding.chosen) < count:
            notes.append(f"{count - len(finding.chosen)} of the {count} levels would fall together and are left out")
        say(cls.hidden.unique_id, "\n".join([finding.sentence, *finding.details, *notes]))
        outputs = plot, sheet, finding.start, report["start_fraction"], json.dumps(report), json.dumps(finding.for_gain())
        return io.NodeOutput(*outputs, ui=ui.PreviewImage(plot, cls=cls))

    @staticmethod
    def clips(model, images, vae, latent, second_images, control):
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
    def sheet(model, vae, found, images, flow, node_id):
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
            frames = vae.decode(process_out(prediction.float()))
            frames = frames.reshape(-1, *frames.shape[-3:])
            width = width or min(frames.shape[2], pictures.THUMBNAIL)
            caption = f"sigma {sigma:.4g}, M / T {fraction:.2f}"
            if backend is not None:
                found.scores.append(motion.motion_score(frames, backend))
                caption += f": motion {found.scores[-1]:.1f}"
            strips.append(pictures.film_strip(frames, caption, width=width))
        return pictures.stacked(strips)


NODES = [LeakageProbe]
