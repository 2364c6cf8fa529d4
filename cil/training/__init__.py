"""Fine-tuning an image-to-video model: plainly (the paper's naive tuning), or with TimeNoise (Alg. 2, App. D)."""

from ..randomness import generator
from .dataset import (
    TOKENS,
    Clip,
    Example,
    batch_of,
    clip_of,
    example,
    noise_on_tokens,
    noised,
    prefetched,
    unit_noise,
    without_condition,
)
from .losses import Objective, denoising_loss, edm_weight, eps_weight, velocity_weight
from .noise_levels import EVERY_SIGMA, lognormal_sigma, uniform_time, uniform_timestep, within
from .recipe import Recipe
from .trainer import Diverged, SaveClock, Training

__all__ = [
    "EVERY_SIGMA", "TOKENS", "Clip", "Diverged", "Example", "Objective", "Recipe", "SaveClock", "Training", "batch_of", "clip_of", "denoising_loss",
    "edm_weight", "eps_weight", "example", "generator", "lognormal_sigma", "noise_on_tokens", "noised", "prefetched", "uniform_time", "uniform_timestep", "unit_noise",
    "velocity_weight", "within", "without_condition",
]  # fmt: skip
