"""Motion gain in a run of the host's samplers: the wrappers, what is still, what a mask keeps (cil/motion_gain.py)."""

from collections.abc import Callable

import comfy.model_patcher
import comfy.patcher_extension
import comfy.utils
import torch

from ..cil import motion_gain
from .host.latents import packed, unpacked
from .host.models import model_family
from .host.notes import say
from .host.sampling import Sampling
from .host.types import Executor, Guider, Model, NodeIdLike, Sampler

WRAPPER = "cil_motion_gain"
SIGNAL_TO_NOISE, FRACTION, SIGMA = "signal to noise", "fraction", "sigma"
OWN, IMAGE, MEAN = "own first frame", "image", "mean over time"
KEPT = 1e-3  # a mask below it keeps


class MotionGain:
    """Wraps the host's OUTER_SAMPLE: gives each run its own `Run`, which acts on the guider's prediction.

    PREDICT_NOISE is what the host puts around every guider, after all guidance and patches on it
    (a post-CFG function would come before the second half of a dual guidance). The mask of kept
    frames acts after it.
    """

    def __init__(
        self,
        gain: float,
        end_as: str,
        end: float,
        shape: str,
        reference: str,
        protect: str,
        still: torch.Tensor | None,
        curve: tuple | None,
        strength: float,
        node_id: NodeIdLike,
    ):
        self.gain, self.end_as, self.end, self.shape = gain, end_as, end, shape
        self.reference, self.protect, self.still = reference, protect, still
        self.curve, self.strength = curve, strength
        self.node_id = node_id

    def __call__(
        self, executor: Executor, noise: torch.Tensor, latent_image: torch.Tensor, sampler: Sampler, sigmas: torch.Tensor, *args, **kwargs
    ) -> torch.Tensor:
        guider, shapes = executor.class_obj, kwargs.get("latent_shapes")
        video = unpacked(noise, shapes)[0]
        reason = reason_to_stay_out(guider.model_patcher, video)
        if reason:
            say(self.node_id, f"left alone: {reason}")
            return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
        run, before = Run(self, guider, video.shape, shapes), guider.model_options
        guider.model_options = comfy.model_patcher.create_model_options_clone(before)
        kinds = comfy.patcher_extension.WrappersMP
        for kind, wrapper in ((kinds.SAMPLER_SAMPLE, run.sample), (kinds.PREDICT_NOISE, run.predict)):
            comfy.patcher_extension.add_wrapper_with_key(kind, WRAPPER, wrapper, guider.model_options, is_model_options=True)
        try:
            return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
        finally:
            guider.model_options = before

    def at(self, sampling: Sampling, cells: int) -> Callable:
        """-> g(sigma) for latents of `cells` cells a frame."""
        process = sampling.process
        ratio = lambda sigma: motion_gain.picture_ratio(process, sigma, cells)
        if self.curve is not None:
            sigmas, slopes = self.curve
            ratios = [ratio(sigma) for sigma in sigmas]
            return lambda sigma: motion_gain.measured(ratio(sigma), ratios, slopes, self.strength)
        end, shape = end_ratio(sampling, self.end_as, self.end, ratio), motion_gain.SHAPES[self.shape]
        return lambda sigma: shape(self.gain, ratio(sigma), end)


def end_ratio(sampling: Sampling, end_as: str, end: float, ratio: Callable) -> float:
    """Where the gain ends, as an artist sets it -> the picture's signal-to-noise ratio."""
    if end_as == SIGNAL_TO_NOISE:
        return end
    sigma = end if end_as == SIGMA or end == 0 else sampling.sigma(end)
    return ratio(sigma)


def reason_to_stay_out(model: Model, video: torch.Tensor) -> str | None:
    """Why this run must not be touched, in words for the artist; None if it may. video: its latents, or their shape's like."""
    if video.ndim not in (4, 5):
        return "this latent is not a video"
    if video.shape[0 if video.ndim == 4 else 2] < 2:
        return "this latent has one frame, and nothing moves in it"
    if video.ndim == 4 and model_family(model).key == "unknown" and not model.additional_models.get("ADE"):
        return "this model makes pictures, as far as this pack knows, and a batch of pictures is no clip"
    return None


class Run:
    """Motion gain in one run of a sampler.

    shape: of the video's latents, [T, C, h, w] or [B, C, T, h, w]; shapes: of all parts that are packed into one.
    """

    def __init__(self, settings: MotionGain, guider: Guider, shape: torch.Size, shapes: list | None):
        self.settings, self.shapes = settings, shapes
        model = guider.model_patcher
        self.frames, self.length = (shape[0], shape[0]) if len(shape) == 4 else (None, shape[2])
        self.apart = not self.frames and model_family(model).first_apart
        self.size, self.device = (shape[-2], shape[-1]), model.load_device
        self.gain = settings.at(Sampling.of(model), shape[-2] * shape[-1])
        self.image: torch.Tensor | None = None
        self.latent: torch.Tensor | None = None
        self.mask: torch.Tensor | None = None
        self.kept = 0

    def sample(
        self,
        executor: Executor,
        guider: Guider,
        sigmas: torch.Tensor,
        extra_args: dict,
        callback: Callable,
        noise: torch.Tensor,
        latent_image: torch.Tensor | None = None,
        denoise_mask: torch.Tensor | None = None,
        *args,
        **kwargs,
    ) -> torch.Tensor:
        """SAMPLER_SAMPLE: what the mask keeps, and the image, in the network's space."""
        if denoise_mask is not None and latent_image is not None:
            self.latent, self.mask = (self.clip(unpacked(x, self.shapes)[0]) for x in (latent_image, denoise_mask.expand_as(latent_image)))
            self.kept = leading(self.mask)
        note = self.find_image(guider)
        say(self.settings.node_id, "\n".join(filter(None, [self.described(sigmas), note])))
        return executor(guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask, *args, **kwargs)

    def predict(self, executor: Executor, x: torch.Tensor, timestep: torch.Tensor, *args, **kwargs) -> torch.Tensor:
        """PREDICT_NOISE: D' for D."""
        denoised, gain = executor(x, timestep, *args, **kwargs), self.gain(float(timestep.flatten()[0]))
        if gain == 1:
            return denoised
        video, *rest = unpacked(denoised, self.shapes)
        if self.frames and video.shape[0] % self.frames:
            return denoised  # a window of the clip, by a node that cuts it outside the guider
        return packed([self.amplified(video, gain), *rest])

    def amplified(self, video: torch.Tensor, gain: float) -> torch.Tensor:
        """D' of a video's D, in the host's shape."""
        clip = self.clip(video)  # [B, T, C, h, w]
        kept = None if self.mask is None else self.mask <= KEPT
        shown = clip if kept is None else clip * self.mask + self.latent * (1 - self.mask)  # [B, T, C, h, w], as is sampled on
        out = motion_gain.amplified(clip, self.still(shown), gain, self.settings.protect)  # [B, T, C, h, w]
        if self.apart and self.image is None:
            out[..., 0, :, :, :] = clip[..., 0, :, :, :]
        if kept is not None:
            out = clip.where(kept, out)
        return out.reshape(video.shape) if self.frames else out.movedim(1, 2)

    def still(self, clip: torch.Tensor) -> torch.Tensor:
        """F of a clip [B, T, C, h, w]."""
        if self.image is not None:
            return self.image
        if self.settings.reference == MEAN:
            return motion_gain.own_mean(clip, int(self.apart))
        return motion_gain.own_frame(clip, max(int(self.apart), self.kept - 1))  # of several kept frames the last: motion goes on from it

    def clip(self, video: torch.Tensor) -> torch.Tensor:
        """The host's latents -> [B, T, C, h, w]; frames that are a batch may be those of several clips."""
        return video.reshape(-1, self.frames, *video.shape[1:]) if self.frames else video.movedim(2, 1)

    def find_image(self, guider: Guider) -> str:
        """Sets `image`, F as given: [1, 1 or T, C, h, w]. -> a note where it cannot be had."""
        if self.settings.reference == OWN and self.apart and self.length == 2:
            return "this clip has two latents, of which the first is of its own kind: nothing can be told of its motion, so nothing is amplified"
        if self.settings.reference != IMAGE:
            return ""
        if self.settings.still is not None:
            self.image = self.given(guider)
        elif self.apart:
            return f"'{IMAGE}' needs `still` here: this model's code has no place for a single picture among the later latents. Meanwhile: {OWN}"
        elif not self.kept:  # a kept first frame is the image
            self.image = self.conditional(guider)
            if self.image is None:
                return f"this conditioning holds no image latents: '{OWN}' instead"
        return ""

    def given(self, guider: Guider) -> torch.Tensor:
        """The input `still` in the network's space; raises ValueError where it does not fit the video."""
        image = self.settings.still
        frames = image.shape[0] if self.frames else image.shape[2]
        wanted = (self.length,) if self.apart else (1, self.length)
        if tuple(image.shape[-2:]) != self.size or frames not in wanted:
            raise ValueError(
                f"`still` has {frames} latent frames of {tuple(image.shape[-2:])}, but the video has {self.length} of {self.size}: repeat the picture to all frames of the clip, in its size, and encode it with the model's VAE"
            )
        return self.single(guider.inner_model.process_latent_in(image.to(self.device)))

    def conditional(self, guider: Guider) -> torch.Tensor | None:
        """The image latents of the run's conditioning, the first frame, in the network's space; None where there are none."""
        for conditioning in (guider.conds.get("positive"), *guider.conds.values()):
            for entry in conditioning or ():
                image = entry.get("concat_latent_image")
                if image is not None:
                    first = guider.inner_model.process_latent_in((image[:1] if image.ndim == 4 else image[:1, :, :1]).to(self.device))
                    return self.single(resized(first, self.size))
        return None

    def single(self, image: torch.Tensor) -> torch.Tensor:
        """Latents of one still clip -> [1, frames, C, h, w]."""
        return image[None] if self.frames else image.movedim(2, 1)

    def described(self, sigmas: torch.Tensor) -> str:
        """What this run does, in words."""
        gains = [(sigma, self.gain(sigma)) for sigma in sigmas.tolist()[:-1]]
        acting = [(sigma, g) for sigma, g in gains if g != 1]
        if not acting and self.settings.curve is not None:
            return "nothing to do here: the curve proves no lack of motion at the levels of this run"
        if not acting:
            return f"nothing to do here: this sampler begins at sigma {float(sigmas[0]):.4g}, below the levels of the gain"
        most = max((g for _, g in acting), key=lambda g: abs(g - 1))
        return f"motion x {most:.3g} at {len(acting)} of {len(gains)} steps, down to sigma {acting[-1][0]:.4g}"


def leading(mask: torch.Tensor) -> int:
    """How many frames from the first on a mask keeps wholly. mask [B, T, C, h, w]."""
    keeps = (mask.amax((0, 2, 3, 4)) <= KEPT).tolist()  # [T]
    return next((i for i, keep in enumerate(keeps) if not keep), len(keeps))


def resized(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Latents in another size, as the host fits an image that is conditioned on."""
    if tuple(image.shape[-2:]) == size:
        return image
    frames = image.movedim(2, 1).flatten(0, 1) if image.ndim == 5 else image  # [T, C, h, w]
    frames = comfy.utils.common_upscale(frames, size[1], size[0], "bilinear", "center")  # [T, C, *size]
    return frames.movedim(0, 1)[None] if image.ndim == 5 else frames
