"""Writing: whole or not at all, by one writer; what a kill leaves is swept; names and texts that people give."""

import gc
import json
import os
import signal
import sys
import weakref

import full_disk
import pytest
import torch
from safetensors.torch import load_file, save_file

from cil_pack.cil import files, resumable

unix = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def some():
    g = torch.Generator().manual_seed(0)
    return {
        "a": torch.randn(3, 5, generator=g), "b": torch.randn(7, generator=g).double(), "half": torch.randn(2, 3, generator=g).half(),
        "bf16": torch.randn(5, generator=g).bfloat16(), "flag": torch.tensor([True, False, True]), "step": torch.tensor(3.0), "none": torch.zeros(0, 4),
        "whole": torch.tensor([1, -2]), "strided": torch.randn(4, 6, generator=g).t(),
    }  # fmt: skip


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype and a[k].shape == b[k].shape for k in a)


def test_what_is_written_is_what_the_library_reads(tmp_path):
    files.write_safetensors(some(), tmp_path / "deep" / "x.safetensors", {"note": 'a "quoted" ü'})
    assert same(load_file(tmp_path / "deep" / "x.safetensors"), some())
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["x.safetensors"]


@unix
@pytest.mark.parametrize("mask, mode", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_rights_follow_the_umask(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        files.write_safetensors(some(), tmp_path / "x", {})
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == mode


def test_one_tensor_at_a_time_is_in_memory(tmp_path):
    made = []

    def whole(tensor):
        gc.collect()
        assert not any(ref() is not None for ref in made)  # none of those before is held any more
        copy = tensor.clone()
        made.append(weakref.ref(copy))
        return copy

    tensors = {f"{i}": torch.randn(1000) for i in range(5)}
    files.write_safetensors(tensors, tmp_path / "x", {}, whole)
    assert len(made) == 5 and same(load_file(tmp_path / "x"), tensors)


def test_an_interrupt_leaves_the_old_file_and_nothing_else(tmp_path):
    files.write_safetensors(some(), tmp_path / "x", {})
    before = (tmp_path / "x").read_bytes()

    def interrupted(tensor):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_safetensors(some(), tmp_path / "x", {}, interrupted)
    assert (tmp_path / "x").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "place, message",
    [
        ("file/x", "x could not be written .*a file stands where a folder is needed"),
        (300 * "n", "could not be written .*choose a shorter name"),
    ],
)
def test_places_that_cannot_be_written_are_named_in_one_sentence(tmp_path, place, message):
    (tmp_path / "file").write_text("")
    for write in (lambda path: files.write_safetensors(some(), path, {}), lambda path: files.claim(path).__enter__()):
        with pytest.raises(OSError, match=message) as raised:
            write(tmp_path / place)
        assert not str(raised.value).startswith("[Errno") and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "number, advice", [(28, "the disk is full"), (13, "you may not write there"), (30, "the disk is read-only"), (122, "your share of the disk")]
)
def test_each_reason_has_its_advice(tmp_path, number, advice):
    assert advice in str(files.unwritable(tmp_path, OSError(number, os.strerror(number))))


def test_a_full_disk_leaves_the_old_file(tmp_path):
    files.write_safetensors(some(), tmp_path / "x", {})
    before = (tmp_path / "x").read_bytes()
    with full_disk.no_file_above(4096), pytest.raises(OSError, match="File too large"):
        files.write_safetensors({"big": torch.zeros(10_000)}, tmp_path / "x", {})
    assert (tmp_path / "x").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


# ---- one writer -----------------------------------------------------------------------


def forked(work):
    """A process that does this, and tells when: -> its id, once it has told."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            work(lambda: os.write(writer, b"x"))
        finally:
            os._exit(1)
    os.close(writer)
    assert os.read(reader, 1) == b"x"
    os.close(reader)
    return pid


def kill(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@unix
@pytest.mark.parametrize("folder", [False, True])
def test_a_second_writer_is_refused_and_a_dead_one_is_no_hindrance(tmp_path, folder):
    path = tmp_path / "set"
    claim = (lambda: files.claim(folder=path)) if folder else (lambda: files.claim(path))
    inside = path / "clips-000000.safetensors" if folder else path

    def hold(tell):
        def wait(tensor):
            tell()
            signal.pause()

        with claim():
            files.write_safetensors({"a": torch.zeros(1)}, inside, {}, wait)

    pid = forked(hold)
    try:
        with pytest.raises(files.Claimed, match=f"set is being written by process {pid} on .*, since 2.*: wait until"):
            claim().__enter__()
        assert list(inside.parent.glob("*.part"))
    finally:
        kill(pid)
    with claim():
        assert not list(inside.parent.glob("*.part"))
    assert [p.name for p in tmp_path.rglob("*")] == (["set"] if folder else [])


def test_the_same_process_is_refused_too(tmp_path):
    with files.claim(tmp_path / "x"), pytest.raises(files.Claimed, match=f"by process {os.getpid()} on"):
        files.claim(tmp_path / "x").__enter__()
    with files.claim(tmp_path / "x", tmp_path / "y"):
        pass


def test_only_what_the_pack_left_is_swept(tmp_path):
    for name in ("film.mp4.part", "x.safetensors.part", f"other.{files._host()}-1-abcdef.part"):
        (tmp_path / name).write_text("")
    mine = tmp_path / f"x.{files._host()}-{2**22 + 1}-abcdef.part"  # no process has this number
    mine.write_text("")
    with files.claim(tmp_path / "x"):
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == ["film.mp4.part", f"other.{files._host()}-1-abcdef.part", "x.safetensors.part"]


# ---- states ---------------------------------------------------------------------------


def state(tmp_path):
    path = tmp_path / "x.state"
    resumable.write(some(), path, "kind", 2, {"count": 3, "name": "ü"})
    return path


def read(path):
    return resumable.read(path, "kind", 2, "a state")


def test_a_state_comes_back(tmp_path):
    tensors, about = read(state(tmp_path))
    assert same(tensors, some()) and about == {"count": 3, "name": "ü"}


def test_a_flipped_bit_and_an_edited_number_are_noticed(tmp_path):
    whole = state(tmp_path).read_bytes()
    end = len(whole) - 1
    for edited in (whole[:end] + bytes([whole[end] ^ 1]), whole.replace(b'\\"count\\": 3', b'\\"count\\": 4')):
        assert edited != whole
        (tmp_path / "x.state").write_bytes(edited)
        with pytest.raises(ValueError, match="x.state is damaged: .*Delete it to begin anew"):
            read(tmp_path / "x.state")


@pytest.mark.parametrize("version", ["3", "x", "²", ""])
def test_a_newer_packs_state_is_named(tmp_path, version):
    save_file(some() | {"strided": torch.zeros(1)}, tmp_path / "x.state", {"format": "kind", "version": version, "about": "{}"})
    with pytest.raises(ValueError, match="x.state has format version .*reads versions up to 2: update the pack, or delete it"):
        read(tmp_path / "x.state")


@pytest.mark.parametrize("about", ["", "[1]", "[" * 100_000, "7", "{"])
def test_metadata_that_are_none_are_refused(tmp_path, about):
    save_file({"a": torch.zeros(1)}, tmp_path / "x.state", {"format": "kind", "version": "2", "about": about})
    with pytest.raises(ValueError, match="x.state is damaged"):
        read(tmp_path / "x.state")


# ---- what people write ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["mine", "a b-c_d.2", "Wolke 7", "ü"])
def test_good_names_stay(name):
    assert files.check_name(f" {name} ") == name


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "c:\\x", "CON", "nul.safetensors", "Lpt1", "end.", 151 * "n", "a\nb", "a\0"])
def test_bad_names_are_refused(name):
    with pytest.raises(ValueError, match="cannot be a file's name"):
        files.check_name(name)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_texts_in_every_unicode_are_read(tmp_path, encoding):
    (tmp_path / "a.txt").write_text("ein Schiff\nü", encoding=encoding)
    assert files.text_of(tmp_path / "a.txt") == "ein Schiff\nü"


def test_texts_that_are_none_are_named_without_what_they_hold(tmp_path):
    (tmp_path / "a.txt").write_bytes("Geheimnis ü".encode("latin-1"))
    with pytest.raises(ValueError, match="a.txt is no text in UTF-8: save it as UTF-8") as raised:
        files.text_of(tmp_path / "a.txt")
    assert "Geheim" not in str(raised.value)
    with pytest.raises(ValueError, match="b.txt cannot be read: No such file"):
        files.text_of(tmp_path / "b.txt")
    with pytest.raises(ValueError, match="too long"):
        files.text_of(tmp_path / "a.txt", most=4)


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes there")
def test_a_name_that_is_no_text_can_be_shown(tmp_path):
    shown = files.displayed(tmp_path / os.fsdecode(b"caf\xe9.mp4"))
    assert shown == "caf\ufffd.mp4" and json.dumps(shown, ensure_ascii=False).encode()
