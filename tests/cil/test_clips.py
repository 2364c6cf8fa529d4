"""Clips out of videos: upright, in little memory, whatever their names and the lists of them are written in."""

import os
import random
import subprocess
import sys

import av
import pytest
import torch
import video_file

from cil_pack.cil import clips

SPEC = clips.ClipSpec(frames=3, fps=2.0, height=32, width=48)


def picture(height=48, width=64):
    """Red above left, green above right, blue below: every turn of it looks different."""
    out = torch.zeros(height, width, 3)
    out[: height // 2, : width // 2, 0], out[: height // 2, width // 2 :, 1], out[height // 2 :, :, 2] = 1, 1, 1
    return out


@pytest.fixture
def video(tmp_path):
    video_file.write(tmp_path / "a.mp4", picture().expand(12, -1, -1, -1), rate=6)
    return tmp_path / "a.mp4"


MATRICES = {  # of ISO 14496-12, 8.3.2: how a player turns what is coded, clockwise; 1.0 = 0x10000
    0: (0x10000, 0, 0, 0x10000), 90: (0, 0x10000, -0x10000, 0), 180: (-0x10000, 0, 0, -0x10000), 270: (0, -0x10000, 0x10000, 0),
}  # fmt: skip


def turned(path, clockwise):
    """The same file with the turn that a phone writes into its track's header."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (n.to_bytes(4, "big", signed=True) for n in MATRICES[clockwise])
    data[place : place + 8], data[place + 12 : place + 20] = a + b, c + d
    out = path.with_name(f"turned{clockwise}.mp4")
    out.write_bytes(data)
    return out


@pytest.mark.parametrize("clockwise", MATRICES)
def test_clips_of_phones_are_upright(video, clockwise):
    """A file whose frames are coded sideways and that says so, against the same pictures turned by hand."""
    shown = torch.rot90(picture(), -clockwise // 90)
    spec = clips.ClipSpec(frames=3, fps=2.0, height=shown.shape[0], width=shown.shape[1])
    read = clips.read(turned(video, clockwise), spec, 0).float() / 255
    assert read.shape == (3, *shown.shape) and (read - shown).abs().mean() < 0.06
    for other in range(4):
        again = torch.rot90(picture(), other)
        if again.shape == shown.shape and not torch.equal(again, shown):
            assert (read - again).abs().mean() > 0.3


def test_the_frames_are_those_nearest_in_time(tmp_path):
    """Against a search over all frames; more wanted than there are, so that some come twice."""
    levels = torch.linspace(0.1, 0.9, 10)
    video_file.write(tmp_path / "a.mp4", levels[:, None, None, None].expand(-1, 32, 48, 3), rate=5, lossless=True)
    spec = clips.ClipSpec(frames=12, fps=7.0, height=32, width=48)
    with av.open(str(tmp_path / "a.mp4")) as file:
        frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in file.decode(video=0)]
    read = clips.read(tmp_path / "a.mp4", spec, 0)
    start = random.Random("0 0 a.mp4").uniform(0, 2.0 - 0.2 - 11 / 7)
    for i in range(12):
        nearest = min(frames, key=lambda f: (round(abs(f[0] - start - i / 7), 9), f[0]))
        assert torch.equal(read[i], torch.from_numpy(nearest[1]))


PEAK = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import run, torch
run.load_pack()
from cil_pack.cil import clips
torch.set_num_threads(1)
one, many = (clips.ClipSpec(frames=n, fps=8.0, height=16, width=16) for n in (2, 144))
clips.read(sys.argv[2], one, 0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert clips.read(sys.argv[2], many, 0).shape == (144, 16, 16, 3)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is counted in kB there")
def test_memory_does_not_grow_with_the_frames(root, tmp_path):
    """Peak of a process: 144 frames of 1280 x 720 would be 400 MB."""
    video_file.write(tmp_path / "a.mp4", torch.full((1, 720, 1280, 3), 0.5).expand(144, -1, -1, -1), rate=8)
    done = subprocess.run([sys.executable, "-c", PEAK, str(root), str(tmp_path / "a.mp4")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 60_000


def test_a_strip_does_not_become_huge(tmp_path):
    video_file.write(tmp_path / "a.mp4", torch.rand(4, 16, 4096, 3), rate=4)
    assert clips.read(tmp_path / "a.mp4", clips.ClipSpec(3, 4.0, 512, 512), 0).shape == (3, 512, 512, 3)


# ---- lists, captions, names -----------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_are_read_in_every_unicode(video, encoding):
    (video.parent / "list.txt").write_text("a.mp4\n", encoding=encoding)
    assert clips.find(video.parent / "list.txt") == [video]


def test_a_video_and_a_broken_list_are_named(video, tmp_path):
    with pytest.raises(ValueError, match="'a.mp4' is one video: give the folder"):
        clips.find(video)
    (tmp_path / "list.txt").write_bytes(b"caf\xe9.mp4\n")
    with pytest.raises(ValueError, match="list.txt is no text in UTF-8"):
        clips.find(tmp_path / "list.txt")


@pytest.mark.parametrize("typed", ["/a b", '"/a b"', "'/a b'", " /a b ", '" /a b"'])
def test_quotes_around_a_path_are_taken_off(typed):
    assert clips.unquoted(typed) == "/a b"


def test_captions_that_cannot_be_read_are_all_named(video, tmp_path):
    for name, text in (("a", b"ein Schiff"), ("b", b"caf\xe9"), ("c", b"\xff\xfe")):
        (tmp_path / f"{name}.txt").write_bytes(text)
    paths = [tmp_path / f"{name}.mp4" for name in "abd"]
    assert clips.captions([paths[0], paths[2]]) == {paths[0]: "ein Schiff", paths[2]: None}
    with pytest.raises(ValueError, match="1 captions cannot be read: b.txt is no text in UTF-8"):
        clips.captions(paths)


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes there")
def test_a_name_that_is_no_text_is_a_file_like_others(video):
    odd = video.with_name(os.fsdecode(b"caf\xe9.mp4"))
    video.rename(odd)
    assert clips.find(odd.parent) == [odd]
    assert str(clips.Draw(odd, 0)) == "caf\ufffd.mp4" and clips.digest([odd.name])
    assert clips.read(odd, SPEC, 0).shape == (3, 32, 48, 3)


def test_what_is_in_a_folder_has_a_name(video):
    before = clips.listing(video.parent)
    assert before == clips.listing(video.parent) and clips.listing(video.parent / "nowhere") is None
    video.write_bytes(video.read_bytes() + b"x")
    changed = clips.listing(video.parent)
    video.with_suffix(".txt").write_text("a boat")
    assert len({before, changed, clips.listing(video.parent)}) == 3


def test_reading_can_be_stopped_between_two_frames(tmp_path):
    video_file.write(tmp_path / "a.mp4", torch.rand(10, 32, 48, 3), rate=5)
    asked = []

    def stop():
        asked.append(1)
        if len(asked) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        clips.read(tmp_path / "a.mp4", clips.ClipSpec(frames=8, fps=5.0, height=32, width=48), 0, stop)
    assert len(asked) == 3
