"""The commands that merge and convert moments, called as run.py calls them."""

import shutil

import full_disk
import pytest
import torch

from cil_pack.cil import moments as M
from cil_pack.cil.estimate import Estimate
from cil_pack.moments import convert, merge

SETTINGS = {"space": "sd", "frames": 3, "fps": 3.0, "height": 8, "width": 8, "vae": "a.safetensors", "vae_weights": "abc"}


def part(path, items, **changes):
    e = Estimate(SETTINGS | changes)
    e.run(list(items), lambda i: i, lambda i: torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(i)), path)
    return path


def merged(tmp_path, *paths, more=()):
    merge.main([*map(str, paths), "--out", str(tmp_path / "out.safetensors"), *more])
    return M.load(tmp_path / "out.safetensors")


def test_parts_of_different_clips_are_the_whole(tmp_path, capsys):
    a, b, whole = (part(tmp_path / f"{i}.partial.safetensors", items) for i, items in enumerate((range(5), range(5, 9), range(9))))
    made = merged(tmp_path, a, b)
    right = Estimate.load(whole)
    assert made.count == 9 and torch.allclose(made.mean, right.accumulator.mean.half().float(), atol=1e-3)
    assert made.about["content"] == right.content and merged(tmp_path, b, a).about["content"] == right.content
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0.partial.safetensors", "1.partial.safetensors", "2.partial.safetensors", "out.safetensors"]


@pytest.mark.parametrize("other", ["itself", "a copy", "an overlap"])
def test_clips_are_not_counted_twice(tmp_path, other):
    a = part(tmp_path / "a.safetensors", range(5))
    b = tmp_path / "b.safetensors"
    if other == "itself":
        b = a
    elif other == "a copy":
        shutil.copy(a, b)
    else:
        part(b, range(3, 9))
    with pytest.raises(SystemExit, match=f"{a} and {b} hold {2 if other == 'an overlap' else 5} of the same clips, which would count twice"):
        merged(tmp_path, a, b)
    assert not (tmp_path / "out.safetensors").exists()
    assert merged(tmp_path, a, b, more=["--doubles"]).count == 10 + (other == "an overlap")


@pytest.mark.parametrize("changes", [{"vae_weights": "other"}, {"frames": 4}, {"space": "wan21"}])
def test_parts_that_do_not_go_together_are_refused(tmp_path, changes):
    a, b = part(tmp_path / "a.safetensors", range(5)), part(tmp_path / "b.safetensors", range(5, 9), **changes)
    with pytest.raises(SystemExit, match=f"b.safetensors has {next(iter(changes))} .*: they cannot be merged"):
        merged(tmp_path, a, b)


def test_a_full_disk_is_a_sentence(tmp_path, capsys):
    a = part(tmp_path / "a.safetensors", range(5))
    before = merged(tmp_path, a)
    with (
        full_disk.no_file_above(200),
        pytest.raises(SystemExit, match="out.safetensors could not be written.*File too large.*what stood there before is as it was"),
    ):
        merged(tmp_path, a)
    assert torch.equal(M.load(tmp_path / "out.safetensors").mean, before.mean)
    torch.save({"Expectation_x_0": torch.randn(16, 4, 4, 4), "trCov_d": torch.tensor(0.8)}, tmp_path / "svd.pt")
    capsys.readouterr()
    with full_disk.no_file_above(200), pytest.raises(SystemExit) as ended:
        convert.main([str(tmp_path / "svd.pt")])
    assert ended.value.code == 1 and "svd.cil.safetensors could not be written" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.part")) and not list(tmp_path.glob("*.lock*"))
