"""Where the steps lie when sampling starts at sigma_M < sigma_T (Alg. 1).

A schedule is a 1-D float tensor of falling sigmas, the last usually 0.
"""

from collections.abc import Callable

import torch


def check(sigmas: torch.Tensor) -> None:
    """Raise ValueError unless `sigmas` is a schedule that a sampler can follow."""
    if sigmas.ndim != 1 or len(sigmas) < 2:
        raise ValueError(f"a schedule needs at least two sigmas, but {tuple(sigmas.shape)} came; was it cut to nothing (denoise 0, or a split at its end)?")
    if not torch.isfinite(sigmas).all():
        raise ValueError(f"the schedule has a sigma that is not a number: {sigmas.tolist()}")
    if not (sigmas[:-1] > sigmas[1:]).all() or sigmas[-1] < 0:
        raise ValueError(f"the sigmas of a schedule must fall and stay above zero, but these came: {sigmas.tolist()}")


def trailing(timesteps: int, steps: int) -> list[int]:
    """The authors' DDIM timesteps below M ("uniform trailing"), 0-based and falling.

    timesteps: M T, the number of timesteps to lay `steps` steps over.
    M T = 940 and 50 steps give 939, 920, 901, ..., 18.
    """
    if not 1 <= steps <= timesteps:
        raise ValueError(f"{steps} steps cannot be laid over {timesteps} timesteps: ask for 1 to {timesteps}")
    return [round(timesteps - i * timesteps / steps) - 1 for i in range(steps)]


def from_start(sigmas: torch.Tensor, start: float) -> torch.Tensor:
    """`sigmas` with exactly `start` first and only what lies below it after: a plain cut."""
    first = torch.as_tensor(start, dtype=sigmas.dtype, device=sigmas.device).reshape(1)  # [1]
    return torch.cat([first, sigmas[sigmas < first * (1 - 1e-6)]])


def falling(sigmas: torch.Tensor) -> torch.Tensor:
    """`sigmas` without the repeats that a scheduler makes when it runs out of timesteps."""
    before = torch.cat([sigmas.new_tensor([torch.inf]), sigmas.cummin(0).values[:-1]])  # like sigmas: the least of those before each
    return sigmas[sigmas < before]


def retime(sigmas: torch.Tensor, start: float, fraction_of: Callable, sigma_of: Callable) -> torch.Tensor:
    """A schedule that was laid for another start, moved to `start`: as many steps, its end where it was.

    The map is affine in time; fraction_of(sigma) and sigma_of(fraction) translate. So it is the
    scheduler's own schedule below `start` where that is even in time, and another one where it is
    even in something else (Karras in sigma^(1/7)). A second sampler can take over at the end.
    """
    positive = sigmas[sigmas > 0].tolist()
    times = [fraction_of(sigma) for sigma in positive]
    end = times[-1] if len(times) > 1 and positive[-1] < start else 0.0  # a start below the last step moves that too
    ratio = (fraction_of(start) - end) / (times[0] - end)
    moved = [start, *(sigma_of(end + (t - end) * ratio) for t in times[1:])]
    if end and len(moved) > 1:
        moved[-1] = positive[-1]
    moved += [0.0] * (len(sigmas) - len(positive))
    return torch.tensor(moved, dtype=sigmas.dtype, device=sigmas.device)


def step_index(sigmas: torch.Tensor, sigma: float) -> int:
    """The step that a call of the model at `sigma` belongs to, from 0. sigmas: [steps + 1] falling, of the run.

    A call between two steps' levels (a sampler of second order) belongs to the step before it.
    """
    return max(int((sigmas[:-1] >= sigma * (1 - 1e-5)).sum()) - 1, 0)
