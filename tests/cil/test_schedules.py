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
