"""bench.rivals: what it makes is kept and compared pair by pair, and the page needs nothing else."""

import pytest

from cil_pack.bench import rivals

pytest.importorskip("cv2")


def test_the_frontier_is_what_no_other_beats():
    assert rivals.frontier([(1, 0.9), (2, 0.95), (3, 0.8), (2.5, 0.7), (4, 0.1)]) == [1, 2, 4]
    assert rivals.frontier([(1, 1)]) == [0]


def test_a_run_is_paired_goes_on_and_makes_a_page_of_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(rivals, "KEPT", tmp_path / "kept")
    asked = [
        "--checkpoint",
        "healthy",
        "--images",
        "2",
        "--seeds",
        "1",
        "--steps",
        "2",
        "--only",
        "plain",
        "--only",
        "FreeInit",
        "--only",
        "ALG",
        "--out",
        str(tmp_path),
    ]
    rivals.main(asked)
    assert "8 clips, 0 of them there" in capsys.readouterr().out
    rows = [line for line in (tmp_path / "rivals_healthy.md").read_text().splitlines() if line.startswith("| ")]
    names = [row.split("|")[1].strip() for row in rows[1:]]
    assert names == ["plain", "FreeInit, 3 runs", "plain, CFG 2", "ALG, 2.5 until 0.2, CFG 2"]
    evaluations = [int(row.split("|")[8]) for row in rows[1:]]
    assert evaluations == [2, 6, 4, 5]  # ALG's first step costs three
    page = (tmp_path / "rivals_healthy.html").read_text()
    assert page.count("data:image/webp") == 8 and "http" not in page and (tmp_path / "rivals_healthy.png").stat().st_size > 1000
    rivals.main(asked)
    assert "8 clips, 8 of them there" in capsys.readouterr().out


def test_a_checkpoint_that_is_not_there_is_told(capsys):
    with pytest.raises(SystemExit):
        rivals.arguments_of(["--checkpoint", "nothing.safetensors"])
    assert "is no demo checkpoint" in capsys.readouterr().err
