"""Data sets in shards: round trip, stopping anywhere, bad folders."""

import pytest
import torch
from cil_pack.cil import moments as cil_moments
from cil_pack.cil import prepared, training
from cil_pack.cil.clips import Unreadable
from cil_pack.cil.training import Clip
from safetensors.torch import load_file, save_file

ITEMS = [f"{i:02d}.mp4" for i in range(40)]
SETTINGS = {"frames": 3}


def read(name):
    if int(name[:2]) % 9 == 4:
        raise Unreadable("is broken")
    return int(name[:2])


def encode(i):
    g = torch.Generator().manual_seed(i)
    draw = lambda *shape: torch.randn(*shape, generator=g)
    return Clip(draw(4, 3, 2, 2), draw(4, 2, 2), draw(1, 5), float(i))


def test_round_trip(tmp_path):
    made = prepared.prepare(tmp_path / "set", SETTINGS, ITEMS, read, encode)
    for clips in (made, prepared.load(tmp_path / "set")):
        assert len(clips) == 36 and clips.shape == (4, 3, 2, 2) and clips.settings == SETTINGS
        assert clips.skipped == [(f"{i:02d}.mp4", "is broken") for i in (4, 13, 22, 31)]
        for i in (0, 5, 35):
            clip, right = clips[i], encode(int(clips.names[i][:2]))
            assert torch.equal(clip.latents, right.latents.half()) and torch.equal(clip.image, right.image.half().float())
            assert torch.equal(clip.embed, right.embed.half().float()) and clip.motion == right.motion
    assert len(list((tmp_path / "set").iterdir())) == 3  # 16 + 16 + 4


@pytest.mark.parametrize("at", [1, 5, 17, 39])
def test_stopped_and_resumed_is_the_whole(tmp_path, at):
    def interrupt(done, skipped, total):
        assert total == 40
        if done == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepared.prepare(tmp_path / "a", SETTINGS, ITEMS, read, encode, progress=interrupt)
    assert prepared.ClipSet(tmp_path / "a").done == at
    seen = []
    again = prepared.prepare(tmp_path / "a", SETTINGS, ITEMS, lambda n: seen.append(n) or read(n), encode)
    assert seen == ITEMS[at:]
    whole = prepared.prepare(tmp_path / "b", SETTINGS, ITEMS, read, encode)
    assert again.names == whole.names and again.skipped == whole.skipped and again.motion == whole.motion
    assert all(torch.equal(a.latents, b.latents) for a, b in zip(again, whole, strict=True))


def test_shards_are_written_on_the_way(tmp_path):
    prepared.prepare(tmp_path, SETTINGS, ITEMS[:3], read, encode, every=0.0)
    assert len(list(tmp_path.iterdir())) == 3


def test_other_settings_are_not_mixed_in(tmp_path):
    prepared.prepare(tmp_path, SETTINGS, ITEMS[:2], read, encode)
    with pytest.raises(ValueError, match="begun with other settings \\(fps, frames\\)"):
        prepared.prepare(tmp_path, {"frames": 4, "fps": 3}, ITEMS, read, encode)


def test_a_full_disk_leaves_whole_shards_only(tmp_path, monkeypatch):
    prepared.prepare(tmp_path, SETTINGS, ITEMS[:2], read, encode)

    def full(tensors, path, strings):
        open(path, "wb").write(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(cil_moments, "save_file", full)
        with pytest.raises(OSError, match="No space left on device.*Is the disk full"):
            prepared.prepare(tmp_path, SETTINGS, ITEMS[:4], read, encode)
    assert prepared.load(tmp_path).names == ITEMS[:2] and len(list(tmp_path.iterdir())) == 1
    assert len(prepared.prepare(tmp_path, SETTINGS, ITEMS[:4], read, encode)) == 4


def test_folders_that_are_no_data_set(tmp_path):
    with pytest.raises(ValueError, match="no prepared data set at"):
        prepared.load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no prepared clips"):
        prepared.load(tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="a.safetensors is no shard"):
        prepared.load(tmp_path)
    (tmp_path / "a.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match="a.safetensors cannot be read"):
        prepared.load(tmp_path)


def test_texts_and_what_is_dropped_are_kept_once(tmp_path):
    """Texts of different lengths; no image embedding."""
    g = torch.Generator().manual_seed(0)
    texts = [torch.randn(n, 4, generator=g) for n in (3, 5)]
    dropped = {"text": torch.zeros(3, 4)}
    clip = lambda i: Clip(torch.randn(4, 3, 2, 2, generator=g), torch.zeros(4, 3, 2, 2), None, 0.0, texts[i % 2].clone(), dropped)
    prepared.prepare(tmp_path, SETTINGS, range(20), lambda i: i, clip)
    made = prepared.load(tmp_path)
    assert all(torch.equal(made[i].text, texts[i % 2].half().float()) and made[i].embed is None for i in range(20))
    assert torch.equal(made[17].dropped["text"], dropped["text"])
    names = [set(load_file(path)) for path in tmp_path.iterdir()]
    assert names == 2 * [{"latents", "image", "text.0", "text.1", "dropped.text"}]
    assert torch.equal(training.without_condition(made[0]).text, dropped["text"])
