"""CILMotionGain: exact recovery of made leaks through the host's samplers, and D' = F + g (D - F) on every family."""

import inspect
import json

import comfy.ldm.models.autoencoder
import comfy.ldm.wan.vae
import comfy.patcher_extension
import comfy.utils
import comfy_extras.nodes_context_windows as windows
import comfy_extras.nodes_custom_sampler as custom
import family_models
import gaussian_video as video
import pytest
import sound_models
import tiny
import torch
from gaussian_video import BATCHED, FRAMES, KINDS
from host_patches import compiled, easy, lazy
from network_inputs import sample
from node_calls import run

import nodes as host_nodes
from cil_pack.nodes import motion_gain, motion_gain_run
from cil_pack.nodes.early_start import CILEarlyStart
from cil_pack.nodes.host import notes as host_notes
from cil_pack.nodes.host.evaluation import SamplingContext
from cil_pack.nodes.host.sampling import Sampling
from cil_pack.nodes.motion_gain import CILMotionGain
from cil_pack.nodes.timenoise import AS_SET, FIXED, TimeNoiseCondition

SEED, STEPS = 5, 24
DATA = video.Data()
NUMBERS = DATA.mean.numel()


@pytest.fixture(autouse=True)
def said(monkeypatch):
    notes = []
    for module in (motion_gain, motion_gain_run, host_notes):
        monkeypatch.setattr(module, "say", lambda node, text: notes.append(text))
    return notes


def gained(model, gain=1.4, end_as="sigma", end=0.0, shape="constant", reference="own first frame", protect="nothing", strength=1.0, **optional):
    return run(CILMotionGain, model, gain, end_as, end, shape, reference, protect, strength, **optional)[0]


# ---- exact recovery: made leaks on exact denoisers of Gaussian video ----


class Units:
    """A NOISE of chosen rows: none, and each unit vector, so that an affine sampler is known wholly."""

    seed = SEED

    def __init__(self, rows):
        self.rows = rows

    def generate_noise(self, latent):
        return self.rows


def sampled(kind, model, rows):
    """Clips [n, d] that the host's Euler makes from noises [n, d]."""
    layout = KINDS[kind][2]
    sampling = Sampling.of(model)
    sigmas = sampling.schedule("simple" if "flow" in kind else "karras", STEPS, sampling.sigma_max)
    guider_of = lambda: run(custom.BasicGuider, model, video.conditioning(DATA, layout))[0]
    sampler = run(custom.KSamplerSelect, "euler")[0]
    clips = rows.view(-1, FRAMES, *DATA.picture.shape).float()
    batches = list(clips) if layout == BATCHED else [clips.movedim(1, 2)]
    out = [run(custom.SamplerCustomAdvanced, Units(b), guider_of(), sampler, sigmas, {"samples": torch.zeros_like(b)})[0]["samples"] for b in batches]
    return torch.cat([o[None] if layout == BATCHED else o.movedim(2, 1) for o in out]).flatten(1).double()


def distribution(kind, model):
    """Mean and covariance of what the host samples: the sampler is affine in its noise, so unit vectors tell all."""
    rows = torch.cat([torch.zeros(1, NUMBERS), torch.eye(NUMBERS)])
    out = sampled(kind, model, rows)
    mean, a = out[0], out[1:] - out[0]
    return mean, a.T @ a


def far(a, b):
    """Relative distance of two (mean, covariance)."""
    return max(float((x - y).norm() / y.norm()) for x, y in zip(a, b))


LEAKS = {
    "0.2": lambda process, sigma: 0.2,
    "0.5": lambda process, sigma: 0.5,
    "fading": lambda process, sigma: 0.5 * float(process.noise(sigma) ** 2 / (process.signal(sigma) ** 2 + process.noise(sigma) ** 2)),
}


def curve_for(process, leak, sampling):
    """The slope 1 / (1 - l) as Leakage Probe would report it, at many levels."""
    sigmas = [sampling.sigma_max * 0.94**k for k in range(300)]
    sigmas = [s for s in sigmas if s > sampling.sigma_min * 0.9] if sampling.sigma_max > 1 else [k / 400 for k in range(400, 0, -1)]
    return json.dumps({"curve": {"sigma": sigmas, "slope": [1 / (1 - leak(process, s)) for s in sigmas]}})


@pytest.fixture(scope="module")
def exact():
    """Of a kind: (mean, covariance) of the exact model."""
    made = {}
    return lambda kind: made.setdefault(kind, distribution(kind, video.model(kind, DATA)))


@pytest.mark.parametrize("reference", ["own first frame", "image"])
@pytest.mark.parametrize("leak", LEAKS)
@pytest.mark.parametrize("kind", [k for k in KINDS if KINDS[k][2] != BATCHED])
def test_a_made_leak_is_undone_to_the_exact_models_distribution(kind, leak, reference, exact):
    """The first frame of every clip is the picture for certain, so the prediction's own is the image too."""
    process = Sampling.of(video.model(kind, DATA)).process
    of = lambda sigma: LEAKS[leak](process, sigma)
    leaky = video.model(kind, DATA, of)
    if leak == "fading":
        cured = gained(leaky, reference=reference, curve=curve_for(process, LEAKS[leak], Sampling.of(leaky)))
    else:
        cured = gained(leaky, 1 / (1 - of(0)), reference=reference)
    tolerance = 1e-2 if leak == "fading" else 2e-4  # the curve is linear between its levels
    assert far(distribution(kind, leaky), exact(kind)) > 0.1
    assert far(distribution(kind, cured), exact(kind)) < tolerance


@pytest.mark.parametrize("reference", ["own first frame", "image"])
def test_frames_as_batch_clip_by_clip(reference):
    kind = "EDM, frames as batch"
    rows = torch.randn(3, NUMBERS, generator=torch.Generator().manual_seed(1))
    leaky = video.model(kind, DATA, lambda sigma: 0.5)
    wanted, plain, cured = (sampled(kind, m, rows) for m in (video.model(kind, DATA), leaky, gained(leaky, 2.0, reference=reference)))
    assert torch.allclose(cured, wanted, atol=2e-4) and not torch.allclose(plain, wanted, atol=0.1)


def test_a_leak_towards_another_still_than_the_first_frame_wants_the_image(exact):
    """Where D's own first frame is not the picture, `own first frame` is no exact inverse and `image` is."""
    kind = "EDM"
    other = video.Data()
    other.mean = other.mean + torch.cat([torch.ones(DATA.picture.numel()), torch.zeros(NUMBERS - DATA.picture.numel())]).double()
    wanted, leaky = (video.model(kind, other, lambda s, l=l: l) for l in (0.0, 0.5))
    truth = distribution(kind, wanted)
    assert far(distribution(kind, gained(leaky, 2.0, reference="image")), truth) < 2e-4
    assert far(distribution(kind, gained(leaky, 2.0)), truth) > 1e-2


# ---- every family: the prediction handed to the sampler ----

EVERY = [name for name in family_models.TINY if not name.startswith("CogVideoX")]  # which the host's KSampler does not fit
GAIN = 1.5
KEPT = {"Wan 2.2 5B": [0], "Hunyuan I2V replace": [0], "LTXV": [0], "LTXV guide": [4], "Cosmos": [0], "Cosmos Predict2": [0], "SCAIL-2 continued": [0, 1]}
# the first latent is of its own kind: read in the host's encoders, see test_still_clips_in_the_hosts_codes
APART = {name for name in EVERY if name.startswith("Wan")} | {"Hunyuan 1.5 I2V", "Cosmos", "Cosmos Predict2"}
APART |= {"Phantom", "Bernini", "HuMo 17B", "HuMo 1.7B", "SCAIL", "SCAIL-2", "SCAIL-2 continued"}  # Wan's code too


class Handed:
    """A copy of a MODEL that notes the guider's prediction at each call: (sigma, D)."""

    def __init__(self, model):
        self.predictions = []
        self.model = model.clone()

        def note(executor, x, timestep, *args, **kwargs):
            out = executor(x, timestep, *args, **kwargs)
            self.predictions.append((float(timestep.flatten()[0]), out.clone()))
            return out

        self.model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.PREDICT_NOISE, "handed", note)


def ksampler(model, positive, negative, latent, steps=2, cfg=2.0, sampler="euler"):
    return host_nodes.KSampler().sample(model, SEED, steps, cfg, sampler, "simple", positive, negative, latent, 1.0)[0]["samples"]


def first_prediction(model, positive, negative, latent, cfg=2.0):
    handed = Handed(model)
    ksampler(handed.model, positive, negative, latent, 1, cfg)
    return handed.predictions[0][1]


def clips(x):
    """[T, C, h, w] or [B, C, T, h, w] -> [B, T, C, h, w]."""
    return x[None] if x.ndim == 4 else x.movedim(2, 1)


def expected(name, model, latent, d, gain=GAIN):
    """F + g (D - F) by hand; kept frames, and a first latent of its own kind, as they are."""
    d, kept = clips(d).double(), KEPT.get(name, [])
    first = int(name in APART)
    shown = clips(model.get_model_object("process_latent_in")(latent["samples"])).double() if first in kept else d
    still = shown[:, first : first + 1]
    out = still + gain * (d - still)
    out[:, kept] = d[:, kept]
    if name in APART:
        out[:, 0] = d[:, 0]
    return out


@pytest.mark.parametrize("name", EVERY)
def test_the_prediction_is_the_formula_and_kept_frames_stay(models, name):
    model, positive, negative, latent = models(name)
    plain, cured = (first_prediction(m, positive, negative, latent) for m in (model, gained(model, GAIN)))
    wanted = expected(name, model, latent, plain)
    assert (clips(cured) - wanted).abs().max() <= 1e-6 * wanted.abs().max()
    assert not torch.equal(cured, plain)
    if name in KEPT:
        before, after = (ksampler(m, positive, negative, latent) for m in (model, gained(model, GAIN)))
        assert torch.equal(after[:, :, KEPT[name]], before[:, :, KEPT[name]]) and not torch.equal(after, before)


@pytest.mark.parametrize("name", EVERY)
def test_neutral_settings_leave_the_model_as_it_came(models, name):
    model = models(name)[0]
    assert gained(model, 1.0) is model
    assert gained(model, 1.4, curve=json.dumps({"sigma": [1.0], "slope": [2.0]}), strength=0.0) is model


@pytest.mark.parametrize("name", ["SVD", "Wan 2.1 I2V", "LTXV"])
def test_above_the_levels_and_at_gain_1_of_a_curve_nothing_changes_to_the_bit(models, name, said):
    model, positive, negative, latent = models(name)
    plain = ksampler(model, positive, negative, latent)
    assert torch.equal(ksampler(gained(model, end_as="signal to noise", end=0.0), positive, negative, latent), plain)
    assert "nothing to do here" in said[-1]
    flat = json.dumps({"sigma": [0.9, 0.1], "slope": [1.0, 0.7]})
    assert torch.equal(ksampler(gained(model, curve=flat), positive, negative, latent), plain)
    assert "the curve proves no lack" in said[-1]


def test_below_1_it_calms(models):
    model, positive, negative, latent = models("SVD")
    spread = lambda m: float((lambda d: (d - d[:, :1]).square().mean())(clips(first_prediction(m, positive, negative, latent))))
    assert spread(gained(model, 0.5)) == pytest.approx(spread(model) / 4, rel=1e-3)
    assert spread(gained(model, 0.0)) < 1e-9 * spread(model)


@pytest.mark.parametrize("name", ["SVD", "Wan 2.1 I2V", "LTXV"])
@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_split_or_batched_and_at_any_cfg(models, name, cfg, monkeypatch):
    """With little memory the host asks for the two conditionings one after the other."""
    model, positive, negative, latent = models(name)
    together = first_prediction(gained(model, GAIN), positive, negative, latent, cfg)
    wanted = expected(name, model, latent, first_prediction(model, positive, negative, latent, cfg))
    monkeypatch.setattr(model.model, "memory_required", lambda *args, **kwargs: 1e30)
    apart = first_prediction(gained(model, GAIN), positive, negative, latent, cfg)
    for found in (together, apart):
        assert (clips(found) - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_at_cfg_1_the_negative_is_still_not_evaluated(models):
    model, positive, negative, latent = models("SVD")
    _, seen = sample(gained(model, GAIN), positive, negative, latent, steps=2, cfg=1.0)
    assert seen.rows == [[0], [0]]


@pytest.mark.parametrize("name", ["SVD", "Hunyuan I2V concat"])
def test_the_conditional_image_as_the_still(models, name):
    model, positive, negative, latent = models(name)
    plain, cured = (first_prediction(m, positive, negative, latent) for m in (model, gained(model, GAIN, reference="image")))
    image = positive[0][1]["concat_latent_image"]
    still = clips(model.get_model_object("process_latent_in")(image))[:, :1]
    assert torch.allclose(clips(cured), still + GAIN * (clips(plain) - still), atol=1e-5)


def test_an_encoded_still_for_codes_with_causal_time(models, said):
    model, positive, negative, latent = models("Wan 2.1 I2V")
    still = torch.randn(latent["samples"].shape, generator=torch.Generator().manual_seed(4))
    plain = first_prediction(model, positive, negative, latent)
    cured = first_prediction(gained(model, GAIN, reference="image", still={"samples": still}), positive, negative, latent)
    f = model.get_model_object("process_latent_in")(still)
    assert torch.allclose(cured, f + GAIN * (plain - f), atol=1e-5)
    without = first_prediction(gained(model, GAIN, reference="image"), positive, negative, latent)
    assert torch.allclose(clips(without), expected("Wan 2.1 I2V", model, latent, plain).float(), atol=1e-5)
    assert "needs `still` here" in said[-1]


def test_the_mean_over_time_as_the_still(models):
    for name, first in (("SVD", 0), ("Mochi", 0), ("Wan 2.1 I2V", 1)):
        model, positive, negative, latent = models(name)
        plain, cured = (clips(first_prediction(m, positive, negative, latent)) for m in (model, gained(model, GAIN, reference="mean over time")))
        f = plain[:, first:].mean(1, keepdim=True)
        assert torch.allclose(cured[:, first:], (f + GAIN * (plain - f))[:, first:], atol=1e-5)
        assert torch.equal(cured[:, :first], plain[:, :first])


def test_motion_goes_on_from_the_last_of_several_kept_frames(models):
    model, positive, negative, latent = models("LTXV")
    longer = {"samples": torch.randn(latent["samples"].shape, generator=torch.Generator().manual_seed(4)), "noise_mask": latent["noise_mask"].clone()}
    longer["noise_mask"][:, :, :2] = 0
    plain, cured = (clips(first_prediction(m, positive, negative, longer)) for m in (model, gained(model, GAIN)))
    f = clips(model.get_model_object("process_latent_in")(longer["samples"]))[:, 1:2]
    assert torch.allclose(cured[:, 2:], (f + GAIN * (plain - f))[:, 2:], atol=1e-5) and torch.equal(cured[:, :2], plain[:, :2])


# ---- with other patches, guiders and nodes ----


def test_dual_guidance_is_over_when_it_acts(models):
    """A post-CFG function would see half of it."""
    model, positive, negative, latent = models("SVD")
    sigmas, sampler = run(custom.BasicScheduler, model, "simple", 1, 1.0)[0], run(custom.KSamplerSelect, "euler")[0]
    found = []
    for m in (model, gained(model, GAIN)):
        handed = Handed(m)
        guider = run(custom.DualCFGGuider, handed.model, positive, negative, negative, 2.0, 3.0, "regular")[0]
        run(custom.SamplerCustomAdvanced, custom.Noise_RandomNoise(SEED), guider, sampler, sigmas, latent)
        found.append(clips(handed.predictions[0][1]))
    f = found[0][:, :1]
    assert torch.allclose(found[1], f + GAIN * (found[0] - f), atol=1e-5)


def test_after_a_guidance_patch_whichever_stands_first(models):
    model, positive, negative, latent = models("SVD")
    tripled = lambda m: patched_after_guidance(m, lambda args: args["denoised"] * 3)
    plain = clips(first_prediction(tripled(model), positive, negative, latent))
    f = plain[:, :1]
    for both in (tripled(gained(model, GAIN)), gained(tripled(model), GAIN)):
        assert torch.allclose(clips(first_prediction(both, positive, negative, latent)), f + GAIN * (plain - f), atol=1e-4)


def patched_after_guidance(model, function):
    out = model.clone()
    out.set_model_sampler_post_cfg_function(function)
    return out


@pytest.mark.parametrize("patch", [easy, lazy, compiled])
@pytest.mark.parametrize("order", ["ours first", "ours last"])
def test_caches_and_torch_compile(models, patch, order):
    model, positive, negative, latent = models("Wan 2.1 I2V")
    together = patch(gained(model, GAIN)) if order == "ours first" else gained(patch(model), GAIN)
    handed, heads = Handed(together), []
    counter = model.model.diffusion_model.head.register_forward_pre_hook(lambda *args: heads.append(1))
    result = ksampler(handed.model, positive, negative, latent, steps=6)
    counter.remove()
    wanted = expected("Wan 2.1 I2V", model, latent, first_prediction(model, positive, negative, latent))
    assert (clips(handed.predictions[0][1]) - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    assert torch.isfinite(result).all() and (len(heads) < 6 or patch is compiled)  # a cache really leaves steps out


def test_context_windows_hand_over_the_whole_clip(models):
    model, positive, negative, latent = models("Mochi")
    freenoise = {"freenoise": False} if "freenoise" in inspect.signature(windows.WanContextWindowsManualNode.execute).parameters else {}
    windowed = lambda m: windows.WanContextWindowsManualNode.execute(m, 5, 1, "standard_static", 1, False, "pyramid", **freenoise).args[0]
    plain, cured = (clips(first_prediction(windowed(m), positive, negative, latent)) for m in (model, gained(model, GAIN)))
    f = plain[:, :1]
    assert torch.allclose(cured, f + GAIN * (plain - f), atol=1e-5)


def test_with_early_start_timenoise_and_a_lora(models):
    """The others act where they always do; the prediction that they lead to is amplified."""
    model, positive, negative, latent = models("SVD")
    lora = {"diffusion_model.out.2.weight": (0.1 * torch.randn(model.model.diffusion_model.out[2].weight.shape),)}

    def others(m):
        m = m.clone()
        assert m.add_patches(lora, 1.0)
        m = run(TimeNoiseCondition, m, positive, negative, FIXED, AS_SET, 0.3, 5.0, 1, False, True)[0]
        return run(CILEarlyStart, m, "sigma", 50.0, True)[0]

    plain, cured = Handed(others(model)), Handed(others(gained(model, GAIN)))
    for handed in (plain, cured):
        ksampler(handed.model, positive, negative, latent)
    (sigma, d), (same, d2) = plain.predictions[0], cured.predictions[0]
    f = clips(d)[:, :1]
    assert sigma == same == 50.0
    assert torch.allclose(clips(d2), f + GAIN * (clips(d) - f), atol=1e-4)


def test_two_gains_multiply(models):
    model, positive, negative, latent = models("SVD")
    once, twice = gained(model, 1.5), gained(gained(model, 1.2), 1.25)
    assert torch.allclose(first_prediction(twice, positive, negative, latent), first_prediction(once, positive, negative, latent), atol=1e-5)


def test_two_stages_act_by_level(models, said):
    """Of Wan 2.2's two models each one amplifies what lies above the level in its own steps."""
    model, positive, negative, latent = models("Wan 2.2 14B I2V")
    shifted = model.clone()
    stage = lambda m, x, start, end, first: host_nodes.KSamplerAdvanced().sample(
        m, "enable" if first else "disable", SEED, 8, 1.0, "euler", "simple", positive, negative, x, start, end, "enable" if first else "disable"
    )[0]
    sigmas = Sampling.of(shifted).schedule("simple", 8, 1.0).tolist()
    end = (sigmas[5] + sigmas[6]) / 2
    both = [Handed(gained(shifted, GAIN, end=end)) for _ in range(2)]
    stage(both[1].model, stage(both[0].model, latent, 0, 4, True), 4, 10000, False)
    assert [s for h in both for s, _ in h.predictions] == pytest.approx(sigmas[:8])
    assert "at 4 of 4 steps" in said[-2] and "at 2 of 4 steps" in said[-1]


def test_the_sound_beside_a_video_stays(said):
    model, cond = sound_models.model(), tiny.conditioning()
    picture = torch.randn(sound_models.VIDEO, generator=torch.Generator().manual_seed(2))
    for latent in (sound_models.latent(), sound_models.keeping_the_first_frame(picture)):
        found = [
            comfy.utils.unpack_latents(first_prediction(m, cond, cond, latent, 1.0), [sound_models.VIDEO, sound_models.SOUND])
            for m in (model, gained(model, GAIN))
        ]
        (video_before, sound_before), (video_after, sound_after) = found
        assert torch.equal(sound_before, sound_after)
        before, after = clips(video_before), clips(video_after)
        f = clips(picture)[:, :1] if "noise_mask" in latent else before[:, :1]
        assert torch.allclose(after[:, 1:], (f + GAIN * (before - f))[:, 1:], atol=1e-5)
        result = ksampler(gained(model, GAIN), cond, cond, latent, cfg=1.0).unbind()[0]
        if "noise_mask" in latent:
            assert torch.allclose(result[:, :, 0], picture[:, :, 0], atol=1e-5)


@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m_sde", "uni_pc", "euler_cfg_pp", "lcm", "res_multistep"])
def test_any_sampler(models, sampler):
    model, positive, negative, latent = models("SVD")
    plain, cured = (ksampler(m, positive, negative, latent, 3, 2.0, sampler) for m in (model, gained(model, GAIN)))
    assert torch.isfinite(cured).all() and not torch.equal(cured, plain)
    assert torch.equal(cured, ksampler(gained(model, GAIN), positive, negative, latent, 3, 2.0, sampler))


def test_nothing_is_left_behind(models):
    """Neither the MODEL that came in, nor a guider that is used again."""
    model, positive, negative, latent = models("SVD")
    before, wrappers = ksampler(model, positive, negative, latent), len(model.wrappers)
    cured = gained(model, GAIN)
    one = ksampler(cured, positive, negative, latent)
    guider, sampler = run(custom.CFGGuider, cured, positive, negative, 2.0)[0], run(custom.KSamplerSelect, "euler")[0]
    sigmas = run(custom.BasicScheduler, model, "simple", 2, 1.0)[0]
    for _ in range(2):
        out = run(custom.SamplerCustomAdvanced, custom.Noise_RandomNoise(SEED), guider, sampler, sigmas, latent)[0]["samples"]
        assert torch.equal(out, one)
        assert not comfy.patcher_extension.get_all_wrappers(comfy.patcher_extension.WrappersMP.PREDICT_NOISE, guider.model_options, is_model_options=True)
    assert torch.equal(ksampler(model, positive, negative, latent), before) and len(model.wrappers) == wrappers


def test_several_clips_at_once_are_amplified_one_by_one(models):
    """Nodes that ask about clips together, frames as batch, as the probe does."""
    model, positive, _, latent = models("SVD")
    a, b = (torch.randn(latent["samples"].shape, generator=torch.Generator().manual_seed(k)) for k in (1, 2))
    answers = []

    def work(denoise, x0):
        (one,) = denoise([a], 5.0)
        answers.append((one, torch.cat(denoise([a, b], 5.0))[: len(a)]))

    SamplingContext(gained(model, GAIN), positive, None, 1.0, 0).run(a, [5.0], work)
    assert torch.allclose(*answers[0], atol=1e-5)


# ---- still clips in the host's codes ----


def random_encoder(name):
    """A small encoder of the host's own class with random weights: what it does to a still clip in time is in its build."""
    if name == "Wan":
        made = comfy.ldm.wan.vae.WanVAE(dim=8, z_dim=4, dim_mult=[1, 2, 2, 2], num_res_blocks=1, temperal_downsample=[False, True, True])
    elif name == "Hunyuan":
        made = comfy.ldm.models.autoencoder.AutoencoderKL(
            ddconfig={"double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": [1, 1, 1, 1], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0, "conv3d": True, "time_compress": 4}, embed_dim=4,
        )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    for parameter in made.parameters():
        draw = torch.randn(parameter.shape, generator=generator)
        parameter.data.copy_(draw / parameter[0].numel() ** 0.5 if parameter.ndim > 1 else 1 + 0.1 * draw)
    return made.eval()


@pytest.mark.parametrize("name, alike", [("Wan", False), ("Hunyuan", True)])
@torch.no_grad()
def test_still_clips_in_the_hosts_codes(name, alike):
    """Where the encoder repeats the first picture, a still clip is one latent repeated; where it pads with zeros, it is not."""
    still = torch.rand(1, 3, 1, 16, 16, generator=torch.Generator().manual_seed(1)).expand(-1, -1, 9, -1, -1)
    z = random_encoder(name).encode(still.contiguous())
    z = z[0] if isinstance(z, tuple) else z
    assert z.shape[2] == 3
    assert torch.allclose(z, z[:, :, :1].expand_as(z), atol=1e-4) == alike


# ---- words and bad input ----


def test_what_it_says(models, said):
    model, positive, negative, latent = models("SVD")
    out = gained(model, 1.4, "signal to noise", 3.2)
    assert said[-1] == "SVD: motion x 1.4 at high noise levels"
    ksampler(out, positive, negative, latent, steps=10)
    assert "motion x 1.4 at" in said[-1] and "of 10 steps, down to sigma" in said[-1]
    gained(model, 1.4, still=latent)
    assert "still is not used" in said[-1]
    gained(model, 1.4, curve=json.dumps({"sigma": [5.0], "slope": [1.2]}))
    assert "not used while a curve is connected" in said[-1]
    gained(model, 1.0)
    assert said[-1] == "nothing is changed: the setting is neutral"


def test_what_is_no_video_is_left_alone(models, said):
    pictures, latent = tiny.model("eps")
    cond = tiny.conditioning()
    assert torch.equal(ksampler(gained(pictures), cond, cond, latent), ksampler(pictures, cond, cond, latent))
    assert "a batch of pictures is no clip" in said[-1]
    model, positive, negative, _ = models("Mochi")
    one = {"samples": torch.zeros(1, 12, 1, 8, 8)}
    assert torch.equal(ksampler(gained(model), positive, negative, one), ksampler(model, positive, negative, one))
    assert "one frame" in said[-1]


def test_two_latents_with_causal_time_say_why_nothing_happens(models, said):
    model, positive, negative, _ = models("Wan 2.1 I2V")
    positive, negative, latent = family_models.wan.WanImageToVideo.execute(
        positive, negative, family_models.WAN21_VAE, 64, 64, 5, 1, start_image=family_models.picture()
    ).args
    plain, cured = (first_prediction(m, positive, negative, latent) for m in (model, gained(model)))
    assert torch.allclose(plain, cured, atol=1e-6) and "nothing can be told of its motion" in said[-1]


@pytest.mark.parametrize(
    "changes, message",
    [({"gain": -0.1}, "gain takes numbers from 0 to 5, but -0.1"), ({"end": -1.0}, "end takes numbers from 0 to 20000, but -1.0"), ({"end_as": "fraction", "end": 3.2}, "0 to 1, but 3.2"), ({"gain": float("nan")}, "but nan"), ({"curve": "no"}, "a curve of Leakage Probe"), ({"still": {"samples": torch.zeros(1, 7, 4, 8, 8)}}, "7 channels, but this model's latents have 4")],
)  # fmt: skip
def test_bad_values_are_errors_in_this_node(models, changes, message):
    with pytest.raises(ValueError, match=message):
        gained(models("SVD")[0], **changes)


def test_a_still_of_another_size_is_refused_with_both(models):
    model, positive, negative, latent = models("Wan 2.1 I2V")
    wrong = gained(model, reference="image", still={"samples": torch.zeros(1, 16, 1, 8, 8)})
    with pytest.raises(ValueError, match=r"1 latent frames of \(8, 8\), but the video has 4 of \(8, 8\)"):
        ksampler(wrong, positive, negative, latent)
