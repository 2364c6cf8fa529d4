"""The training: losses against hand-written ones in float64, draws, and stopping anywhere."""

import dataclasses
import itertools
import math
import threading
import time

import full_disk
import pytest
import torch
from safetensors.torch import save_file

from cil_pack.cil import forward, resumable, training
from cil_pack.cil.timenoise import TimeNoise
from cil_pack.cil.training import Clip, Example, Objective, Recipe, Training

SHAPE = (2, 3, 4, 4)  # C, T, h, w


def clips(n=5):
    g = torch.Generator().manual_seed(7)
    draw = lambda *shape: torch.randn(*shape, generator=g)
    return [Clip(draw(*SHAPE).half(), draw(2, 4, 4), draw(1, 3), float(i)) for i in range(n)]


class Network(torch.nn.Module):
    """A small network F(c_in x, ln sigma, image), the same arithmetic in any precision."""

    def __init__(self, dtype):
        super().__init__()
        weights = torch.randn(2, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        self.weights = torch.nn.Parameter(weights.to(dtype))

    def forward(self, x, sigma, image):
        image = image[:, :, None].expand(-1, -1, x.shape[2], -1, -1)
        time = sigma.log().view(-1, 1, 1, 1, 1).expand_as(x[:, :1])
        return torch.einsum("oc,nc...->no...", self.weights, torch.cat([x, image, time], 1))


# name: (process, weight, D from F's output, F's input scale, F's target from (x0, eps, sigma)), as the papers write them
def c(s):
    return 1 / torch.sqrt(1 + s**2)


KINDS = {
    "eps": (forward.VP, lambda s: training.eps_weight(forward.VP, s), lambda x, f, s: x - s * f, c, lambda x0, e, s: e),
    "v": (forward.VP, lambda s: training.velocity_weight(forward.VP, s), lambda x, f, s: x * c(s) ** 2 - f * s * c(s), c, lambda x0, e, s: c(s) * e - s * c(s) * x0),
    "SVD": (forward.VE, training.edm_weight, lambda x, f, s: x * c(s) ** 2 - f * s * c(s), c, lambda x0, e, s: (e - s * x0) * c(s)),
    "EDM": (
        forward.VE, lambda s: training.edm_weight(s, 0.5), lambda x, f, s: x * 0.25 / (s**2 + 0.25) + f * s * 0.5 / torch.sqrt(s**2 + 0.25),
        lambda s: 1 / torch.sqrt(s**2 + 0.25), lambda x0, e, s: (x0 - 0.25 / (s**2 + 0.25) * (x0 + s * e)) * torch.sqrt(s**2 + 0.25) / (0.5 * s),
    ),
    "flow": (forward.FLOW, lambda s: training.velocity_weight(forward.FLOW, s), lambda x, f, s: x - s * f, torch.ones_like, lambda x0, e, s: e - x0),
    "RFlow": (
        forward.RFLOW, lambda s: training.velocity_weight(forward.RFLOW, s), lambda x, f, s: (x - s * f) / (1 + s), lambda s: 1 / (1 + s), lambda x0, e, s: e - x0,
    ),
}  # fmt: skip


def objective(kind="SVD"):
    process, weight = KINDS[kind][:2]
    draw = training.uniform_time(lambda t: t) if kind == "flow" else training.lognormal_sigma(0.0, 1.0, 0.01, 100.0)
    return Objective(process, weight, draw, lambda s: min(1.0, s / 100))


def denoiser(network, kind="SVD"):
    _, _, to_clean, scale, _ = KINDS[kind]

    def denoise(x, sigma, examples):
        s = sigma.view(-1, 1, 1, 1, 1)
        image = torch.stack([e.clip.image for e in examples])
        return to_clean(x, network(x * scale(s), sigma, image), s)

    return denoise


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_equals_the_hand_written_one_in_float64(kind):
    recipe = Recipe(steps=1, batch=3, learning_rate=1e-2, clip_norm=0.05, ema=0.0, noise=TimeNoise(0.5, 2.0))
    goal, data, network = objective(kind), clips(), Network(torch.float32)
    run = Training(dict(network.named_parameters()), recipe, {})
    batch = training.batch_of(recipe, goal, data, 0)
    run.update(lambda step, part: training.denoising_loss(denoiser(network, kind), goal, batch))

    # the same by hand: the network's own target, AdamW's first step (its moments are g and g^2)
    by_hand = Network(torch.float64)
    _, _, _, scale, target = KINDS[kind]
    losses = []
    for e in batch:
        x0, eps, s = e.clip.latents.double()[None], e.eps.double()[None], torch.tensor(e.sigma, dtype=torch.float64)
        x = goal.process.signal(e.sigma) * x0 + goal.process.noise(e.sigma) * eps
        losses.append((by_hand(x * scale(s), s[None], e.clip.image.double()[None]) - target(x0, eps, s)).square().mean())
    loss = sum(losses) / len(losses)
    loss.backward()
    w, g = by_hand.weights.detach(), by_hand.weights.grad
    g = g * min(1, 0.05 / (float(g.norm()) + 1e-6))
    expected = w * (1 - 1e-2 * 1e-2) - 1e-2 * g / (g.abs() + 1e-8)
    assert run.losses[0] == pytest.approx(loss.item(), rel=1e-4)
    assert torch.allclose(network.weights.double(), expected, atol=2e-6)
    assert not torch.allclose(network.weights.double(), w, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_the_hand_written_one(kind):
    """AdamW's first step hardly depends on the gradient's size; this does."""
    goal, network, by_hand = objective(kind), Network(torch.float32), Network(torch.float64)
    sigmas = [0.05, 0.3, 0.9] if kind == "flow" else [0.05, 1.0, 30.0]
    g = torch.Generator().manual_seed(1)
    batch = [Example(clip, torch.randn(SHAPE, generator=g), s) for clip, s in zip(clips(), sigmas)]
    training.denoising_loss(denoiser(network, kind), goal, batch).backward()
    total = 0
    for e in batch:
        x0, eps, s = e.clip.latents.double()[None], e.eps.double()[None], torch.tensor(e.sigma, dtype=torch.float64)
        x = goal.process.signal(e.sigma) * x0 + goal.process.noise(e.sigma) * eps
        out = by_hand(x * KINDS[kind][3](s), s[None], e.clip.image.double()[None])
        total = total + (out - KINDS[kind][4](x0, eps, s)).square().mean() / len(batch)
    total.backward()
    assert torch.allclose(network.weights.grad.double(), by_hand.weights.grad, rtol=2e-4, atol=1e-6)


# ---- what is drawn ------------------------------------------------------------------


def test_every_clip_comes_once_before_any_comes_again():
    seen = [training.clip_of(3, n, 7) for n in range(21)]
    for turn in range(3):
        assert sorted(seen[7 * turn : 7 * turn + 7]) == list(range(7))
    assert seen[:7] != seen[7:14]


def test_draws_follow_from_seed_and_number_alone():
    recipe, goal, data = Recipe(noise=TimeNoise(1.0)), objective(), clips()
    draw = lambda seed, n: training.example(dataclasses.replace(recipe, seed=seed), goal, data, n)
    a, again = draw(0, 4), draw(0, 4)
    assert a.sigma == again.sigma and torch.equal(a.eps, again.eps) and torch.equal(a.clip.image, again.clip.image)
    for other in (draw(0, 5), draw(1, 4)):
        assert a.sigma != other.sigma and not torch.equal(a.eps, other.eps)


def test_naive_and_timenoise_tuning_differ_in_the_image_only():
    goal, data = objective(), clips()
    naive, noisy = Recipe(dropout=0.0), Recipe(dropout=0.0, noise=TimeNoise(2.0))
    for n in range(5):
        a, b = training.example(naive, goal, data, n), training.example(noisy, goal, data, n)
        assert a.sigma == b.sigma and torch.equal(a.eps, b.eps) and torch.equal(a.clip.latents, b.clip.latents)
        assert a.level == 0 and any(torch.equal(a.clip.image, clip.image) for clip in data)
        assert 0 < b.level < 2 and not torch.equal(a.clip.image, b.clip.image)


def test_the_image_is_noised_by_the_level_an_element_at_a_time():
    goal, data = objective(), [dataclasses.replace(clips(1)[0], image=torch.zeros(2, 100, 100))]
    for n in range(3):
        e = training.example(Recipe(dropout=0.0, noise=TimeNoise(3.0, 1.0)), goal, data, n)
        assert float(e.clip.image.std()) == pytest.approx(e.level, rel=0.03)
        assert abs(float(e.clip.image.mean())) < 0.05 * e.level


def test_levels_rise_with_time_as_eq_6_says():
    """The mean of the drawn levels at a fixed time, against the closed form."""
    noise, data = TimeNoise(4.0, 2.0), clips()
    for t in (0.0, 0.5, 1.0):
        goal = dataclasses.replace(objective(), fraction=lambda s: t)
        levels = [training.example(Recipe(noise=noise), goal, data, n).level for n in range(400)]
        assert sum(levels) / 400 == pytest.approx(noise.mean(t), abs=0.15)


def test_the_condition_is_dropped_as_often_as_asked():
    goal, data = objective(), clips()
    gone = [not training.example(Recipe(dropout=0.3, noise=TimeNoise(1.0)), goal, data, n).clip.image.any() for n in range(500)]
    assert sum(gone) / 500 == pytest.approx(0.3, abs=0.06)
    e = next(training.example(Recipe(dropout=1.0), goal, data, n) for n in range(1))
    assert not e.clip.embed.any() and e.clip.latents.any()


def test_noise_levels_are_drawn_as_named():
    g = training.generator(0)
    logs = torch.tensor([math.log(training.lognormal_sigma(-1.2, 1.2, 0.002, 700.0)(g)) for _ in range(3000)])
    assert float(logs.mean()) == pytest.approx(-1.2, abs=0.08) and float(logs.std()) == pytest.approx(1.2, abs=0.06)
    assert training.lognormal_sigma(50.0, 1.0, 0.002, 700.0)(g) == 700.0
    tails = torch.tensor([math.log(training.lognormal_sigma(0.0, 0.01, 0.01, 100.0, tail=0.3)(g)) for _ in range(3000)])
    outside = tails.abs() > 0.1
    assert float(outside.float().mean()) == pytest.approx(0.3, abs=0.04) and float(tails[outside].std()) == pytest.approx(2 * math.log(100) / 12**0.5, rel=0.06)
    table = torch.arange(1.0, 11.0)
    assert {training.uniform_timestep(table)(g) for _ in range(300)} == set(table.tolist())
    times = [training.uniform_time(lambda t: t)(g) for _ in range(3000)]
    assert min(times) > 0 and max(times) <= 1 and sum(times) / 3000 == pytest.approx(0.5, abs=0.03)


def test_batches_do_not_depend_on_how_they_are_split():
    recipe, goal, data = Recipe(batch=4, noise=TimeNoise(1.0)), objective(), clips(9)
    whole = [e.eps for e in training.batch_of(recipe, goal, data, 2)]
    half = dataclasses.replace(recipe, batch=2)
    processes = [e.eps for rank in range(2) for e in training.batch_of(half, goal, data, 2, rank=rank, world=2)]
    parts = [e.eps for part in range(2) for e in training.batch_of(dataclasses.replace(half, accumulation=2), goal, data, 2, part=part)]
    for split in (processes, parts):
        assert all(torch.equal(a, b) for a, b in zip(whole, split, strict=True))


# ---- the run ------------------------------------------------------------------------


def started(recipe, **settings):
    network = Network(torch.float32)
    goal, data = objective(), clips()
    loss = lambda step, part: training.denoising_loss(denoiser(network), goal, training.batch_of(recipe, goal, data, step, part))
    return Training(dict(network.named_parameters()), recipe, settings), loss


def test_accumulated_halves_are_the_whole_batch():
    results = []
    for batch, accumulation in ((4, 1), (2, 2), (1, 4)):
        run, loss = started(Recipe(steps=3, batch=batch, accumulation=accumulation, ema=0.0))
        run.run(loss)
        results.append((run.result["weights"], run.losses))
    for weights, losses in results[1:]:
        assert torch.allclose(weights, results[0][0], atol=1e-6) and losses == pytest.approx(results[0][1], rel=1e-5)


@pytest.mark.parametrize("at", [1, 4, 7])
def test_stopped_and_resumed_is_uninterrupted_to_the_bit(tmp_path, at):
    recipe = Recipe(steps=9, batch=2, accumulation=2, learning_rate=1e-2, noise=TimeNoise(1.0))
    whole, loss = started(recipe)
    whole.run(loss)
    first, loss = started(recipe)

    def interrupt(run):
        if run.step == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first.run(loss, tmp_path / "state", progress=interrupt)
    second, loss = started(recipe)
    second.resume(tmp_path / "state")
    assert second.step == at
    second.run(loss)
    assert torch.equal(second.parameters["weights"], whole.parameters["weights"])
    assert torch.equal(second.result["weights"], whole.result["weights"])
    assert second.losses == whole.losses and len(whole.losses) == 9


def test_killed_without_a_word_it_goes_on_from_the_last_save(tmp_path):
    recipe = Recipe(steps=6, learning_rate=1e-2)
    whole, loss = started(recipe)
    whole.run(loss)
    part, loss = started(dataclasses.replace(recipe, steps=4))
    part.run(loss, tmp_path / "state", every=0.0)
    again, loss = started(recipe)
    again.resume(tmp_path / "state")
    again.run(loss)
    assert torch.equal(again.parameters["weights"], whole.parameters["weights"])


def test_an_interrupt_while_weights_are_written_does_not_save_half_of_them(tmp_path, monkeypatch):
    run, loss = started(Recipe(steps=4))
    run.update(loss)
    run.save(tmp_path / "state")
    before = (tmp_path / "state").read_bytes()
    step = run.optimiser.step

    def torn():
        step()
        raise KeyboardInterrupt

    monkeypatch.setattr(run.optimiser, "step", torn)
    with pytest.raises(KeyboardInterrupt):
        run.run(loss, tmp_path / "state")
    assert (tmp_path / "state").read_bytes() == before


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_state(tmp_path):
    run, loss = started(Recipe(steps=5, learning_rate=1e-2))
    good, good_loss = started(Recipe(steps=2, learning_rate=1e-2))
    good.run(good_loss)
    with pytest.raises(training.Diverged, match="at step 3 the loss is nan.*the weights of step 2 were kept"):
        run.run(lambda step, part: loss(step, part) * (math.nan if step == 2 else 1), tmp_path / "state")
    kept, _ = started(Recipe(steps=5, learning_rate=1e-3))  # a lower learning rate goes on from it
    kept.resume(tmp_path / "state")
    assert kept.step == 2 and torch.equal(kept.parameters["weights"], good.parameters["weights"])
    assert torch.isfinite(kept.result["weights"]).all()


def test_a_gradient_that_is_no_number_stops_too():
    run, loss = started(Recipe(steps=5))
    with pytest.raises(training.Diverged, match="at step 1 .*gradient's norm (nan|inf)"):
        run.run(lambda step, part: torch.sqrt(run.parameters["weights"].sum() * 0.0))


def test_a_full_disk_leaves_the_old_state_whole(tmp_path):
    run, loss = started(Recipe(steps=3))
    run.update(loss)
    run.save(tmp_path / "state")
    before = (tmp_path / "state").read_bytes()

    with full_disk.no_file_above(300), pytest.raises(OSError, match="state could not be written.*File too large.*nothing half-written.*is as it was"):
        run.run(loss, tmp_path / "state")
    assert (tmp_path / "state").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


def test_the_average_is_an_ema_and_0_is_none():
    run, loss = started(Recipe(steps=3, learning_rate=1e-2, ema=0.15))
    expected = run.parameters["weights"].detach().clone()
    for step in range(3):
        run.update(loss)
        decay = min(0.15, (step + 1) / (step + 10))
        expected = decay * expected + (1 - decay) * run.parameters["weights"].detach()
    assert torch.allclose(run.result["weights"], expected, atol=1e-7)
    assert not torch.equal(run.result["weights"], run.parameters["weights"])
    plain, loss = started(Recipe(steps=1, ema=0.0))
    plain.run(loss)
    assert torch.equal(plain.result["weights"], plain.parameters["weights"])


def test_another_runs_state_is_refused(tmp_path):
    run, loss = started(Recipe(steps=1), rank=4)
    run.run(loss, tmp_path / "state")
    other, _ = started(Recipe(steps=1), rank=8)
    with pytest.raises(ValueError, match="begun with other settings \\(rank\\)"):
        other.resume(tmp_path / "state")
    (tmp_path / "broken").write_bytes(b"no")
    with pytest.raises(ValueError, match="broken cannot be read as the state of a training"):
        other.resume(tmp_path / "broken")


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"steps": 0}, "at least 1"),
        ({"batch": 0}, "at least 1"),
        ({"dropout": 1.5}, "condition dropout"),
        ({"ema": 1.0}, "ema in \\[0, 1\\)"),
        ({"learning_rate": 0.0}, "learning rate must be above 0"),
    ],
)
def test_bad_recipes_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**wrong)


# ---- saving and making batches on the side ----------------------------------------------


@pytest.mark.parametrize(
    "every, size, takes",
    [(60.0, 24_000_000_000, [48.0]), (60.0, 24_000_000_000, [10.0]), (60.0, 1000, [0.01]), (1.0, 1000, [3.0]), (1.0, 400_000_000, [4, 5, 6, 7])],
)
def test_saving_takes_a_twentieth_of_the_time_at_most(every, size, takes):
    """By a clock of its own: updates of half a second, saves of `takes`, the last one again and again. A disk that turns out slower is made up for."""
    now = [0.0]
    clock = training.SaveClock(every, size, lambda: now[0])
    spent, began = [], []
    while now[0] < 20_000:
        now[0] += 0.5
        if clock.due():
            began.append(now[0])
            with clock.saving():
                spent.append(takes[min(len(spent), len(takes) - 1)])
                now[0] += spent[-1]
            if len(spent) > len(takes):  # what it takes is known
                assert sum(spent) <= training.trainer.SHARE * now[0]
    assert len(spent) > 3 and (spent[0] <= 0.05 * (began[0] + spent[0]) or size <= 400_000_000)  # what is as fast as was thought is right at once
    gaps = [b - a for a, b in itertools.pairwise(began)]
    assert max(gaps[len(takes) :]) <= max(every, takes[-1] / training.trainer.SHARE) + takes[-1] + 1  # and as often as that allows


def test_0_saves_after_each_update():
    clock = training.SaveClock(0.0, 10**12)
    assert clock.due() and clock.due()


def test_the_state_is_the_tensors_themselves():
    """Nothing is copied to be saved."""
    run, loss = started(Recipe(steps=2))
    run.update(loss)
    state = run._state()
    assert state["weight.weights"].data_ptr() == run.parameters["weights"].data_ptr() and state["average.weights"] is run.average["weights"]
    assert state["adamw.0.exp_avg"] is run.optimiser.state[run.parameters["weights"]]["exp_avg"]


def test_a_damaged_state_says_what_to_do(tmp_path):
    run, loss = started(Recipe(steps=2))
    run.run(loss, tmp_path / "state")
    data = bytearray((tmp_path / "state").read_bytes())
    data[-3] ^= 1
    (tmp_path / "state").write_bytes(data)
    other, _ = started(Recipe(steps=2))
    with pytest.raises(ValueError, match="state is damaged.*Delete it to begin anew"):
        other.resume(tmp_path / "state")
    resumable.write({"losses": torch.zeros(3)}, tmp_path / "state", training.trainer.FORMAT, training.trainer.VERSION, {})
    with pytest.raises(ValueError, match="state is damaged: it does not fit its own settings .*Delete it"):
        other.resume(tmp_path / "state")


def test_a_state_of_an_older_pack_goes_on(tmp_path):
    recipe = Recipe(steps=4, learning_rate=1e-2)
    whole, loss = started(recipe, rank=4)
    whole.run(loss)
    old, loss = started(dataclasses.replace(recipe, steps=2), rank=4)
    old.run(loss)
    save_file({k: v.contiguous() for k, v in old._state().items()}, tmp_path / "state", {"format": training.trainer.FORMAT, "settings": '{"rank": 4}'})
    again, loss = started(recipe, rank=4)
    again.resume(tmp_path / "state")
    again.run(loss)
    assert torch.equal(again.result["weights"], whole.result["weights"])


def test_a_weight_that_no_gradient_reaches_is_told_of_before_anything_changes():
    network = Network(torch.float32)
    before, asked = network.weights.detach().clone(), []

    def check(parameters):
        asked.append(parameters["weights"].grad is not None)
        if len(asked) == 1:
            raise ValueError("no gradient")

    run = Training(dict(network.named_parameters()), Recipe(steps=3), {}, check=check)
    loss = lambda step, part: network.weights.square().sum()
    with pytest.raises(ValueError, match="no gradient"):
        run.run(loss)
    assert asked == [True] and torch.equal(network.weights, before)


def test_batches_are_made_ahead_in_their_order():
    made, here = [], threading.get_ident()
    recipe = Recipe(steps=3, accumulation=2)

    def make(step, part):
        made.append((step, part))
        assert threading.get_ident() != here
        return step, part

    order = [(step, part) for step in range(1, 3) for part in range(2)]  # as a run that goes on after step 1
    with training.prefetched(make, recipe) as batch:
        for n, asked in enumerate(order):
            assert batch(*asked) == asked
            if n + 1 < len(order):
                while len(made) < n + 2:  # the next one comes without being asked for
                    time.sleep(0.001)
    assert made == order


def test_what_a_batch_raises_is_raised_where_it_is_asked_for():
    def make(step, part):
        if step:
            raise ValueError("the set is gone")

    with training.prefetched(make, Recipe(steps=3)) as batch:
        batch(0, 0)
        with pytest.raises(ValueError, match="the set is gone"):
            batch(1, 0)
