"""Teams of a training, in one process: a team of one must be no other than no team. Of two: tests/host/test_training_commands.py."""

import dataclasses

import pytest
import torch
from cil_pack.cil import processes
from cil_pack.cil.training import Diverged, Recipe, Training

RECIPE = Recipe(steps=4, learning_rate=1e-2, clip_norm=0.5, ema=0.9)


@pytest.fixture
def group(tmp_path):
    """A process group of this process alone."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def network():
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.SiLU(), torch.nn.Linear(8, 2))


def loss_of(net):
    def loss(step, part):
        x = torch.randn(4, 6, generator=torch.Generator().manual_seed(step))
        return (net(x) - x[:, :2]).square().mean()

    return loss


def training(kind, recipe=RECIPE):
    """-> (Training, loss) with a team of this kind."""
    net = network()
    if kind == "shards":
        team = processes.team(shards=True)
        team.split(net, [net[0]], "cpu")
    else:
        team = processes.Alone() if kind == "alone" else processes.team()
    return Training(dict(net.named_parameters()), recipe, {"network": "small"}, team), loss_of(net)


def run(kind, path=None, recipe=RECIPE, resume=False):
    made, loss = training(kind, recipe)
    if resume:
        made.resume(path)
    made.run(loss, path)
    return made


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in a) and a.keys() == b.keys()


def test_without_torchrun_one_is_alone():
    team = processes.team(shards=True)
    assert type(team) is processes.Alone and (team.rank, team.world) == (0, 1)


@pytest.mark.parametrize("kind", ["replicas", "shards"])
def test_a_team_of_one_trains_as_one_alone(group, kind):
    alone, team = run("alone"), run(kind)
    assert team.losses == pytest.approx(alone.losses, rel=1e-6)
    for name, value in alone.result.items():
        assert torch.allclose(team.result[name], value, rtol=1e-5, atol=1e-7)
    assert team.team.held(team.parameters.values()) == 1


def test_shares_are_saved_whole_and_cut_again(group, tmp_path):
    """A state of shares is one of all the weights: either kind of team goes on from it, shares to the bit."""
    whole, path = run("shards"), tmp_path / "state.safetensors"
    run("shards", path, dataclasses.replace(RECIPE, steps=2))
    again = run("shards", path, resume=True)
    assert again.losses == whole.losses and same(again.result, whole.result)
    run("shards", path, dataclasses.replace(RECIPE, steps=2))
    alone = run("alone", path, resume=True)
    assert alone.losses == pytest.approx(whole.losses, rel=1e-6)


def test_one_that_cannot_save_alone_does_not_when_it_is_interrupted(group, tmp_path):
    """The others would wait for it for ever; what was saved before stays."""
    path = tmp_path / "state.safetensors"
    made, loss = training("shards")

    def stop(run):
        if run.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made.run(loss, path, progress=stop)
    assert not path.exists()
    alone, loss = training("alone")
    with pytest.raises(KeyboardInterrupt):
        alone.run(loss, path, progress=stop)
    assert path.exists()


def test_a_divergence_is_seen_by_all_and_the_last_good_state_saved(group, tmp_path):
    path = tmp_path / "state.safetensors"
    made, loss = training("shards")
    with pytest.raises(Diverged):
        made.run(lambda step, part: loss(step, part) * (float("nan") if step == 2 else 1.0), path)
    again, _ = training("shards")
    again.resume(path)
    assert again.step == 2
