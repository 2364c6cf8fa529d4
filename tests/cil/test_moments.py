import json

import full_disk
import pytest
import torch
from safetensors.torch import save_file

from cil_pack.cil import moments as M


def some(shape=(4, 16, 8, 12), space="sd", variance=0.8):
    mean = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return M.Moments(mean, variance, space, 5000, {"source": "a test", "fps": 3})


def test_a_file_brings_back_what_was_saved(tmp_path):
    path = tmp_path / "deep" / "m.safetensors"
    M.save(some(), path)
    back = M.load(path)
    assert torch.equal(back.mean, some().mean.half().float())
    assert (back.variance, back.space, back.count, back.about) == (0.8, "sd", 5000, {"source": "a test", "fps": 3})
    assert [p.name for p in path.parent.iterdir()] == ["m.safetensors"]


def test_a_full_mean_is_small(tmp_path):
    M.save(some((4, 16, 72, 128)), tmp_path / "m.safetensors")
    assert (tmp_path / "m.safetensors").stat().st_size < 1.2e6


@pytest.mark.parametrize("detail", [(1, 1), (4, 6)])
def test_a_mean_that_half_precision_cannot_hold_comes_back(tmp_path, detail):
    mean = torch.full((4, 1, *detail), 1e6)
    M.save(M.Moments(mean, 1.0, "demo"), tmp_path / "large.safetensors")
    assert torch.equal(M.load(tmp_path / "large.safetensors").mean, mean)


def test_a_failed_save_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "m.safetensors"
    M.save(some(), path)
    before = path.read_bytes()

    with full_disk.no_file_above(100), pytest.raises(OSError, match="m.safetensors could not be written.*File too large"):
        M.save(some(variance=2.0), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_files_that_are_not_moments_are_named(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="other.safetensors is not a moments file: it holds weight"):
        M.load(path)
    path.write_bytes(b"\x00" * 40)
    with pytest.raises(ValueError, match="other.safetensors cannot be read"):
        M.load(path)
    with pytest.raises(ValueError, match="missing.safetensors cannot be read"):
        M.load(tmp_path / "missing.safetensors")


@pytest.mark.parametrize(
    "strings, message",
    [
        ({"version": "9"}, "format version 9.*update the pack"),
        ({"moments": "{"}, "metadata of m.safetensors are damaged"),
        ({"moments": json.dumps({"space": "sd"})}, "metadata of m.safetensors are damaged"),
        ({"moments": "[" * 100_000}, "metadata of m.safetensors are damaged"),
        ({"moments": '{"space": "sd", "variance": 1.0, "count": 1e999, "about": {}}'}, "metadata of m.safetensors are damaged"),
        ({"moments": '{"space": "sd", "variance": 1.0, "count": 5, "about": 7}'}, "metadata of m.safetensors are damaged"),
        ({"moments": '{"space": "sd", "variance": null, "count": 5, "about": {}}'}, "metadata of m.safetensors are damaged"),
        ({"moments": '{"space": "sd", "variance": 1.0, "count": "a", "about": {}}'}, "metadata of m.safetensors are damaged"),
        ({"moments": json.dumps({"space": "sd", "variance": -1, "count": 0, "about": {}})}, "m.safetensors: the variance"),
    ],
)
def test_damaged_metadata_are_refused(tmp_path, strings, message):
    good = {"format": "cil-moments", "version": "1", "moments": json.dumps({"space": "sd", "variance": 1.0, "count": 0, "about": {}})}
    save_file({"mean": torch.zeros(4, 1, 1, 1)}, tmp_path / "m.safetensors", good | strings)
    with pytest.raises(ValueError, match=message):
        M.load(tmp_path / "m.safetensors")


@pytest.mark.parametrize("bad, message", [(torch.zeros(4), "is \\[channels, frames"), (torch.full((4, 1, 1, 1), float("nan")), "not numbers")])
def test_bad_means_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        M.Moments(bad, 1.0, "sd")


@pytest.mark.parametrize("shape", [(4, 1, 1, 1), (4, 1, 8, 12), (4, 16, 8, 12)])
@pytest.mark.parametrize("latent", [(14, 4, 40, 64), (2, 4, 14, 40, 64)])
def test_any_mean_fits_any_layout(shape, latent):
    mean = M.fit(some(shape), latent, space="sd")
    assert mean.shape == latent
    channel = mean.movedim(1, 0).flatten(1).mean(1)
    assert channel.tolist() == pytest.approx(some(shape).mean.mean((1, 2, 3)).tolist(), abs=0.05)


def test_both_layouts_hold_the_same_mean():
    frames = M.fit(some(), (14, 4, 10, 10))
    batch = M.fit(some(), (1, 4, 14, 10, 10))
    assert torch.equal(frames, batch[0].movedim(1, 0))


def test_the_same_size_is_not_resampled():
    assert torch.equal(M.fit(some(), (16, 4, 8, 12)).movedim(0, 1), some().mean)


def test_shrinking_is_area_true():
    """A checkerboard at half the size is its average, not one of its colours."""
    board = ((torch.arange(32)[:, None] + torch.arange(32)) % 2).float().expand(4, 1, 32, 32)
    small = M.fit(M.Moments(board, 1.0, "sd"), (1, 4, 16, 16))
    assert small[..., 2:-2, 2:-2].sub(0.5).abs().max() < 0.05


def test_detail():
    full = some()
    assert M.simplify(full, "full").mean.shape == (4, 16, 8, 12)
    assert M.simplify(full, "smooth").mean.shape == (4, 1, 4, 4)
    assert torch.allclose(M.simplify(full, "channel").mean.flatten(), full.mean.mean((1, 2, 3)))
    with pytest.raises(ValueError, match="detail is one of channel, smooth, full"):
        M.simplify(full, "much")


def test_moments_that_do_not_fit_are_refused_with_both_sides_named():
    with pytest.raises(ValueError, match="have 4 channels \\('sd'\\) but the latent has 16"):
        M.fit(some(), (1, 16, 5, 8, 8))
    with pytest.raises(ValueError, match="latent space 'sd' but the model works in 'wan21'"):
        M.fit(some(), (1, 4, 5, 8, 8), space="wan21")
    with pytest.raises(ValueError, match="a latent is"):
        M.fit(some(), (4, 8, 8))


def planted(watermark=0.0, padding=(0, 0, 0, 0), size=(40, 64), seed=0):
    """A natural mean (a soft vertical gradient and grain) with a data set's marks in it."""
    g = torch.Generator().manual_seed(seed)
    h, w = size
    colour = torch.tensor([0.3, -0.3, 0.2, 0.1])[:, None, None, None]
    mean = colour + 0.1 * torch.linspace(-1, 1, h)[:, None] + 0.03 * torch.randn(4, 1, h, w, generator=g)
    mean[:, :, h // 2 - 2 : h // 2 + 2, w // 4 : 3 * w // 4 : 2] += watermark  # letters across the middle
    top, bottom, left, right = padding
    black = torch.tensor([-1.2, -2.0, 1.1, 1.3])[:, None, None]
    for part in (mean[:, :, :top], mean[:, :, h - bottom :], mean[..., :left], mean[..., w - right :]):
        part[:] = black[:, None] if part.numel() else part
    return M.Moments(mean.expand(4, 16, h, w).clone(), 0.8, "sd")


@pytest.mark.parametrize("padding", [(0, 0, 0, 0), (6, 6, 0, 0), (0, 0, 13, 14), (8, 8, 13, 13), (2, 0, 0, 0), (0, 0, 0, 5)])
def test_borders_are_found(padding):
    assert M.border(planted(padding=padding)) == padding


def test_a_natural_mean_has_no_border():
    for seed in range(50):
        assert M.border(planted(watermark=0.3, seed=seed)) == (0, 0, 0, 0)
    ramp = torch.linspace(-1, 1, 40)[:, None].expand(4, 1, 40, 64)
    edge = planted().mean
    edge[:, :, 0] += 1  # the VAE's own one-cell rim
    for mean in (ramp, edge, torch.zeros(4, 1, 1, 1)):
        assert M.border(M.Moments(mean, 0.8, "sd")) == (0, 0, 0, 0)


def watermarked():
    """By the measured figures of the public 320 x 512 file: channel means, a rim of one cell, lines of a watermark across, no letterbox."""
    letters = (torch.rand(6, 52, generator=torch.Generator().manual_seed(0)) < 0.8) * torch.linspace(1, 0.3, 6)[:, None]
    mean = torch.tensor([0.302, -0.325, 0.232, 0.133])[:, None, None, None].repeat(1, 16, 40, 64)
    mean += 0.02 * torch.linspace(-1, 1, 40)[:, None]
    mean[:, :, 10:16, 6:58] += 0.45 * letters * torch.tensor([1.0, -0.5, 0.4, 0.6])[:, None, None, None]
    for rim in (mean[:, :, :1], mean[:, :, -1:]):
        rim += 0.1
    return M.Moments(mean, 0.808, "sd")


def test_a_watermark_across_the_picture_is_no_letterbox():
    moments = watermarked()
    assert M.border(moments) == (0, 0, 0, 0) and M.warning(moments) == ""
    by_channel = M.simplify(moments, "channel")
    assert torch.allclose(by_channel.mean.flatten(), moments.mean.mean((1, 2, 3))) and by_channel.variance == 0.808


def test_what_lies_inside_a_border_has_the_pictures_own_variance():
    """A small picture in black padding, as the public 576 x 1024 file: the padding never changes, so tr(Cov)/d is that much too small."""
    padded = planted(padding=(8, 8, 13, 13))
    share = (40 - 16) * (64 - 26) / (40 * 64)
    padded = M.Moments(padded.mean, 0.9 * share, "sd")
    for detail in ("channel", "smooth"):
        assert M.simplify(padded, detail).variance == pytest.approx(0.9)
    assert M.simplify(padded, "full").variance == padded.variance
    assert f"{0.9 * share:.3g}, counts the border" in M.warning(padded) and "take 0.9" in M.warning(padded)


def test_the_warning_names_the_sides():
    assert M.warning(planted()) == ""
    assert "6 cells above, 5 cells right" in M.warning(planted(padding=(6, 0, 0, 5)))


def test_the_default_detail_shows_neither_watermark_nor_border():
    """What would be printed into a video: the spatial pattern of the fitted mean, as a share of the noise it starts from."""
    marked = planted(watermark=0.5, padding=(8, 8, 13, 13))
    clean = planted()
    spatial = lambda m: M.fit(m, (16, 4, 40, 64)).sub(M.fit(m, (16, 4, 40, 64)).mean((0, 2, 3), keepdim=True)).abs().max()
    assert spatial(marked) > 1.0  # as it is in the file
    by_channel = M.simplify(marked, "channel")
    assert spatial(by_channel) < 1e-6
    # and the colour is that of the picture, not of the padding
    assert torch.allclose(by_channel.mean, M.simplify(clean, "channel").mean, atol=0.08)
    smooth = M.simplify(marked, "smooth")
    assert spatial(smooth) < 0.25
