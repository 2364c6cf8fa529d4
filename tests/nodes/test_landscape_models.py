"""The landscape's trained models of both kinds, as the tables use them: with random weights, since only the wiring is asked."""

from types import SimpleNamespace

import pytest
import torch

from cil_pack.bench import landscape as table
from cil_pack.demo import train
from cil_pack.demo.landscape import scenes, trained
from cil_pack.demo.landscape.train import KINDS


@pytest.fixture(scope="module", params=KINDS)
def checkpoint(request, tmp_path_factory):
    """A file of either kind, as a training writes it."""
    path = tmp_path_factory.mktemp("landscape") / f"{request.param}.safetensors"
    network = KINDS[request.param].fresh(0).diffusion_model
    train.save({name: p.detach() for name, p in network.state_dict().items()}, path)
    return path


def test_a_file_is_known_by_its_tensors(checkpoint):
    made = trained.of(checkpoint)
    assert made.kind == {"svd": "SVD's", "wan": "Wan's"}[checkpoint.stem]
    clips = made.clips(2, 0)
    assert clips.shape[1] == {"svd": 12, "wan": 4}[checkpoint.stem] and made.frames == {"svd": 12, "wan": 13}[checkpoint.stem]


def test_the_table_of_a_checkpoint_writes_its_picture(checkpoint, monkeypatch, capsys):
    monkeypatch.setattr(table, "CLIPS", 2)
    monkeypatch.setattr(table.probe, "LEVELS", 3)
    table.main([str(checkpoint), "--quick", "--pictures", "2", "--only", "motion gain 2 "])
    said = capsys.readouterr().out
    assert "The probe, on 2 clips" in said and "| plain |" in said and "| motion gain 2 above" in said
    assert checkpoint.with_suffix(".webp").stat().st_size > 1000


def test_the_other_part_counts_the_gain_from_each_reference(checkpoint, monkeypatch, capsys):
    table.main([str(checkpoint), "--quick", "--pictures", "1", "--steps", "3", "--part", "references"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| motion gain")]
    assert [line.split("|")[1].split(", ")[1].strip() for line in rows] == ["own first frame", "image", "mean over time"]


def test_the_camera_is_told_from_the_subject(checkpoint, capsys):
    """True clips in a model's place: a pan under a subject that glides beside it, and the data's own line above."""
    table.main([str(checkpoint), "--quick", "--pictures", "1", "--steps", "3", "--part", "camera", "--only", "gain 1.4"])
    names = [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert names[1:3] == ["the data", "plain"] and names[3].startswith("motion gain 1.4")
    frames = scenes.FRAMES
    pan = scenes.MOTIONS[(scenes.MOTIONS[:, 2:4] != 0).any(1) & (scenes.MOTIONS[:, :2] == 0).all(1)][0]
    held_out = trained.held_out(2, frames)
    clips = scenes.render(held_out.replace(motion=torch.stack([pan, torch.zeros(5)])), frames)
    read = table.read(clips, held_out, 1, 1.0)
    assert torch.equal(read.motion[0, 2:], pan[2:]) and not read.motion[1, 2:].any() and read.motion[:, :2].norm(dim=1).max() < 0.2
    made = SimpleNamespace(frames=frames)
    cells = table.PARTS["camera"].row(made, "x", read, None).split("|")
    assert cells[2].strip().startswith("0.500")


def test_still_clips_stand_still_and_true_ones_do_not():
    held_out = trained.held_out(3, scenes.FRAMES).replace(motion=0.0)
    typical = trained.typical_travel(scenes.FRAMES)
    moving = torch.cat([scenes.render(scenes.gliding(held_out[i : i + 1], 2.4)) for i in range(3)])
    still = table.read(scenes.render(held_out), held_out, 1, typical)
    gone = table.read(moving, held_out, 1, typical)
    assert (still.travel < 0.05).all() and (gone.travel * typical - 2.4 * 11).abs().max() < 2
    assert max(still.distance.max(), gone.distance.max()) < 0.03 and not still.lost.any()
    assert all(table.PARTS["cures"].row(None, "x", gone, plain).count("|") == len(table.COLUMNS) + 2 for plain in (None, still))
