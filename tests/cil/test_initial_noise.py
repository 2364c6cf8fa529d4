"""The starts of Table 2: power spectra and correlations as the formulas say, against numpy."""

import numpy as np
import pytest
import torch

from cil_pack.cil import initial_noise as starts

SHAPE = (8, 12, 16)


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def authors_distance(d_s, d_t):
    """d^2 / d_s^2 of the published filters, written down from their definition with the zero frequency in the middle."""
    t, h, w = (2 * np.arange(n) / n - 1 for n in SHAPE)
    square = (d_s / d_t * t[:, None, None]) ** 2 + h[:, None] ** 2 + w**2
    return np.fft.ifftshift(square) / d_s**2


@pytest.mark.parametrize("d_s, d_t", [(0.25, 0.25), (0.5, 0.2)])
def test_the_filters_are_the_authors(d_s, d_t):
    square = authors_distance(d_s, d_t)
    assert np.allclose(starts.gaussian_filter(SHAPE, d_s, d_t), np.exp(-square / 2))
    assert np.allclose(starts.butterworth_filter(SHAPE, d_s, d_t, 4), 1 / (1 + square**4))


@pytest.mark.parametrize("size", [(5, 7, 9), (1, 4, 4), SHAPE])
def test_a_filter_is_even_so_that_what_it_makes_is_real(size):
    x = noise(0, *size)
    for low_pass in (starts.gaussian_filter(size), starts.butterworth_filter(size)):
        assert np.abs(np.fft.ifftn(np.fft.fftn(x.numpy()) * low_pass.numpy()).imag).max() < 1e-12


def test_frame_init_against_numpy():
    still, eps, ratio = noise(1, 4, 1, 12, 16).expand(4, 8, 12, 16), noise(2, 4, *SHAPE), 0.36
    level = np.sqrt(1 + ratio**2)
    low_pass = np.exp(-authors_distance(0.25, 0.25) / 2)
    spectrum = np.fft.fftn((ratio * still.numpy() + eps.numpy()) / level, axes=(1, 2, 3)) * low_pass + np.fft.fftn(eps.numpy(), axes=(1, 2, 3)) * (1 - low_pass)
    assert np.allclose(starts.frame_init(still, eps, ratio), np.fft.ifftn(spectrum, axes=(1, 2, 3)).real)


def test_the_power_of_frame_init_where_the_picture_is_and_elsewhere():
    """A still has only the time frequency 0; in the others the noise keeps its power but for the diffused share."""
    ratio, draws = 0.36, 400
    low_pass, level = starts.gaussian_filter(SHAPE).numpy(), np.sqrt(1 + 0.36**2)
    start = starts.frame_init(torch.zeros(draws, *SHAPE, dtype=torch.float64), noise(3, draws, *SHAPE), ratio)
    power = np.mean(np.abs(np.fft.fftn(start.numpy(), axes=(1, 2, 3))) ** 2, 0) / np.prod(SHAPE)
    assert np.allclose(power, (low_pass / level + 1 - low_pass) ** 2, rtol=0.35) and np.mean(power / (low_pass / level + 1 - low_pass) ** 2) == pytest.approx(
        1, abs=0.01
    )


def test_free_init_against_numpy_and_its_spectrum():
    x0, first, fresh, ratio = noise(4, 200, *SHAPE), noise(5, 200, *SHAPE), noise(6, 200, *SHAPE), 0.068
    low_pass = 1 / (1 + authors_distance(0.25, 0.25) ** 4)
    z_t = (ratio * x0.numpy() + first.numpy()) / np.sqrt(1 + ratio**2)
    fft = lambda x: np.fft.fftn(x, axes=(1, 2, 3))
    out = starts.free_init(x0, first, fresh, ratio)
    assert np.allclose(out, np.fft.ifftn(fft(z_t) * low_pass + fft(fresh.numpy()) * (1 - low_pass), axes=(1, 2, 3)).real)
    with_first = np.mean((fft(out.numpy()) * fft(first.numpy()).conj()).real, 0) / np.prod(SHAPE)
    assert np.abs(with_first - low_pass / np.sqrt(1 + ratio**2)).mean() < 0.06  # low frequencies of the first noise, high ones not


@pytest.mark.parametrize("a", [0.0, 1.0, 2.0])
def test_progressive_and_mixed_noise_correlate_as_they_should(a):
    n, shared = noise(7, 60, 5, 30, 30), noise(8, 60, 30, 30)
    kept = a / np.sqrt(1 + a * a)
    for e, expected in ((starts.progressive(n, a), lambda j, k: kept ** abs(j - k)), (starts.mixed(n, shared, a), lambda j, k: 1.0 if j == k else kept**2)):
        frames = e.movedim(1, 0).reshape(5, -1).numpy()
        measured = frames @ frames.T / frames.shape[1]
        assert np.allclose(measured, [[expected(j, k) for k in range(5)] for j in range(5)], atol=0.02)
        if a == 0:
            assert torch.equal(e, n)
    by_hand = [n[:, 0]]
    for j in range(1, 5):
        by_hand.append(a / np.sqrt(1 + a * a) * by_hand[-1] + n[:, j] / np.sqrt(1 + a * a))
    assert torch.allclose(starts.progressive(n, a), torch.stack(by_hand, 1))


def test_bad_cuts_are_errors():
    with pytest.raises(ValueError, match="but 0 and 0.25 were given"):
        starts.distance(SHAPE, 0.0, 0.25)
