"""Teams of a training, in one process: a team of one must be no other than no team. Of two: tests/host/test_training_commands.py."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import full_disk
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
    assert team.team.share_held(team.parameters.values()) == 1


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


# ---- setting up, and ending together --------------------------------------------------


class Cards:
    """What a command asks of the machine's graphics cards and of torch.distributed."""

    def __init__(self, monkeypatch, cards=2, **environment):
        self.asked = []
        monkeypatch.delenv("CIL_CPU", raising=False)
        for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", **environment}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cards > 0)
        monkeypatch.setattr(torch.cuda, "set_device", lambda n: self.asked.append(n))
        monkeypatch.setattr(torch.distributed, "init_process_group", self.met)

    def met(self, backend, **options):
        self.asked += [backend, options["timeout"]]
        raise ValueError("this is as far as it goes here")


@pytest.mark.parametrize("cards, environment, asked", [(2, {}, [1, "nccl"]), (2, {"CIL_CPU": "1"}, ["gloo"]), (0, {}, ["gloo"])])
def test_each_process_has_a_card_of_its_own(monkeypatch, cards, environment, asked):
    machine = Cards(monkeypatch, cards, **environment)
    with pytest.raises(SystemExit, match="as far as it goes"), processes.command():
        pass
    assert machine.asked == [*asked, processes.PATIENCE]


def test_alone_nothing_is_set_up(monkeypatch):
    machine = Cards(monkeypatch, WORLD_SIZE="1")
    with processes.command():
        assert type(processes.team()) is processes.Alone
    assert machine.asked == []


@pytest.mark.parametrize(
    "error, words", [(ValueError("a"), "a"), (OSError("b"), "b"), (KeyboardInterrupt(), "the same command goes on"), (MemoryError(), "not enough memory")]
)
def test_a_commands_errors_are_sentences(error, words):
    with pytest.raises(SystemExit, match=words), processes.command():
        raise error


WORK = """
import os, sys
sys.path.insert(0, sys.argv[1])
import run, torch, torch.distributed as dist
run.load_pack()
from cil_pack.cil import processes
torch.set_num_threads(1)
with processes.command():
    os.write(1, f"ready {os.getpid()}\\n".encode())  # whole lines: two write into one file
    while sys.argv[2] == "forever":
        dist.all_reduce(torch.zeros(1))
    processes.disband()
    os.write(1, b"apart\\n")
"""


class Started:
    """Two processes that do WORK, of a launcher or started by hand."""

    def __init__(self, root, tmp_path, what, launcher):
        script = tmp_path / "work.py"
        script.write_text(WORK)
        port = str(sys.modules["cil_run"].free_port())
        command = [sys.executable, script, root, what]
        self.log, environment = tmp_path / "log", {k: v for k, v in os.environ.items() if k != "TORCHELASTIC_RUN_ID"} | {"OMP_NUM_THREADS": "1"}
        with self.log.open("w") as out:
            begin = lambda *c, **env: subprocess.Popen([*map(str, c)], stdout=out, stderr=subprocess.STDOUT, env=environment | env)
            if launcher:
                self.begun = [begin(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port, *command[1:])]
            else:
                here = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
                self.begun = [begin(*command, RANK=str(rank), LOCAL_RANK=str(rank), **here) for rank in range(2)]
        until = time.time() + 240
        while time.time() < until and len(self.ids) < 2 and self.begun[0].poll() is None:
            time.sleep(0.2)
        assert len(self.ids) == 2, self.log.read_text()

    @property
    def ids(self):
        return [int(line.split()[1]) for line in self.log.read_text().splitlines() if line.startswith("ready")]

    def all_gone_within(self, seconds):
        """-> what they printed. Fails, and ends them, where one goes on."""
        ids, until = self.ids, time.time() + seconds
        try:
            while any(processes.alive(pid) for pid in ids):
                assert time.time() < until, f"still there after {seconds} s: {self.log.read_text()}"
                time.sleep(0.2)
        finally:
            for pid in ids:
                if processes.alive(pid):
                    os.kill(pid, signal.SIGKILL)
            for process in self.begun:
                process.wait()
        return self.log.read_text()


posix = pytest.mark.skipif(os.name == "nt", reason="signals of Unix")


@posix
def test_when_the_launcher_is_killed_both_end(root, tmp_path):
    work = Started(root, tmp_path, "forever", launcher=True)
    work.begun[0].kill()
    told = work.all_gone_within(30)
    assert "the launcher of this process has ended, so this one ends too" in told and "Traceback" not in told


@posix
def test_when_one_is_killed_the_other_ends_with_a_sentence(root, tmp_path):
    work = Started(root, tmp_path, "forever", launcher=False)
    work.begun[1].kill()
    told = work.all_gone_within(30)
    assert (
        told.count("process 1 of this work has ended, so this one ends too; the same command goes on from what was saved last") == 1 and "Traceback" not in told
    )


def test_those_that_part_are_not_taken_for_dead(root, tmp_path):
    work = Started(root, tmp_path, "part", launcher=False)
    told = work.all_gone_within(60)
    assert told.count("apart") == 2 and "ended" not in told and all(process.returncode == 0 for process in work.begun)


# ---- what they exchange ---------------------------------------------------------------


@pytest.mark.parametrize("accumulation", [1, 3])
def test_gradients_are_exchanged_once_an_update(group, monkeypatch, accumulation):
    wrap, made, exchanges = processes.Replicas.wrap_loss, [], []

    def watched(self, loss, parameters):
        def note(state, bucket):
            exchanges.append(1)
            future = torch.futures.Future()
            future.set_result(bucket.buffer())
            return future

        made.append(wrap(self, loss, parameters))
        made[0].register_comm_hook(None, note)
        return made[0]

    monkeypatch.setattr(processes.Replicas, "wrap_loss", watched)
    recipe = dataclasses.replace(RECIPE, accumulation=accumulation)
    together, alone = run("replicas", recipe=recipe), run("alone", recipe=recipe)
    assert len(exchanges) == RECIPE.steps and not made[0].find_unused_parameters
    assert together.losses == pytest.approx(alone.losses, rel=1e-6) and all(
        torch.allclose(together.result[k], v, rtol=1e-5, atol=1e-7) for k, v in alone.result.items()
    )


def test_a_team_that_saves_together_finishes_together_where_the_disk_is_full(group, tmp_path):
    """The first, which writes, goes on putting the tensors together, which the others are waiting for."""
    made, loss = training("shards")
    made.update(loss)
    plain, asked = made.team.gather, []
    made.team.gather = lambda tensor: asked.append(1) or plain(tensor)
    with full_disk.no_file_above(600), pytest.raises(OSError, match="could not be written"):
        made.save(tmp_path / "state")
    assert len(asked) == len(made._state()) and not list(tmp_path.glob("state*"))
