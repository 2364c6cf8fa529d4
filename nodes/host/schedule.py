"""What an artist sets of a schedule: a scheduler's name and a start."""

import comfy.samplers

START_AS = ["family preset", "fraction", "sigma"]
TRAILING = "trailing (paper)"  # the authors' spacing of DDIM timesteps, beside the host's schedulers


def scheduler_names():
    """Every scheduler that the host or another pack has registered, and the paper's."""
    return [*comfy.samplers.SCHEDULER_NAMES, TRAILING]


def start_sigma(sampling, family, start_as, start):
    """The start as an artist sets it -> sigma_M. start_as: START_AS; raises ValueError."""
    if start_as == "family preset":
        start, start_as = family.start
    sigma = start if start_as == "sigma" else sampling.sigma(start)
    sampling.check_start(sigma)
    return min(sigma, sampling.sigma_max)
