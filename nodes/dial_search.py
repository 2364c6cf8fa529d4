"""The search of the Motion Dial: previews of one lever's settings, measured, until the amount is met (cil/dial.py)."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import comfy.model_management
import torch

from ..cil import amount as amounts
from ..cil import dial
from . import fingerprint, previews
from .dial_memory import Curve, Kept, Notebook
from .host.models import model_family
from .host.notes import say, to_go
from .host.types import NodeIdLike, Vae
from .levers import Lever

CALM, AS_IT_IS, MORE, FAITHFUL = "calm", "as it is", "more", "as much as stays faithful"
TIMES, SCORE = "times the plain clip's motion", "a motion score"
WANTS = {CALM: 0.5, AS_IT_IS: 1.0, MORE: 2.0, FAITHFUL: None, TIMES: None, SCORE: None}
TOLERANCE = 0.1  # of the amount asked for
STILL = 0.05  # pixels a pair at 800 x 450: less is a still, of which no multiple is asked
MEASURE = 1  # raised when the same clip would be measured otherwise


def goal_of(want: str, number: float, plain: amounts.Amount, frames: int) -> dial.Goal:
    """What is asked for, once the plain clip is known."""
    if want == FAITHFUL:
        return dial.Goal(None)
    factor = number if want == TIMES else WANTS[want]
    asked = number if want == SCORE else factor * max(plain.motion, STILL * (frames - 1))
    return dial.Goal(asked, TOLERANCE * asked)


@dataclass(frozen=True)
class Wish:
    """What is asked of a search, as its widgets say it. number: of the last two of WANTS; budget: settings; seconds: 0 = no limit; limit: of a price."""

    want: str
    number: float
    budget: int
    seconds: int
    limit: float

    def __str__(self):
        return f"{self.want} {self.number:g} {self.budget} {self.limit:g}"


class Search:
    """One search: its previews, what was measured, and what came of it. Keeps tiles, no clip."""

    def __init__(
        self, models: list, run: previews.Run, lever: Lever, vae: Vae, flow: Callable, image: torch.Tensor | None, seeds: int, wish: Wish, book: Notebook,
        node_id: NodeIdLike
    ):  # fmt: skip
        self.models, self.run, self.lever, self.vae, self.flow = models, run, lever, vae, flow
        self.image, self.seeds, self.wish = image, seeds, wish
        self.watch, self.node_id = previews.SearchProgress(wish.budget * seeds * run.steps, node_id), node_id
        self.book = book
        self.notes: list[str] = []
        self.kept: dict[float, Kept] = {}
        self.made, self.calls, self.stopped = 0, 0, False
        self.looks, self.begun = 0, time.monotonic()

    # ---- what is known ----

    def use(self, readings: Iterable[Kept]) -> None:
        """Take readings that were kept, as far as this lever has such settings."""
        search = self.lever.search
        for kept in readings:
            if search.low <= kept.setting <= search.high:
                self.kept.setdefault(round(kept.setting, search.digits), kept)

    def go_on_from(self, before: "Search") -> None:
        """Spend what another lever's search has left of the wish; its plain clip is this one's too."""
        self.use([replace(before.plain, setting=self.lever.search.neutral)])
        self.looks, self.begun = before.looks, before.begun

    def show(self) -> None:
        """Put up the tiles of what is known already; without the plain clip nothing can be said of it."""
        for setting in list(self.kept) if self.lever.search.neutral in self.kept else ():
            self.watch.tiles.append(None)
            self.caption(setting)

    @property
    def plain(self) -> Kept:
        return self.kept[self.lever.search.neutral]

    def readings(self) -> list[dial.Reading]:
        return [dial.Reading(s, k.amount.motion, k.amount.price(self.plain.amount) <= self.wish.limit) for s, k in self.kept.items()]

    # ---- looking ----

    def look(self, setting: float) -> None:
        """Sample and measure one setting. Raises the host's exception where it is stopped."""
        models, found, shown = self.lever.models(self.models, setting), [], None
        self.caption(None, f"{self.lever.told(setting)} ...")
        for i in range(self.seeds):
            samples = previews.sampled(models, self.run, (self.run.seed + i) % 2**64, lambda: self.watch.tick(1))
            self.calls += self.run.steps
            frames = previews.decoded(self.vae, samples).float().cpu().clamp(0, 1)
            del samples
            found.append(amounts.read(frames, frames[:1] if self.image is None else self.image, self.flow, self.watch.tick))
            shown = previews.tile(frames) if shown is None else shown
            del frames
        mean = lambda name: sum(getattr(a, name) for a in found) / len(found)
        amount = amounts.Amount(mean("motion"), mean("likeness"), mean("flicker"))
        self.kept[setting] = Kept(setting, amount, previews.strip_of(shown))
        self.made += self.seeds
        self.book.write(list(self.kept.values()))
        self.caption(setting)

    def caption(self, setting: float | None, text: str = "") -> None:
        """Put a setting's tile up, or a grey one for the one that is being made."""
        tiles = self.watch.tiles
        if setting is None:
            like = tiles[-1] if tiles else torch.zeros(1, 90, previews.TILE, 3, dtype=torch.uint8)
            tiles.append(previews.captioned(torch.full_like(like[:1, : min(90, like.shape[1])], 200), text))
            return
        if tiles:
            tiles.pop()
        shown = previews.tile_of(self.kept[setting].strip)
        if shown is not None:
            tiles.append(previews.captioned(shown, self.told(setting)))

    def told(self, setting: float) -> str:
        kept, text = self.kept[setting], self.lever.told(setting)
        price = kept.amount.price(self.plain.amount)
        return f"{'plain' if setting == self.lever.search.neutral else text}: motion {kept.amount.motion:.3g}, price {price:.3f}" + (
            " (breaks)" if price > self.wish.limit else ""
        )

    @property
    def goal(self) -> dial.Goal:
        return goal_of(self.wish.want, self.wish.number, self.plain.amount, frames_of(self.run.latent))

    def figures(self, setting: float) -> dict:
        """What was measured at a setting, for the report."""
        amount = self.kept[setting].amount
        price = amount.price(self.plain.amount)
        return {"motion": amount.motion, "likeness": amount.likeness, "flicker": amount.flicker, "price": price, "whole": price <= self.wish.limit}

    def tiles(self, plain: bool = True) -> list[torch.Tensor]:
        """The captioned tiles of all settings that were kept with one. plain: the plain clip's too."""
        settings = sorted(s for s in self.kept if plain or s != self.lever.search.neutral)
        shown = [(setting, previews.tile_of(self.kept[setting].strip)) for setting in settings]
        return [previews.captioned(tile, self.told(setting)) for setting, tile in shown if tile is not None]

    def go(self, curves: list[Curve]) -> None:
        """Look until the amount is met, nothing is left to try, the budget is spent or the run is stopped. curves: others' measurements."""
        search, wish = self.lever.search, self.wish
        if str(wish) in self.book.done:
            self.looks = max(self.looks, len(self.kept))
        try:
            if search.neutral not in self.kept:
                self.look(search.neutral)
                self.looks += 1
            hint = hint_of(curves, self.book.about, self.goal, self.plain.amount.motion, search.neutral)
            while str(wish) not in self.book.done:
                setting = dial.next_setting(search, self.readings(), self.goal, hint) if self.looks < wish.budget else None
                if setting is None:
                    self.book.write(list(self.kept.values()), str(wish))
                    break
                used = time.monotonic() - self.begun
                if wish.seconds and used > wish.seconds:
                    self.notes.append(f"the time, {wish.seconds} s, was up")
                    break
                left = f"; at most {to_go(used / self.looks * (wish.budget - self.looks))} to go" if self.looks else ""
                say(self.node_id, f"preview {self.looks + 1} of at most {wish.budget}: {self.lever.told(setting)}{left}. Stop keeps the best so far")
                self.look(setting)
                self.looks += 1
        except comfy.model_management.InterruptProcessingException:
            if search.neutral not in self.kept:
                raise
            self.stopped = True

    @property
    def answer(self) -> dial.Answer:
        """The best of what is known."""
        return dial.answer(self.lever.search, self.readings(), self.goal)

    @property
    def over(self) -> bool:
        """Whether another lever need not be tried: the amount is met, or the run was stopped."""
        kind, asked = self.answer.kind, self.goal.amount
        return self.stopped or kind == dial.FOUND or (kind == dial.AS_IT_IS and asked is not None)


def searched(searches: Iterable[Search], curves: list[Curve]) -> list[Search]:
    """Search with one lever after the other until the amount is met -> those that were searched with."""
    done: list[Search] = []
    for search in searches:
        if done:
            search.go_on_from(done[-1])
        search.go(curves)
        done.append(search)
        if search.over:
            break
    for search in done:
        search.stopped = done[-1].stopped
    return done


def nearest(searches: list[Search]) -> Search:
    """The search that came nearest to what was asked; the earlier one of two that came as near."""
    asked = searches[0].goal.amount
    away = lambda s: -s.answer.reading.amount if asked is None else abs(s.answer.reading.amount - asked)
    return min(searches, key=away)


def opened(
    models: list, run: previews.Run, lever: Lever, vae: Vae, flow: Callable, image: torch.Tensor | None, seeds: int, wish: Wish, curves: list[Curve],
    flow_name: str, node_id: NodeIdLike
) -> Search:  # fmt: skip
    """A Search that knows what was measured of the same before, here or by others."""
    about = {"model": fingerprint.of_weights(models[0].model.state_dict().items()), "family": model_family(models[0]).key, "lever": lever.name}
    fixed = lever.fixed()
    key = fingerprint.of_anything(MEASURE, about, fixed, models, run.key(), seeds, flow_name, fingerprint.of_encoder(vae), image)
    search = Search(models, run, lever, vae, flow, image, seeds, wish, Notebook.opened(key, about), node_id)
    search.use(search.book.readings)
    search.use(k for c in curves if c.key == key for k in c.readings)
    search.show()
    return search


def frames_of(latent: dict) -> int:
    """Latent frames of a clip, for what counts as a still."""
    samples = latent["samples"]
    return 2 if samples.is_nested else max(2, samples.shape[0 if samples.ndim == 4 else 2])


def hint_of(curves: list[Curve], about: dict, goal: dial.Goal, plain: float, neutral: float) -> float | None:
    """A first guess from others' measurements on the same weights: the median of what their curves say."""
    if goal.amount is None or plain <= 0:
        return None
    found = [c.setting_for(goal.amount / plain, neutral) for c in curves if (c.model, c.lever) == (about["model"], about["lever"])]
    found = sorted(s for s in found if s is not None)
    return found[len(found) // 2] if found else None


def sentence(answer: dial.Answer, search: Search) -> str:
    """The result in one sentence."""
    got, goal, plain, lever, stopped = answer.reading, search.goal, search.plain.amount.motion, search.lever, search.stopped
    times = f" ({got.amount / plain:.2f} x plain)" if plain > 0 else ""
    asked = "" if goal.amount is None else f", asked {goal.amount:.3g}"
    end = "Stopped; best so far: " if stopped else ""
    if answer.kind == dial.AS_IT_IS:
        return f"{end}Left as it is: {answer.reason}."
    if answer.kind == dial.FOUND:
        return f"{end}{lever.told(got.setting)} gives motion {got.amount:.3g}{times}{asked}."
    if answer.kind == dial.NEAREST:
        why = "" if stopped else f"; {answer.reason}"
        return f"{end}{lever.told(got.setting)} comes nearest: motion {got.amount:.3g}{times}{asked}{why}."
    return f"{end}Cannot{asked.replace(', asked', ': motion')} is asked, and {answer.reason}. The model stays as it is."
