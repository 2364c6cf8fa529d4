"""The dial's search on made responses: it finds the level, or says that it cannot, within the budget."""

import math
import random

import pytest

from cil_pack.cil import dial

GAIN = dial.Lever(1.0, 0.0, 5.0, 0.4)
START = dial.Lever(0.0, 0.0, 6.9, 2.0)  # which gives more alone
BUDGET = 8


def searched(response, goal, whole=lambda x: True, lever=GAIN, budget=BUDGET, hint=None):
    """-> (readings in their order, Answer), as a node would run it."""
    readings = []
    while len(readings) < budget and (setting := dial.next_setting(lever, readings, goal, hint)) is not None:
        readings.append(dial.Reading(setting, response(setting), whole(setting)))
    return readings, dial.answer(lever, readings, goal)


def within(amount, share=0.1):
    return dial.Goal(amount, share * amount)


def rough(rng):
    """A rising response with wiggles that turn it back here and there."""
    scale, power, wiggle, phase = rng.uniform(0.3, 3), rng.uniform(0.5, 3), rng.uniform(0, 0.05), rng.uniform(0, 9)
    return lambda x: scale * x**power * (1 + wiggle * math.sin(phase + 37 * x))


@pytest.mark.parametrize("asked", [0.5, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("seed", range(50))
def test_a_rising_response_is_met_within_the_budget(seed, asked):
    response = rough(random.Random(seed))
    goal = within(asked * response(1.0))
    readings, answer = searched(response, goal)
    assert answer.kind == (dial.AS_IT_IS if asked == 1 else dial.FOUND)
    assert goal.met(answer.reading.amount) and answer.reading in readings and len(readings) <= 6


@pytest.mark.parametrize("seed", range(20))
def test_every_answer_was_seen_and_is_whole_and_no_setting_is_tried_twice(seed):
    """Whatever the response, also one of pure noise that breaks anywhere."""
    rng = random.Random(seed)
    breaks = rng.uniform(0.5, 6)
    readings, answer = searched(lambda x: rng.uniform(0, 3), within(rng.uniform(0, 4)), lambda x: abs(x - 1) < breaks)
    settings = [r.setting for r in readings]
    assert len(set(settings)) == len(settings) <= BUDGET and settings[0] == GAIN.neutral
    assert answer.reading in readings and (answer.reading.whole or answer.reading is readings[0])
    assert all(GAIN.low <= s <= GAIN.high for s in settings)


def test_nothing_is_turned_where_the_plain_clip_moves_as_asked():
    readings, answer = searched(lambda x: 1 + x, within(2.1))
    assert len(readings) == 1 and answer.kind == dial.AS_IT_IS and answer.reading.setting == 1.0


def test_the_least_setting_that_gives_the_amount():
    """Of readings that all give it, the one nearest to neutral."""
    readings = [dial.Reading(x, a) for x, a in ((1.0, 1.0), (3.0, 2.0), (2.0, 1.95), (2.5, 2.05))]
    assert dial.answer(GAIN, readings, within(2.0)).reading.setting == 2.0


def test_a_flat_response():
    readings, answer = searched(lambda x: 1.0, within(2.0))
    assert answer.kind == dial.CANNOT and answer.reading.setting == 1.0 and "moves nothing" in answer.reason
    assert max(r.setting for r in readings) == GAIN.high


def test_a_still_clip_that_stays_still():
    assert searched(lambda x: 0.0, within(3.0))[1].kind == dial.CANNOT


@pytest.mark.parametrize("seed", range(20))
def test_a_flat_response_under_noise_is_no_answer(seed):
    rng = random.Random(seed)
    _, answer = searched(lambda x: 1 + 0.03 * rng.gauss(0, 1), within(2.0))
    assert answer.kind == dial.CANNOT and answer.reading.setting == 1.0


def test_a_response_that_saturates_short_of_the_amount():
    _, answer = searched(lambda x: 1.6 - 0.6 * math.exp(3 - 3 * x), within(2.0))
    assert answer.kind == dial.NEAREST and answer.reading.amount == pytest.approx(1.6, abs=0.01) and "no more over its whole range" in answer.reason


@pytest.mark.parametrize("at", [1.13, 2.23, 4.4])
def test_a_step(at):
    """It jumps past the amount: the nearer side, and the jump is named; the bracket holds it."""
    readings, answer = searched(lambda x: 1.0 if x < at else 2.7, within(2.0), budget=16)
    assert answer.kind == dial.NEAREST and answer.reading.amount == 2.7 and "jumps past" in answer.reason
    assert at <= answer.reading.setting <= at + 0.06 and len(readings) < 16


def test_a_response_that_turns_back():
    """All motion lies about 2.6, past the first steps and short of the range's end."""
    peak = lambda x: 1 + 1.5 * math.exp(-(((x - 2.6) / 0.7) ** 2))
    _, answer = searched(peak, within(2.3))
    assert answer.kind == dial.FOUND and answer.reading.setting <= 3.1
    _, short = searched(peak, within(4.0), budget=12)
    assert short.kind == dial.NEAREST and short.reading.amount > 2.3


@pytest.mark.parametrize("breaks", [1.3, 1.7, 3.3])
def test_it_never_goes_past_what_broke(breaks):
    readings, answer = searched(lambda x: 0.8 * x, within(8.0), lambda x: x < breaks, budget=12)
    broken = [i for i, r in enumerate(readings) if not r.whole]
    for i in broken:
        assert all(later.setting < readings[i].setting for later in readings[i + 1 :])
    assert answer.kind in (dial.NEAREST, dial.CANNOT) and answer.reading.whole and "breaks at" in answer.reason
    assert answer.reading.setting < breaks


def test_a_reading_beyond_a_broken_one_is_no_answer():
    readings = [dial.Reading(1.0, 1.0), dial.Reading(2.0, 1.2, whole=False), dial.Reading(3.0, 2.0)]
    answer = dial.answer(GAIN, readings, within(2.0))
    assert answer.reading.setting == 1.0 and answer.kind == dial.CANNOT


@pytest.mark.parametrize("breaks", [1.3, 1.9, 4.1])
def test_as_much_as_stays_whole(breaks):
    readings, answer = searched(lambda x: x, dial.Goal(None), lambda x: x < breaks)
    assert answer.kind == dial.FOUND and answer.reading.whole
    assert breaks - 0.3 <= answer.reading.setting < breaks


def test_as_much_as_stays_whole_where_all_stays_whole_or_nothing_moves():
    assert searched(lambda x: x, dial.Goal(None))[1].reading.setting == GAIN.high
    assert searched(lambda x: 1.0, dial.Goal(None))[1].kind == dial.AS_IT_IS


def test_a_lever_without_that_side_says_so():
    readings, answer = searched(lambda x: 2.0, within(1.0), lever=START)
    assert len(readings) == 1 and answer.kind == dial.CANNOT and "gives no less motion" in answer.reason


def test_a_spent_budget_is_named():
    _, answer = searched(lambda x: math.exp(3 * x), within(math.exp(6.3), 0.001), budget=3)
    assert "budget" in answer.reason


def test_readings_that_were_kept_continue_the_search():
    """After any of the readings the next setting is that of the search that made them: nothing is kept beside them."""
    response, goal = rough(random.Random(3)), within(3.0, 0.01)
    readings, _ = searched(response, goal)
    assert len(readings) > 3
    for k in range(len(readings)):
        assert dial.next_setting(GAIN, readings[:k], goal) == readings[k].setting
        assert dial.next_setting(GAIN, readings[:k][::-1], goal) == readings[k].setting


def test_a_hint_saves_readings():
    response = lambda x: x**2
    readings, answer = searched(response, within(9.0), hint=3.0)
    assert [r.setting for r in readings] == [1.0, 3.0] and answer.kind == dial.FOUND
    assert searched(response, within(0.25), hint=3.0)[1].kind == dial.FOUND  # one for the other side is passed over


def test_isotonic():
    assert dial.isotonic([1, 3, 2, 2, 5]) == pytest.approx([1, 7 / 3, 7 / 3, 7 / 3, 5])
    assert dial.isotonic([3, 2, 1]) == pytest.approx([2, 2, 2]) and dial.isotonic([]) == []
    rng = random.Random(0)
    for _ in range(50):
        values = [rng.gauss(0, 1) for _ in range(12)]
        fit = dial.isotonic(values)
        assert fit == sorted(fit) and sum(fit) == pytest.approx(sum(values))
        assert dial.isotonic(fit) == pytest.approx(fit)


@pytest.mark.parametrize("amount", [-1.0, math.nan, math.inf])
def test_no_amount_of_motion(amount):
    with pytest.raises(ValueError, match="an amount of motion is a number"):
        dial.Goal(amount)


def test_a_search_without_the_neutral_reading_is_refused():
    with pytest.raises(ValueError, match="begins with the neutral setting"):
        dial.answer(GAIN, [dial.Reading(2.0, 1.0)], within(1.0))
