"""bench.paper in small: the committed models, few clips and few steps. Whether the figures are right is seen at their ends."""

import pytest
import torch

from cil_pack.bench import paper
from cil_pack.demo.landscape import scenes, simulated, svd, trained
from cil_pack.nodes.host.sampling import Sampling


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(paper, "STARTS", (8.0,))
    monkeypatch.setattr(paper, "LATER", (None, 15.0))
    monkeypatch.setattr(paper, "ASKED", (3.0,))
    monkeypatch.setattr(paper, "FRACTIONS", (1.0, 0.5))
    monkeypatch.setattr(paper, "SWEEP", ())


@pytest.mark.parametrize("parts", [("asked",), ("levels",), ("starts",), ("timenoise", "sweep")], ids=" and ".join)
def test_every_part_writes_its_table_and_its_plot(parts, tmp_path):
    few = ["--pictures", "2", "--sampling-steps", "2", "--steps", "1", "--draws", "1", "--work", str(tmp_path / "work"), "--out", str(tmp_path)]
    paper.main([*(word for part in parts for word in ("--part", part)), *few])
    for part in parts:
        text = (tmp_path / f"paper_{part}.md").read_text(encoding="utf-8")
        rows = [line for line in text.splitlines() if line.startswith("| ")]
        assert f"bench.paper --part {part}" in text and len({row.count("|") for row in rows}) == 1 and len(rows) > 2
        assert (tmp_path / f"paper_{part}.png").stat().st_size > 5000


def test_a_tuning_starts_from_the_patient_and_is_made_once(tmp_path):
    o = paper.argparse.Namespace(steps=1, learning_rate=1e-9, ema=0.0, work=tmp_path)
    file, name = paper.tuned(o, paper.NOISE)
    before, after = (svd.load(f)[0].model.diffusion_model.state_dict() for f in (paper.PATIENT, file))
    assert "beta_m 5" in name and not file.with_suffix(".state").exists()
    assert all(torch.allclose(before[key], value, atol=1e-4) for key, value in after.items())
    when = file.stat().st_mtime_ns
    assert paper.tuned(o, paper.NOISE) == (file, name) and file.stat().st_mtime_ns == when


def test_what_is_held_is_nothing_of_pure_noise_and_all_of_a_clear_clip():
    """Of the exact denoiser; what is read from the clip, of a model that looks at it."""
    drawn = scenes.gliding(trained.held_out(1, scenes.FRAMES), paper.SPEED)
    made = trained.of(paper.CONTROL)
    process = Sampling.of(made.model).process
    high, low = paper.held_by_exact(drawn, process, [700.0, 0.5], 1)
    assert high < 0.7 and low == pytest.approx(1, abs=0.02)
    gain, response = paper.held(made, drawn, [(1.0, 700.0), (0.45, 0.5)], 1)
    assert response[0] < 0.05 < 0.8 < response[1] and gain[1] > 0.8
    assert len(simulated.known(drawn)[0]) > 50


def test_what_is_asked_reaches_the_model():
    made, first = trained.of(paper.CONTROL), scenes.render(trained.held_out(1, 1), 1)[0].movedim(1, -1)
    told = [made.conditioned(first, bucket)[0][0][1]["motion_bucket_id"] for bucket in (scenes.OPEN, 200)]
    assert told == [scenes.OPEN, 200]
