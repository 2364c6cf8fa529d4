"""What an artist sets of a schedule: a scheduler's name, a start, and where the steps lie below it."""

import comfy.samplers

from ...cil import levels

BY_SIGNAL = "paper's signal to noise (experimental)"
PAPER_RATIO = 0.01  # signal over noise at SVD's sigma 100, of latents of variance 1
START_AS = ["family preset", "fraction", "sigma", BY_SIGNAL]
TRAILING = "trailing (paper)"  # the authors' spacing of DDIM timesteps, beside the host's schedulers
ANEW, CUT = "all steps below the start", "cut the full schedule"
AUTO, HAND_OVER = "auto", "keep the hand-over"


def scheduler_names() -> list[str]:
    """Every scheduler that the host or another pack has registered, and the paper's."""
    return [*comfy.samplers.SCHEDULER_NAMES, TRAILING]


def start_sigma(sampling, family, start_as: str, start: float) -> float:
    """The start as an artist sets it -> sigma_M. start_as: START_AS; raises ValueError."""
    if start_as == "family preset":
        start, start_as = family.start
    if start_as == BY_SIGNAL:
        return levels.sigma_at(sampling.process, PAPER_RATIO, sampling.sigma_min, sampling.sigma_max)
    sigma = start if start_as == "sigma" else sampling.sigma(start)
    sampling.check_start(sigma)
    return min(sigma, sampling.sigma_max)
