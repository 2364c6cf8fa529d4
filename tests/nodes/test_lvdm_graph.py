"""DynamiCrafter and VideoCrafter1 sampled in the host, with its own nodes and the pack's."""

import comfy.patcher_extension
import comfy_extras.nodes_custom_sampler as custom
import comfy_extras.nodes_model_advanced as advanced_nodes
import lvdm_tiny
import lvdm_weights
import pytest
import tiny
import torch
from lvdm_ddim import ddim, published
from node_calls import run

import nodes as host_nodes
from cil_pack.cil import moments as cil_moments
from cil_pack.cil import schedules
from cil_pack.demo import model as demo_model
from cil_pack.nodes.analytic_init import AnalyticInitLatent
from cil_pack.nodes.dynamicrafter import WRAPPED, DynamiCrafterConditioning, DynamiCrafterWrapperNoise, fitted
from cil_pack.nodes.early_start import CILEarlyStart
from cil_pack.nodes.host.evaluation import SamplingContext
from cil_pack.nodes.host.sampling import Sampling
from cil_pack.nodes.host.schedule import TRAILING
from cil_pack.nodes.lvdm.model import VARIANTS
from cil_pack.nodes.schedule import LAYOUTS, TruncatedSigmaSchedule

SEED = 7
NAMES = [v.name for v in VARIANTS]
SPACE = "sd"


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def variant_of(name):
    return next(v for v in VARIANTS if v.name == name)


def noticing(model):
    """-> (clone, list) that notes every call of the network, through the host's DIFFUSION_MODEL wrappers."""
    calls, clone = [], model.clone()

    def note(executor, x, timesteps, context, *args, **kwargs):
        calls.append({"x": x, "timesteps": timesteps, "context": context, **kwargs})
        return executor(x, timesteps, context, *args, **kwargs)

    clone.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "note", note)
    return clone, calls


def advanced(model, positive, noise, sigmas, latent):
    guider = run(custom.BasicGuider, model, positive)[0]
    return run(custom.SamplerCustomAdvanced, noise, guider, run(custom.KSamplerSelect, "euler")[0], sigmas, latent)[0]["samples"]


def ksample(model, positive, negative, latent, cfg=1.0, steps=3):
    return host_nodes.KSampler().sample(model, SEED, steps, cfg, "euler", "simple", positive, negative, latent, 1.0)[0]["samples"]


def some_moments():
    return cil_moments.Moments(lvdm_weights.draw((4, 1, 8, 12), 5), 0.808, SPACE)


def test_what_the_network_is_given(name):
    model, calls = noticing(lvdm_tiny.model(name))
    positive, negative, latent = lvdm_tiny.picture_conditioning()
    ksample(model, positive, negative, latent, steps=1)
    call, extras = calls[0], positive[0][1]
    frames = lvdm_weights.FRAMES
    assert call["num_video_frames"] == frames and call["timesteps"].tolist() == [999.0] * frames
    assert call["fps"].tolist() == [24] * frames
    assert torch.equal(call["clip_fea"], extras["clip_vision_output"].last_hidden_state.expand(frames, -1, -1))
    assert torch.equal(call["context"], positive[0][0].expand(frames, -1, -1))
    noise = torch.randn(latent["samples"].shape, generator=torch.manual_seed(SEED))
    assert torch.allclose(call["x"][:, :4], noise, atol=1e-5)  # the ordinary start is unit noise
    if name.startswith("DynamiCrafter"):
        image = 0.18215 * extras["concat_latent_image"]
        assert torch.allclose(call["x"][:, 4:], image.expand(frames, -1, -1, -1), atol=1e-6)
    else:
        assert call["x"].shape[1] == 4


def test_the_host_samples_what_the_authors_ddim_samples(name):
    """Network, conditioning, noise process and trailing timesteps together, against DDIM on the bare network."""
    model = lvdm_tiny.model(name)
    positive, _, latent = lvdm_tiny.picture_conditioning()
    sigmas = run(TruncatedSigmaSchedule, model, TRAILING, 5, "fraction", 1.0, LAYOUTS[0])[0]
    found = advanced(model, positive, custom.Noise_RandomNoise(SEED), sigmas, latent)

    frames, extras = lvdm_weights.FRAMES, positive[0][1]
    each = lambda v: v.expand(frames, *v.shape[1:])
    image = [0.18215 * each(extras["concat_latent_image"])] if name.startswith("DynamiCrafter") else []

    @torch.no_grad()
    def network(x, t):
        x = torch.cat([x.float(), *image], dim=1)
        times = torch.full((frames,), float(t))
        tokens = each(extras["clip_vision_output"].last_hidden_state)
        return model.model.diffusion_model(
            x, times, each(positive[0][0]), clip_fea=tokens, fps=torch.full((frames,), 24), num_video_frames=frames, transformer_options={}
        ).double()

    x = torch.randn(latent["samples"].shape, generator=torch.manual_seed(SEED)).double()
    expected = ddim(variant_of(name), network, x, schedules.trailing(1000, 5))
    assert (0.18215 * found - expected).abs().max() < 1e-4 * expected.abs().max()
    authors = ddim(variant_of(name), network, x, schedules.trailing(1000, 5), end=0)  # they stop at the first timestep: 2.9 % of unit noise is left
    assert 0.01 < (authors - expected).square().mean().sqrt() < published(variant_of(name))[1][0]  # less, for some of the signal is there instead


@pytest.mark.parametrize("start", [0.96, 0.6])
def test_the_first_x_is_the_stated_gaussian(name, start):
    """mean + sqrt(sigma'^2 + Var) eps, with sigma' from the published tables."""
    model = lvdm_tiny.model(name)
    positive, _, latent = lvdm_tiny.picture_conditioning()
    alpha, sigma, s = published(variant_of(name))
    at = round(1000 * start) - 1
    host_sigma = float(sigma[at] / (alpha[at] * s[at]))
    sigmas = run(TruncatedSigmaSchedule, model, "simple", 3, "fraction", start, LAYOUTS[0])[0]
    assert float(sigmas[0]) == pytest.approx(host_sigma, rel=1e-5)
    mean, noise, _ = run(AnalyticInitLatent, model, latent, sigmas, SEED, 1.0, some_moments())
    spy = tiny.Spy(model)
    advanced(spy.model, positive, noise, sigmas, mean)
    eps = torch.randn(latent["samples"].shape, generator=torch.manual_seed(SEED)).double()
    expected = some_moments().mean.movedim(1, 0).double() + (host_sigma**2 + 0.808) ** 0.5 * eps
    assert (spy.first_x - expected).abs().max() < 1e-5 * expected.abs().max()


def test_early_start_uses_the_paper_s_preset(name):
    model = lvdm_tiny.model(name)
    positive, negative, latent = lvdm_tiny.picture_conditioning()
    spy = tiny.Spy(run(CILEarlyStart, model, "family preset", 1.0, True)[0])
    result = ksample(spy.model, positive, negative, latent)
    assert spy.sigmas[0] == pytest.approx(Sampling.of(model).sigma(0.96), rel=1e-6)
    assert torch.isfinite(result).all() and result.shape == latent["samples"].shape
    neutral = run(CILEarlyStart, model, "fraction", 1.0, False)[0]
    assert torch.equal(ksample(neutral, positive, negative, latent), ksample(model, positive, negative, latent))


def test_guidance_is_the_same_in_one_call_and_in_two(name, monkeypatch):
    model, calls = noticing(lvdm_tiny.model(name))
    positive, negative, latent = lvdm_tiny.picture_conditioning()
    together = ksample(model, positive, negative, latent, cfg=7.5)
    assert all(len(c["x"]) == 2 * lvdm_weights.FRAMES for c in calls)
    monkeypatch.setattr(type(model.model), "memory_required", lambda *args, **kwargs: 1e15)
    calls.clear()
    apart = ksample(model, positive, negative, latent, cfg=7.5)
    assert all(len(c["x"]) == lvdm_weights.FRAMES for c in calls)
    assert (together - apart).abs().max() < 1e-4 * apart.abs().max()


def test_two_clips_in_one_call_do_not_see_each_other(name):
    """As the probe calls a model: clips side by side in the batch."""
    model = lvdm_tiny.model(name)
    positive, _, latent = lvdm_tiny.picture_conditioning()
    context = SamplingContext(model, positive, None, 1.0, SEED)
    clips = [lvdm_weights.draw(tuple(latent["samples"].shape), k) for k in (1, 2)]
    answers = {}

    def work(denoise, x0):
        context._together = lambda n, x: True
        answers["together"] = denoise(clips, 3.0)
        context._together = lambda n, x: False
        answers["apart"] = denoise(clips, 3.0)

    context.run(latent["samples"] + 1, [3.0], work)
    for a, b in zip(answers["together"], answers["apart"]):
        assert (a - b).abs().max() < 1e-4 * b.abs().max()


def test_patches_of_the_host_s_nodes_act(name):
    model = lvdm_tiny.model(name)
    positive, negative, latent = lvdm_tiny.picture_conditioning()
    plain = ksample(model, positive, negative, latent, cfg=3.0)
    rescaled = advanced_nodes.RescaleCFG().patch(model, 0.7)[0]
    assert not torch.equal(ksample(rescaled, positive, negative, latent, cfg=3.0), plain)
    unchanged = advanced_nodes.RescaleCFG().patch(model, 0.0)[0]
    assert (ksample(unchanged, positive, negative, latent, cfg=3.0) - plain).abs().max() < 1e-3 * plain.abs().max()
    seen = []
    patched = model.clone()
    patched.set_model_output_block_patch(lambda h, skip, options: (seen.append((h.shape, options["block"])) or h, skip))
    patched.set_model_attn1_patch(lambda q, k, v, options: (seen.append(q.shape[1]) or q, k, v))
    assert torch.equal(ksample(patched, positive, negative, latent, cfg=3.0), plain)
    blocks = [s[1] for s in seen if isinstance(s, tuple)][:4]
    assert blocks == [("output", i) for i in range(4)]
    sequences = {s for s in seen if isinstance(s, int)}
    assert sequences == {8 * 12, 4 * 6}  # places, never the frames of a temporal layer


def test_other_numbers_of_frames_and_odd_sizes_sample(name):
    model = lvdm_tiny.model(name)
    for frames, height, width in ((1, 8, 8), (7, 9, 13)):
        positive, negative, latent = lvdm_tiny.picture_conditioning(frames, height, width)
        result = ksample(model, positive, negative, latent, steps=1)
        assert result.shape == (frames, 4, height, width) and torch.isfinite(result).all()


def test_conditioning_without_a_picture_is_an_error(name):
    model = lvdm_tiny.model(name)
    positive, negative, latent = lvdm_tiny.picture_conditioning()
    text = [[positive[0][0], {}]]
    with pytest.raises(ValueError, match=f"{name} needs a picture.*DynamiCrafter Conditioning"):
        ksample(model, text, negative, latent)


def demo_sockets():
    _, clip_vision, vae = demo_model.load("healthy")
    text = [[lvdm_weights.draw((1, 77, 24), 1), {"pooled_output": None}]]
    return clip_vision, vae, text


def condition(frames=4, end_image=None, image=None, fps=24):
    clip_vision, vae, text = demo_sockets()
    image = torch.rand(2, 96, 200, 3, generator=torch.Generator().manual_seed(0)) if image is None else image
    return run(DynamiCrafterConditioning, text, text, clip_vision, vae, image, 128, 64, frames, fps, end_image), (clip_vision, vae, text, image)


def test_conditioning_is_the_authors_arrangement():
    (positive, negative, latent), (clip_vision, vae, text, image) = condition(fps=10)
    picture = fitted(image, 128, 64)
    assert picture.shape == (1, 64, 128, 3)
    for cond in (positive, negative):
        assert torch.equal(cond[0][0], text[0][0]) and cond[0][1]["fps"] == 10 and "pooled_output" in cond[0][1]
        assert torch.equal(cond[0][1]["concat_latent_image"], vae.encode(picture))
    seen = positive[0][1]["clip_vision_output"].last_hidden_state
    assert torch.equal(seen, clip_vision.encode_image(picture, crop=False).last_hidden_state)
    grey = clip_vision.encode_image(torch.full((1, 64, 128, 3), 0.5), crop=False).last_hidden_state
    assert torch.equal(negative[0][1]["clip_vision_output"].last_hidden_state, grey)
    assert latent["samples"].shape == (4, 4, 8, 16) and not latent["samples"].any()
    assert text[0][1].keys() == {"pooled_output"}  # what came in is left as it was


def test_an_end_frame_stands_at_the_ends_only():
    end = torch.rand(1, 64, 128, 3, generator=torch.Generator().manual_seed(1))
    (positive, _, _), (_, vae, _, image) = condition(end_image=end)
    concat = positive[0][1]["concat_latent_image"]
    assert concat.shape[0] == 4 and not concat[1:3].any()
    assert torch.equal(concat[:1], vae.encode(fitted(image, 128, 64))) and torch.equal(concat[3:], vae.encode(end))
    with pytest.raises(ValueError, match="at least 2 frames, but frames is 1"):
        condition(frames=1, end_image=end)


def test_an_end_frame_reaches_the_interpolation_model_and_is_refused_elsewhere():
    model, calls = noticing(lvdm_tiny.model("DynamiCrafter 512"))
    positive, negative, latent = lvdm_tiny.picture_conditioning()
    ends = torch.zeros(4, 4, 8, 12)
    ends[0], ends[3] = 1.0, 2.0
    conditions = [[[c[0][0], {**c[0][1], "concat_latent_image": ends}]] for c in (positive, negative)]
    ksample(model, *conditions, latent, steps=1)
    assert torch.allclose(calls[0]["x"][:, 4:], 0.18215 * ends)
    with pytest.raises(ValueError, match="made for 4 frames but the latent has 6"):
        ksample(model, *conditions, {"samples": torch.zeros(6, 4, 8, 12)}, steps=1)
    with pytest.raises(ValueError, match="VideoCrafter1 cannot be given an end frame"):
        ksample(lvdm_tiny.model("VideoCrafter1 512"), *conditions, latent, steps=1)


def test_a_picture_is_covered_and_cropped_to_its_middle():
    wide = torch.zeros(1, 10, 40, 4)
    wide[:, :, 15:25] = 1
    assert fitted(wide, 10, 10).shape == (1, 10, 10, 3) and fitted(wide, 10, 10).min() == 1
    assert fitted(torch.ones(3, 7, 5, 3), 64, 128).shape == (1, 128, 64, 3)


@pytest.mark.parametrize("name", list(WRAPPED))
def test_the_wrapper_is_given_the_start_in_x_t(name):
    """mu_p = alpha s E, sigma_p^2 = alpha^2 s^2 Var + sigma^2 at index M - 1, from the published tables."""
    moments = some_moments()
    noise = run(DynamiCrafterWrapperNoise, name, 0.94, 600, 320, 24, moments)[0]
    alpha, sigma, s = (float(v[939]) for v in published(variant_of(name)))
    assert noise["M"] == 940 and noise["analytic_init"] is True
    assert noise["mu_p"].shape == (1, 4, 24, 40, 72)  # 600 is rounded down to 576, as the wrapper does
    expected = alpha * s * cil_moments.fit(moments, (1, 4, 24, 40, 72))
    assert (noise["mu_p"] - expected).abs().max() < 1e-5 * expected.abs().max()
    assert noise["sigma_p"].shape == (1, 1, 1, 1, 1) and noise["sigma_p"].dtype == torch.float32
    assert float(noise["sigma_p"]) == pytest.approx((alpha**2 * s**2 * 0.808 + sigma**2) ** 0.5, rel=1e-6)


def test_the_wrapper_s_ordinary_start_is_unit_noise():
    noise = run(DynamiCrafterWrapperNoise, "DynamiCrafter 512", 1.0, 512, 320, 16)[0]
    assert noise["M"] == 1000 and float(noise["sigma_p"]) == pytest.approx(1, abs=1e-6)
    assert noise["mu_p"].abs().max() < 1e-3
