"""Data sets in shards: round trip, stopping anywhere, bad folders."""

import json

import full_disk
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cil_pack.cil import prepared, training
from cil_pack.cil.clips import Unreadable
from cil_pack.cil.files import Claimed
from cil_pack.cil.training import Clip

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
        assert [s[:2] for s in clips.skipped] == [(f"{i:02d}.mp4", "is broken") for i in (4, 13, 22, 31)]
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


def test_a_full_disk_leaves_whole_shards_only(tmp_path):
    prepared.prepare(tmp_path, SETTINGS, ITEMS[:2], read, encode)

    with full_disk.no_file_above(300), pytest.raises(OSError, match="could not be written.*File too large.*is the disk full"):
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


# ---- whole sets only ----------------------------------------------------------------


def shards(folder):
    return sorted(folder.glob("*.safetensors"))


def test_a_video_that_was_mended_is_prepared_and_no_other_again(tmp_path):
    stamps, seen = dict.fromkeys(ITEMS, "1-1"), []
    prepared.prepare(tmp_path, SETTINGS, ITEMS, read, encode, stamp=stamps.get)
    stamps |= {"13.mp4": "1-2", "22.mp4": "1-2", "07.mp4": "1-9"}  # the last: copied, with another time and the same size
    mended = lambda name: seen.append(name) or (13 if name == "13.mp4" else read(name))
    for _ in range(2):
        clips = prepared.prepare(tmp_path, SETTINGS, ITEMS, mended, encode, stamp=stamps.get)
        assert seen == ["13.mp4", "22.mp4"]
        assert len(clips) == 37 and clips.done == 40 and sorted(s.name for s in clips.skipped) == ["04.mp4", "22.mp4", "31.mp4"]
    assert torch.equal(clips[36].latents, encode(13).latents.half()) and len(set(clips.names)) == 37


def test_a_prepared_video_that_changed_is_named(tmp_path):
    prepared.prepare(tmp_path, SETTINGS, ITEMS[:3], read, encode, stamp=lambda i: "5-1")
    with pytest.raises(ValueError, match="1 videos have changed since they were prepared \\(01.mp4\\): choose another name, or delete"):
        prepared.prepare(tmp_path, SETTINGS, ITEMS[:3], read, encode, stamp=lambda i: "6-1" if i == "01.mp4" else "5-1")
    with pytest.raises(ValueError, match="the outcome of 3 files, but there are 2 now"):
        prepared.prepare(tmp_path, SETTINGS, ITEMS[:2], read, encode, stamp=lambda i: "5-1")


@pytest.mark.parametrize("change", ["first gone", "second gone", "copied", "renamed"])
def test_a_set_that_is_not_whole_says_so(tmp_path, change):
    prepared.prepare(tmp_path, SETTINGS, ITEMS, read, encode)
    first, second, _ = shards(tmp_path)
    if change == "copied":
        (tmp_path / "clips-000016 (1).safetensors").write_bytes(second.read_bytes())
    elif change == "renamed":
        (tmp_path / "clips-000099.safetensors").write_bytes(second.read_bytes())
    else:
        (first if change == "first gone" else second).unlink()
    with pytest.raises(ValueError, match="does not follow on the shards before it: clips-0.* is missing, or this is a copy"):
        prepared.load(tmp_path)


def test_two_cannot_prepare_into_one_folder(tmp_path):
    """Refused while another writes; once it is done there is nothing left to do, and nothing is doubled."""

    def other(name):
        with pytest.raises(Claimed, match=f"{tmp_path.name} is being written by process"):
            prepared.prepare(tmp_path, SETTINGS, ITEMS, read, encode)
        return read(name)

    made = prepared.prepare(tmp_path, SETTINGS, ITEMS, other, encode, every=0.0)
    again = prepared.prepare(tmp_path, SETTINGS, ITEMS, lambda n: 1 / 0, encode)
    assert len(made) == len(again) == 36 and len(set(again.names)) == 36


def test_a_lock_that_a_killed_writer_left_is_taken_away(tmp_path):
    prepared.prepare(tmp_path, SETTINGS, ITEMS[:2], read, encode)
    for name in ("writing.lock", "writing.lock.json"):
        (tmp_path / name).write_text("")
    prepared.prepare(tmp_path, SETTINGS, ITEMS[:2], read, encode)
    assert [p.name for p in tmp_path.iterdir()] == ["clips-000000.safetensors"]


def test_a_set_that_is_deleted_while_it_is_open_says_so(tmp_path):
    clips = prepared.prepare(tmp_path, SETTINGS, ITEMS[:2], read, encode)
    shards(tmp_path)[0].unlink()
    with pytest.raises(ValueError, match="clips-000000.safetensors cannot be read any more .* Prepare the clips again"):
        clips[1]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"version": "3"}, "format version 3, but this pack reads versions up to 2: update the pack"),
        ({"clips": "{"}, "is damaged"),
        ({"clips": "[" * 100_000}, "is damaged"),
        ({"clips": '{"settings": {}, "names": ["a"], "motion": [], "skipped": []}'}, "is damaged"),
        ({"clips": '{"settings": {}, "names": ["a", "b", "c"], "motion": [0, 0, 0], "skipped": []}'}, "tensors are of \\[2, 3\\] clips"),
    ],
)
def test_a_shard_that_is_damaged_or_newer_says_what_to_do(tmp_path, change, message):
    prepared.prepare(tmp_path, SETTINGS, ITEMS[:2], read, encode)
    (path,) = shards(tmp_path)
    with safe_open(path, framework="pt") as file:
        strings = file.metadata()
    save_file(load_file(path), path, strings | change)
    with pytest.raises(ValueError, match=f"clips-000000.safetensors.*{message}"):
        prepared.load(tmp_path)


def test_a_set_of_an_older_pack_goes_on(tmp_path):
    """As version 1 wrote it: no places, skipped ones by name alone, no fingerprints of the encoders."""
    prepared.prepare(tmp_path, SETTINGS, ITEMS[:6], read, encode)
    (path,) = shards(tmp_path)
    about = {"settings": SETTINGS, "names": [n for n in ITEMS[:6] if n != "04.mp4"], "motion": [0.0, 1.0, 2.0, 3.0, 5.0], "skipped": [["04.mp4", "is broken"]]}
    save_file(load_file(path), path, {"format": prepared.FORMAT, "version": "1", "clips": json.dumps(about)})
    made = prepared.prepare(tmp_path, SETTINGS | {"vae_weights": "abc"}, ITEMS, read, encode, stamp=str)
    assert len(made) == 36 and made.done == 40 and made.settings == SETTINGS
    assert len(prepared.load(tmp_path)) == 36
