"""Motion gain: the formula, its still clips and its levels, against closed forms in float64."""

import json
import math

import pytest
import torch

from cil_pack.cil import forward, motion_gain
from cil_pack.cil.motion_gain import BRIGHTNESS, CONTRAST, FADE, NOTHING


def clip(*shape, seed=0):
    return torch.randn(*(shape or (2, 6, 4, 8, 8)), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_eq_1_and_its_neutral_value():
    d, f = clip(), clip(2, 1, 4, 8, 8, seed=1)
    assert motion_gain.amplified(d, f, 1.0) is d
    assert torch.allclose(motion_gain.amplified(d, f, 1.7), f + 1.7 * (d - f), atol=1e-12)
    assert torch.allclose(motion_gain.amplified(d, f, 0.0), f.expand_as(d), atol=1e-12)


@pytest.mark.parametrize("leak", [0.2, 0.5, 0.9])
def test_it_is_the_inverse_of_a_leak(leak):
    exact, f = clip(), clip(2, 1, 4, 8, 8, seed=1)
    assert torch.allclose(motion_gain.amplified((1 - leak) * exact + leak * f, f, 1 / (1 - leak)), exact, atol=1e-12)


@pytest.mark.parametrize("protect", [BRIGHTNESS, CONTRAST])
def test_what_is_protected_stays_and_the_rest_is_multiplied(protect):
    d, f = clip(), clip(2, 1, 4, 8, 8, seed=1)
    out = motion_gain.amplified(d, f, 2.0, protect)
    assert torch.allclose(out.mean((-2, -1)), d.mean((-2, -1)), atol=1e-12)
    detail = f - f.mean((-2, -1), keepdim=True)
    along = lambda x: ((x - f) * detail).sum((-2, -1))
    assert torch.allclose(along(out), along(d), atol=1e-9) == (protect == CONTRAST)
    # moving by what is protected alone changes nothing; by what is not, doubles
    brighter = f + torch.linspace(-1, 1, 6, dtype=torch.float64).view(6, 1, 1, 1)
    assert torch.allclose(motion_gain.amplified(brighter, f, 2.0, protect), brighter, atol=1e-9)
    assert torch.allclose(out - d, motion_gain.protected(d - f, f, protect), atol=1e-9)


def test_contrast_that_changes_is_protected_and_a_picture_without_any_is_no_division_by_nothing():
    f = clip(1, 1, 4, 8, 8)
    stronger = f + 0.3 * (f - f.mean((-2, -1), keepdim=True))
    assert torch.allclose(motion_gain.amplified(stronger, f, 2.0, CONTRAST), stronger, atol=1e-9)
    flat = torch.zeros_like(f)
    assert torch.isfinite(motion_gain.amplified(stronger, flat, 2.0, CONTRAST)).all()


def test_a_small_shift_becomes_a_larger_one_and_a_large_one_does_not():
    """To first order (1) is a faster motion; beyond the detail's own size it is not."""
    x = torch.arange(256, dtype=torch.float64)
    blob = lambda at: torch.exp(-(((x - at) / 20) ** 2)).expand(1, 1, 1, 1, -1)
    where = lambda y: float((y.clamp(min=0) * x).sum() / y.clamp(min=0).sum())
    moved = lambda u: where(motion_gain.amplified(blob(128 + u), blob(128), 1.5)) - 128
    assert moved(2) == pytest.approx(3, rel=0.02)
    assert (motion_gain.amplified(blob(228), blob(128), 1.5).max(), blob(228).max()) == (pytest.approx(1.5, rel=1e-3), pytest.approx(1))


# ---- still clips ----


def test_own_frames():
    d = clip()
    assert torch.equal(motion_gain.own_frame(d), d[:, :1]) and torch.equal(motion_gain.own_frame(d, 2), d[:, 2:3])
    assert torch.allclose(motion_gain.own_mean(d, 1), d[:, 1:].mean(1, keepdim=True))


def grouped(pictures, n, first, later):
    """A linear code with causal time: `first` of the first picture, `later` of the mean of each n after it."""
    rest = pictures[:, 1:].unflatten(1, (-1, n)).mean(2)
    return torch.cat([pictures[:, :1] @ first, rest @ later], 1)


@pytest.mark.parametrize("n", [4, 8])
def test_in_a_code_with_causal_time_motion_counts_from_the_second_latent(n):
    """Pictures that change evenly, coded n to a latent by another map than the first one: faster from there on, and no jump."""
    g = torch.Generator().manual_seed(3)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)
    first, later, y, v = draw(8, 8), draw(8, 8), draw(2, 1, 4, 1, 8), draw(2, 1, 4, 1, 8)
    time = torch.arange(1 + 3 * n, dtype=torch.float64).view(1, -1, 1, 1, 1)
    moving = grouped(y + v * time, n, first, later)
    middle = (n + 1) / 2  # of the second latent's pictures
    faster = grouped(y + v * (middle + 1.5 * (time - middle)), n, first, later)
    assert torch.allclose(motion_gain.amplified(moving, motion_gain.own_frame(moving, 1), 1.5)[:, 1:], faster[:, 1:], atol=1e-9)
    assert not torch.allclose(motion_gain.amplified(moving, motion_gain.own_frame(moving), 1.5)[:, 1:], faster[:, 1:], atol=0.1)


# ---- levels ----

PROCESSES = [forward.VE, forward.VP, forward.FLOW, forward.RFLOW]


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: p.name)
def test_one_ratio_for_every_process(process):
    """The ratio falls with sigma, and is the paper's alpha / sigma times the root of the cells."""
    sigmas = [0.01, 0.2, 0.5, 0.9]
    ratios = [motion_gain.picture_ratio(process, s, 256) for s in sigmas]
    assert ratios == sorted(ratios, reverse=True)
    assert ratios == pytest.approx([16 * process.alpha(s) / process.sigma(s) for s in sigmas])
    assert motion_gain.picture_ratio(process, 0.0, 256) == math.inf


def test_sigma_5_of_256_cells_is_the_default_level():
    assert motion_gain.picture_ratio(forward.VE, 5.0, 256) == pytest.approx(3.2)
    assert motion_gain.picture_ratio(forward.FLOW, 5 / 6, 256) == pytest.approx(3.2)


def test_shapes():
    assert [motion_gain.constant(1.4, r, 3.2) for r in (0.0, 3.1, 3.2, math.inf)] == [1.4, 1.4, 1.0, 1.0]
    assert motion_gain.constant(1.4, 0.0, 0.0) == motion_gain.smooth(1.4, 0.0, 0.0) == 1.0
    assert motion_gain.constant(1.4, 9.0, math.inf) == 1.4
    at = lambda r: motion_gain.smooth(1.4, r, 3.2)
    assert at(0.0) == 1.4 and at(math.inf) == 1.0 and at(3.2) == pytest.approx(1.2)
    assert at(3.2 / FADE**0.5) == pytest.approx(1.4) and at(3.2 * FADE**0.5) == 1.0
    values = [at(3.2 * 2 ** (k / 8)) for k in range(-16, 17)]
    assert values == sorted(values, reverse=True)
    assert motion_gain.smooth(1.4, 5.0, math.inf) == 1.4 and motion_gain.smooth(1.4, 5.0, 0.0) == 1.0


def test_a_measured_curve_is_linear_in_ln_ratio_and_stays_beyond_its_ends():
    ratios, slopes = [0.4, 0.1, 1.6], [1.5, 2.0, 0.8]  # in any order; a slope below 1 counts as 1
    of = lambda r, **k: motion_gain.measured(r, ratios, slopes, **k)
    assert of(0.1) == of(0.0) == of(1e-9) == pytest.approx(2.0) and of(math.inf) == of(9.0) == 1.0
    assert of(0.2) == pytest.approx(1.75) and of(0.8) == pytest.approx(1.25)
    assert of(0.1, strength=1.5) == pytest.approx(2.5) and of(0.1, strength=0.0) == 1.0
    assert of(9.0, least=0.0) == pytest.approx(0.8)


def test_curves_as_text():
    curve = {"sigma": [10, 5], "slope": [1.3, 1.1], "signal_to_noise": [0.1, 0.2], "clips": 8, "judged": True}
    assert motion_gain.curve_of(json.dumps(curve)) == motion_gain.curve_of(json.dumps({"verdict": "", "curve": curve})) == ([10.0, 5.0], [1.3, 1.1])


@pytest.mark.parametrize(
    "text, message",
    [("", "a curve of Leakage Probe"), ("[1, 2]", "a curve of Leakage Probe"), ('{"sigma": [1]}', "but this came"), ('{"sigma": [1, 2], "slope": [1]}', "2 levels and 1 slopes"), ('{"sigma": [], "slope": []}', "at least one"), ('{"sigma": [1], "slope": [NaN]}', "above 0"), ('{"curve": 3}', "but this came"), ("[" * 100_000, "but this came"), ('{"sigma": [1' + "0" * 400 + '], "slope": [1]}', "but this came")],
)  # fmt: skip
def test_what_is_no_curve_is_refused_in_words(text, message):
    with pytest.raises(ValueError, match=message):
        motion_gain.curve_of(text)


def test_protecting_nothing_is_the_plain_formula():
    d = clip()
    assert motion_gain.protected(d, clip(), NOTHING) is d
