"""The demo's own training: the pack's trainer with another optimiser."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file

from cil_pack.cil.training import Recipe, Training
from cil_pack.demo import muon, train

RECIPE = dataclasses.replace(train.RECIPE, batch=1)
STAGES = (train.Stage(2, 3, 1.0), train.Stage(1, 1, 0.5))


def weights_of(folder, stages=STAGES):
    folder.mkdir(exist_ok=True)
    train.train_model("leaking", train.NOISE["leaking"], stages, RECIPE, folder / "x.safetensors")
    return load_file(folder / "x.safetensors")


def test_a_stopped_training_of_the_demo_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch):
    whole = weights_of(tmp_path / "whole")
    log = (tmp_path / "whole" / "logs" / "x.jsonl").read_text()
    assert [json.loads(line).get("stage") for line in log.splitlines()] == [1, None, 2, None]
    run = train.Log.__call__

    def stopped(self, training):
        run(self, training)
        if training.step == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(train.Log, "__call__", stopped)
    with pytest.raises(KeyboardInterrupt):
        weights_of(tmp_path / "stopped")
    assert not (tmp_path / "stopped" / "x.safetensors").exists()
    monkeypatch.setattr(train.Log, "__call__", run)
    again = weights_of(tmp_path / "stopped")
    assert whole.keys() == again.keys() and all(torch.equal(whole[name], again[name]) for name in whole)


def test_the_second_stage_begins_with_the_weights_of_the_first(tmp_path):
    first = weights_of(tmp_path / "first", STAGES[:1])
    both = weights_of(tmp_path / "first")
    moved = [(both[name].float() - first[name].float()).abs().max() for name in first]
    assert 0 < max(moved) < 0.05  # one step at half the learning rate, not weights of another start


def small():
    g = torch.Generator().manual_seed(0)
    shapes = {"in.weight": (3, 4), "mid.weight": (5, 4), "conv.weight": (4, 2, 3, 1), "mid.bias": (5,)}
    return {name: torch.nn.Parameter(torch.randn(shape, generator=g)) for name, shape in shapes.items()}


def step_of(parameters, optimiser):
    for p in parameters.values():
        p.grad = torch.full_like(p, 0.1) + 0.3 * p.detach()
    optimiser.step()


def test_muon_moves_a_matrix_along_an_orthogonal_one_and_leaves_the_ends_to_adamw():
    parameters, lr = small(), 1e-2
    before = {name: p.detach().clone() for name, p in parameters.items()}
    other = {name: torch.nn.Parameter(before[name].clone()) for name in ("in.weight", "mid.bias")}
    step_of(parameters, muon.Muon(parameters, lr, lambda step: 0.5, ("in.",)))
    step_of(other, torch.optim.AdamW(other.values(), lr=lr / 2, betas=muon.BETAS, weight_decay=0.0))
    for name in other:
        assert torch.allclose(parameters[name], other[name], atol=1e-7)
    for name, tall in (("mid.weight", 5 / 4), ("conv.weight", 1.0)):
        moved = (before[name] - parameters[name].detach()).flatten(1)
        singular = torch.linalg.svdvals(moved) / (muon.MUON * lr / 2 * tall**0.5)
        assert ((singular > 0.6) & (singular < 1.3)).all()  # the quintic brings them near one, not to it


def test_muons_state_is_kept_and_taken_up(tmp_path):
    def run_of(steps):
        parameters = small()
        loss = lambda step, part: sum((p**2).sum() for p in parameters.values()) * (1 + step)
        optimiser = lambda parameters, recipe: muon.Muon(parameters, recipe.learning_rate, train.warm, ("in.",))
        return Training(parameters, Recipe(steps, learning_rate=0.1), {}, optimiser=optimiser), loss

    whole, loss = run_of(4)
    whole.run(loss)
    first, loss = run_of(2)
    first.run(loss, tmp_path / "state")
    second, loss = run_of(4)
    second.resume(tmp_path / "state")
    second.run(loss)
    assert all(torch.equal(whole.parameters[name], second.parameters[name]) for name in whole.parameters)
