"""The method of moments against closed forms."""

import pytest
import torch
from cil_pack.cil import estimate as E
from cil_pack.cil.clips import Unreadable
from safetensors.torch import save_file
from toy import Toy


def draws(toy, n, seed=0):
    g = torch.Generator().manual_seed(seed)
    eps = torch.randn(n, len(toy.mean), generator=g, dtype=torch.float64)
    return (toy.mean + toy.var.sqrt() * eps).reshape(n, -1, 1, 1, 1)


def test_it_converges_at_the_theoretical_rate():
    """The mean's error is sqrt(tr(Cov)/d / n), the variance's sqrt(2 sum var^2 / n) / d; over 40 repeats, within 15 %."""
    toy = Toy(d=24)
    rows = []
    for n in (50, 200, 800, 3200):
        errors = []
        for repeat in range(40):
            a = E.Accumulator()
            a.add(draws(toy, n, seed=repeat))
            m = a.moments("toy")
            errors.append((float((a.mean.flatten() - toy.mean).square().mean()), (m.variance - toy.variance) ** 2))
        got = [sum(e) / len(e) for e in zip(*errors)]
        theory = [toy.variance / n, 2 * float(toy.var.square().sum()) / len(toy.var) ** 2 / (n - 1)]
        rows.append((n, (got[0] / theory[0]) ** 0.5, (got[1] / theory[1]) ** 0.5))
    print("\n".join("n = {:5d}: error over theory, mean {:.3f}, variance {:.3f}".format(*r) for r in rows))
    for _, mean_ratio, variance_ratio in rows:
        assert mean_ratio == pytest.approx(1, rel=0.15)
        assert variance_ratio == pytest.approx(1, rel=0.35)  # 40 repeats know a chi^2 with 1 degree only so well


@pytest.mark.parametrize("batch", [1, 7, 500])
def test_it_equals_two_passes_far_from_zero(batch):
    x = 1e4 + draws(Toy(), 500)
    a = E.Accumulator()
    for part in x.split(batch):
        a.add(part)
    mean, variance = x.mean(0), x.var(0, unbiased=True)
    assert torch.allclose(a.mean, mean, rtol=1e-10, atol=0)
    assert torch.allclose(a.m2 / (a.count - 1), variance, rtol=1e-10, atol=0)
    assert a.moments("toy").variance == pytest.approx(float(variance.mean()), rel=1e-10)


def test_merging_is_exact_and_in_any_order():
    x = 1e4 + draws(Toy(), 90)
    whole = E.Accumulator()
    whole.add(x)
    parts = [x[:10], x[10:11], x[11:60], x[60:]]
    for order in ((0, 1, 2, 3), (3, 1, 0, 2)):
        total = E.Accumulator()
        for i in order:
            part = E.Accumulator()
            part.add(parts[i])
            total.merge(part)
        assert total.count == 90
        assert torch.allclose(total.mean, whole.mean, rtol=1e-13, atol=0)
        assert torch.allclose(total.m2, whole.m2, rtol=1e-10, atol=0)


def test_half_precision_latents_are_averaged_in_double():
    x = (3 + 0.01 * torch.randn(4000, 4, 1, 1, 1, generator=torch.Generator().manual_seed(0))).half()
    a = E.Accumulator()
    a.add(x)
    assert a.mean.dtype == torch.float64
    assert torch.allclose(a.mean, x.double().mean(0), rtol=1e-12)


def test_one_clip_has_no_variance():
    a = E.Accumulator()
    with pytest.raises(ValueError, match="at least two clips, but 0 came"):
        a.moments("toy")
    a.add(draws(Toy(), 1))
    with pytest.raises(ValueError, match="at least two clips, but 1 came"):
        a.moments("toy")


def test_clips_of_another_shape_are_refused():
    a = E.Accumulator()
    a.add(torch.zeros(2, 4, 1, 2, 2))
    with pytest.raises(ValueError, match="cannot be averaged"):
        a.add(torch.zeros(2, 4, 1, 3, 2))


ITEMS = list(range(40))


def read(i):
    if i % 9 == 4:
        raise Unreadable("is broken")
    return i


def encode(i):
    return torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(i))


def finished(path=None):
    e = E.Estimate({"frames": 3})
    e.run(ITEMS, read, encode, path)
    return e


@pytest.mark.parametrize("at", [0, 1, 4, 17, 39])
def test_stopped_and_resumed_is_uninterrupted_to_the_bit(tmp_path, at):
    path = tmp_path / "state"
    first = E.Estimate.resume(path, {"frames": 3})

    def interrupt(e, total):
        if e.done == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) if at else pytest.raises(ZeroDivisionError):
        first.run(ITEMS, read if at else lambda i: 1 / 0, encode, path, progress=interrupt)
    second = E.Estimate.resume(path, {"frames": 3})
    assert second.done == at
    second.run(ITEMS, read, encode, path)
    whole = finished()
    assert second.done == 40 and second.skipped == whole.skipped and len(whole.skipped) == 4
    assert torch.equal(second.accumulator.mean, whole.accumulator.mean)
    assert torch.equal(second.accumulator.m2, whole.accumulator.m2)


def test_killed_without_a_word_it_goes_on_from_the_last_save(tmp_path):
    """As after kill -9: only what was saved on the way is there."""
    path = tmp_path / "state"
    e = E.Estimate({"frames": 3})
    e.run(ITEMS[:23], read, encode, path, every=0.0)
    again = E.Estimate.resume(path, {"frames": 3})
    assert again.done == 23
    again.run(ITEMS, read, encode, path)
    assert torch.equal(again.accumulator.m2, finished().accumulator.m2)


def test_other_settings_are_not_mixed_in(tmp_path):
    finished(tmp_path / "state")
    with pytest.raises(ValueError, match="begun with other settings \\(fps, frames\\)"):
        E.Estimate.resume(tmp_path / "state", {"frames": 4, "fps": 3})


def test_what_is_not_an_estimate_is_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="not a partial estimate.*their .partial files can"):
        E.Estimate.load(tmp_path / "a.safetensors")
    (tmp_path / "b").write_bytes(b"")
    with pytest.raises(ValueError, match="b cannot be read"):
        E.Estimate.load(tmp_path / "b")


def test_memory_is_flat():
    """Peak allocation from 100 to 10,000 clips."""
    import tracemalloc

    peaks = []
    for n in (100, 10_000):
        e = E.Estimate({})
        latents = torch.zeros(4, 2, 4, 4)
        tracemalloc.start()
        e.run(range(n), lambda i: i, lambda i: latents)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        held = sum(t.numel() * 8 for t in (e.accumulator.mean, e.accumulator.m2))
        assert held == 2 * 8 * latents.numel()
    assert peaks[1] < 2 * peaks[0] + 50_000
