"""What an artist sets of a schedule: a scheduler's name, a start, and where the steps lie below it."""

from typing import TYPE_CHECKING

import comfy.samplers

from ...cil import levels
from ..families import Family

if TYPE_CHECKING:
    from .sampling import Sampling

BY_SIGNAL = "paper's signal to noise (experimental)"
PAPER_RATIO = 0.01  # signal over noise at SVD's sigma 100, of latents of variance 1
FROM_DIAL = "from the dial or probe"  # a sigma that another node of the pack found
START_AS = ["family preset", "fraction", "sigma", BY_SIGNAL, FROM_DIAL]
TRAP = 1.5  # the largest sigma above which 1 is no ordinary start
TRAILING = "trailing (paper)"  # the authors' spacing of DDIM timesteps, beside the host's schedulers
ANEW, CUT = "all steps below the start", "cut the full schedule"
AUTO, HAND_OVER = "auto", "keep the hand-over"


def scheduler_names() -> list[str]:
    """Every scheduler that the host or another pack has registered, and the paper's."""
    return [*comfy.samplers.SCHEDULER_NAMES, TRAILING]


def start_sigma(sampling: "Sampling", family: Family, start_as: str, start: float) -> float:
    """The start as an artist sets it -> sigma_M. start_as: START_AS; raises ValueError."""
    if start_as == "family preset":
        start, start_as = family.start
    if start_as == BY_SIGNAL:
        return levels.sigma_at(sampling.process, PAPER_RATIO, sampling.sigma_min, sampling.sigma_max)
    sigma = start if start_as in ("sigma", FROM_DIAL) else sampling.sigma(start)
    sampling.check_start(sigma)
    return min(sigma, sampling.sigma_max)


def check_meant(sampling: "Sampling", start_as: str, start: float) -> None:
    """Raise ValueError for a start of exactly 1 as a sigma: a fraction's neutral value, left in the widget, and the ruin of most clips."""
    if start != 1 or start_as not in ("sigma", FROM_DIAL) or sampling.sigma_max <= TRAP:
        return
    if start_as == FROM_DIAL:
        raise ValueError(
            f"'{FROM_DIAL}' takes the output start_sigma of Motion Dial or Leakage Probe, but nothing seems to be connected to `start`: connect it"
        )
    raise ValueError(
        f"start 1 is the ordinary start as a fraction only; as a sigma it is {sampling.fraction(1.0):.2f} of T, far too low for most pictures. Set start_as to 'fraction', or start to {sampling.sigma_max:g} for the ordinary start (sigma 1 itself, if you do mean it: 1.001)"
    )
