"""One run and one call of a MODEL: marks that travel in the host's options, and where in the run a call stands."""

from ...cil.schedules import step_index
from .sampling import Sampling
from .types import BaseModel

STEPS, TIME = "steps", "noise level"


def marked(model_options: dict, **entries) -> dict:
    """A copy of the host's model_options with these entries in its transformer_options; nothing is left behind."""
    return {**model_options, "transformer_options": {**model_options.get("transformer_options", {}), **entries}}


def step_of(options: dict, sigma: float) -> tuple[int, int] | None:
    """(index, number of steps) of a call by its transformer_options; None where the host does not tell the run's sigmas."""
    sigmas = options.get("sample_sigmas")
    return None if sigmas is None else (step_index(sigmas, sigma), len(sigmas) - 1)


def elapsed(model: BaseModel, sigma: float) -> float:
    """1 minus the noise level as a fraction of T: 0 at the beginning. model: the host's BaseModel."""
    return 1 - Sampling(model.model_sampling).fraction(sigma)
