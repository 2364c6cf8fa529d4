"""Where clips may lie: what a list or a folder must not lead to, and what the messages must not tell."""

import os
import socket

import pytest
import torch
from listener import listening

from cil_pack.cil import clips, sources

SECRET = "s3cret-in-a-file"


@pytest.fixture
def places(tmp_path):
    """An allowed folder with one video, and one outside with a video and a text."""
    allowed, outside = tmp_path / "input", tmp_path / "outside"
    for folder in (allowed, outside):
        folder.mkdir()
        (folder / "clip.mp4").write_bytes(b"no video")
    (outside / "secret.txt").write_text(f"{SECRET}\n")
    return allowed, outside


def refused(source, roots):
    with pytest.raises(ValueError) as caught:
        sources.find(source, roots)
    assert SECRET not in str(caught.value)
    return str(caught.value)


def test_a_folder_inside_is_found_by_its_relative_and_its_whole_path(places):
    allowed, _ = places
    (allowed / "videos").mkdir()
    (allowed / "videos" / "a.mp4").touch()
    found = [allowed / "videos" / "a.mp4"]
    assert sources.find("videos", [allowed]) == found
    assert sources.find(str(allowed / "videos"), [allowed]) == found
    assert sources.find(allowed, [allowed]) == [allowed / "clip.mp4", *found]


def test_the_second_root_is_looked_at_too(places):
    allowed, outside = places
    (outside / "more").mkdir()
    (outside / "more" / "b.mp4").touch()
    assert sources.find("more", [allowed, outside]) == [outside / "more" / "b.mp4"]


@pytest.mark.parametrize(
    "source",
    [
        "/",
        "/etc",
        "/etc/passwd",
        "..",
        "../outside",
        "../outside/secret.txt",
        "videos/../../outside",
        "/proc/self/environ",
        "/dev/zero",
        "~",
        "http://127.0.0.1/",
        "file:///etc/passwd",
        "a\0b",
        "a" * 5000,
    ],
)
def test_nothing_outside_is_looked_at(places, source):
    refused(source, [places[0]])


def test_links_are_followed_before_they_are_judged(places):
    allowed, outside = places
    (allowed / "folder").symlink_to(outside)
    (allowed / "list.txt").symlink_to(outside / "secret.txt")
    for name in ("folder", "list.txt", "folder/secret.txt"):
        assert "outside" in refused(name, [allowed])
    (allowed / "linked.mp4").symlink_to(outside / "clip.mp4")
    assert "'linked.mp4' is a link that leads outside" in refused(allowed, [allowed])


def test_a_ring_of_links_ends(places):
    (places[0] / "ring").symlink_to(places[0] / "ring")
    refused("ring", [places[0]])


def test_pipes_and_sockets_are_no_lists_and_no_videos(places):
    allowed, _ = places
    os.mkfifo(allowed / "pipe.txt")
    os.mkfifo(allowed / "pipe.mp4")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(allowed / "socket.txt"))
        for name in ("pipe.txt", "socket.txt", "pipe.mp4"):
            assert "no folder or list of videos" in refused(name, [allowed])
        assert sources.find(allowed) == [allowed / "clip.mp4"]


@pytest.mark.parametrize(
    "line",
    [
        SECRET,
        f"{SECRET}.txt",
        f"http://127.0.0.1/{SECRET}.mp4",
        f"tcp://127.0.0.1:1/{SECRET}.mp4",
        f"../{SECRET}.mp4",
        f"/etc/{SECRET}.mp4",
        f"{SECRET}.mp4",
        "../outside/clip.mp4",
        f"{SECRET}\0.mp4",
    ],
)
def test_a_list_names_videos_and_is_not_quoted(places, line):
    allowed, _ = places
    (allowed / "list.txt").write_text(f"clip.mp4\n{line}\n")
    assert "line 2 of 'list.txt'" in refused("list.txt", [allowed])


@pytest.mark.parametrize("data", ["clip.mp4\n\nclip.mp4\n".encode(enc) for enc in ("utf-8", "utf-8-sig", "utf-16")])
def test_a_list_of_each_encoding(places, data):
    allowed, _ = places
    (allowed / "list.txt").write_bytes(data)
    assert sources.find("list.txt", [allowed]) == 2 * [allowed / "clip.mp4"]


def test_what_is_no_list(places):
    allowed, _ = places
    (allowed / "list.txt").write_bytes(b"\xff\x00" + SECRET.encode() + b"\xfe")
    assert "no text" in refused("list.txt", [allowed])
    assert "is one video" in refused("clip.mp4", [allowed])


def test_in_a_terminal_anything_goes(places):
    allowed, outside = places
    (allowed / "list.txt").write_text(f"{outside / 'clip.mp4'}\n")
    assert sources.find(allowed / "list.txt") == [outside / "clip.mp4"]
    assert sources.find(outside) == [outside / "clip.mp4"]


def test_a_search_can_be_stopped(places):
    class Stop(Exception):
        pass

    def check():
        raise Stop

    with pytest.raises(Stop):
        sources.find(places[0], None, check)


@pytest.fixture
def listener():
    """An address that notes who asks for it."""
    with listening() as (address, asked):
        yield f"http://{address}/x.ts", asked


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{}'\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT3S"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>',
}


@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("name", ["a.mp4", "a.m3u8"])
def test_a_playlist_is_not_followed(tmp_path, listener, kind, name):
    url, asked = listener
    (tmp_path / name).write_text(PLAYLISTS[kind].format(url))
    with pytest.raises(clips.Unreadable) as caught:
        clips.read(tmp_path / name, clips.ClipSpec(frames=2), 0)
    assert not asked
    assert str(tmp_path) not in str(caught.value)


def test_a_pipe_is_not_decoded(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(clips.Unreadable, match="no regular file"):
        clips.read(tmp_path / "pipe.mp4", clips.ClipSpec(), 0)


def test_a_caption_that_is_a_link_outside_is_refused(places):
    allowed, outside = places
    (allowed / "clip.txt").symlink_to(outside / "secret.txt")
    assert clips.caption(allowed / "clip.mp4") == SECRET  # in a terminal
    with pytest.raises(ValueError, match="clip.txt is a link that leads outside") as caught:
        clips.caption(allowed / "clip.mp4", [allowed])
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.mov", "a.gif", "a.flv", "a.mpg"])
def test_videos_of_the_usual_kinds_are_read(tmp_path, name):
    clip = torch.rand(6, 32, 32, 3)
    av = pytest.importorskip("av")
    codec, form = ("gif", "rgb8") if name.endswith("gif") else ("mpeg1video", "yuv420p") if name.endswith("mpg") else ("mpeg4", "yuv420p")
    codec = "flv" if name.endswith("flv") else codec
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, form
        for frame in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray((frame * 255).byte().numpy(), format="rgb24")))
        container.mux(stream.encode(None))
    assert clips.read(tmp_path / name, clips.ClipSpec(2, 25.0, 32, 32), 0).shape == (2, 32, 32, 3)
