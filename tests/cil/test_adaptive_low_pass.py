"""Adaptive low-pass guidance: the formula, its interval in steps, its schedules, the published settings."""

import math

import pytest
import torch

from cil_pack.cil import adaptive_low_pass as alg
from cil_pack.cil.low_pass import FILTERS


def test_the_pair_gives_the_published_formula_under_plain_cfg():
    sharp, text, null = torch.randn(3, 4, 5, 6, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for scale in (1.0, 2.5, 7.0):
        cond, uncond = alg.as_pair(sharp, text, null)
        by_hand = sharp + scale * text - scale * null
        assert torch.allclose(uncond + scale * (cond - uncond), by_hand, atol=1e-12)
        assert torch.allclose(alg.guided(sharp, text, null, scale), by_hand, atol=1e-12)


@pytest.mark.parametrize("name, steps, acting", [("Wan 2.1", 50, 10), ("CogVideoX", 50, 2), ("HunyuanVideo", 50, 2), ("Wan 2.1", 20, 4), ("Wan 2.1", 1, 1)])
def test_the_authors_interval_in_steps(name, steps, acting):
    sigmas = torch.linspace(1, 0, steps + 1)
    weights = [alg.weight("constant", alg.step_progress(sigmas, float(s)), 0.0, alg.PUBLISHED[name].end, 0.0) for s in sigmas[:-1]]
    assert weights == [1.0] * acting + [0.0] * (steps - acting)


def test_schedules():
    assert [alg.weight("linear", p, 0.0, 0.5, 0) for p in (0.0, 0.25, 0.5, 0.6)] == pytest.approx([1.0, 0.5, 0.0, 0.0])
    assert alg.weight("linear", 0.4, 0.2, 0.6, 0) == pytest.approx(0.5) and alg.weight("linear", 0.1, 0.2, 0.6, 0) == 0
    assert alg.weight("exponential", 0.2, 0.0, 0.0, 5.0) == pytest.approx(math.exp(-1))
    assert alg.weight("exponential", 0.5, 0.0, 1.0, 5.0) == 0  # e^-2.5 lies below a tenth
    assert alg.weight("exponential", 1.0, 0.0, 0.0, 0.0) == 1
    with pytest.raises(ValueError, match="but 'cosine' was given"):
        alg.weight("cosine", 0.0, 0.0, 1.0, 0.0)


def test_a_share_of_a_filter_keeps_that_share_less_of_the_size():
    assert 1 / alg.weakened("down and up", 2.5, 0.5) == pytest.approx(1 - 0.6 * 0.5)
    assert alg.weakened("down and up", 2.5, 1.0) == pytest.approx(2.5) and alg.weakened("down and up", 2.5, 0.0) == 1
    assert alg.weakened("gaussian", 3.0, 0.5) == 1.5
    assert set(FILTERS) == {"down and up", "gaussian"}


@pytest.mark.parametrize("size", [(60, 104), (30, 52), (90, 160), (7, 13)])
def test_down_and_up_is_the_authors_filter(size):
    """Both ways bilinear with antialias; the size kept is round(factor x size)."""
    image = torch.randn(1, 16, *size, generator=torch.Generator().manual_seed(1))
    for kept in (0.4, 0.25, 0.625):
        small = [max(1, round(n * kept)) for n in size]
        reference = torch.nn.functional.interpolate(image, size=small, mode="bilinear", align_corners=False, antialias=True)
        reference = torch.nn.functional.interpolate(reference, size=size, mode="bilinear", align_corners=False, antialias=True)
        assert torch.allclose(FILTERS["down and up"](image, 1 / kept), reference, atol=1e-5)
