"""The method of moments against closed forms."""

import json

import pytest
import torch
from safetensors.torch import save_file
from toy import Toy

from cil_pack.cil import estimate as E
from cil_pack.cil.clips import Unreadable


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
    """Peak allocation from 100 to 10,000 clips: 8 bytes a clip, for its hash, and what a growing list sets aside."""
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
    assert peaks[1] < 2 * peaks[0] + 50_000 + 2 * 8 * 10_000


# ---- what is kept, and when it is no longer true ----------------------------------------


def broken_then_mended(tmp_path, mended):
    """Two runs over files of which two are broken in the first -> (the second, what it read)."""
    stamps, seen = dict.fromkeys(ITEMS, "1"), []
    first = E.Estimate({"frames": 3})
    first.run(ITEMS[:30], read, encode, tmp_path / "state", stamp=stamps.get)
    assert [s.place for s in first.skipped] == [4, 13, 22]
    for i in mended:
        stamps[i] = "2"
    again = E.Estimate.resume(tmp_path / "state", {"frames": 3})
    again.run(ITEMS, lambda i: seen.append(i) or (i if i in mended else read(i)), encode, tmp_path / "state", stamp=stamps.get)
    return again, seen


def test_a_file_that_was_mended_is_tried_again_and_no_other(tmp_path):
    again, seen = broken_then_mended(tmp_path, [13])
    assert seen == [13, *range(30, 40)]
    assert again.done == 40 and sorted(s.place for s in again.skipped) == [4, 22, 31] and again.accumulator.count == 37
    whole = E.Accumulator()
    whole.add(torch.stack([encode(i) for i in ITEMS if i not in (4, 22, 31)]))
    assert torch.allclose(again.accumulator.mean, whole.mean, atol=1e-12) and torch.allclose(again.accumulator.m2, whole.m2)
    last = E.Estimate.load(tmp_path / "state")
    assert last.skipped == again.skipped and last.content == again.content


def test_a_file_that_changed_and_is_still_broken_is_skipped_once(tmp_path):
    stamps = {}
    for stamp in ("1", "2", "3"):
        stamps[4] = stamp
        e = E.Estimate.resume(tmp_path / "state", {})
        e.run(ITEMS[:10], read, encode, tmp_path / "state", stamp=stamps.get)
    assert [(s.place, s.stamp) for s in e.skipped] == [(4, "3")] and e.done == 10


def test_averaged_files_that_changed_are_noticed(tmp_path):
    e = E.Estimate({})
    e.run(ITEMS[:10], read, encode, tmp_path / "state", stamp=lambda i: "1")
    again = E.Estimate.load(tmp_path / "state")
    with pytest.raises(E.Changed, match="files have changed since they were averaged"):
        again.run(ITEMS, read, encode, stamp=lambda i: "2" if i == 3 else "1")
    with pytest.raises(E.Changed, match="10 files were tried before, but there are 5 now"):
        again.run(ITEMS[:5], read, encode, stamp=lambda i: "1")


@pytest.mark.parametrize("at", range(3))
def test_an_interrupt_at_any_line_counts_nothing_twice(at):
    """In the reading, the encoding, or as the outcome is noted."""

    def stop(*args):
        raise KeyboardInterrupt

    e, calls = E.Estimate({}), [read, encode]
    e.run(ITEMS[:7], read, encode)
    plain = E._summed
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        if at < 2:
            calls[at] = stop
        else:  # the clip's hash has been noted, the rest of its outcome has not
            patch.setattr(E, "_summed", lambda *a: stop() if len(e.hashes) > e.accumulator.count else plain(*a))
        e.run(ITEMS, *calls)
    e.run(ITEMS, read, encode)
    assert e.accumulator.count == 36 and len(e.skipped) == 4 and len(e.hashes) == 36
    assert e.content == finished().content and torch.equal(e.accumulator.m2, finished().accumulator.m2)


def parts(*ranges):
    out = []
    for items in ranges:
        e = E.Estimate({})
        e.run(list(items), read, encode)
        out.append(e)
    return out


def test_clips_that_two_parts_hold_are_counted_and_named():
    a, b, c = parts(range(10), range(10, 20), range(5, 15))
    assert E.shared(a, a) == 9 and E.shared(a, b) == 0 and E.shared(a, c) == 5 and E.shared(b, c) == 4
    old = [E.Estimate({}) for _ in range(2)]  # of version 1: no hashes
    for e, source in zip(old, (a, b)):
        e.accumulator = source.accumulator
    assert E.shared(old[0], a) == 9 and E.shared(old[0], old[1]) == 0


def test_the_content_is_the_clips_in_any_order():
    (one,), (two,) = parts(range(20)), parts(range(20))
    assert one.content == two.content == E.content(one.hashes[::-1])
    assert E.content(one.hashes[1:]) != one.content


def test_pixels_are_hashed():
    clip = torch.randint(256, (2, 4, 4, 3), dtype=torch.uint8)
    assert E._hash(clip) == E._hash(clip.clone()) != E._hash(clip + 1)


def test_an_estimate_of_an_older_pack_goes_on(tmp_path):
    """As version 1 wrote it: no hashes, no stamps, items by name alone."""
    whole, (old,) = finished(), parts(ITEMS[:23])
    about = {"count": old.accumulator.count, "skipped": [[s.name, s.reason] for s in old.skipped], "settings": {"frames": 3}}
    save_file({"mean": old.accumulator.mean, "m2": old.accumulator.m2}, tmp_path / "state", {"format": E.FORMAT, "version": "1", "estimate": json.dumps(about)})
    again = E.Estimate.resume(tmp_path / "state", {"frames": 3, "vae_weights": "abc"})
    again.run(ITEMS, read, encode, tmp_path / "state", stamp=str)
    assert torch.equal(again.accumulator.m2, whole.accumulator.m2) and len(again.skipped) == 4


@pytest.mark.parametrize(
    "change", [{"count": 3e999}, {"count": "x"}, {"count": -1}, {"count": 0}, {"skipped": 7}, {"skipped": [[1, 2, 3, 4, 5]]}, {"settings": None}]
)
def test_estimates_whose_figures_do_not_fit_are_refused(tmp_path, change):
    about = {"count": 2, "skipped": [], "settings": {}, "seen": 0} | change
    save_file({"mean": torch.zeros(2), "m2": torch.zeros(2)}, tmp_path / "state", {"format": E.FORMAT, "version": "2", "about": json.dumps(about)})
    with pytest.raises(ValueError, match="state is damaged .*: delete it to begin anew"):
        E.Estimate.load(tmp_path / "state")
