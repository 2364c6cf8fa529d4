"""How much a clip moves, and at what price, as the motion dial reads it: consistent motion, which flicker cannot feed."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from . import consistency

MOST, WINDOW = 12, 5  # pairs of a long clip that are looked at; frames in a row of which they come


@dataclass(frozen=True)
class Amount:
    """motion: consistent motion summed over the clip's pairs, pixels at 800 x 450. likeness: to the picture, 1 = every frame is it, moved. flicker: mean change that no motion explains, in units of the picture."""

    motion: float
    likeness: float
    flicker: float

    def price(self, plain: "Amount") -> float:
        """What this clip lost against the plain one: likeness, and changes that no motion explains."""
        return max(0.0, plain.likeness - self.likeness) + max(0.0, self.flicker - plain.flicker)


def windows(frames: int) -> list[slice]:
    """The runs of frames that are looked at: all of a short clip, three runs of a long one, at its beginning, middle and end."""
    if frames - 1 <= MOST:
        return [slice(0, frames)]
    return [slice(at, at + WINDOW) for at in (0, (frames - WINDOW) // 2, frames - WINDOW)]


def read(frames: torch.Tensor, image: torch.Tensor, flow: Callable, tick: Callable = lambda: None) -> Amount:
    """The Amount of a clip [t, H, W, 3] in [0, 1]. image [1, H, W, 3]; flow: a backend of flow.py; tick() is called after each pair."""
    speeds, flickers = [], []
    for window in windows(len(frames)):
        for pair in consistency.pairs(frames[window], flow):
            speeds.append(pair.speed())
            flickers.append(pair.flicker())
            tick()
    likeness = consistency.likeness(frames, image, flow, at_most=4)
    return Amount((len(frames) - 1) * sum(speeds) / len(speeds), likeness, sum(flickers) / len(flickers))
