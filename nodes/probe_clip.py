"""The probe on one clip: whether it can be asked about, what the model shows of it, and how much of a second clip is read."""

import statistics
from collections.abc import Callable

import torch

from ..cil import calibration, probe
from ..cil.forward import ForwardProcess
from .host.evaluation import SamplingContext
from .host.latents import frames_dim
from .host.models import model_family
from .host.types import Conditioning, Model, Vae
from .motion import DIS
from .training.conditions import ADAPTERS

HALF_SPEED, FROZEN = "half speed", "frozen"
MOVES = 0.02  # rms of the clip's motion over rms of its latents, below which it counts as still
SAME_PICTURE = 0.3  # correlation of the conditioning's image with the clip's first frame, below which it is another picture


def second_of(clip: torch.Tensor, control: str, dim: int) -> torch.Tensor:
    """The clip to compare with, made from the first."""
    return (probe.slowed if control == HALF_SPEED else probe.frozen)(clip, dim)


def idle_settings(negative: Conditioning | None, cfg: float, second_images: torch.Tensor | None, control: str, vae: Vae | None, flow: str) -> list[str]:
    """Notes about what was set or connected but cannot act, of one clip."""
    notes = {
        "cfg is not used: connect negative": negative is None and cfg != 1,
        "negative is not used at cfg 1": negative is not None and cfg == 1,
        "control is not used: a second clip is connected": second_images is not None and control != FROZEN,
        "flow is not used: without vae no picture is scored": vae is None and flow != DIS,
        "guidance is no prediction: the curve holds for cfg 1 alone": negative is not None and cfg != 1,
    }
    return [note for note, idle in notes.items() if idle]


def check_picture(model: Model, positive: Conditioning, samples: torch.Tensor) -> None:
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

    def __init__(self, levels: list[tuple[float, float]]):
        self.levels = levels  # (fraction, sigma)
        self.evidence: calibration.Evidence | None = None
        self.gain: list[list[float]] = [[] for _ in levels]
        self.response: list[list[float]] = [[] for _ in levels]
        self.readable: list[list[float]] = [[] for _ in levels]
        self.predictions: list[torch.Tensor | None] = [None] * len(levels)  # the first draw's of each level, in half precision, for the sheet
        self.scores: list[float] = []  # motion scores, where a VAE and a flow are there
        self.true_score: float | None = None

    def mean(self, name: str) -> list[float]:
        return [statistics.fmean(v) for v in getattr(self, name)]

    def spread(self, name: str) -> list[float]:
        return [statistics.stdev(v) if len(v) > 1 else 0.0 for v in getattr(self, name)]


def measure(
    context: SamplingContext,
    process: ForwardProcess,
    samples: torch.Tensor,
    second: torch.Tensor,
    levels: list[tuple[float, float]],
    seed: int,
    draws: int,
    tick: Callable,
) -> Measured:
    """Calibration of one clip, and what is read of its difference from a second one that begins with the same frame -> Measured."""
    found = Measured(levels)
    dim = frames_dim(samples)
    as_clip = (lambda x: x.movedim(1, 0)) if samples.ndim == 4 else (lambda x: x[0])
    apart = samples.ndim == 5 and model_family(context.model).first_apart
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
        evidence.add(*calibration.measure(with_second, process, a, sigmas, draws, seed, as_clip, each, apart))
        found.evidence = evidence
        found.readable = [[probe.readable(process, sigma, a, b)] for sigma in sigmas]

    context.run(samples, sigmas, work)
    return found


def check_motion(a: torch.Tensor, b: torch.Tensor, still: torch.Tensor) -> None:
    """Raise ValueError for a clip that stands still, or a second one that is the first."""
    if float((a - still).square().mean().sqrt()) < MOVES * float(a.square().mean().sqrt()):
        raise ValueError("this clip does not move, so nothing can be said of leakage: take one with visible motion")
    if not (a - b).any():
        raise ValueError("the second clip is the same as the first: it must begin with the same frame and then move differently")
