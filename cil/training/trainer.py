"""The run of a training: updates, the average, saving and going on."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from .. import processes, resumable
from ..files import ordered
from .recipe import Recipe

FORMAT, VERSION = "cil-training-state", 2
BETAS = (0.9, 0.999)  # AdamW's, App. D
SHARE = 0.05  # of a training's time that saving on the way may take
DISK = 500e6  # bytes a second that a disk is thought to write until it has been seen


class Diverged(ValueError):
    """The loss or the gradient is no longer a number."""


def adamw(parameters: dict, recipe: Recipe) -> torch.optim.Optimizer:
    """The paper's optimiser (App. D)."""
    return torch.optim.AdamW(parameters.values(), lr=recipe.learning_rate, betas=BETAS, weight_decay=recipe.weight_decay)


class Training:
    """A tuning under way: weights, optimiser, their average, the losses so far.

    parameters: {name: Parameter}, all that is trained; settings: a dict that two runs must
    share to be one (the learning rate and the number of steps may change between them);
    team: the processes that take part; check(parameters): called once, between the first
    backward pass and what it changes; optimiser(parameters, recipe) -> a torch Optimizer over all
    of them in one group, in their order: another than AdamW.
    """

    def __init__(
        self, parameters: dict, recipe: Recipe, settings: dict, team: processes.Alone | None = None, check: Callable | None = None,
        optimiser: Callable | None = None,
    ):  # fmt: skip
        self.parameters, self.recipe, self.settings = parameters, recipe, settings
        self.team = team or processes.Alone()
        self.optimiser: torch.optim.Optimizer = (optimiser or adamw)(parameters, recipe)
        self.average = {name: p.detach().clone() for name, p in parameters.items()} if recipe.ema else None
        self.check = check
        self.losses: list[float] = []  # one an update
        self.consistent = True  # False while an update is being written into the weights

    @property
    def step(self) -> int:
        """Updates made."""
        return len(self.losses)

    @property
    def result(self) -> dict[str, torch.Tensor]:
        """{name: tensor}: the averaged weights, or the last ones where ema is 0. All of the team must ask."""
        kept = {name: p.detach() for name, p in self.parameters.items()} if self.average is None else self.average
        return {name: self.team.gather(value) for name, value in kept.items()}

    def update(self, loss: Callable) -> None:
        """One update. loss(step, part) -> scalar tensor, this process's."""
        total: Any = 0.0  # a tensor from the first pass on
        for part in range(self.recipe.accumulation):
            with self.team.accumulating(loss, more=part + 1 < self.recipe.accumulation):
                value = loss(self.step, part) / self.recipe.accumulation
                value.backward()
            total = total + value.detach()
        if self.check is not None:
            self.check(self.parameters)
            self.check = None
        total = float(self.team.mean(total))
        norm = float(self.team.gather(torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.recipe.clip_norm or math.inf)))
        if not (math.isfinite(total) and math.isfinite(norm)):
            self.optimiser.zero_grad(set_to_none=True)
            raise Diverged(
                f"at step {self.step + 1} the loss is {total:g} and the gradient's norm {norm:g}: the training diverged, and the weights of step {self.step} were kept. Try a lower learning rate, or fp32"
            )
        self.consistent = False
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self._average()
        self.losses.append(total)
        self.consistent = True

    def _average(self):
        """The moving average; its decay rises at first, so that the start is forgotten."""
        if self.average is None:
            return
        decay = min(self.recipe.ema, (self.step + 1) / (self.step + 10))
        for name, p in self.parameters.items():
            self.average[name].lerp_(p.detach(), 1 - decay)

    def run(self, loss: Callable, path: Path | None = None, every: float = 60.0, progress: Callable | None = None) -> None:
        """All updates that are left; progress(training) after each.

        State goes to `path` every so many seconds, or as seldom as saving needs to take no more
        than SHARE of the time (0: after each update), and at the end, whatever ends it; of a
        team that can only save together, not where one of its processes is interrupted.
        """
        loss = self.team.wrap_loss(loss, self.parameters.values())
        clock, together = SaveClock(every, self._bytes()), self.team.saves_alone
        try:
            while self.step < self.recipe.steps:
                self.update(loss)
                if path and self.team.should_save(clock.due()):
                    with clock.saving():
                        self.save(path)
                if progress:
                    progress(self)
            together = True
        except Diverged:  # which all processes see at the same step
            together = True
            raise
        finally:
            if path and self.consistent and together and self.team.should_save(True):
                self.save(path)

    @property
    def _optimiser(self):
        """What the optimiser's tensors are called in a state."""
        return type(self.optimiser).__name__.lower()

    def _state(self):
        """All tensors of the state by their names, as they are: no copies."""
        tensors = {f"weight.{name}": p.detach() for name, p in self.parameters.items()}
        tensors |= {f"average.{name}": value for name, value in (self.average or {}).items()}
        for i, values in self.optimiser.state_dict()["state"].items():
            tensors |= {f"{self._optimiser}.{i}.{key}": value for key, value in values.items()}
        return tensors | {"losses": torch.tensor(self.losses, dtype=torch.float64)}

    def _bytes(self):
        """What a state takes on the disk: weights, average, and AdamW's two moments."""
        return sum(p.numel() * p.element_size() for p in self.parameters.values()) * (3 if self.average is None else 4)

    def save(self, path: Path) -> None:
        """Write all of it, atomically and a tensor at a time: all of the team that is due, of whom the first writes."""
        tensors = self._state()
        left = ordered(tensors)

        def gather(tensor):
            left.pop(0)
            return self.team.gather(tensor)

        try:
            if self.team.rank == 0:
                resumable.write(tensors, path, FORMAT, VERSION, self.settings, gather)
        finally:
            for name in list(left):  # others than the first; the first too, where it could not write: they put these together
                gather(tensors[name])

    def resume(self, path: Path) -> None:
        """Take up what `save` wrote. Raises ValueError if it is another run's, or damaged."""
        tensors, settings = resumable.read(path, FORMAT, VERSION, "the state of a training", old="settings")
        resumable.check_settings(str(path), settings, self.settings)
        try:
            self._take(tensors)
        except (KeyError, ValueError, IndexError, RuntimeError) as error:
            raise ValueError(f"{path} is damaged: it does not fit its own settings ({str(error).splitlines()[0]}). Delete it to begin anew") from None

    def _take(self, tensors):
        for name, p in self.parameters.items():
            p.data.copy_(self.team.shard(tensors[f"weight.{name}"], p))
            if self.average is not None:
                self.average[name].copy_(self.team.shard(tensors[f"average.{name}"], p))
        state, parameters = {}, list(self.parameters.values())
        for name, value in sorted(tensors.items()):  # in the same order in every process
            if name.startswith(f"{self._optimiser}."):
                _, i, key = name.split(".")
                # copies: the file, which a later state replaces, stays open as long as its tensors are in use
                state.setdefault(int(i), {})[key] = value.clone() if value.ndim == 0 else self.team.shard(value.clone(), parameters[int(i)])
        self.optimiser.load_state_dict({"state": state, "param_groups": self.optimiser.state_dict()["param_groups"]})
        self.losses = tensors["losses"].tolist()


class SaveClock:
    """When to save: every so many seconds, and all saves together in no more of the time than SHARE. every: 0 = always; size: bytes of a state."""

    def __init__(self, every: float, size: int, clock: Callable = time.monotonic):
        self.every, self.seconds, self.clock = every, size / DISK, clock  # seconds: of a save, as the last one took
        self.began = self.last = clock()
        self.spent = 0.0

    def due(self) -> bool:
        now = self.clock()
        return self.every <= 0 or (now - self.last > self.every and self.spent + self.seconds <= SHARE * (now - self.began))

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Around a save, whose time counts."""
        began = self.clock()
        yield
        self.last = self.clock()
        self.seconds = self.last - began
        self.spent += self.seconds
