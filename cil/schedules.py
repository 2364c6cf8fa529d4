"""Where the steps lie when sampling starts at sigma_M < sigma_T (Alg. 1).

A schedule is a 1-D float tensor of falling sigmas, the last usually 0.
"""

import torch


def check(sigmas):
    """Raise ValueError unless `sigmas` is a schedule that a sampler can follow."""
    if sigmas.ndim != 1 or len(sigmas) < 2:
        raise ValueError(f"a schedule needs at least two sigmas, but {tuple(sigmas.shape)} came; was it cut to nothing (denoise 0, or a split at its end)?")
    if not torch.isfinite(sigmas).all():
        raise ValueError(f"the schedule has a sigma that is not a number: {sigmas.tolist()}")
    if not (sigmas[:-1] > sigmas[1:]).all() or sigmas[-1] < 0:
        raise ValueError(f"the sigmas of a schedule must fall and stay above zero, but these came: {sigmas.tolist()}")


def trailing(timesteps, steps):
    """The authors' DDIM timesteps below M ("uniform trailing"), 0-based and falling.

    timesteps: M T, the number of timesteps to lay `steps` steps over.
    M T = 940 and 50 steps give 939, 920, 901, ..., 18.
    """
    if not 1 <= steps <= timesteps:
        raise ValueError(f"{steps} steps cannot be laid over {timesteps} timesteps: ask for 1 to {timesteps}")
    return [round(timesteps - i * timesteps / steps) - 1 for i in range(steps)]


def from_start(sigmas, start):
    """`sigmas` with exactly `start` first and only what lies below it after: a plain cut."""
    first = torch.as_tensor(start, dtype=sigmas.dtype, device=sigmas.device).reshape(1)
    return torch.cat([first, sigmas[sigmas < first * (1 - 1e-6)]])


def falling(sigmas):
    """`sigmas` without the repeats that a scheduler makes when it runs out of timesteps."""
    kept = [sigmas[0]]
    for sigma in sigmas[1:]:
        if sigma < kept[-1]:
            kept.append(sigma)
    return torch.stack(kept)


def squeeze(sigmas, start, fraction_of, sigma_of):
    """Move the first sigma to `start` and the others with it, the last positive one staying.

    The map is affine in time; fraction_of(sigma) and sigma_of(fraction) translate. It keeps
    the number of steps and the end, so that a second sampler can take over there.
    """
    positive = sigmas[sigmas > 0].tolist()
    first, last = fraction_of(positive[0]), fraction_of(positive[-1])
    if len(positive) == 1:
        moved = [start]
    else:
        ratio = (fraction_of(start) - last) / (first - last)
        inner = [sigma_of(last + (fraction_of(s) - last) * ratio) for s in positive[1:-1]]
        moved = [start, *inner, positive[-1]]
    moved += [0.0] * (len(sigmas) - len(positive))
    return torch.tensor(moved, dtype=sigmas.dtype, device=sigmas.device)


def step_index(sigmas, sigma):
    """The step that a call of the model at `sigma` belongs to, from 0. sigmas: [steps + 1] falling, of the run.

    A call between two steps' levels (a sampler of second order) belongs to the step before it.
    """
    return max(int((sigmas[:-1] >= sigma * (1 - 1e-5)).sum()) - 1, 0)
