"""Fine-tuning an image-to-video model: plainly (the paper's naive tuning), or with TimeNoise (Alg. 2, App. D).

A model is anything that predicts the clean clip, D(x, sigma), in a host's space (forward.py);
what its network itself predicts only decides the weight of ||D - x_0||^2 in the loss.

Everything random about the n-th example of a run follows from (seed, n) alone. So a run that
was killed and resumed equals one that was not, and the number of processes does not matter.
"""

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from . import processes, resumable, timenoise
from .files import ordered
from .forward import ForwardProcess

FORMAT, VERSION = "cil-training-state", 2
SHARE = 0.05  # of a training's time that saving on the way may take
DISK = 500e6  # bytes a second that a disk is thought to write until it has been seen
BETAS = (0.9, 0.999)  # AdamW's, App. D


# ---- the losses, as weights of ||D - x_0||^2 ------------------------------------------


# Ho et al. 2020, Eq. 14, ||eps - eps_hat||^2, since D = (x_t - sigma_t eps_hat) / alpha_t
def eps_weight(process, sigma):
    return (process.alpha(sigma) / process.sigma(sigma)) ** 2


# Salimans & Ho 2022, App. D, ||v - v_hat||^2 with v = alpha_t eps - sigma_t x_0: D = alpha_t x_t - sigma_t v_hat.
# Lipman et al. 2023, Eq. 23, ||u - u_hat||^2 with u = eps - x_0: D = x_t - sigma_t u_hat. The same weight.
def velocity_weight(process, sigma, rescale=lambda s: 1.0):
    """rescale(sigma): LVDM's s_t, where the network predicts v = alpha_t eps - sigma_t s_t x_0."""
    return (rescale(sigma) / process.sigma(sigma)) ** 2


# Karras et al. 2022, Table 1, lambda(sigma); with sigma_data = 1 also SVD's v-loss.
def edm_weight(sigma, sigma_data=1.0):
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


# ---- which noise levels are trained ---------------------------------------------------


# Karras et al. 2022, Table 1: ln sigma ~ N(P_mean, P_std^2), kept inside the model's range
def lognormal_sigma(P_mean, P_std, low, high, tail=0.0):
    """-> draw(generator) -> sigma. tail: the share that is drawn evenly in ln sigma instead, over the whole range."""

    def draw(g):
        normal = P_mean + P_std * float(torch.randn((), generator=g, dtype=torch.float64))
        even, choice = torch.rand(2, generator=g, dtype=torch.float64).tolist()
        log = math.log(low) + even * math.log(high / low) if choice < tail else normal
        return min(max(math.exp(log), low), high)

    return draw


# Ho et al. 2020, Alg. 1: t ~ U{1, ..., T}
def uniform_timestep(table):
    """Of a model with a table of T sigmas -> draw(generator) -> sigma."""
    return lambda g: float(table[int(torch.randint(len(table), (), generator=g))])


# Lipman et al. 2023, Eq. 23: t ~ U(0, 1), in the model's own time, so that its shift acts
def uniform_time(sigma_of):
    """sigma_of(t), t in (0, 1] -> draw(generator) -> sigma."""
    return lambda g: sigma_of(1 - float(torch.rand((), generator=g, dtype=torch.float64)))


EVERY_SIGMA = (0.0, math.inf)
TRIES = 10000


def within(draw, low, high):
    """The same draws, but those outside [low, high] are drawn again. For a model of one of several stages."""

    def again(g):
        for _ in range(TRIES):
            if low <= (sigma := draw(g)) <= high:
                return sigma
        raise ValueError(f"hardly any noise level of this training lies in [{low:g}, {high:g}], in sigma: widen the range")

    return again


@dataclass(frozen=True)
class Objective:
    """What a model is trained for, in a host's sigma.

    process: its forward process; weight(sigma) of ||D - x_0||^2; draw_sigma(generator): the
    levels to train; fraction(sigma): t of TimeNoise, a fraction of T in [0, 1]; noised: the
    fields of a Clip on which TimeNoise acts.
    """

    process: ForwardProcess
    weight: Callable
    draw_sigma: Callable
    fraction: Callable
    noised: tuple = ("image",)


# ---- the examples ---------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """One tuning. Defaults: the paper's for SVD (App. D), except for `steps` and `batch`.

    batch: clips a forward pass; accumulation: passes an update; clip_norm: 0 = no clipping;
    dropout: share of examples without their condition; ema: decay of the averaged weights,
    0 = none; noise: TimeNoise, None = naive tuning.
    """

    steps: int = 1000
    batch: int = 1
    accumulation: int = 1
    learning_rate: float = 3e-5
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    dropout: float = 0.1
    ema: float = 0.9999
    seed: int = 0
    noise: timenoise.TimeNoise | None = None

    def __post_init__(self):
        if min(self.steps, self.batch, self.accumulation) < 1:
            raise ValueError(f"steps, batch and accumulation are at least 1, but {self.steps}, {self.batch} and {self.accumulation} were given")
        if not (0 <= self.dropout <= 1 and 0 <= self.ema < 1 and self.clip_norm >= 0 and self.weight_decay >= 0):
            raise ValueError(f"condition dropout is in [0, 1], ema in [0, 1), clip norm and weight decay at least 0, but {self.dropout}, {self.ema}, {self.clip_norm} and {self.weight_decay} were given")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"the learning rate must be above 0, but it is {self.learning_rate}")


@dataclass(frozen=True)
class Clip:
    """One prepared clip.

    latents [C, T, h, w] as the network sees them. image: the conditional image's latents
    [C, h, w] in the scale in which the network takes them, or [C, T, h, w] with the image as
    the first frame and padding behind it. embed: the image embedding or tokens, any shape;
    None where the network takes none. motion: motion score or bucket, 0 where there is none.
    text: the text's embedding [tokens, d], None where the network reads none. dropped: {field:
    what stands there in the unconditional branch}, None = zeros for image and embed.
    """

    latents: torch.Tensor
    image: torch.Tensor
    embed: torch.Tensor | None
    motion: float = 0.0
    text: torch.Tensor | None = None
    dropped: dict | None = None


@dataclass(frozen=True)
class Example:
    """A clip as it is shown to the model: noise, its sigma, and the condition with its level."""

    clip: Clip
    eps: torch.Tensor
    sigma: float
    level: float = 0.0


def generator(*numbers):
    """A CPU generator for a tuple of whole numbers >= 0; different tuples have nothing in common."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]))


def clip_of(seed, number, clips):
    """Which of `clips` clips the number-th example shows: each once before any comes again."""
    turn, place = divmod(number, clips)
    return int(torch.randperm(clips, generator=generator(seed, 1, turn))[place])


def unit_noise(condition, g):
    """Unit noise on an image's latents or tokens; none on the padding behind the image of [C, T, h, w]."""
    if condition.ndim < 4:
        return torch.randn(condition.shape, generator=g)
    eps = torch.zeros(condition.shape)
    eps[:, :1] = torch.randn(eps[:, :1].shape, generator=g)
    return eps


def noised(clip, fields, level, g):
    """The clip with TimeNoise on its image: y_s = y_0 + beta_s eps, in each of `fields`."""
    return replace(clip, **{f: timenoise.add_noise(getattr(clip, f), level, unit_noise(getattr(clip, f), g)) for f in fields})


def without_condition(clip):
    """The clip as the unconditional branch sees it."""
    if clip.dropped is not None:
        return replace(clip, **clip.dropped)
    return replace(clip, image=torch.zeros_like(clip.image), embed=torch.zeros_like(clip.embed))


def example(recipe, objective, clips, number):
    """The number-th example of a run (Alg. 2). clips: a sequence of Clip.

    TimeNoise's own draws come last: naive and TimeNoise tuning of one seed see the same
    clips, noise and dropped conditions.
    """
    g = generator(recipe.seed, 0, number)
    clip = clips[clip_of(recipe.seed, number, len(clips))]
    sigma = objective.draw_sigma(g)
    dropped = float(torch.rand((), generator=g)) < recipe.dropout
    eps, level = torch.randn(clip.latents.shape, generator=g), 0.0
    if recipe.noise is not None:
        t = torch.tensor(objective.fraction(sigma), dtype=torch.float64)
        level = float(recipe.noise.sample(t, g))
        clip = noised(clip, objective.noised, level, g)
    return Example(without_condition(clip) if dropped else clip, eps, sigma, level)


def batch_of(recipe, objective, clips, step, part=0, rank=0, world=1):
    """The examples of one forward pass: of an update's `part`, in process `rank` of `world`."""
    first = ((step * recipe.accumulation + part) * world + rank) * recipe.batch
    return [example(recipe, objective, clips, first + i) for i in range(recipe.batch)]


def denoising_loss(denoise, objective, examples, device="cpu"):
    """weight(sigma) ||D(x) - x_0||^2, mean over elements and examples: a scalar.

    denoise(x [n, C, T, h, w], sigma [n], examples) -> the predicted clean clips.
    """
    x0 = torch.stack([e.clip.latents.float() for e in examples]).to(device)
    eps = torch.stack([e.eps for e in examples]).to(device)
    sigma = torch.tensor([e.sigma for e in examples], device=device)
    x = objective.process.corrupt(x0, eps, sigma.view(-1, 1, 1, 1, 1))
    gap = (denoise(x, sigma, examples) - x0).square().flatten(1).mean(1)
    return (objective.weight(sigma) * gap).mean()


# ---- the run --------------------------------------------------------------------------


class Diverged(ValueError):
    """The loss or the gradient is no longer a number."""


class Training:
    """A tuning under way: weights, AdamW, their average, the losses so far.

    parameters: {name: Parameter}, all that is trained; settings: a dict that two runs must
    share to be one (the learning rate and the number of steps may change between them);
    team: the processes that take part; check(parameters): called once, between the first
    backward pass and what it changes.
    """

    def __init__(self, parameters: dict, recipe: Recipe, settings: dict, team: processes.Alone | None = None, check: Callable | None = None):
        self.parameters, self.recipe, self.settings = parameters, recipe, settings
        self.team = team or processes.Alone()
        self.optimiser = torch.optim.AdamW(parameters.values(), lr=recipe.learning_rate, betas=BETAS, weight_decay=recipe.weight_decay)
        self.average = {name: p.detach().clone() for name, p in parameters.items()} if recipe.ema else None
        self.check = check
        self.losses = []  # one an update
        self.whole = True  # False while an update is being written into the weights

    @property
    def step(self):
        """Updates made."""
        return len(self.losses)

    @property
    def result(self):
        """{name: tensor}: the averaged weights, or the last ones where ema is 0. All of the team must ask."""
        kept = {name: p.detach() for name, p in self.parameters.items()} if self.average is None else self.average
        return {name: self.team.whole(value) for name, value in kept.items()}

    def update(self, loss):
        """One update. loss(step, part) -> scalar tensor, this process's."""
        total = 0.0
        for part in range(self.recipe.accumulation):
            with self.team.gathering(loss, more=part + 1 < self.recipe.accumulation):
                value = loss(self.step, part) / self.recipe.accumulation
                value.backward()
            total = total + value.detach()
        if self.check is not None:
            self.check(self.parameters)
            self.check = None
        total = float(self.team.mean(total))
        norm = float(self.team.whole(torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.recipe.clip_norm or math.inf)))
        if not (math.isfinite(total) and math.isfinite(norm)):
            self.optimiser.zero_grad(set_to_none=True)
            raise Diverged(f"at step {self.step + 1} the loss is {total:g} and the gradient's norm {norm:g}: the training diverged, and the weights of step {self.step} were kept. Try a lower learning rate, or fp32")
        self.whole = False
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self._average()
        self.losses.append(total)
        self.whole = True

    def _average(self):
        """The moving average; its decay rises at first, so that the start is forgotten."""
        if self.average is None:
            return
        decay = min(self.recipe.ema, (self.step + 1) / (self.step + 10))
        for name, p in self.parameters.items():
            self.average[name].lerp_(p.detach(), 1 - decay)

    def run(self, loss: Callable, path: Path | None = None, every: float = 60.0, progress: Callable | None = None):
        """All updates that are left; progress(training) after each.

        State goes to `path` every so many seconds, or as seldom as saving needs to take no more
        than SHARE of the time (0: after each update), and at the end, whatever ends it; of a
        team that can only save together, not where one of its processes is interrupted.
        """
        loss = self.team.spread(loss, self.parameters.values())
        clock, together = SaveClock(every, self._bytes()), self.team.saves_alone
        try:
            while self.step < self.recipe.steps:
                self.update(loss)
                if path and self.team.due(clock.due()):
                    with clock.saving():
                        self.save(path)
                if progress:
                    progress(self)
            together = True
        except Diverged:  # which all processes see at the same step
            together = True
            raise
        finally:
            if path and self.whole and together and self.team.due(True):
                self.save(path)

    def _state(self):
        """All tensors of the state by their names, as they are: no copies."""
        tensors = {f"weight.{name}": p.detach() for name, p in self.parameters.items()}
        tensors |= {f"average.{name}": value for name, value in (self.average or {}).items()}
        for i, values in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adamw.{i}.{key}": value for key, value in values.items()}
        return tensors | {"losses": torch.tensor(self.losses, dtype=torch.float64)}

    def _bytes(self):
        """What a state takes on the disk: weights, average, and AdamW's two moments."""
        return sum(p.numel() * p.element_size() for p in self.parameters.values()) * (3 if self.average is None else 4)

    def save(self, path: Path):
        """Write all of it, atomically and a tensor at a time: all of the team that is due, of whom the first writes."""
        tensors = self._state()
        left = ordered(tensors)

        def whole(tensor):
            left.pop(0)
            return self.team.whole(tensor)

        try:
            if self.team.rank == 0:
                resumable.write(tensors, path, FORMAT, VERSION, self.settings, whole)
        finally:
            for name in list(left):  # others than the first; the first too, where it could not write: they put these together
                whole(tensors[name])

    def resume(self, path: Path):
        """Take up what `save` wrote. Raises ValueError if it is another run's, or damaged."""
        tensors, settings = resumable.read(path, FORMAT, VERSION, "the state of a training", old="settings")
        resumable.check_settings(str(path), settings, self.settings)
        try:
            self._take(tensors)
        except (KeyError, ValueError, IndexError, RuntimeError) as error:
            raise ValueError(f"{path} is damaged: it does not fit its own settings ({str(error).splitlines()[0]}). Delete it to begin anew") from None

    def _take(self, tensors):
        for name, p in self.parameters.items():
            p.data.copy_(self.team.share(tensors[f"weight.{name}"], p))
            if self.average is not None:
                self.average[name].copy_(self.team.share(tensors[f"average.{name}"], p))
        state, parameters = {}, list(self.parameters.values())
        for name, value in sorted(tensors.items()):  # in the same order in every process
            if name.startswith("adamw."):
                _, i, key = name.split(".")
                # copies: the file, which a later state replaces, stays open as long as its tensors are in use
                state.setdefault(int(i), {})[key] = value.clone() if value.ndim == 0 else self.team.share(value.clone(), parameters[int(i)])
        self.optimiser.load_state_dict({"state": state, "param_groups": self.optimiser.state_dict()["param_groups"]})
        self.losses = tensors["losses"].tolist()


class SaveClock:
    """When to save: every so many seconds, and no more of the time than SHARE. every: 0 = always; size: bytes of a state."""

    def __init__(self, every: float, size: int, clock: Callable = time.monotonic):
        self.every, self.seconds, self.clock = every, size / DISK, clock
        self.last = clock()

    def due(self) -> bool:
        return self.every <= 0 or self.clock() - self.last > max(self.every, self.seconds / SHARE)

    @contextmanager
    def saving(self):
        """Around a save, whose time counts."""
        began = self.clock()
        yield
        self.last = self.clock()
        self.seconds = self.last - began


@contextmanager
def prefetched(make: Callable, recipe: Recipe):
    """make(step, part) -> the same function, which makes the next batch in a thread while this one is worked on."""
    with ThreadPoolExecutor(1, thread_name_prefix="cil-batches") as thread:
        waiting = {}

        def batch(step, part):
            mine = waiting.pop((step, part), None) or thread.submit(make, step, part)
            following = (step, part + 1) if part + 1 < recipe.accumulation else (step + 1, 0)
            if following[0] < recipe.steps and following not in waiting:
                waiting[following] = thread.submit(make, *following)
            return mine.result()

        try:
            yield batch
        finally:
            for future in waiting.values():
                future.cancel()
