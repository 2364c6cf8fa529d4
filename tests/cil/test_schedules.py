import math
import random

import pytest
import torch

from cil_pack.cil import schedules


def test_the_authors_trailing_timesteps():
    steps = schedules.trailing(940, 50)
    assert steps[:4] == [939, 920, 901, 883] and steps[-1] == 18 and len(steps) == 50
    assert schedules.trailing(1000, 50)[:3] == [999, 979, 959]


@pytest.mark.parametrize("timesteps, steps", [(940, 0), (10, 11), (0, 1)])
def test_trailing_refuses_what_does_not_fit(timesteps, steps):
    with pytest.raises(ValueError, match="cannot be laid over"):
        schedules.trailing(timesteps, steps)


def test_a_plain_cut_keeps_what_lies_below():
    sigmas = torch.tensor([10.0, 5.0, 2.0, 1.0, 0.0])
    assert schedules.from_start(sigmas, 3.0).tolist() == [3.0, 2.0, 1.0, 0.0]
    assert schedules.from_start(sigmas, 2.0).tolist() == [2.0, 1.0, 0.0]
    assert schedules.from_start(sigmas, 10.0).tolist() == sigmas.tolist()


def test_repeats_are_dropped():
    assert schedules.falling(torch.tensor([3.0, 3.0, 2.0, 2.0, 0.0])).tolist() == [3.0, 2.0, 0.0]


def test_retiming_keeps_the_end_and_the_number_of_steps():
    identity = lambda v: v
    moved = schedules.retime(torch.tensor([1.0, 0.75, 0.5]), 0.9, identity, identity)
    assert moved.tolist() == pytest.approx([0.9, 0.7, 0.5])
    moved = schedules.retime(torch.tensor([1.0, 0.6, 0.2, 0.0]), 0.6, identity, identity)
    assert moved.tolist() == pytest.approx([0.6, 0.4, 0.2, 0.0])
    moved = schedules.retime(torch.tensor([1.0, 0.0]), 0.6, identity, identity)
    assert moved.tolist() == pytest.approx([0.6, 0.0])


TIMES = {  # sigma -> time and back, as the families have them
    "even": (lambda s: s, lambda t: t),
    "logarithmic": (lambda s: math.log(s / 0.002) / math.log(350000), lambda t: 0.002 * 350000**t),
    "shifted": (lambda s: s / (8 - 7 * s), lambda t: 8 * t / (1 + 7 * t)),
}


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("steps", range(1, 51))
def test_retiming_any_schedule(name, steps):
    """Drawn ones of each length, with a start above, between and below their sigmas, ending at 0 or handing over."""
    time_of, sigma_of = TIMES[name]
    draw = random.Random(f"{name} {steps}")
    times = sorted((draw.uniform(0.01, 1) for _ in range(steps + 1)), reverse=True)
    for ends in ([0.0], [sigma_of(times[-1])]):
        sigmas = torch.tensor([*map(sigma_of, times[:-1]), *ends])
        start = float(torch.tensor(sigma_of(draw.uniform(times[-1] + 1e-3, 1.0) if ends[0] else draw.uniform(0.005, 1.0))))
        if not (sigmas[1:] < sigmas[:-1]).all():
            continue
        moved = schedules.retime(sigmas, start, time_of, sigma_of)
        schedules.check(moved)
        assert len(moved) == len(sigmas) and moved[0] == torch.tensor(start) and moved[-1] == sigmas[-1]
        assert torch.allclose(schedules.retime(sigmas, float(sigmas[0]), time_of, sigma_of), sigmas, rtol=1e-4)  # its own start moves nothing
        nudged = torch.nextafter(sigmas, torch.where(sigmas > 0, torch.inf, 0.0))
        assert torch.allclose(schedules.retime(nudged, start, time_of, sigma_of), moved, rtol=1e-4)


@pytest.mark.parametrize(
    "sigmas, message",
    [
        ([], "at least two sigmas"),
        ([1.0], "at least two sigmas"),
        ([1.0, float("nan"), 0.0], "not a number"),
        ([1.0, 1.0, 0.0], "must fall"),
        ([0.0, 1.0], "must fall"),
        ([1.0, -1.0], "must fall and stay above zero"),
    ],
)
def test_a_bad_schedule_is_refused_in_words(sigmas, message):
    with pytest.raises(ValueError, match=message):
        schedules.check(torch.tensor(sigmas))
