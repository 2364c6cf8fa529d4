"""The probe against exact denoisers in closed form."""

import pytest
import torch
from toy import Toy

from cil_pack.cil import forward, probe

LEVELS = {
    "EDM": (forward.VE, [0.01, 1.0, 30.0, 700.0]),
    "VP": (forward.VP, [0.03, 1.0, 5.0, 14.6]),
    "VP zsnr": (forward.VP, [0.03, 1.0, 50.0, 4518.0]),
    "flow": (forward.FLOW, [0.001, 0.3, 0.9, 1.0]),
    "RFlow": (forward.RFLOW, [0.002, 1.0, 80.0]),
}


@pytest.fixture(params=LEVELS)
def process_and_sigmas(request):
    return LEVELS[request.param]


def test_one_step_predictions_equal_the_closed_form(process_and_sigmas):
    """For a Gaussian: E[X_0 | x] = m + a v / (a^2 v + b^2) (x - a m); averaged over draws, still linear."""
    process, sigmas = process_and_sigmas
    toy = Toy()

    def exact(x, sigma):
        a, b = process.signal(sigma), process.noise(sigma)
        return toy.mean + a * toy.var / (a**2 * toy.var + b**2) * (x - a * toy.mean)

    x0 = toy.mean + toy.var.sqrt()
    got = probe.one_step_predictions(exact, process, x0, sigmas, seed=3, draws=2)
    for level, sigma in enumerate(sigmas):
        a, b = process.signal(sigma), process.noise(sigma)
        eps = sum(probe.noise_for(x0, 3, level, d) for d in range(2)) / 2
        shrink = a * toy.var / (a**2 * toy.var + b**2)
        closed = toy.mean + shrink * (a * toy.var.sqrt() + b * eps)
        assert torch.allclose(got[level], closed, rtol=1e-5, atol=1e-9)


def test_levels_and_draws_have_noise_of_their_own_and_it_is_seeded():
    x = torch.zeros(1000)
    draws = {key: probe.noise_for(x, *key) for key in ((0, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 0))}
    keys = list(draws)
    for i, a in enumerate(keys):
        assert torch.equal(draws[a], probe.noise_for(x, *a))
        for b in keys[i + 1 :]:
            assert abs(float(torch.corrcoef(torch.stack([draws[a], draws[b]]))[0, 1])) < 0.15


def two_clips(process):
    """A and B, and the exact posterior mean when each has the chance 1/2."""
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 60, generator=g, dtype=torch.float64)

    def exact(x, sigma):
        gap = [((x - process.signal(sigma) * c) ** 2).sum() for c in (a, b)]
        w = torch.sigmoid((gap[1] - gap[0]) / (2 * process.noise(sigma) ** 2))
        return w * a + (1 - w) * b

    return a, b, exact


@pytest.mark.parametrize("name", ["EDM", "VP", "flow"])
def test_readable_is_the_responsiveness_of_the_exact_observer(name):
    process = LEVELS[name][0]
    a, b, exact = two_clips(process)
    for ratio in (0.3, 1.0, 3.0, 10.0):  # ||A - B|| over noise
        distance = float((a - b).norm())
        sigma = distance / ratio if name != "flow" else distance / (distance + ratio)
        got = []
        for draw in range(3000):
            eps = probe.noise_for(a, 0, 0, draw)
            predictions = [probe.one_step(exact, process, c, sigma, eps) for c in (a, b)]
            got.append(probe.responsiveness(*predictions, a, b))
        mean = sum(got) / len(got)
        assert probe.readable(process, sigma, a, b) == pytest.approx(mean, abs=0.015)


def test_readable_has_the_right_ends():
    a, b, _ = two_clips(forward.VE)
    assert probe.readable(forward.VE, 1e-3, a, b) == pytest.approx(1, abs=1e-6)
    s = float((a - b).norm()) / 1e4
    assert probe.readable(forward.VE, 1e4, a, b) == pytest.approx(s * s / 4, rel=1e-2)


def test_a_model_that_copies_its_image_reads_nothing_and_the_exact_observer_what_can_be_read():
    a, b, exact = two_clips(forward.VE)
    sigmas = [50.0, 20.0, 10.0, 5.0, 2.0]
    can = [probe.readable(forward.VE, s, a, b) for s in sigmas]

    def measured(denoise):
        out = []
        for level, s in enumerate(sigmas):
            draws = [probe.noise_for(a, 0, level, d) for d in range(400)]
            out.append(sum(probe.responsiveness(*(probe.one_step(denoise, forward.VE, c, s, e) for c in (a, b)), a, b) for e in draws) / 400)
        return sum(out) / sum(can)

    assert measured(lambda x, s: torch.zeros_like(x)) == 0
    assert measured(exact) > 0.97


def test_motion_gain_ignores_flicker():
    still = torch.zeros(8, 100)
    truth = torch.linspace(0, 1, 8)[:, None] * torch.ones(100)
    flicker = torch.randn(8, 100, generator=torch.Generator().manual_seed(0))
    assert probe.motion_gain(still, truth, still) == 0
    assert probe.motion_gain(truth, truth, still) == pytest.approx(1)
    assert probe.motion_gain(0.5 * truth, truth, still) == pytest.approx(0.5)
    assert probe.motion_gain(flicker, truth, still) == pytest.approx(0, abs=0.25)


def test_the_exact_posterior_mean_loses_its_motion_at_large_t_too():
    """Why the collapse of Fig. 2 alone is no proof of leakage."""
    g = torch.Generator().manual_seed(0)
    clips = torch.randn(8, 200, generator=g, dtype=torch.float64)
    still = torch.zeros(200, dtype=torch.float64)

    def exact(x, sigma):
        w = torch.softmax(-((x - clips) ** 2).sum(1) / (2 * sigma**2), 0)
        return w @ clips

    gains = [probe.motion_gain(p, clips[0], still) for p in probe.one_step_predictions(exact, forward.VE, clips[0], [700.0, 1.0])]
    assert gains[0] < 0.3 and gains[1] == pytest.approx(1)


def test_slowed_and_frozen_share_the_first_frame():
    clip = torch.arange(6.0)[:, None]
    assert probe.slowed(clip, 0).flatten().tolist() == [0, 0, 1, 1, 2, 2]
    assert probe.frozen(clip, 0).flatten().tolist() == [0] * 6
