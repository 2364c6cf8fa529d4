"""Adaptive low-pass guidance (ALG): the base of the guidance sees the sharp image, its difference a blurred one.

Choi et al., "Enhancing Motion Dynamics of Image-to-Video Models via Adaptive Low-Pass Guidance"
(arXiv 2506.08456, CVPR 2026), and the settings of the authors' code:

    D = D(x | y, null) + w (D(x | y_lp, text) - D(x | y_lp, null))

y the image's latents, y_lp the same low-passed (low_pass.py), w the CFG scale, null the negative
prompt. `progress` runs from 0 at the first step to 1 at the last.
"""

import math
from dataclasses import dataclass

import torch

from .schedules import step_index

SCHEDULES = ("constant", "linear", "exponential")
LEAST_WEIGHT = 0.1  # the authors' CogVideoX code leaves off the filter of an exponential schedule below this


@dataclass(frozen=True)
class Setting:
    """A published setting. strength: 1 / the authors' resize factor. end: the last progress, None = not published."""

    strength: float
    end: float | None
    source: str


PUBLISHED = {
    "Wan 2.1": Setting(2.5, 0.20, "authors' code for Wan 2.1 I2V 14B 480p: size kept 0.4, CFG 5, 50 steps"),
    "CogVideoX": Setting(4.0, 0.04, "authors' code for CogVideoX 5B I2V: size kept 0.25, CFG 6, 50 steps"),
    "HunyuanVideo": Setting(1.6, 0.04, "authors' code for HunyuanVideo I2V: size kept 0.625, 50 steps"),
    "Wan 2.2": Setting(2.5, None, "paper: size kept 0.4; the interval is not published"),
}


def guided(sharp: torch.Tensor, text: torch.Tensor, null: torch.Tensor, scale: float) -> torch.Tensor:
    """The denoised output. sharp: D(x|y, null), text: D(x|y_lp, text), null: D(x|y_lp, null), all alike in shape."""
    return sharp + scale * (text - null)


def as_pair(sharp: torch.Tensor, text: torch.Tensor, null: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(cond, uncond) out of which plain CFG, uncond + w (cond - uncond), makes `guided` at any w."""
    return sharp + (text - null), sharp


def step_progress(sigmas: torch.Tensor, sigma: float) -> float:
    """i / (N - 1) of the step that a call at `sigma` belongs to (schedules.step_index)."""
    return step_index(sigmas, sigma) / max(len(sigmas) - 2, 1)


def weight(schedule: str, progress: float, start: float, end: float, decay: float) -> float:
    """How much of the filter acts, 0 to 1.

    constant: 1 from `start` to `end`, both included. linear: from 1 at `start` down to 0 at `end`.
    exponential: exp(-decay (progress - start)) from `start` on, nothing below 0.1; `end` is not asked.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"a schedule is one of {', '.join(SCHEDULES)}, but '{schedule}' was given")
    slack = 1e-5  # a sigma and its time are each other's inverse to about six digits
    if progress < start - slack or (schedule != "exponential" and progress > end + slack):
        return 0.0
    if schedule == "constant":
        return 1.0
    if schedule == "linear":
        return max(0.0, 1 - (progress - start) / (end - start)) if end > start else 0.0
    share = math.exp(-decay * max(0.0, progress - start))
    return share if share >= LEAST_WEIGHT else 0.0


def weakened(filter: str, strength: float, weight: float) -> float:
    """The strength of a filter of low_pass.FILTERS of which only the share `weight` acts.

    As the authors do it: the size that is kept, and the standard deviation, are what is weakened.
    """
    return 1 / (1 - (1 - 1 / strength) * weight) if filter == "down and up" else strength * weight
