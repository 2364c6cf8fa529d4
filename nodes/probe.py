"""LeakageProbe: how much a model reads out of the noisy clip, level by level, and where to start."""

import json
import statistics

import torch
from comfy_api.latest import io, ui

import comfy.model_management
import comfy.utils

from ..cil import motion, probe
from . import pictures
from .condition import KEPT, sources
from .host.evaluation import SamplingContext
from .host.latents import check_latent, frames_dim
from .host.models import model_family
from .host.notes import say
from .host.sampling import Sampling
from .motion import DIS, flow_backend, flow_input

CATEGORY = "image-to-video motion/measure"
HALF_SPEED, FROZEN = "half speed", "frozen"
# the leakage from which an earlier start is suggested. The exact denoiser of the demo's data leaves 3 to 5 % against
# another true clip and 20 to 40 % against the frozen one, which it has reason not to believe; the demo's models leave
# 7 to 16 %, and with more than 10 % an early start gains most (bench.probe, bench.early_start)
LEAKS, LEAKS_MADE = 0.10, 0.35
READS = 0.5  # the share of the difference that the model must read at the suggested start
MOVES = 0.02  # rms of the clip's motion over rms of its latents, below which it counts as still


def second_of(clip, control, dim):
    """The clip to compare with, made from the first."""
    return (probe.slowed if control == HALF_SPEED else probe.frozen)(clip, dim)


def levels_between(sampling, levels, low, high):
    """-> [(fraction, sigma)] falling, evenly spaced in M / T, `low` left out unless it is the only one."""
    if not 0 <= low < high <= 1:
        raise ValueError(f"the range of levels must be 0 <= from < to <= 1, but {low:g} to {high:g} was given")
    fractions = [high - (high - low) * i / levels for i in range(levels)]
    found = [(f, sampling.sigma(f)) for f in fractions]
    return [(f, s) for f, s in found if s > sampling.sigma_min]


def idle_settings(negative, cfg, second_images, control, vae, flow):
    """Notes about what was set or connected but cannot act."""
    notes = {
        "cfg is not used: connect negative": negative is None and cfg != 1,
        "negative is not used at cfg 1": negative is not None and cfg == 1,
        "control is not used: a second clip is connected": second_images is not None and control != FROZEN,
        "flow is not used: without vae no picture is scored": vae is None and flow != DIS,
    }
    return [note for note, idle in notes.items() if idle]


class Measured:
    """What one probe found: lists with an entry a level, each a list over draws."""

    def __init__(self, levels):
        self.levels = levels  # (fraction, sigma)
        self.gain, self.response, self.readable, self.error, self.noise = [], [], [], [], []
        self.predictions = []  # the first draw's prediction of each level
        self.scores, self.true_score = [], None  # motion scores, where a VAE and a flow are there

    def mean(self, name):
        return [statistics.fmean(v) for v in getattr(self, name)]

    def spread(self, name):
        return [statistics.stdev(v) if len(v) > 1 else 0.0 for v in getattr(self, name)]


def measure(context, process, samples, second, levels, seed, draws, tick):
    """Probe a clip against a second one that begins with the same frame -> Measured."""
    found = Measured(levels)
    dim = frames_dim(samples)

    def work(denoise, a):
        b = context.model.get_model_object("process_latent_in")(second).to(a)
        still = probe.frozen(a, dim)
        moved = float((a - still).square().mean().sqrt())
        if moved < MOVES * float(a.square().mean().sqrt()):
            raise ValueError("this clip does not move, so nothing can be said of leakage: take one with visible motion")
        if not (a - b).any():
            raise ValueError("the second clip is the same as the first: it must begin with the same frame and then move differently")
        for level, (_, sigma) in enumerate(levels):
            gains, responses, errors, noises = [], [], [], []
            for draw in range(draws):
                eps = probe.noise_for(a, seed, level, draw)
                pa, pb = denoise([process.corrupt(c, eps, sigma) for c in (a, b)], sigma)
                gains.append(probe.motion_gain(pa, a, still))
                responses.append(probe.responsiveness(pa, pb, a, b))
                errors.append(float((pa - a).square().mean().sqrt()))
                noises.append(float(process.noise(sigma) / max(float(process.signal(sigma)), 1e-9)))
                if draw == 0:
                    found.predictions.append(pa.cpu())
                tick()
            found.gain.append(gains)
            found.response.append(responses)
            found.error.append(errors)
            found.noise.append(noises)
            found.readable.append([probe.readable(process, sigma, a, b)])

    context.run(samples, [s for _, s in levels], work)
    return found


def verdict(found, sampling, made):
    """-> (leakage, start sigma, text): the rule for the start, in words. made: the second clip was made from the first."""
    sigmas = [s for _, s in found.levels]
    responses, can = found.mean("response"), found.mean("readable")
    leak = probe.leakage(responses, can)
    lowest_error, lowest_noise = found.mean("error")[-1], found.mean("noise")[-1]
    if lowest_error > 1.5 * lowest_noise and lowest_error > 0.3:
        return leak, sampling.sigma_max, (
            f"at the lowest level, sigma {sigmas[-1]:g}, the model's prediction is worse than the noisy clip itself: it cannot take this clip "
            "(another resolution or frame count than it was trained on, another VAE, or conditioning made from another picture). Leakage cannot be judged; start 1.0"
        )
    if leak < (LEAKS_MADE if made else LEAKS):
        return leak, sampling.sigma_max, f"leakage {100 * leak:.0f} %: the model reads most of what can be read; the start stays at 1.0"
    start = probe.first_level_that_reads(sigmas, responses, READS)
    if start is None:
        return leak, sampling.sigma_max, f"leakage {100 * leak:.0f} %, and at none of these levels does the model read half of the difference: probe lower levels; start 1.0 until then"
    return leak, start, f"leakage {100 * leak:.0f} %: start at sigma {start:.4g}, {sampling.fraction(start):.3f} of T, from where on the model reads at least half of the motion"


class LeakageProbe(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LeakageProbe",
            display_name="Leakage Probe (CIL)",
            category=CATEGORY,
            description="Does this model read motion out of the noisy video, or copy its image? Takes a real clip and the conditioning made from its first frame, and suggests a start for Truncated Sigma Schedule and Early Start.",
            inputs=[
                io.Model.Input("model", tooltip="The image-to-video model, with whatever is patched into it (LoRA, guidance, TimeNoise)."),
                io.Conditioning.Input("positive", tooltip="Conditioning made from the first frame of the clip."),
                io.Conditioning.Input("negative", optional=True, tooltip="For guidance above 1. Unconnected: the conditional prediction alone."),
                io.Image.Input("images", optional=True, tooltip="The clip as frames; needs vae. As many frames, and of the size, that the conditioning was made for."),
                io.Vae.Input("vae", optional=True, tooltip="The model's VAE: encodes images and decodes predictions for the sheet. Not needed for a latent clip without pictures."),
                io.Latent.Input("latent", optional=True, tooltip="The clip as latents, instead of images."),
                io.Image.Input("second_images", optional=True, tooltip="A clip that begins with the same frame and then moves differently. Unconnected: made from the first, see control."),
                io.Combo.Input("control", options=[FROZEN, HALF_SPEED], default=FROZEN, tooltip="The second clip where none is connected: the frozen first frame of the first, or the first at half its speed. A model that knows its speed from elsewhere (a motion bucket) may rightly not believe in the second, so a real second clip says more."),
                io.Float.Input("cfg", default=1.0, min=0.0, max=100.0, step=0.1, tooltip="Guidance scale, with negative connected. 1 = the conditional prediction alone."),
                io.Int.Input("levels", default=12, min=2, max=100, tooltip="Number of noise levels, evenly spaced in M / T. More: a finer curve, longer."),
                io.Float.Input("from_fraction", default=0.0, min=0.0, max=1.0, step=0.01, tooltip="Lowest level as a fraction of T, itself left out. 0 = the whole schedule."),
                io.Float.Input("to_fraction", default=1.0, min=0.0, max=1.0, step=0.01, tooltip="Highest level as a fraction of T. 1 = pure noise."),
                io.Int.Input("draws", default=1, min=1, max=64, tooltip="Noises a level. More: surer figures with a band around the curve, longer."),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFF, tooltip="Seed of the noises; the same seed gives the same figures."),
                flow_input(),
            ],
            outputs=[
                io.Image.Output(display_name="plot", tooltip="What is read, what could be read, and the predicted motion, against M / T."),
                io.Image.Output(display_name="sheet", tooltip="The one-step predictions, a row a level, the true clip on top."),
                io.Float.Output(display_name="start_sigma", tooltip="The suggested start as a sigma: for Truncated Sigma Schedule or Early Start, with start_as sigma."),
                io.Float.Output(display_name="start_fraction", tooltip="The suggested start as M / T, 1 = the ordinary start."),
                io.String.Output(display_name="report", tooltip="All figures as JSON."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model, positive, control, cfg, levels, from_fraction, to_fraction, draws, seed, flow, negative=None, images=None, vae=None, latent=None, second_images=None):
        sampling = Sampling.of(model)
        samples, second = cls.clips(model, images, vae, latent, second_images, control)
        chosen = levels_between(sampling, levels, from_fraction, to_fraction)
        bar = comfy.utils.ProgressBar(len(chosen) * draws)

        def tick():
            bar.update(1)
            comfy.model_management.throw_exception_if_processing_interrupted()

        context = SamplingContext(model, positive, negative, cfg, seed)
        found = measure(context, sampling.process, samples, second, chosen, seed, draws, tick)
        leak, start, text = verdict(found, sampling, second_images is None)
        if sources(model_family(model), positive) == [KEPT]:
            text += "; but this model is told its image by a frame of the latent that is kept, which the probe does not keep: these figures are those of text alone"
        sheet = cls.sheet(model, vae, found, images, flow, cls.hidden.unique_id)
        plot = pictures.probe_plot(found, start, f"{model_family(model).key}: {text}")
        fraction = sampling.fraction(start)
        report = {
            "leakage": leak, "start_sigma": start, "start_fraction": fraction, "verdict": text,
            "rule": f"leakage = 1 - sum(read) / sum(readable); from {LEAKS} ({LEAKS_MADE} with a made second clip) the start is the highest sigma at which {READS} of the difference is read",
            "second_clip": "connected" if second_images is not None else control, "cfg": cfg if negative is not None else 1.0,
            "seed": seed, "draws": draws, "flow": flow if found.scores else None, "true_motion_score": found.true_score,
            "levels": [
                {"fraction": f, "sigma": s, "read": r, "read_sd": rs, "readable": can, "gain": g, "gain_sd": gs, "motion_score": m}
                for (f, s), r, rs, can, g, gs, m in zip(
                    found.levels, found.mean("response"), found.spread("response"), found.mean("readable"),
                    found.mean("gain"), found.spread("gain"), found.scores or [None] * len(found.levels),
                )
            ],
        }  # fmt: skip
        notes = idle_settings(negative, cfg, second_images, control, vae, flow)
        if len(chosen) < levels:
            notes.append(f"{levels - len(chosen)} of the {levels} levels lie at or below the model's smallest sigma and are left out")
        say(cls.hidden.unique_id, "\n".join([text, *notes]))
        return io.NodeOutput(plot, sheet, start, fraction, json.dumps(report), ui=ui.PreviewImage(plot, cls=cls))

    @staticmethod
    def clips(model, images, vae, latent, second_images, control):
        """-> latents of the clip and of the second one, as a LATENT holds them."""
        if (images is None) == (latent is None):
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
        """Decode the predictions, score them, and lay them out; without a VAE a note."""
        if vae is None:
            return pictures.captioned(torch.ones(32, 512, 3), "connect vae to see the predictions")[None]
        process_out = model.get_model_object("process_latent_out")
        backend = flow_backend(flow, node_id)
        rows, captions = [], []
        if images is not None:
            found.true_score = motion.motion_score(images, backend)
            rows, captions = [images], [f"the clip: motion {found.true_score:.1f}"]
        for (fraction, sigma), prediction in zip(found.levels, found.predictions):
            frames = vae.decode(process_out(prediction))
            frames = frames.reshape(-1, *frames.shape[-3:])
            found.scores.append(motion.motion_score(frames, backend))
            rows.append(frames)
            captions.append(f"M / T {fraction:.2f}, sigma {sigma:.4g}: motion {found.scores[-1]:.1f}")
        return pictures.film_strips(rows, captions)


NODES = [LeakageProbe]
