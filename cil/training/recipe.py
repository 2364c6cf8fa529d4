"""How a model is tuned."""

import math
from dataclasses import dataclass

from ..timenoise import TimeNoise


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
    noise: TimeNoise | None = None

    def __post_init__(self):
        if min(self.steps, self.batch, self.accumulation) < 1:
            raise ValueError(f"steps, batch and accumulation are at least 1, but {self.steps}, {self.batch} and {self.accumulation} were given")
        if not (0 <= self.dropout <= 1 and 0 <= self.ema < 1 and self.clip_norm >= 0 and self.weight_decay >= 0):
            raise ValueError(
                f"condition dropout is in [0, 1], ema in [0, 1), clip norm and weight decay at least 0, but {self.dropout}, {self.ema}, {self.clip_norm} and {self.weight_decay} were given"
            )
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"the learning rate must be above 0, but it is {self.learning_rate}")
