"""The filters of adaptive low-pass guidance, on pictures whose answer is known."""

import math

import pytest
import torch

from cil_pack.cil.low_pass import FILTERS, NEUTRAL, down_up, gaussian

IMAGES = [(3, 24, 32), (2, 4, 24, 32), (1, 16, 5, 24, 32)]


def waves(cycles, height=64, width=64):
    """A horizontal cosine of so many cycles a picture."""
    return torch.cos(2 * math.pi * cycles * (torch.arange(width) + 0.5) / width).expand(1, height, width)


@pytest.mark.parametrize("shape", IMAGES)
@pytest.mark.parametrize("kind", FILTERS)
def test_shape_and_type_are_kept_and_every_plane_is_filtered_by_itself(kind, shape):
    image = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    out = FILTERS[kind](image, 3.0)
    assert out.shape == image.shape and out.dtype == image.dtype
    planes, filtered = image.reshape(-1, *shape[-2:]), out.reshape(-1, *shape[-2:])
    # filters compute in float32, and a processor may sum one plane in another order than many
    assert torch.allclose(FILTERS[kind](planes[1:2], 3.0), filtered[1:2], atol=1e-6)
    assert filtered.std() < 0.6 * planes.std()


@pytest.mark.parametrize("kind", FILTERS)
def test_the_neutral_strength_is_the_very_image(kind):
    image = torch.randn(2, 8, 8)
    assert FILTERS[kind](image, NEUTRAL[kind]) is image


@pytest.mark.parametrize("kind", FILTERS)
def test_a_flat_image_keeps_its_brightness_up_to_the_border(kind):
    flat = torch.full((1, 20, 30), 1.7)
    assert torch.allclose(FILTERS[kind](flat, 4.0), flat, atol=1e-6)


def test_a_gaussian_damps_a_wave_by_its_transfer_function():
    """exp(-(2 pi f sigma)^2 / 2) in cycles a cell, away from the border."""
    for cycles, sigma in ((2, 2.0), (8, 1.0), (8, 2.0)):
        damped = gaussian(waves(cycles), sigma)[..., 16:-16]
        gain = math.exp(-((2 * math.pi * cycles / 64 * sigma) ** 2) / 2)
        assert torch.allclose(damped, gain * waves(cycles)[..., 16:-16], atol=0.01)


def test_down_and_up_keeps_slow_waves_and_takes_fast_ones():
    kept = down_up(waves(2), 4.0)[..., 8:-8].std() / waves(2)[..., 8:-8].std()
    taken = down_up(waves(14), 4.0)[..., 8:-8].std() / waves(14)[..., 8:-8].std()
    assert kept > 0.85 and taken < 0.1


def test_a_picture_smaller_than_the_factor_becomes_flat():
    image = torch.randn(1, 3, 5)
    out = down_up(image, 8.0)
    assert torch.allclose(out, out[..., :1, :1].expand_as(out)) and image.min() < out.mean() < image.max()


@pytest.mark.parametrize(
    "kind, strength, message",
    [("gaussian", -1.0, "0 or more, but -1.0"), ("gaussian", math.nan, "nan"), ("down and up", 0.5, "1 or more, but 0.5"), ("down and up", math.inf, "inf")],
)
def test_bad_strengths_are_errors(kind, strength, message):
    with pytest.raises(ValueError, match=message):
        FILTERS[kind](torch.zeros(1, 4, 4), strength)
