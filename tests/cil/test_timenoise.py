"""TimeNoise against its density (Eq. 6)."""

import math

import pytest
import torch

from cil_pack.cil.timenoise import TimeNoise, add_noise, mix_noise

CASES = [(0.0, 5.0, 100.0), (0.5, 5.0, 25.0), (0.9, 5.0, 15.0), (1.0, 5.0, 1.0), (0.7, 0.3, 0.02), (0.3, 1.0, 1e-6)]


@pytest.mark.parametrize("t, a, beta_m", CASES)
def test_samples_follow_the_exact_cdf(t, a, beta_m):
    """Kolmogorov-Smirnov: sqrt(n) D below 1.95, its 0.1 % point."""
    noise = TimeNoise(beta_m, a)
    n = 20_000
    drawn = noise.sample(torch.full((n,), t), torch.Generator().manual_seed(0)).sort().values
    assert (drawn > 0).all() and (drawn < beta_m).all()
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    exact = noise.cdf(drawn, t)
    distance = torch.maximum((exact - steps[:-1]).abs().max(), (steps[1:] - exact).abs().max())
    assert distance * math.sqrt(n) < 1.95


@pytest.mark.parametrize("t, a, beta_m", CASES)
def test_the_density_is_the_cdfs_slope_and_has_mass_1(t, a, beta_m):
    noise = TimeNoise(beta_m, a)
    beta = torch.linspace(0.01, 0.99, 50, dtype=torch.float64) * beta_m
    h = 1e-5 * beta_m
    assert torch.allclose(noise.density(beta, t), (noise.cdf(beta + h, t) - noise.cdf(beta - h, t)) / (2 * h), rtol=1e-4)
    u = torch.linspace(-12, 12, 20_001, dtype=torch.float64)  # logit space, where it is smooth
    b = beta_m * torch.sigmoid(u)
    mass = torch.trapezoid(noise.density(b, t) * b * (1 - b / beta_m), u)
    assert float(mass) == pytest.approx(1, abs=1e-6)
    mean = torch.trapezoid(b * noise.density(b, t) * b * (1 - b / beta_m), u)
    assert noise.mean(t) == pytest.approx(float(mean), rel=1e-6)
    assert float(noise.cdf(torch.tensor(noise.median(t), dtype=torch.float64), t)) == pytest.approx(0.5, abs=1e-9)


def test_outside_of_its_range_the_density_is_zero():
    assert TimeNoise(2.0).density(torch.tensor([-1.0, 0.0, 2.0, 3.0]), 0.5).tolist() == [0, 0, 0, 0]


def test_mu_goes_from_minus_1_to_1():
    for a in (0.1, 1.0, 5.0):
        assert TimeNoise(1.0, a).mu(0.0) == -1 and TimeNoise(1.0, a).mu(1.0) == 1
    assert TimeNoise(1.0, 5.0).mu(0.5) == pytest.approx(2 / 32 - 1)


def test_limits():
    assert TimeNoise(1.0, 1e-9).mu(0.5) == pytest.approx(1, abs=1e-6)  # a -> 0: high levels at once
    assert TimeNoise(1.0, 1e3).mu(0.9) == pytest.approx(-1, abs=1e-6)  # a large: only at the very end
    tiny = TimeNoise(1e-12)
    assert 0 < tiny.median(0.0) < tiny.mean(0.5) < 1e-12
    assert (TimeNoise(3.0).constant(0.0), TimeNoise(3.0).constant(1.0)) == (0, 3)


@pytest.mark.parametrize("t", [-0.1, 1.1, float("nan"), torch.tensor([0.5, 1.5])])
def test_a_time_outside_0_1_is_refused(t):
    with pytest.raises(ValueError, match="fraction of T in \\[0, 1\\]"):
        TimeNoise(1.0).mu(t)


@pytest.mark.parametrize("beta_m, a", [(0.0, 5.0), (-1.0, 5.0), (1.0, 0.0), (float("nan"), 5.0), (1.0, float("inf"))])
def test_bad_settings_are_refused(beta_m, a):
    with pytest.raises(ValueError, match="beta_m > 0 and a > 0"):
        TimeNoise(beta_m, a)


def test_a_level_a_sample_and_noise_an_element():
    image, eps = torch.ones(2, 3, 4), torch.randn(2, 3, 4)
    level = torch.tensor([0.0, 2.0])[:, None, None]
    noisy = add_noise(image, level, eps)
    assert torch.equal(noisy[0], image[0]) and torch.allclose(noisy[1], 1 + 2 * eps[1])
    assert torch.allclose(mix_noise(image, level / 2, eps)[1], eps[1])


def test_seeded():
    t = torch.full((5,), 0.5)
    draw = lambda seed: TimeNoise(1.0).sample(t, torch.Generator().manual_seed(seed))
    assert torch.equal(draw(1), draw(1)) and not torch.equal(draw(1), draw(2))
