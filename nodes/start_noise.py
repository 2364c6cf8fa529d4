"""CILStartNoise, CILFreeInit: the starts that the paper's Table 2 compares Analytic-Init with."""

from collections.abc import Callable

import comfy.model_management
import comfy.sample
import comfy.utils
import latent_preview
import torch
from comfy_api.latest import io

from ..cil import initial_noise, schedules
from ..cil.forward import ForwardProcess
from ..cil.randomness import generator_for
from .host.latents import like_parts, parts_of
from .host.notes import say
from .host.sampling import Sampling
from .host.types import Guider, Model, Sampler

CATEGORY = "image-to-video motion/other starts"
PLAIN, FRAME_INIT, PROGRESSIVE, MIXED = "plain", "FrameInit", "progressive", "mixed"
NO_SIGNAL = "at its first noise level this model's noise carries no signal (zero terminal SNR, or a flow from 1): a run hands nothing of its result on, only its noise's own low frequencies"


def time_third(x: torch.Tensor) -> torch.Tensor:
    """A clip's latents with (t, h, w) last: [t, c, h, w] -> [c, t, h, w]; [b, c, t, h, w] as it is. Its own inverse."""
    return x.movedim(0, 1) if x.ndim == 4 else x


def ratio(process: ForwardProcess, sigma: float) -> float:
    """alpha / sigma of a forward process at the host's sigma."""
    return process.signal(sigma) / process.noise(sigma)


class StartNoise:
    """A NOISE: change(noise [..., t, h, w]) -> the same shape, of the host's random noise of a seed."""

    def __init__(self, seed: int, change: Callable):
        self.seed, self.change = seed, change

    def generate_noise(self, input_latent: dict) -> torch.Tensor:
        noise = comfy.sample.prepare_noise(input_latent["samples"], self.seed, input_latent.get("batch_index"))
        video, *rest = parts_of(noise)
        if video.ndim not in (4, 5):
            raise ValueError(f"the start of a video is wanted, but a latent of shape {tuple(video.shape)} came")
        return like_parts(noise, [time_third(self.change(time_third(video))), *rest])


def still_of(model: Model, image_latent: dict) -> torch.Tensor:
    """A LATENT of one frame, or of a whole still clip -> x_0 as the network has it, [..., t, h, w]."""
    samples = parts_of(comfy.sample.fix_empty_latent_channels(model, image_latent["samples"]))[0]
    return time_third(model.get_model_object("process_latent_in")(samples))


def repeated(still: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """The still like the noise. Raises ValueError where the sizes do not fit."""
    frames = noise.shape[-3]  # of [..., C, t, h, w]
    still = still if still.shape[-3] == frames else still[..., :1, :, :].expand(*noise.shape[:-3], frames, *still.shape[-2:]) if still.shape[-3] == 1 else still
    if still.shape[-3:] != noise.shape[-3:] or still.shape[-4] != noise.shape[-4]:
        raise ValueError(
            f"image_latent is {tuple(still.shape)}, the latent to sample {tuple(noise.shape)} (channels, frames, height, width last): encode the picture at the video's size, one frame or as many as the video has"
        )
    return still.to(noise).expand_as(noise)


class StartNoiseNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CILStartNoise",
            display_name="Start Noise (CIL)",
            category=CATEGORY,
            description="The starts that the paper compares Analytic-Init with, as a NOISE for SamplerCustomAdvanced: FrameInit (the picture's low frequencies in the noise), progressive and mixed noise (frames whose noises are alike).",
            inputs=[
                io.Model.Input("model", tooltip="The model that will be sampled."),
                io.Combo.Input("method", options=[PLAIN, FRAME_INIT, PROGRESSIVE, MIXED], default=FRAME_INIT, tooltip="plain: the host's RandomNoise, to the bit. FrameInit: low frequencies of the picture standing still, at level tau (ConsistI2V). progressive: each frame's noise is partly the one before (PYoCo). mixed: all frames share a part (PYoCo)."),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True, tooltip="Seed of the noise, as the host's RandomNoise draws it."),
                io.Float.Input("tau", default=initial_noise.FRAME_INIT_LEVEL, min=0.01, max=1.0, step=0.01, tooltip="FrameInit: the level the picture is diffused to, as a fraction of T; 0.85 is the authors'. Lower: more of the still picture, less motion."),
                io.Float.Input("cut_space", default=initial_noise.CUT, min=0.01, max=1.0, step=0.01, tooltip="FrameInit: which spatial frequencies are the picture's, as a share of the highest; 0.25 is the authors'. Lower: less of the picture."),
                io.Float.Input("cut_time", default=initial_noise.CUT, min=0.01, max=1.0, step=0.01, tooltip="FrameInit: the same in time; 0.25 is the authors'. Lower: less of the picture."),
                io.Float.Input("a", default=1.0, min=0.0, max=100.0, step=0.1, tooltip="progressive, mixed: how much noise the frames share; neighbours correlate at a / sqrt(1 + a^2) and a^2 / (1 + a^2). 0: plain noise. 1 or 2 usual. Higher: calmer."),
                io.Latent.Input("image_latent", optional=True, tooltip="FrameInit: the picture through the model's VAE, at the video's size: one frame, or a still clip of as many frames as the video."),
            ],
            outputs=[io.Noise.Output(display_name="noise", tooltip="For SamplerCustomAdvanced, with an empty latent and a full schedule.")],
            hidden=[io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model: Model, method: str, seed: int, tau: float, cut_space: float, cut_time: float, a: float, image_latent: dict | None = None
    ) -> io.NodeOutput:
        if a < 0:
            raise ValueError(f"a, the share of common noise, is 0 or more, but {a:g} was given")
        if method == FRAME_INIT and image_latent is None:
            raise ValueError("FrameInit starts from the picture: connect image_latent, from VAE Encode at the video's size")
        sampling = Sampling.of(model)
        changes = {PLAIN: lambda noise: noise, PROGRESSIVE: lambda noise: initial_noise.progressive(noise, a)}
        changes[MIXED] = lambda noise: initial_noise.mixed(noise, torch.randn(noise.select(-3, 0).shape, generator=generator_for(seed, "shared")).to(noise), a)
        note = {PLAIN: "plain noise", PROGRESSIVE: f"progressive noise, a {a:g}", MIXED: f"mixed noise, a {a:g}"}
        if method == FRAME_INIT:
            still, share = still_of(model, image_latent), ratio(sampling.process, sampling.sigma(tau))
            initial_noise.distance((1, 1, 1), cut_space, cut_time)  # its errors here, not later in the sampler
            changes[FRAME_INIT] = lambda noise: initial_noise.frame_init(repeated(still, noise), noise, share, cut_space, cut_time)
            note[FRAME_INIT] = f"FrameInit at sigma {sampling.sigma(tau):g} (signal to noise {share:.3g}), cut {cut_space:g} in space, {cut_time:g} in time"
        elif image_latent is not None:
            note[method] += "\nimage_latent does nothing: only FrameInit starts from the picture"
        say(cls.hidden.unique_id, note[method])
        return io.NodeOutput(StartNoise(seed, changes[method]))


class FreeInit(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CILFreeInit",
            display_name="FreeInit (CIL)",
            category=CATEGORY,
            description="Samples the clip several times over: each run starts from the low frequencies of the result before, diffused with its own noise, and fresh noise for the rest. Costs as many whole runs. In the place of SamplerCustomAdvanced.",
            inputs=[
                io.Guider.Input("guider", tooltip="The model with its conditioning."),
                io.Sampler.Input("sampler", tooltip="From KSamplerSelect."),
                io.Sigmas.Input("sigmas", tooltip="A full schedule."),
                io.Latent.Input("latent", tooltip="Empty latent of the size to sample."),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True, tooltip="Seed of the first noise, as RandomNoise draws it; the fresh noises follow from it."),
                io.Int.Input("runs", default=3, min=1, max=20, tooltip="How many whole runs. 1: the plain sampler, to the bit. 3 to 5 usual. The time is as many times as long."),
                io.Float.Input("cut_space", default=initial_noise.CUT, min=0.01, max=1.0, step=0.01, tooltip="Which spatial frequencies are handed on, as a share of the highest; 0.25 usual. Lower: less."),
                io.Float.Input("cut_time", default=initial_noise.CUT, min=0.01, max=1.0, step=0.01, tooltip="The same in time; 0.25 usual. Lower: less."),
                io.Int.Input("order", default=initial_noise.FREE_INIT_ORDER, min=1, max=100, tooltip="How sharp the cut is (order of the Butterworth filter); 4 is the authors'. Higher: sharper."),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The last run's clip.")],
            hidden=[io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, guider: Guider, sampler: Sampler, sigmas: torch.Tensor, latent: dict, seed: int, runs: int, cut_space: float, cut_time: float, order: int
    ) -> io.NodeOutput:
        schedules.check(sigmas)
        model = guider.model_patcher
        samples = comfy.sample.fix_empty_latent_channels(model, latent["samples"])
        if samples.is_nested or samples.ndim not in (4, 5):
            raise ValueError("FreeInit mixes frequencies of a video's latents; this latent is not one of video alone")
        if latent.get("noise_mask") is not None and runs > 1:
            raise ValueError(
                "FreeInit starts every run from noise, but this latent has a mask: use a conditioning that hands the picture over beside the video"
            )
        share = ratio(Sampling.of(model).process, float(sigmas[0]))
        first = noise = comfy.sample.prepare_noise(samples, seed, latent.get("batch_index"))
        for run in range(runs):
            comfy.model_management.throw_exception_if_processing_interrupted()
            say(cls.hidden.unique_id, f"run {run + 1} of {runs}")
            callback = latent_preview.prepare_callback(model, len(sigmas) - 1)
            out = guider.sample(
                noise,
                samples,
                sampler,
                sigmas,
                denoise_mask=latent.get("noise_mask"),
                callback=callback,
                disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
                seed=seed,
            ).cpu()
            if run < runs - 1:
                fresh = torch.randn(first.shape, generator=generator_for(seed, "fresh", run)).to(first)
                x0 = model.get_model_object("process_latent_in")(out)
                parts = (time_third(part) for part in (x0, first, fresh))
                noise = time_third(initial_noise.free_init(*parts, share, cut_space, cut_time, order))
        notes = [f"{runs} runs, {runs * (len(sigmas) - 1)} steps in all", NO_SIGNAL if runs > 1 and share < 1e-3 else ""]
        say(cls.hidden.unique_id, "\n".join(filter(None, notes)))
        return io.NodeOutput({**latent, "samples": out.to(comfy.model_management.intermediate_device())})


NODES = [StartNoiseNode, FreeInit]
