"""TruncatedSigmaSchedule against closed forms, for every scheduler of the host."""

import math

import comfy.samplers
import pytest
import tiny
import torch

from cil_pack.cil import schedules
from cil_pack.nodes.host.sampling import Sampling
from cil_pack.nodes.host.schedule import TRAILING, scheduler_names
from cil_pack.nodes.schedule import LAYOUTS, TruncatedSigmaSchedule

PAPER, CUT = LAYOUTS


def make(kind, scheduler="karras", steps=25, start_as="fraction", start=1.0, layout=PAPER):
    model = tiny.model(kind)[0]
    return TruncatedSigmaSchedule.PREPARE_CLASS_CLONE(None).execute(model, scheduler, steps, start_as, start, layout).args


def test_svd_karras_from_100_is_the_closed_form():
    """Karras et al. 2022, Eq. 5: rho = 7 between 100 and 0.002."""
    sigmas, start, fraction = make("SVD", "karras", 25, "sigma", 100.0)
    ramp = [i / 24 for i in range(25)]
    closed = [(100 ** (1 / 7) + r * (0.002 ** (1 / 7) - 100 ** (1 / 7))) ** 7 for r in ramp]
    assert sigmas[:-1].tolist() == pytest.approx(closed, rel=2e-5)
    assert float(sigmas[0]) == 100.0 and float(sigmas[-1]) == 0.0 and len(sigmas) == 26
    assert start == 100.0
    assert fraction == pytest.approx(math.log(100 / 0.002) / math.log(700 / 0.002), rel=1e-4)


@pytest.mark.parametrize("kind", ["eps", "v", "v zsnr"])
def test_trailing_from_940_gives_the_authors_timesteps(kind):
    sigmas, start, fraction = make(kind, TRAILING, 50, "fraction", 0.94)
    sampling = Sampling.of(tiny.model(kind)[0])
    timesteps = [round(float(t)) for t in sampling.host.timestep(sigmas[:-1])]
    assert timesteps == schedules.trailing(940, 50)
    assert timesteps[:4] == [939, 920, 901, 883] and timesteps[-1] == 18
    assert fraction == pytest.approx(0.94) and start == float(sampling.host.sigmas[939])


def test_trailing_needs_timesteps():
    with pytest.raises(ValueError, match="discrete timesteps, but this model's time is continuous"):
        make("SVD", TRAILING, 10)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("fraction", [0.05, 0.5, 0.96, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 25])
@pytest.mark.parametrize("kind", ["SVD", "eps", "v zsnr", "flow shift 8", "Cosmos RFlow", "continuous v"])
def test_every_scheduler(kind, steps, fraction, layout):
    sampling = Sampling.of(tiny.model(kind)[0])
    for scheduler in scheduler_names():
        if scheduler == TRAILING and sampling._table is None:
            continue
        sigmas, start, got = make(kind, scheduler, steps, "fraction", fraction, layout)
        schedules.check(sigmas)
        assert start == sampling.sigma(fraction)
        assert got == pytest.approx(fraction, rel=1e-3)
        if scheduler != TRAILING:
            full = comfy.samplers.calculate_sigmas(sampling.host, scheduler, steps)
            assert float(sigmas[-1]) == float(full[-1]), f"{scheduler} ends elsewhere"
        if fraction < 1:
            assert sigmas[0] == torch.tensor(start), f"{scheduler} does not begin at the start"
        if layout == PAPER and scheduler not in ("ddim_uniform", "beta"):  # these two count their steps themselves
            assert len(sigmas) == steps + 1, scheduler


def test_a_plain_cut_keeps_the_density():
    full, _, _ = make("SVD", "karras", 25, "fraction", 1.0)
    cut, _, _ = make("SVD", "karras", 25, "sigma", 100.0, CUT)
    assert torch.equal(cut[1:], full[full < 100])
    assert float(cut[0]) == 100.0 and len(cut) < len(full)


def test_more_steps_than_timesteps_gives_each_timestep_once():
    sigmas, _, _ = make("eps", "simple", 200, "fraction", 0.05)
    assert len(sigmas) == 51
    schedules.check(sigmas)


def test_another_packs_scheduler_is_used(monkeypatch):
    def halves(model_sampling, steps):
        return torch.tensor([float(model_sampling.sigma_max) / 2**i for i in range(steps)] + [0.0])

    monkeypatch.setitem(comfy.samplers.SCHEDULER_HANDLERS, "halves", comfy.samplers.SchedulerHandler(halves))
    monkeypatch.setattr(comfy.samplers, "SCHEDULER_NAMES", [*comfy.samplers.SCHEDULER_NAMES, "halves"])
    assert "halves" in scheduler_names()
    assert make("SVD", "halves", 3, "sigma", 100.0)[0].tolist() == [100.0, 50.0, 25.0, 0.0]


def test_presets():
    assert make("SVD", "karras", 5, "family preset", 0.123)[1] == pytest.approx(700.0)  # a BaseModel that no family claims: neutral


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("eps", "simple", 25, "fraction", 0.0), "above 0 and at most 1, but 0 was given"),
        (("eps", "simple", 25, "fraction", 100.0), "above 0 and at most 1, but 100 was given"),
        (("eps", "simple", 25, "sigma", 0.0), "a sigma above 0"),
        (("eps", "simple", 25, "sigma", 100.0), "above the model's largest sigma, 14.6146"),
        (("SVD", "karras", 25, "sigma", 0.001), "at or below the model's smallest sigma, 0.002"),
        (("eps", "simple", 0, "fraction", 0.9), "steps takes numbers from 1 to 10000, but 0"),
        (("eps", TRAILING, 2000, "fraction", 0.9), "2000 steps cannot be laid over 900 timesteps"),
        (("eps", "simple", 25, "fraction", 0.0001), "the least is 0.001"),
    ],
)
def test_errors_say_what_to_do(arguments, message):
    with pytest.raises(ValueError, match=message):
        make(*arguments)


@pytest.mark.parametrize("kind", ["SVD", "eps", "flow shift 8"])
def test_the_model_is_not_changed(kind):
    model = tiny.model(kind)[0]
    before = model.get_model_object("model_sampling").sigmas.clone()
    TruncatedSigmaSchedule.PREPARE_CLASS_CLONE(None).execute(model, "simple", 5, "fraction", 0.5, PAPER)
    assert torch.equal(model.get_model_object("model_sampling").sigmas, before)
