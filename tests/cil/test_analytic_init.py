import pytest
import torch
from toy import Toy

from cil_pack.cil import forward
from cil_pack.cil.analytic_init import optimal_start

PROCESSES = [(forward.VE, 50.0), (forward.VP, 3.0), (forward.FLOW, 0.7), (forward.RFLOW, 5.0)]


@pytest.mark.parametrize("process, sigma", PROCESSES, ids=lambda p: getattr(p, "name", p))
def test_the_start_is_the_minimum_of_the_kl(process, sigma):
    """Prop. 1, by central differences in every coordinate of mu and in sigma_p."""
    toy = Toy()
    gain, std = optimal_start(process, sigma, toy.variance)
    mu, h = gain * toy.mean, 1e-4
    for j in range(len(mu)):
        step = torch.zeros_like(mu)
        step[j] = h
        slope = (toy.kl(process, sigma, mu + step, std) - toy.kl(process, sigma, mu - step, std)) / (2 * h)
        assert abs(slope) < 1e-6
    slope = (toy.kl(process, sigma, mu, std + h) - toy.kl(process, sigma, mu, std - h)) / (2 * h)
    assert abs(slope) < 1e-5
    best = toy.kl(process, sigma, mu, std)
    for other_mu, other_std in ((mu + 0.05, std), (mu, std * 1.02), (mu, std * 0.98)):
        assert toy.kl(process, sigma, other_mu, other_std) > best


@pytest.mark.parametrize(
    "process, top", [(forward.VE, 700.0), (forward.VP, 14.6), (forward.FLOW, 0.999), (forward.RFLOW, 80.0)], ids=lambda p: getattr(p, "name", p)
)
def test_it_beats_the_naive_start_at_every_m(process, top):
    """The naive start is p_T = N(0, I) for VP (scaled into the host's space) and N(0, sigma^2 I) for the rest."""
    toy = Toy()
    for k in range(1, 21):
        sigma = top * k / 20
        gain, std = optimal_start(process, sigma, toy.variance)
        naive = process.scale(sigma) if process is forward.VP else process.noise(sigma)
        analytic_kl = toy.kl(process, sigma, gain * toy.mean, std)
        assert analytic_kl < toy.kl(process, sigma, 0 * toy.mean, naive)


def test_the_closed_form_of_eq_5():
    """mu_p = alpha E, sigma_p^2 = alpha^2 Var + sigma^2, in the paper's space."""
    sigma, var = 3.0, 0.808
    alpha, noise = forward.VP.alpha(sigma), forward.VP.sigma(sigma)
    gain, std = optimal_start(forward.VP, sigma, var)
    scale = forward.VP.scale(sigma)
    assert gain / scale == pytest.approx(alpha, rel=1e-12)
    assert (std / scale) ** 2 == pytest.approx(alpha**2 * var + noise**2, rel=1e-12)


def test_at_sigma_100_the_variance_of_sd_latents_changes_the_noise_by_0_004_percent():
    _, std = optimal_start(forward.VE, 100.0, 0.808)
    assert std / 100 - 1 == pytest.approx(4.04e-5, rel=1e-3)


@pytest.mark.parametrize("variance", [-1.0, float("nan"), float("inf")])
def test_an_impossible_variance_is_refused(variance):
    with pytest.raises(ValueError, match="tr\\(Cov\\)/d"):
        optimal_start(forward.VE, 1.0, variance)
