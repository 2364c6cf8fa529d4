"""Levels by their signal-to-noise ratio."""

import itertools
import math

import pytest

from cil_pack.cil import forward, levels

EDM = lambda f: 0.002 * (700 / 0.002) ** f
WAN = lambda f: 8 * f / (1 + 7 * f)


def test_the_papers_start_by_signal_to_noise():
    """SVD's sigma 100 with tr(Cov)/d = 0.808 is 0.009, and that is 0.93 of T for Wan at shift 8."""
    ratio = levels.signal_to_noise(forward.VE, 100.0, 0.808)
    assert ratio == pytest.approx(0.009, abs=1e-4)
    fraction = levels.fraction_at(forward.FLOW, WAN, ratio)
    assert fraction == pytest.approx(0.933, abs=1e-3)
    assert levels.signal_to_noise(forward.FLOW, WAN(fraction)) == pytest.approx(ratio)


@pytest.mark.parametrize("process, sigma", [(forward.VE, 3.0), (forward.VP, 3.0), (forward.FLOW, 0.75), (forward.RFLOW, 3.0)])
def test_a_third_is_a_third_in_every_family(process, sigma):
    assert levels.signal_to_noise(process, sigma) == pytest.approx(1 / 3)
    assert levels.signal_to_noise(process, sigma, 4.0) == pytest.approx(2 / 3)
    assert levels.sigma_at(process, 1 / 3, 1e-3, 0.9999) == pytest.approx(min(sigma, 0.9999))


def test_a_ratio_beyond_the_model_gives_its_ends():
    assert levels.fraction_at(forward.VE, EDM, 1e-9) == 1.0
    assert levels.fraction_at(forward.VE, EDM, 1e9) == 1e-4
    assert levels.sigma_at(forward.VE, 1e-9, 0.1, 10.0) == pytest.approx(10.0)
    assert levels.sigma_at(forward.VE, 1e9, 0.1, 10.0) == pytest.approx(0.1)


@pytest.mark.parametrize("process, sigma_of", [(forward.VE, EDM), (forward.FLOW, WAN), (forward.FLOW, lambda f: f)])
def test_levels_are_even_in_the_logarithm_of_the_ratio(process, sigma_of):
    found = levels.evenly(process, sigma_of, 9, 0.0, 1.0)
    ratios = [levels.signal_to_noise(process, s) for _, s in found]
    steps = [math.log(b / a) for a, b in itertools.pairwise(ratios)]
    assert len(found) == 9 and steps == pytest.approx([steps[0]] * 8, rel=1e-3)
    assert ratios[0] == pytest.approx(max(levels.PURE_NOISE, levels.signal_to_noise(process, sigma_of(1.0))), rel=1e-3)
    assert ratios[-1] == pytest.approx(levels.CLEAR, rel=1e-3)
    assert all(s == pytest.approx(sigma_of(f)) for f, s in found)


def test_a_range_of_ones_own_is_kept():
    found = levels.evenly(forward.VE, EDM, 4, 0.5, 0.8)
    assert found[0] == (0.8, EDM(0.8)) and found[-1][0] >= 0.5
    low = levels.evenly(forward.VE, EDM, 3, 0.1, 0.3)  # all of it clear
    assert low[0][0] == 0.3 and low[-1][0] == pytest.approx(0.1, abs=1e-3)
    with pytest.raises(ValueError, match="0 <= from < to <= 1, but 0.9 to 0.5"):
        levels.evenly(forward.VE, EDM, 4, 0.9, 0.5)
