"""Moments from real videos with a real VAE (the demo's), by the headless commands."""

import shutil
import signal
import subprocess
import sys
import time

import pytest
import real_clips
import torch
import video_file
from commands import command, do, environment

from cil_pack.cil import moments as M
from cil_pack.cil.estimate import Estimate

CLIP = ["--frames", "8", "--fps", "5", "--width", "64", "--height", "64"]


def call(root, *arguments, launcher=()):
    """The command in processes of its own -> what it printed."""
    done = subprocess.run(command(root, *arguments, launcher=launcher), capture_output=True, text=True, timeout=600, env=environment())
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """All the real clips, and three that give none."""
    folder = tmp_path_factory.mktemp("videos")
    for path in real_clips.folder().iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    assert len(list(folder.iterdir())) >= 12
    (folder / "empty.mp4").write_bytes(b"")
    whole = (folder / "bikes.mp4").read_bytes()
    (folder / "corrupt.mp4").write_bytes(whole[: len(whole) // 3])
    video_file.write(folder / "one_frame.mp4", torch.zeros(1, 64, 64, 3), rate=24)
    return folder


@pytest.fixture(scope="module")
def single(root_path, videos, tmp_path_factory):
    out = tmp_path_factory.mktemp("single") / "m.safetensors"
    return out, call(root_path, "moments.estimate", videos, "--vae", "demo", "--out", out, *CLIP)


@pytest.fixture(scope="module")
def few(videos, tmp_path_factory):
    """Those that are read fastest, and the three that give none."""
    folder = tmp_path_factory.mktemp("few")
    for name in ("bikes.mp4", "cap13_edit2.webm", "carphone_pristine.mp4", "city.mpg", "ocean.ogv", "empty.mp4", "corrupt.mp4", "one_frame.mp4"):
        shutil.copy(videos / name, folder)
    return folder


@pytest.fixture(scope="module")
def of_few(few, tmp_path_factory):
    out = tmp_path_factory.mktemp("of_few") / "m.safetensors"
    do("moments.estimate", few, "--vae", "demo", "--out", out, *CLIP)
    return M.load(out)


@pytest.fixture(scope="module")
def root_path():
    return sys.modules["cil_run"].ROOT


def test_a_dozen_real_clips_and_three_bad_ones(single, videos):
    out, text = single
    made = M.load(out)
    good = len(list(videos.iterdir())) - 3
    assert good >= 12 and made.count == good, text
    assert made.mean.shape == (4, 8, 8, 8) and 0.05 < made.variance < 5
    assert "empty.mp4: it cannot be decoded" in text
    assert "corrupt.mp4: it cannot be decoded" in text
    assert "one_frame.mp4: it is 0.04 s long, but 8 frames at 5 fps need 1.40 s" in text
    assert "time: read" in text and "encode" in text


def test_two_processes_give_the_single_ones_file(of_few, few, root_path, tmp_path):
    out = tmp_path / "two.safetensors"
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(sys.modules["cil_run"].free_port())]
    call(root_path, "moments.estimate", few, "--vae", "demo", "--out", out, *CLIP, launcher=launcher)
    one, two = of_few, M.load(out)
    assert two.count == one.count
    assert torch.equal(two.mean, one.mean)
    assert two.variance == pytest.approx(one.variance, rel=1e-12)


def test_merge_of_the_parts_is_the_whole(of_few, few, tmp_path):
    names = sorted(p.name for p in few.iterdir())
    parts = []
    for i, half in enumerate((names[::2], names[1::2])):
        listing = tmp_path / f"part{i}.txt"
        listing.write_text("\n".join(str(few / n) for n in half))
        do("moments.estimate", listing, "--vae", "demo", "--out", tmp_path / f"{i}.safetensors", *CLIP)
        parts.append(tmp_path / f"{i}.partial.safetensors")
    made = []
    for order in (parts, parts[::-1]):
        do("moments.merge", *order, "--out", tmp_path / "merged.safetensors")
        made.append(M.load(tmp_path / "merged.safetensors"))
    for m in made:
        assert m.count == of_few.count == 5 and torch.equal(m.mean, of_few.mean)
        assert m.variance == pytest.approx(of_few.variance, rel=1e-12)


def test_killed_and_resumed_is_the_uninterrupted_one(of_few, few, root_path, tmp_path, capsys):
    out = tmp_path / "m.safetensors"
    arguments = command(root_path, "moments.estimate", few, "--vae", "demo", "--out", out, *CLIP)
    process = subprocess.Popen(arguments, env=environment(CIL_SAVE_EVERY="0"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    partial = tmp_path / "m.partial.safetensors"
    until = time.time() + 300
    while time.time() < until and not (partial.exists() and Estimate.load(partial).done >= 4):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    assert Estimate.load(partial).done >= 4
    do("moments.estimate", few, "--vae", "demo", "--out", out, *CLIP)
    assert "going on after" in capsys.readouterr().out
    again = M.load(out)
    assert again.count == of_few.count and torch.equal(again.mean, of_few.mean) and again.variance == of_few.variance


def test_convert(tmp_path, capsys):
    torch.save({"Expectation_x_0": torch.randn(16, 4, 4, 4), "trCov_d": torch.tensor(0.8)}, tmp_path / "svd.pt")
    (tmp_path / "bad.pt").write_bytes(b"")
    with pytest.raises(SystemExit) as ended:
        do("moments.convert", tmp_path / "svd.pt", tmp_path / "bad.pt")
    assert ended.value.code == 1 and "bad.pt cannot be read" in capsys.readouterr().out
    assert M.load(tmp_path / "svd.cil.safetensors").mean.shape == (4, 16, 4, 4)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["moments.estimate", "/no/such", "--vae", "demo", "--out", "x.safetensors"], "no folder or list of videos at /no/such"),
        (["moments.estimate", "EMPTY", "--vae", "demo", "--out", "x.safetensors"], "holds no videos"),
        (["moments.merge", "SINGLE", "--out", "x.safetensors"], "finished files cannot be merged"),
        (["moments.estimate", "VIDEOS", "--vae", "/no/vae", "--out", "x.safetensors"], "no VAE file at /no/vae"),
    ],
)
def test_errors_are_one_line(single, videos, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    names = {"EMPTY": tmp_path / "empty", "SINGLE": single[0], "VIDEOS": videos, "x.safetensors": tmp_path / "x.safetensors"}
    with pytest.raises(SystemExit, match=message):  # a text: Python prints it, and ends with 1
        do(*(names.get(a, a) for a in arguments))
    assert not (tmp_path / "x.safetensors").exists()


def test_other_settings_do_not_mix(single, videos):
    with pytest.raises(SystemExit, match=r"begun with other settings \(height\)"):
        do("moments.estimate", videos, "--vae", "demo", "--out", single[0], *CLIP[:-2], "--height", "32")
