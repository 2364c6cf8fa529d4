"""MODELs of other packs: one that brings its image in its options, one with motion modules and another beta schedule."""

import copy

import comfy.patcher_extension
import comfy.samplers
import comfy_extras.nodes_custom_sampler as custom
import comfy_extras.nodes_model_advanced as advanced_sampling
import foreign_models as foreign
import pytest
import tiny
import torch
from foreign_models import draw
from node_calls import run

import nodes as host_nodes
from cil_pack.cil import moments as cil_moments
from cil_pack.cil.low_pass import down_up
from cil_pack.cil.randomness import generator_for
from cil_pack.nodes import early_start, low_pass, probe_clip, timenoise
from cil_pack.nodes.analytic_init import AnalyticInitLatent
from cil_pack.nodes.early_start import CILEarlyStart
from cil_pack.nodes.host.evaluation import SamplingContext
from cil_pack.nodes.host.models import cloned, model_family
from cil_pack.nodes.host.sampling import Sampling
from cil_pack.nodes.host.schedule import TRAILING
from cil_pack.nodes.low_pass import LowPassCondition
from cil_pack.nodes.schedule import LAYOUTS, TruncatedSigmaSchedule
from cil_pack.nodes.timenoise import AS_SET, CLEAN, FIXED, MEDIAN, TimeNoiseCondition

SEED, LEVEL, START, VARIANCE = 5, 0.3, 0.9, 0.6
MAKE = {"Native DynamiCrafter": foreign.native_dynamicrafter, "PIA": foreign.pia}


@pytest.fixture(autouse=True)
def said(monkeypatch):
    notes = []
    for module in (early_start, low_pass, timenoise):
        monkeypatch.setattr(module, "say", lambda node, text: notes.append(text))
    return notes


@pytest.fixture(params=MAKE)
def kind(request):
    return request.param


def early(model, start_as="fraction", start=START, analytic=True, moments=None):
    return run(CILEarlyStart, model, start_as, start, analytic, moments)[0]


def noised(model, mode=FIXED, level=LEVEL, tokens=False):
    positive, negative, _ = foreign.conditioning()
    return run(TimeNoiseCondition, model, positive, negative, mode, AS_SET, level, 5.0, SEED, tokens, False)[0]


def low_passed(model, strength=2.0):
    positive, negative, _ = foreign.conditioning()
    return run(LowPassCondition, model, positive, negative, "down and up", strength, 1.0, 0.5)[0]


def some_moments():
    mean = torch.linspace(-1, 1, 4 * 2 * 4 * 4).reshape(4, 2, 4, 4)
    return cil_moments.Moments(mean, VARIANCE, "sd")


class Seen:
    """Every call of the network while it is open: x [rows, 4, h, w] as the network gets it, and its other inputs."""

    def __init__(self, model):
        self.network, self.calls = model.model.diffusion_model, []

    def __enter__(self):
        note = lambda network, args, kwargs: self.calls.append({"x": args[0].clone(), **{k: copy.copy(v) for k, v in kwargs.items()}})
        self.hook = self.network.register_forward_pre_hook(note, with_kwargs=True)
        return self.calls

    def __exit__(self, *_):
        self.hook.remove()


def sample(model, steps=2, cfg=2.0):
    with Seen(model) as calls:
        out = host_nodes.KSampler().sample(model, SEED, steps, cfg, "euler", "simple", *foreign.conditioning(), 1.0)[0]["samples"]
    return out, calls


def explicit(model, moments, start=START, steps=2):
    """TruncatedSigmaSchedule and AnalyticInitLatent into SamplerCustomAdvanced -> (video, calls, sigma)."""
    positive, negative, latent = foreign.conditioning()
    sigmas, sigma, _ = run(TruncatedSigmaSchedule, model, "simple", steps, "fraction", start, LAYOUTS[0])
    mean, noise, _ = run(AnalyticInitLatent, model, latent, sigmas, SEED, 1.0, moments)
    guider = run(custom.CFGGuider, model, positive, negative, 2.0)[0]
    sampler = run(custom.KSamplerSelect, "euler")[0]
    with Seen(model) as calls:
        out = run(custom.SamplerCustomAdvanced, noise, guider, sampler, sigmas, mean)[0]["samples"]
    return out, calls, sigma


def image_of(kind, call):
    """The image's latents of the conditioned clip, [T, 4, h, w]."""
    return call["cc_concat"][0].movedim(1, 0) if kind == "Native DynamiCrafter" else call["x"][-foreign.FRAMES :, 5:]


def frames_of(kind, call):
    """The noisy frames of one clip as the network gets them, [T, 4, h, w]."""
    return call["x"][0].movedim(1, 0) if kind == "Native DynamiCrafter" else call["x"][: foreign.FRAMES, :4]


def test_they_are_known(kind, said):
    model = MAKE[kind]()
    assert model_family(model).key == kind
    noised(model)
    assert said[-1].startswith(f"{kind}, fixed: level 0.3 on the image latents that the model brings along")
    low_passed(model)
    assert "on the image latents that the model brings along" in said[-1]


def test_without_its_motion_module_pia_is_an_unknown_model():
    model = foreign.pia()
    model.additional_models["ADE"][0].model.mm_info.mm_format = "AnimateDiff"
    assert model_family(model).key == "unknown"


def test_the_first_x_is_eq_5(kind):
    """mu_p + sigma_p eps in float64; the network gets it divided by sqrt(1 + sigma^2)."""
    moments = some_moments()
    model = MAKE[kind]()
    one, calls, sigma = explicit(model, moments)
    shape = (foreign.FRAMES, 4, foreign.HEIGHT, foreign.WIDTH)
    eps = torch.randn(shape, generator=torch.manual_seed(SEED)).double()
    expected = cil_moments.fit(moments, shape).double() + (VARIANCE + sigma**2) ** 0.5 * eps
    x = frames_of(kind, calls[0]).double() * (1 + sigma**2) ** 0.5
    assert (x - expected).abs().max() <= 1e-5 * expected.abs().max()
    two, _ = sample(early(model, moments=moments))
    assert torch.equal(one, two)


def test_the_native_dynamicrafter_starts_at_the_papers_fraction_and_pia_is_left_alone(said):
    model = foreign.native_dynamicrafter()
    out = run(TruncatedSigmaSchedule, model, "simple", 2, "family preset", 1.0, LAYOUTS[0])
    assert out[2] == pytest.approx(0.96)
    model = foreign.pia()
    assert torch.equal(sample(early(model, "family preset", 1.0))[0], sample(model)[0])
    assert "nobody has measured an early start for PIA" in said[-1]


@pytest.mark.parametrize("mode", [FIXED, MEDIAN])
def test_time_noise_is_on_the_image_with_the_stated_level_and_on_nothing_else(kind, mode):
    model = MAKE[kind]()
    _, plain = sample(model)
    _, seen = sample(noised(model, mode))
    per_step = len(plain) // 2
    for at, (before, after) in enumerate(zip(plain, seen)):
        sigma = float(after["transformer_options"]["sigmas"][0])
        time = Sampling.of(model).fraction(sigma)
        level = LEVEL if mode == FIXED else LEVEL / (1 + 2.718281828459045 ** -(2 * time**5 - 1))
        key = (SEED, "image") if mode == FIXED else (SEED, "image", sigma)
        eps = torch.randn((1, 4, 1, 8, 12) if kind != "PIA" else (1, 4, 8, 12), generator=generator_for(*key)).reshape(1, 4, 8, 12)
        assert torch.allclose(image_of(kind, after), image_of(kind, before) + level * eps, atol=1e-5)
        if at < per_step:  # later the video has become another
            assert torch.equal(frames_of(kind, after), frames_of(kind, before))
        for name in before.keys() - {"x", "cc_concat", "transformer_options"}:
            assert not torch.is_tensor(before[name]) or torch.equal(after[name], before[name]), name
    if kind == "PIA":
        both = seen[0]["x"].chunk(2)  # the same for cond and uncond, and the channel before it stays
        assert torch.equal(both[0][:, 4:], both[1][:, 4:]) and torch.equal(seen[0]["x"][:, 4], plain[0]["x"][:, 4])


def test_time_noise_on_the_native_image_tokens():
    model = foreign.native_dynamicrafter()
    (_, plain), (_, seen) = sample(model, 1), sample(noised(model, tokens=True), 1)
    eps = torch.randn(1, 16, 8, generator=generator_for(SEED, "tokens"))
    for before, after in zip(plain, seen):
        assert torch.allclose(after["img_emb"], before["img_emb"] + LEVEL * eps, atol=1e-6)


def test_time_noise_leaves_the_empty_frames_between_two_pictures():
    model = foreign.native_dynamicrafter()
    model.model_options["transformer_options"]["conditioning"]["c_concat"][1:-1] = 0
    _, calls = sample(noised(model), 1)
    image = image_of("Native DynamiCrafter", calls[0])
    assert not image[1:-1].any() and image[0].any() and image[-1].any()


def test_low_pass(kind):
    model = MAKE[kind]()
    (_, plain), (_, seen) = sample(model, 1), sample(low_passed(model), 1)
    assert torch.allclose(image_of(kind, seen[0]), down_up(image_of(kind, plain[0]), 2.0), atol=1e-5)
    assert torch.equal(frames_of(kind, seen[0]), frames_of(kind, plain[0]))


def test_little_memory_gives_the_same_noise(kind, monkeypatch):
    model = MAKE[kind]()
    _, together = sample(noised(model, MEDIAN), 1)
    monkeypatch.setattr(model.model, "memory_required", lambda *args, **kwargs: 1e30)
    _, apart = sample(noised(model, MEDIAN), 1)
    assert len(apart) == 2
    for call in apart:
        assert torch.equal(image_of(kind, call), image_of(kind, together[0]))


def test_neutral_settings_change_nothing_to_the_bit(kind):
    model = MAKE[kind]()
    plain = sample(model)[0]
    assert noised(model, CLEAN) is model and noised(model, level=0.0) is model and low_passed(model, 1.0) is model
    assert torch.equal(sample(early(model, start=1.0, analytic=False))[0], plain)
    assert torch.equal(sample(cloned(model))[0], plain)


def test_the_probe_asks_about_one_clip_at_a_time(kind):
    """Both count the frames of what they are given, so two clips in one batch would be one clip of twice the length."""
    model = MAKE[kind]()
    positive, negative, latent = foreign.conditioning()
    clip = draw(2, *latent["samples"].shape)
    sampling = Sampling.of(model)
    levels = [(fraction, sampling.sigma(fraction)) for fraction in (0.9, 0.4)]
    with Seen(model) as calls:
        found = probe_clip.measure(SamplingContext(model, positive, negative, 2.0, 0), sampling.process, clip, clip.flip(0), levels, 7, 1, lambda: None)
    inside = model.get_model_object("process_latent_in")(clip)
    for level, (_, sigma) in enumerate(levels):
        noisy = (inside + sigma * probe_clip.probe.noise_for(inside, 7, level, 0)) / (1 + sigma**2) ** 0.5
        assert any(torch.allclose(frames_of(kind, call), noisy, atol=1e-5) for call in calls)
    # PIA: cond and uncond of one clip, one after the other in the batch
    assert all(call["x"].shape[0] == (12 if kind == "PIA" else 1) and image_of(kind, call).any() for call in calls)
    assert len(found.predictions) == 2 and all(torch.isfinite(p).all() for p in found.predictions)


def test_the_early_start_takes_the_noise_that_a_node_before_it_has_made():
    """AnimateDiff-Evolved draws its own noise types within the same wrapper; behind it ours scales them."""
    model, moments, own = foreign.pia(), some_moments(), draw(8, foreign.FRAMES, 4, foreign.HEIGHT, foreign.WIDTH)

    def with_noise_of_its_own(executor, noise, *args, **kwargs):
        return executor(own, *args, **kwargs)

    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, "ADE", with_noise_of_its_own)
    _, calls = sample(early(model, moments=moments), 1)
    sigma = Sampling.of(model).sigma(START)
    expected = cil_moments.fit(moments, own.shape) + (VARIANCE + sigma**2) ** 0.5 * own
    assert torch.allclose(frames_of("PIA", calls[0]) * (1 + sigma**2) ** 0.5, expected, rtol=1e-4, atol=1e-4)


# ---- the clone ----


def networks_of(model):
    """Every network that a MODEL's options hold on to."""
    held = vars(model.model_options["model_function_wrapper"].__self__).values()
    return {id(patcher.model) for patcher in held}


def test_our_clone_has_no_second_network_and_reads_its_own_options(monkeypatch):
    model = foreign.native_dynamicrafter()
    forbidden = lambda self, memo: pytest.fail("the network was copied")
    monkeypatch.setattr(foreign.VideoNetwork, "__deepcopy__", forbidden, raising=False)
    for out in (early(model), noised(model), low_passed(noised(early(model)))):
        assert out is not model and out.model is model.model and networks_of(out) == {id(model.model)}
        assert out.model_options["model_function_wrapper"].__self__.model_patcher is out
    known = out.model_options["transformer_options"]["conditioning"]
    known["c_concat"] = torch.zeros_like(known["c_concat"])
    assert image_of("Native DynamiCrafter", sample(model, 1)[1][0]).any()
    assert not image_of("Native DynamiCrafter", sample(early(out, start=1.0, analytic=False), 1)[1][0]).any()


def test_the_hosts_clone_before_ours_does_not_weigh_on_it():
    """Where a node of the host in between has copied the network, ours lets go of that copy."""
    model = foreign.native_dynamicrafter()
    try:
        copied = model.clone()
    except TypeError:
        pytest.skip("this host cannot clone such a model: it copies the network's configuration, which cannot be copied")
    out = noised(copied)
    assert networks_of(out) == {id(model.model)}
    assert torch.equal(sample(out)[0], sample(noised(model))[0])


def test_the_model_that_came_in_is_untouched():
    model = foreign.native_dynamicrafter()
    options, function = model.model_options, model.model_options["model_function_wrapper"]
    known = options["transformer_options"]["conditioning"]
    parts, before = list(options["transformer_options"]), dict(known)
    image = known["c_concat"].clone()
    sample(low_passed(noised(early(model))))
    assert model.model_options is options and options["model_function_wrapper"] is function
    assert function.__self__.model_patcher is model
    assert list(options["transformer_options"]) == parts and options["transformer_options"]["conditioning"] is known
    assert known.keys() == before.keys() and all(known[name] is before[name] for name in known)
    assert torch.equal(known["c_concat"], image) and not model.wrappers.get("apply_model")


def test_a_clone_that_fails_leaves_the_model_as_it_was(monkeypatch):
    model = foreign.native_dynamicrafter()
    options = model.model_options
    monkeypatch.setattr(model, "clone", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cloned(model)
    assert model.model_options is options and "model_function_wrapper" in options


def test_other_model_functions_are_copied_as_the_host_does():
    class Counter:
        calls = 0

        def forward(self, apply_model, call):
            self.calls += 1
            return apply_model(call["input"], call["timestep"], **call["c"])

    model, _ = tiny.model("eps")
    model.set_model_unet_function_wrapper(Counter().forward)
    shared = [
        m.model_options["model_function_wrapper"].__self__ is model.model_options["model_function_wrapper"].__self__ for m in (early(model), model.clone())
    ]
    assert shared[0] == shared[1]


# ---- the sampling that another node has patched in ----


def test_the_patched_beta_schedule_counts_everywhere():
    """Sigmas from the schedule's definition, not from the host's object."""
    model = foreign.pia()
    betas = torch.linspace(0.00085, 0.012, 1000, dtype=torch.float64)
    alphas = (1 - betas).cumprod(0)
    table = ((1 - alphas) / alphas).sqrt()
    unpatched = float(model.model.model_sampling.sigmas[899])
    _, calls, sigma = explicit(model, some_moments())
    assert sigma == pytest.approx(float(table[899]), rel=1e-5) and sigma != pytest.approx(unpatched, rel=1e-2)
    assert float(calls[0]["transformer_options"]["sigmas"][0]) == pytest.approx(sigma)
    _, calls = sample(early(model, analytic=False))
    assert float(calls[0]["transformer_options"]["sigmas"][0]) == pytest.approx(sigma)
    timesteps = run(TruncatedSigmaSchedule, model, TRAILING, 50, "fraction", 0.94, LAYOUTS[0])[0]
    assert float(timesteps[0]) == pytest.approx(float(table[939]), rel=1e-5)


def test_a_patch_after_the_early_start_counts_too():
    """The node may stand before the one that patches the sampling: the sampler's MODEL decides."""
    model, _ = tiny.model("eps")
    later = foreign.rescheduled(early(model, analytic=False), "linear", linear_end=0.02)
    spy = tiny.Spy(later)
    host_nodes.KSampler().sample(
        spy.model, SEED, 2, 1.0, "euler", "simple", tiny.conditioning(), tiny.conditioning(), {"samples": torch.zeros(6, 4, 8, 12)}, 1.0
    )
    assert spy.sigmas[0] == pytest.approx(Sampling.of(later).sigma(START)) and spy.sigmas[0] != pytest.approx(Sampling.of(model).sigma(START), rel=1e-2)


@pytest.mark.parametrize("patch", ["lcm", "zsnr", "cosine"])
def test_patched_samplings_start_where_their_own_schedule_says(patch):
    """LCM's 50 timesteps, zero terminal SNR and a beta schedule with little noise at the end."""
    model, latent = tiny.model("eps")
    if patch == "cosine":
        patched = foreign.rescheduled(model, "cosine")
    else:
        patched = advanced_sampling.ModelSamplingDiscrete().patch(model, "lcm" if patch == "lcm" else "eps", patch == "zsnr")[0]
    sampling = Sampling.of(patched)
    table = sampling.host.sigmas
    for scheduler in comfy.samplers.SCHEDULER_NAMES:
        sigmas, sigma, fraction = run(TruncatedSigmaSchedule, patched, scheduler, 6, "fraction", START, LAYOUTS[0])
        assert sigma == float(table[round(START * len(table)) - 1]) and fraction == pytest.approx(START)
        assert float(sigmas[0]) == sigma and float(sigmas[1]) < sigma
    spy = tiny.Spy(early(patched))
    host_nodes.KSampler().sample(spy.model, SEED, 4, 1.0, "euler", "simple", tiny.conditioning(), tiny.conditioning(), latent, 1.0)
    assert spy.sigmas[0] == pytest.approx(sigma)


def test_a_pipeline_of_another_pack_is_refused_in_words():
    """ComfyUI-I2VGenXL hands a diffusers pipeline around as a MODEL."""

    class I2VGenXLPipeline:
        pass

    for node, settings in ((CILEarlyStart, ("fraction", START, True)), (TruncatedSigmaSchedule, ("simple", 4, "fraction", START, LAYOUTS[0]))):
        with pytest.raises(ValueError, match="model takes a model that KSampler takes, but something of the type I2VGenXLPipeline came"):
            run(node, I2VGenXLPipeline(), *settings)
