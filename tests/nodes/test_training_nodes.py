"""Training in the host: what the model is shown, the LoRA's way through the host's loaders, bad input."""

import dataclasses
import functools
import json
import re
import shutil

import comfy.ldm.modules.attention
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy_extras.nodes_train
import folder_paths
import full_disk
import pytest
import tiny
import torch
import video_file
from node_calls import execute, run
from safetensors.torch import load_file, save_file
from training_settings import QUICK

import nodes as host_nodes
from cil_pack.cil import prepared, training
from cil_pack.cil.files import Claimed
from cil_pack.cil.timenoise import TimeNoise
from cil_pack.cil.training import Clip, Recipe
from cil_pack.demo import latents, model, scenes
from cil_pack.nodes import calibrate
from cil_pack.nodes.host.sampling import Sampling
from cil_pack.nodes.training import model as trainable
from cil_pack.nodes.training import modes, prepare, train, watch
from cil_pack.nodes.training import nodes as training_nodes

FRAMES, SIDE = 3, 4
SHAPE = (4, FRAMES, SIDE, SIDE)
SMALL = model.UNET | {"channel_mult": (1,), "num_res_blocks": [1], "transformer_depth": [0], "transformer_depth_middle": 1, "transformer_depth_output": [0, 0]}


def patcher(seed=0):
    """A small SVD of the host with random weights, made in inference mode as a running host makes it."""
    with torch.inference_mode():
        torch.manual_seed(seed)
        config = model.SVDDemo(SMALL)
        config.set_inference_dtype(torch.float32, None)
        made = config.get_model({})
        model.initialise(made.diffusion_model)
        for p in made.diffusion_model.parameters():
            if p.ndim == 1 and p.numel() == 1:
                p.zero_()  # mix factors, which the host leaves uninitialised
        made.eval()
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(made, cpu, cpu)


@pytest.fixture(scope="module")
def svd():
    return patcher()


def random_clip(i):
    g = torch.Generator().manual_seed(i)
    draw = lambda *shape: torch.randn(*shape, generator=g)
    return Clip(draw(*SHAPE), 5 * draw(4, SIDE, SIDE), draw(1, model.CONTEXT), 10.0 * i)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    settings = {"fps": 6.0, "frames": FRAMES, "flow": "made up"}
    return prepared.prepare(tmp_path_factory.mktemp("set"), settings, range(5), lambda i: i, random_clip)


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    (tmp_path / "loras").mkdir()
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(tmp_path / "loras")], {".safetensors"}))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return tmp_path


@pytest.fixture
def said(monkeypatch):
    notes = []
    monkeypatch.setattr(training_nodes, "say", lambda node, text: notes.append(text))
    return notes


@torch.inference_mode()  # as the host runs nodes
def trained(svd, clips, **changes):
    return run(training_nodes.TimeNoiseTrain, model=svd, clips=clips, **(QUICK | changes))


@torch.inference_mode()
def sampled(svd):
    """A few steps by the host's own sampler."""
    clip = random_clip(99)
    told = {"motion_bucket_id": 50, "fps": 6, "augmentation_level": 0.0, "concat_latent_image": clip.image[None]}
    cond = [[clip.embed[None], told]]
    empty = {"samples": torch.zeros(FRAMES, 4, SIDE, SIDE)}
    return host_nodes.KSampler().sample(svd, 3, 2, 1.0, "euler", "karras", cond, cond, empty, 1.0)[0]["samples"]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# ---- what it is trained for -----------------------------------------------------------

TARGETS = {  # the network's own target, from clean latents, noise, the host's sigma and sigma_data
    "SVD": lambda x0, e, s, d: (e - s * x0) / torch.sqrt(1 + s**2),
    "eps": lambda x0, e, s, d: e,
    "v": lambda x0, e, s, d: (e - s * x0) / torch.sqrt(1 + s**2),
    "v zsnr": lambda x0, e, s, d: (e - s * x0) / torch.sqrt(1 + s**2),
    "continuous v": lambda x0, e, s, d: (e - s * x0) / torch.sqrt(1 + s**2),
    "EDM": lambda x0, e, s, d: (x0 - d**2 / (s**2 + d**2) * (x0 + s * e)) * torch.sqrt(s**2 + d**2) / (s * d),
    "flow": lambda x0, e, s, d: e - x0,
    "flow shift 8": lambda x0, e, s, d: e - x0,
    "flux": lambda x0, e, s, d: e - x0,
    "Cosmos RFlow": lambda x0, e, s, d: e - x0,
}


@pytest.mark.parametrize("kind", TARGETS)
def test_the_loss_is_the_networks_own_for_every_kind_of_host_model(kind):
    """weight ||D - x_0||^2 with the host's D of a random network output, against ||F - target||^2."""
    host, _ = tiny.model(kind)
    goal, sampling = trainable.objective(host, -0.5, 1.2), host.get_model_object("model_sampling")
    g = training.generator(1)
    x0, eps, out = (torch.randn(1, 4, 2, 3, 3, generator=g, dtype=torch.float64) for _ in range(3))
    levels = [goal.draw_sigma(g) for _ in range(40)]
    for level in levels:
        sigma = torch.tensor([level], dtype=torch.float64)
        x = goal.process.corrupt(x0, eps, sigma)
        got = goal.weight(sigma) * (sampling.calculate_denoised(sigma, out, x) - x0).square().mean()
        right = (out - TARGETS[kind](x0, eps, sigma, sampling.sigma_data if kind == "EDM" else 1.0)).square().mean()
        assert float(got) == pytest.approx(float(right), rel=1e-5)
        assert 0 <= goal.fraction(level) <= 1
    assert min(levels) >= float(sampling.sigma_min) * 0.99 and max(levels) <= float(sampling.sigma_max) * 1.001 and max(levels) > 3 * min(levels)


def test_discrete_models_are_trained_at_their_own_timesteps():
    host, _ = tiny.model("eps")
    table = set(host.get_model_object("model_sampling").sigmas.tolist())
    goal, g = trainable.objective(host, 0, 1), training.generator(0)
    assert all(goal.draw_sigma(g) in table for _ in range(50))


# ---- what the model is shown ----------------------------------------------------------


def shown(svd, clips, recipe, config):
    """Run a training and note what reaches the host's apply_model: [(x, sigma, kwargs)]."""
    seen, plain = [], svd.model.apply_model

    def note(x, sigma, transformer_options, **kwargs):
        seen.append((x, sigma, kwargs))
        return plain(x, sigma, transformer_options=transformer_options, **kwargs)

    svd.model.apply_model = note
    try:
        train.tune(svd, clips, recipe, config)
    finally:
        del svd.model.apply_model
    return seen


def test_the_model_sees_the_noised_image_and_is_told_its_level(svd, clips):
    recipe = Recipe(steps=3, batch=2, dropout=0.4, ema=0.0, noise=TimeNoise(4.0, 1.0))
    seen = shown(svd, clips, recipe, train.TrainConfig(2, precision="fp32", bucket=77))
    goal = trainable.objective(svd, -1.2, 1.2)
    assert len(seen) == 3 and any(e.level > 0.5 for step in range(3) for e in training.batch_of(recipe, goal, clips, step))
    for step, (x, sigma, kwargs) in enumerate(seen):
        examples = training.batch_of(recipe, goal, clips, step)
        assert kwargs["num_video_frames"] == FRAMES
        for i, e in enumerate(examples):
            mine = slice(i * FRAMES, (i + 1) * FRAMES)
            assert torch.allclose(x[mine], (e.clip.latents + e.sigma * e.eps).movedim(0, 1), atol=1e-5)
            assert torch.allclose(sigma[mine], torch.tensor(e.sigma))
            assert torch.equal(kwargs["c_concat"][mine], e.clip.image.expand(FRAMES, -1, -1, -1))
            assert torch.equal(kwargs["c_crossattn"][mine], e.clip.embed[None].expand(FRAMES, -1, -1))
            told = svd.model.encode_adm(fps=6.0, motion_bucket_id=77, augmentation_level=e.level)
            assert torch.equal(kwargs["y"][mine], told.expand(FRAMES, -1))


def test_naive_tuning_shows_the_clean_image_at_level_0_and_each_clips_own_motion(svd, clips):
    recipe = Recipe(steps=2, dropout=0.0, ema=0.0)
    for step, (_, _, kwargs) in enumerate(shown(svd, clips, recipe, train.TrainConfig(2, precision="fp32", bucket=0))):
        clip = clips[training.clip_of(0, step, 5)]
        assert torch.equal(kwargs["c_concat"], clip.image.expand(FRAMES, -1, -1, -1))
        assert torch.equal(kwargs["y"], svd.model.encode_adm(fps=6.0, motion_bucket_id=clip.motion, augmentation_level=0.0).expand(FRAMES, -1))


# ---- the LoRA and the MODEL -----------------------------------------------------------


def test_the_lora_goes_through_the_hosts_loaders_with_identical_output(svd, clips, folders):
    plain = sampled(svd)
    with_lora, lora, curve, *_ = trained(svd, clips)
    tuned = sampled(with_lora)
    assert not torch.allclose(plain, tuned, atol=1e-3)
    assert curve.ndim == 4 and curve.shape[-1] == 3 and curve.min() >= 0 and curve.max() <= 1
    through_node = execute(comfy_extras.nodes_train.LoraModelLoader, svd, lora, 1.0).args[0]
    assert torch.equal(sampled(through_node), tuned)
    execute(comfy_extras.nodes_train.SaveLoRA, lora, "loras/mine")
    (saved,) = (folders / "output" / "loras").glob("mine*.safetensors")
    saved.rename(folders / "loras" / "mine.safetensors")
    from_file = host_nodes.LoraLoaderModelOnly().load_lora_model_only(svd, "mine.safetensors", 1.0)[0]
    assert torch.equal(sampled(from_file), tuned)
    assert torch.equal(sampled(svd), plain)


def test_what_comes_out_is_what_was_trained(svd, clips):
    """The MODEL with the loaded LoRA denoises as the model under training did."""
    recipe, config = Recipe(steps=3, batch=2, learning_rate=1e-2, ema=0.0), train.TrainConfig(2, precision="fp32")
    tuned = train.tune(svd, clips, recipe, config)
    goal = trainable.objective(svd, config.P_mean, config.P_std)
    examples = training.batch_of(recipe, goal, clips, 3)
    further = train.tune(svd, clips, dataclasses.replace(recipe, steps=4), config)
    with modes.gradients():
        loaded = trainable.with_lora(svd, tuned.values)
        with modes.loaded(loaded), torch.no_grad():
            loss = training.denoising_loss(trainable.Denoiser(loaded, 6.0, 20), goal, examples)
    assert float(loss) == pytest.approx(further.losses[3], rel=1e-4)
    assert further.losses[:3] == tuned.losses


def test_the_model_that_came_in_is_not_changed(svd, clips):
    before = {k: v.clone() for k, v in svd.model.state_dict().items()}
    plain, patches, options = sampled(svd), dict(svd.patches), repr(svd.model_options)
    with_lora = trained(svd, clips, gradient_checkpointing=True)[0]
    assert torch.equal(sampled(svd), plain)
    sampled(with_lora)
    assert torch.equal(sampled(svd), plain)
    after = svd.model.state_dict()
    assert same(before, after) and svd.patches == patches and repr(svd.model_options) == options
    assert svd.model.manual_cast_dtype is None


def test_a_lora_that_is_on_already_stays_on(svd, clips):
    with_first, first, *_ = trained(svd, clips)
    both, second, *_ = trained(with_first, clips, seed=1)
    stacked = trainable.with_lora(trainable.with_lora(svd, first), second)
    assert torch.equal(sampled(both), sampled(stacked))
    assert not torch.allclose(sampled(both), sampled(with_first), atol=1e-4)


def test_training_lowers_the_loss(svd, tmp_path):
    """On one clip at one high noise level, which can be learnt by heart."""
    one = prepared.prepare(tmp_path / "one", {"fps": 6.0}, [0], lambda i: i, random_clip)
    config = train.TrainConfig(8, precision="fp32", checkpointing=False, P_mean=3.0, P_std=0.01)
    tuned = train.tune(svd, one, Recipe(steps=50, batch=2, learning_rate=1e-2, dropout=0.0, ema=0.0), config)
    assert sum(tuned.losses[-5:]) < 0.7 * sum(tuned.losses[:5]), tuned.losses


def test_checkpointing_changes_nothing(svd, clips):
    a, b = (trained(svd, clips, gradient_checkpointing=on)[1] for on in (False, True))
    assert same(a, b)


def test_checkpointing_really_recomputes(svd, clips):
    """One more forward call of each block for every backward pass."""
    counts = []
    block = svd.model.diffusion_model.middle_block[0]
    for on in (False, True):
        calls = []
        handle = block.in_layers[0].register_forward_hook(lambda *a: calls.append(1))
        trained(svd, clips, steps=2, gradient_checkpointing=on)
        handle.remove()
        counts.append(len(calls))
    assert counts == [2, 4]


def test_bf16_is_near_fp32(svd, clips):
    losses = [train.tune(svd, clips, Recipe(steps=2, batch=2), train.TrainConfig(2, precision=p)).losses for p in ("fp32", "bf16")]
    assert losses[1] == pytest.approx(losses[0], rel=0.05) and losses[0] != losses[1]


# ---- what the host computes with ------------------------------------------------------


def without_backward(q, k, v, *args, **kwargs):
    """Like SageAttention's kernels: what comes out knows nothing of what came in."""
    kwargs.pop("transformer_options", None)
    return comfy.ldm.modules.attention.attention_basic(q.detach(), k.detach(), v.detach(), *args, **kwargs)


def gradients_of(svd, clips):
    """Names of the LoRA's tensors that one update changes."""
    seen = {}

    def note(run):
        seen.update({name: float(run.optimiser.state[p]["exp_avg"].abs().max()) for name, p in run.parameters.items()})

    train.tune(svd, clips, Recipe(steps=1, batch=2), train.TrainConfig(2, precision="fp32", checkpointing=False), progress=note)
    return {name for name, size in seen.items() if size > 0}


def test_an_attention_without_a_backward_pass_is_not_trained_with(svd, clips, monkeypatch):
    """--use-sage-attention: the host's attention is replaced while training, and q and k learn as ever."""
    plain = gradients_of(svd, clips)
    assert all(any(f"attn1.{part}" in name for name in plain) for part in ("to_q", "to_k"))
    without_backward.__name__ = "attention_sage"
    monkeypatch.setattr(comfy.ldm.modules.attention, "optimized_attention", comfy.ldm.modules.attention.wrap_attn(without_backward))
    assert gradients_of(svd, clips) >= plain  # where there is one token to look at, rounding alone decides about more


def test_an_attention_that_cannot_be_replaced_is_refused(svd, clips, monkeypatch):
    """A pack that puts its own function over the host's, which then asks nobody."""
    monkeypatch.setattr(comfy.ldm.modules.attention, "optimized_attention", without_backward)
    with pytest.raises(ValueError, match="no gradient reaches .* for example 'diffusion_model.*: an attention .* has no backward pass"):
        trained(svd, clips)


def test_the_hosts_own_attentions_are_left_alone():
    """Every one that differentiates is trained with as it is: same numbers as before."""
    q = torch.randn(1, 5, 8, requires_grad=True)
    for name in ("attention_basic", "attention_sub_quad", "attention_split", "attention_pytorch"):
        calls = []
        attention = getattr(comfy.ldm.modules.attention, name).__wrapped__
        spy = functools.wraps(attention)(lambda *a, attention=attention, calls=calls, **k: calls.append(1) or attention(*a, **k))
        out = modes.differentiable_attention(spy, q, q, q, 2)
        assert calls and out.requires_grad


def test_the_hosts_switch_for_training_is_on_while_it_trains(svd, clips, monkeypatch):
    """From 0.28 on; older hosts have none, and are given none."""
    management, seen = comfy.model_management, []
    plain = training.denoising_loss
    monkeypatch.setattr(training, "denoising_loss", lambda *a: seen.append(getattr(management, "in_training", None)) or plain(*a))
    if not hasattr(management, "in_training"):
        trained(svd, clips, steps=1)
        assert seen == [None] and not hasattr(management, "in_training")
    monkeypatch.setattr(management, "in_training", False, raising=False)
    trained(svd, clips, steps=1)
    assert seen[-1] is True and management.in_training is False
    with pytest.raises(ZeroDivisionError), modes.gradients():
        raise ZeroDivisionError
    assert management.in_training is False


def test_weights_that_the_host_hands_over_without_a_copy_can_be_trained_through():
    """As hosts that stream weights do: a graph's inference tensors, which autograd cannot keep."""
    with torch.inference_mode():
        weight = torch.randn(3, 3)
    x = torch.randn(2, 3, requires_grad=True)
    with modes.gradients():
        (x @ trainable.as_it_is(weight)).sum().backward()
    assert x.grad is not None and trainable.as_it_is(x) is x


# ---- stopping and going on ------------------------------------------------------------


def partials(folders):
    return list((folders / "output" / "cil" / "training").glob("*"))


def test_cancelled_and_resumed_is_uninterrupted_to_the_bit(svd, clips, folders, said, monkeypatch):
    settings = {"steps": 6, "ema": 0.9, "accumulation": 2}
    whole = trained(svd, clips, **settings)[1]
    assert not partials(folders)
    stop, asked = comfy.model_management.InterruptProcessingException, []

    def interrupted():
        asked.append(1)
        if len(asked) == 3:
            raise stop

    with monkeypatch.context() as patch:
        patch.setattr(comfy.model_management, "throw_exception_if_processing_interrupted", interrupted)
        patch.setattr(comfy.ops, "run_every_op", lambda: None, raising=False)  # it asks at every layer; here only between updates
        with pytest.raises(stop):
            trained(svd, clips, **settings)
    assert len(partials(folders)) == 1
    said.clear()
    again = trained(svd, clips, **settings)[1]
    assert "going on after step 3" in said[0] and same(again, whole)
    assert not partials(folders)


def test_the_note_tells_the_mean_loss_and_the_time_that_is_left(svd, clips, folders, said):
    trained(svd, clips, steps=11)
    assert re.fullmatch(r"step 10 of 11: mean loss of the last 10: \d+\.\d{4}; \d+ s to go\. Stop keeps its state", said[0])
    assert re.fullmatch(r"step 11 of 11: mean loss of the last 11: \d+\.\d{4}", said[1]) and len(said) == 2


def test_a_watched_training_shows_its_clips_and_is_the_same_training(svd, clips, folders):
    """A clip before, every second update and at the end; the same noise each time, so that what differs is the training's doing."""
    plain, watched = trained(svd, clips), trained(svd, clips, sample_every=2)
    assert same(plain[1], watched[1]) and plain[3].shape[0] == 1  # words alone
    samples = watched[3]
    assert samples.shape[0] == FRAMES and samples.shape[2] == 3 * 160  # before, step 2, step 3
    before, later = samples[:, :90, :160], samples[:, :90, 160:320]
    assert before.std() > 0.01 and not torch.equal(before, later)
    assert torch.equal(trained(svd, clips, sample_every=3, steps=1)[3][:, :90, :160], before)


@torch.inference_mode()
def leakage_by_the_probe(model, clips):
    sampling = Sampling.of(model)
    sigmas = [sigma for _, sigma in sampling.levels(watch.LEVELS, 0.0, 1.0)]
    return calibrate.calibrate(model, clips, range(len(clips)), sigmas, 1, QUICK["seed"], QUICK["motion_bucket_id"], lambda *a: None)


def test_the_leakage_before_and_after_a_training_is_the_probes(svd, clips, folders, monkeypatch):
    """Measured through the trainer, and again through the host's sampling on the model that goes in and on the one that comes out."""
    curves = {}
    monkeypatch.setattr(watch.plots, "leakage_plot", lambda made: curves.update(made) or torch.zeros(1, 2, 2, 3))
    plain, (with_lora, lora, *_) = trained(svd, clips), trained(svd, clips, probe_clips=100)
    assert same(plain[1], lora) and list(curves) == ["before", "after step 3"]
    for measured, of in zip(curves.values(), (svd, with_lora)):
        found = leakage_by_the_probe(of, clips)
        assert measured.levels == found.levels and measured.clips == len(clips)
        for view in found.products:
            assert torch.allclose(measured.view(view), found.view(view), rtol=1e-3, atol=1e-6 * float(found.view(view).abs().max()))
    before, after = (c.view("whole") for c in curves.values())
    assert not torch.allclose(before, after, rtol=1e-2)


def test_the_leakage_is_drawn_or_said_to_be_none(svd, clips, folders):
    assert trained(svd, clips)[4].shape[1] < 100  # words alone
    assert trained(svd, clips, probe_clips=2, steps=1)[4].shape[1] > 300


def test_resume_off_begins_anew(svd, clips, folders, said, monkeypatch):
    whole = trained(svd, clips)[1]
    with monkeypatch.context() as patch:
        patch.setattr(training_nodes.TimeNoiseTrain, "progress", lambda *a: lambda run: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            trained(svd, clips)
    (state,) = partials(folders)
    state.write_bytes(b"would be an error if it were read")
    assert same(trained(svd, clips, resume=False)[1], whole)
    assert not partials(folders) and not any("going on" in note for note in said)


def test_a_diverging_training_says_where_and_keeps_its_state(svd, clips, folders, said):
    whole = trained(svd, clips, steps=2)[1]
    plain, calls = training.denoising_loss, []

    def broken(*args):
        calls.append(1)
        return plain(*args) * (float("nan") if len(calls) == 3 else 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "denoising_loss", broken)
        with pytest.raises(training.Diverged, match="at step 3 the loss is nan.*weights of step 2 were kept"):
            trained(svd, clips, steps=5)
    (kept,) = partials(folders)
    weights = {k.removeprefix("weight."): v for k, v in load_file(kept).items() if k.startswith("weight.")}
    assert weights and all(torch.equal(v, whole[k]) for k, v in weights.items())
    trained(svd, clips, steps=4, learning_rate=1e-3)  # the advice of the message works
    assert "going on after step 2" in "".join(said)


def test_a_full_disk_is_an_error_in_words(svd, clips, folders):
    with full_disk.no_file_above(1000), pytest.raises(OSError, match="could not be written.*File too large.*nothing half-written"):
        trained(svd, clips)
    assert not partials(folders)


# ---- an existing LoRA -----------------------------------------------------------------


def test_an_existing_lora_is_trained_on(svd, clips, folders):
    first = trained(svd, clips)[1]
    save_file(first, folders / "loras" / "first.safetensors")
    frozen = trained(svd, clips, existing_lora="first.safetensors", learning_rate=1e-8, steps=1)[1]
    assert frozen.keys() == first.keys() and all(torch.allclose(frozen[k], first[k], atol=1e-6) for k in first)
    on = trained(svd, clips, existing_lora="first.safetensors", seed=5)[1]
    assert any(not torch.allclose(on[k], first[k], atol=1e-3) for k in first)


def test_a_lora_in_the_usual_trainers_names_is_trained_on(svd, clips, folders):
    """lora_unet_..., an alpha that is not the rank, a convolution's matrices with 4 dimensions."""
    layer, conv = "diffusion_model.out.2", "diffusion_model.input_blocks.0.0"
    names = {f"lora_unet_{n.removeprefix('diffusion_model.').replace('.', '_')}": n for n in (layer, conv)}
    g, lora = torch.Generator().manual_seed(0), {}
    for key, name in names.items():
        out, inside, *kernel = svd.model.get_submodule(name).weight.shape
        lora[f"{key}.lora_up.weight"] = 0.1 * torch.randn(out, 3, 1, 1, generator=g)
        lora[f"{key}.lora_down.weight"] = 0.1 * torch.randn(3, inside, *kernel, generator=g)
        lora[f"{key}.alpha"] = torch.tensor(1.5)
    save_file(lora, folders / "loras" / "usual.safetensors")
    as_it_was = sampled(host_nodes.LoraLoaderModelOnly().load_lora_model_only(svd, "usual.safetensors", 1.0)[0])
    still, on, *_ = trained(svd, clips, existing_lora="usual.safetensors", learning_rate=1e-8, steps=1)
    effect, gap = (float((a - as_it_was).abs().max()) for a in (sampled(svd), sampled(still)))
    assert gap < 1e-2 * effect, (gap, effect)
    assert float(on[f"{layer}.alpha"]) == 1.5 and on[f"{conv}.lora_down.weight"].shape[0] == 3


@pytest.mark.parametrize("change", ["names", "shapes", "kind", "partly"])
def test_a_lora_of_another_model_is_refused(svd, clips, folders, change):
    lora = trained(svd, clips, steps=1)[1]
    if change == "names":
        lora = {f"transformer.{k}": v for k, v in lora.items()}
    elif change == "shapes":
        lora = {k: torch.cat([v, v]) if k.endswith("up.weight") else v for k, v in lora.items()}
    elif change == "kind":
        lora = {"diffusion_model.out.2.diff": torch.zeros(4, 64, 3, 3)}
    else:
        lora["diffusion_model.no_such_layer.lora_up.weight"] = torch.zeros(4, 2)
    save_file(lora, folders / "loras" / "other.safetensors")
    with pytest.raises(ValueError, match="another way than by two matrices" if change == "kind" else "belongs to another model"):
        trained(svd, clips, existing_lora="other.safetensors")


# ---- bad input ------------------------------------------------------------------------


def test_models_and_clips_that_do_not_fit_are_refused(svd, clips, tmp_path):
    flow, _ = tiny.model("flow")
    with pytest.raises(ValueError, match="SVD's family.*but a BaseModel came"):
        trained(flow, clips)
    wan = prepared.prepare(tmp_path / "wan", {"fps": 6.0}, [0], lambda i: i, lambda i: Clip(torch.zeros(16, 2, 4, 4), torch.zeros(16, 4, 4), torch.zeros(1, 8)))
    with pytest.raises(ValueError, match="channels.*16 x 2 x 4 x 4: prepare them with this model's VAE"):
        trained(svd, wan)
    still = prepared.prepare(tmp_path / "still", {"fps": 6.0}, [0], lambda i: i, lambda i: dataclasses.replace(random_clip(0), motion=0.0))
    with pytest.raises(ValueError, match="motion bucket 0 means each clip's own motion score"):
        trained(svd, still, motion_bucket_id=0)


def test_another_models_state_is_refused(svd, clips, folders, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(training_nodes.TimeNoiseTrain, "progress", lambda *a: lambda run: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            trained(svd, clips)
    with pytest.raises(ValueError, match="begun with other settings \\(model\\)"):
        trained(patcher(1), clips)


# ---- preparation ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo():
    return model.load("healthy")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    pictures = scenes.render(scenes.sample(3, torch.Generator().manual_seed(5)).replace(bucket=255.0), 4)
    for i, clip in enumerate(pictures):
        video_file.write(folder / f"{i}.mp4", clip.movedim(1, -1), rate=3, lossless=True)
    video_file.write(folder / "short.mp4", pictures[0][:1].movedim(1, -1), rate=3, lossless=True)
    (folder / "corrupt.mp4").write_bytes(bytes(range(256)) * 20)
    return folder, pictures


def prepared_by_node(demo, videos, **changes):
    settings = {
        "folder": str(videos),
        "name": "set",
        "frames": 4,
        "fps": 3.0,
        "width": 128,
        "height": 128,
        "clips_per_video": 1,
        "seed": 0,
        "flip": False,
        "flow": "none",
    }
    return run(training_nodes.PrepareClips, model=demo[0], vae=demo[2], clip_vision=demo[1], **(settings | changes))


def test_a_folder_becomes_what_the_host_would_be_given(demo, videos, said):
    folder, pictures = videos
    made, report = prepared_by_node(demo, folder, flow="DIS (OpenCV)")
    assert made.names == ["0.mp4", "1.mp4", "2.mp4"] and made.shape == (4, 4, 16, 16)
    report = json.loads(report)
    assert (
        report["clips"] == 3
        and "short.mp4: it is 0.33 s long" in "".join(report["skipped"])
        and "corrupt.mp4: it cannot be decoded" in "".join(report["skipped"])
    )
    assert "5 of 5, 2 skipped" in said and all(score > 1 for score in report["motion"].values())
    from comfy_extras.nodes_video_model import SVD_img2vid_Conditioning

    for clip, truth in zip(made, pictures, strict=True):
        assert torch.allclose(clip.latents.float(), latents.encode(truth).movedim(0, 1), atol=0.05)  # eight bits a colour
        with torch.inference_mode():
            positive = SVD_img2vid_Conditioning().encode(demo[1], truth[:1].movedim(1, -1), demo[2], 128, 128, 4, 20, 3, 0.0)[0]
        assert torch.allclose(clip.embed[None], positive[0][0], atol=0.02)
        assert torch.allclose(clip.image, positive[0][1]["concat_latent_image"][0], atol=0.3)  # unscaled: 5.5 times the latents


def test_a_finished_set_is_read_and_not_made_again(demo, videos, monkeypatch):
    first = prepared_by_node(demo, videos[0])[0]
    monkeypatch.setattr(prepare, "encoded", lambda *a: 1 / 0)
    for folder in (videos[0], ""):
        again = prepared_by_node(demo, folder)[0]
        assert again.names == first.names and torch.equal(again[0].latents, first[0].latents)


def test_a_cancelled_preparation_goes_on(demo, videos, said, monkeypatch):
    stop = comfy.model_management.InterruptProcessingException

    def interrupted():
        if said and said[-1].startswith("2 of 5"):
            raise stop

    with monkeypatch.context() as patch:
        patch.setattr(comfy.model_management, "throw_exception_if_processing_interrupted", interrupted)
        with pytest.raises(stop):
            prepared_by_node(demo, videos[0])
    said.clear()
    made = prepared_by_node(demo, videos[0])[0]
    assert said[0].startswith("3 of 5") and made.names == ["0.mp4", "1.mp4", "2.mp4"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"folder": "EMPTY"}, "holds no videos"),
        ({"folder": "no/such/place"}, "no folder or list of videos at place"),
        ({"folder": "/no/such/place"}, "'place' lies outside the folders from which a graph may read clips"),
        ({"frames": 40}, "none of the 5 files of .* gives a clip .*40 frames at 3 fps need 13.00 s"),
        ({"folder": ""}, "no prepared data set 'set' in .* fill in folder"),
        ({"folder": "''"}, "fill in folder"),
        ({"name": "aux.1"}, "Windows keeps it for a device"),
        ({"name": 200 * "n"}, "choose a shorter one"),
        ({"name": "../escape"}, "cannot be a folder's name"),
    ],
)
def test_bad_folders_are_refused_in_words(demo, videos, tmp_path, changes, message):
    (tmp_path / "EMPTY").mkdir()
    if changes.get("folder") == "EMPTY":
        changes = {"folder": str(tmp_path / "EMPTY")}
    with pytest.raises(ValueError, match=message):
        prepared_by_node(demo, videos[0], **changes)


def test_other_settings_need_another_name(demo, videos):
    prepared_by_node(demo, videos[0])
    with pytest.raises(ValueError, match="set was begun with other settings \\(seed\\)"):
        prepared_by_node(demo, videos[0], seed=1)


def test_another_vae_needs_another_name(demo, videos):
    prepared_by_node(demo, videos[0])
    other = model.load("healthy")[2]
    with torch.no_grad():
        for weight in other.first_stage_model.parameters():
            weight.mul_(1.5)
    with pytest.raises(ValueError, match="set was begun with other settings \\(vae_weights\\)"):
        prepared_by_node((demo[0], demo[1], other), videos[0])


def test_the_host_sees_that_videos_or_the_set_have_changed(demo, videos, tmp_path, folders):
    """And not that a set was made of the same videos, or everything behind it would be made twice."""
    told, folder = training_nodes.PrepareClips.fingerprint_inputs, tmp_path / "some"
    folder.mkdir()
    ask = lambda: told(folder=f"'{folder}'", name="set", frames=4)
    seen = [ask()]
    (folder / "a.mp4").write_bytes((videos[0] / "0.mp4").read_bytes())
    seen.append(ask())
    unmade = told(folder="", name="set")
    prepared_by_node(demo, folder)
    assert ask() == seen[-1] and told(folder="", name="set") != unmade
    (folder / "a.txt").write_text("a boat")
    seen.append(ask())
    shutil.rmtree(folders / "output" / "cil" / "clips" / "set")
    seen.append(ask())
    assert len(set(seen)) == 4 and ask() == seen[-1] and told(folder="", name="") == told(name="")


def test_two_preparations_of_one_name_do_not_meet(demo, videos, folders, monkeypatch):
    tried = []

    def another(*args):
        if tried or not list(folders.rglob("*.lock")):
            return  # the search for videos, before anything is claimed
        tried.append(True)
        with pytest.raises(Claimed, match="set is being written by process"):
            prepared_by_node(demo, videos[0])

    monkeypatch.setattr(comfy.model_management, "throw_exception_if_processing_interrupted", another)
    assert prepared_by_node(demo, videos[0])[0].names == ["0.mp4", "1.mp4", "2.mp4"] and tried


def test_a_lora_file_that_is_none_is_named(svd, clips, folders):
    (folders / "loras" / "broken.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match="broken.safetensors cannot be read as a LoRA .*choose a safetensors file"):
        trained(svd, clips, existing_lora="broken.safetensors")


def test_from_videos_to_a_lora_on_the_demo_model(demo, videos):
    made = prepared_by_node(demo, videos[0])[0]
    lora = trained(demo[0], made, steps=1)[1]
    assert len(lora) % 3 == 0 and all(torch.isfinite(v).all() for v in lora.values())


def test_the_benchmark_measures_the_true_architecture():
    """Its network, without memory, is what the host reads an SVD checkpoint as."""
    import comfy.model_detection
    import comfy.supported_models

    from cil_pack.bench.training import UNET

    config = comfy.supported_models.SVD_img2vid(dict(UNET))
    config.set_inference_dtype(torch.float16, None)
    network = config.get_model({}, device="meta").diffusion_model
    state = {f"model.diffusion_model.{k}": v for k, v in network.state_dict().items()}
    read = comfy.model_detection.detect_unet_config(state, "model.diffusion_model.")
    assert {k: v for k, v in read.items() if k != "use_checkpoint" and UNET.get(k) != v} == {}
    assert type(comfy.model_detection.model_config_from_unet(state, "model.diffusion_model.")).__name__ == "SVD_img2vid"
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(1.5246e9, rel=1e-3)
