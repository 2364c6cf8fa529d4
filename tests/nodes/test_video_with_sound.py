"""A latent of video and sound together: the video starts early from its moments, the sound at the same level from plain noise."""

import copy
import json

import comfy.utils
import comfy_extras.nodes_custom_sampler as custom
import pytest
import sound_models
import tiny
import torch
from node_calls import run

import nodes as host_nodes
from cil_pack.cil import moments as cil_moments
from cil_pack.nodes import early_start
from cil_pack.nodes.analytic_init import AnalyticInitLatent
from cil_pack.nodes.early_start import CILEarlyStart
from cil_pack.nodes.estimate import EstimateMoments
from cil_pack.nodes.host.models import model_family
from cil_pack.nodes.host.sampling import Sampling
from cil_pack.nodes.motion import DIS
from cil_pack.nodes.probe import LeakageProbe
from cil_pack.nodes.probe_clip import FROZEN
from cil_pack.nodes.sweep import StartSweep
from cil_pack.nodes.timenoise import TimeNoiseCondition

SEED, FRACTION, VARIANCE = 5, 0.7, 0.6
pytestmark = pytest.mark.skipif(not hasattr(comfy.utils, "pack_latents"), reason="this host has no latents of video and sound")
SHAPES = [sound_models.VIDEO, sound_models.SOUND]


@pytest.fixture(autouse=True)
def said(monkeypatch):
    notes = []
    monkeypatch.setattr(early_start, "say", lambda node, text: notes.append(text))
    return notes


@pytest.fixture(scope="module")
def model():
    return sound_models.model()


@pytest.fixture(scope="module")
def moments():
    mean = torch.linspace(-1, 1, 128 * 2 * 3 * 4).reshape(128, 2, 3, 4)
    return cil_moments.Moments(mean, VARIANCE, "ltxav")


def early(model, start=FRACTION, analytic=True, moments=None, start_as="fraction"):
    return run(CILEarlyStart, model, start_as, start, analytic, moments)[0]


def ksampler(model, latent, steps=3):
    cond = tiny.conditioning()
    return host_nodes.KSampler().sample(model, SEED, steps, 1.0, "euler", "simple", cond, cond, latent, 1.0)[0]["samples"]


def parts(x):
    return comfy.utils.unpack_latents(x, SHAPES)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.unbind(), b.unbind(), strict=True))


def test_it_is_a_known_family_that_is_left_alone_until_asked(model, said):
    assert model_family(model).key == "LTX-2"
    assert same(ksampler(early(model, start_as="family preset"), sound_models.latent()), ksampler(model, sound_models.latent()))
    assert "nobody has measured" in said[-1]


def test_neutral_settings_change_nothing_to_the_bit(model):
    assert same(ksampler(early(model, 1.0, analytic=False), sound_models.latent()), ksampler(model, sound_models.latent()))


def test_the_video_starts_from_eq_5_and_the_sound_from_plain_noise(model, moments, said):
    spy = tiny.Spy(early(model, moments=moments))
    ksampler(spy.model, sound_models.latent())
    sigma = spy.sigmas[0]
    assert sigma == pytest.approx(Sampling.of(model).sigma(FRACTION), rel=1e-6) and len(spy.sigmas) == 3
    generator = torch.manual_seed(SEED)
    eps = [torch.randn(shape, generator=generator).double() for shape in SHAPES]
    mean = cil_moments.fit(moments, sound_models.VIDEO).double()
    video, sound = (part.double() for part in parts(spy.first_x))
    expected = (1 - sigma) * mean + ((1 - sigma) ** 2 * VARIANCE + sigma**2) ** 0.5 * eps[0]
    assert (video - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert (sound - sigma * eps[1]).abs().max() <= 1e-5 * eps[1].abs().max()
    assert "sound" in said[-1] and "starts at sigma" in said[-1]


def test_the_naive_start_is_plain_noise_in_both(model):
    spy = tiny.Spy(early(model, analytic=False))
    ksampler(spy.model, sound_models.latent())
    generator = torch.manual_seed(SEED)
    for part, shape in zip(parts(spy.first_x), SHAPES):
        assert torch.allclose(part, spy.sigmas[0] * torch.randn(shape, generator=generator), rtol=1e-5, atol=1e-6)


class NoNoise:
    """What newer hosts take where noise is switched off; this one's knows no sound."""

    seed = 0

    def generate_noise(self, latent):
        return sound_models.latent()["samples"]


def test_the_explicit_nodes_give_the_same_to_the_bit(model, moments):
    one = ksampler(early(model, moments=moments), sound_models.latent())
    sampling = Sampling.of(model)
    sigmas = sampling.schedule("simple", 3, sampling.sigma(FRACTION))
    mean, noise, noised = run(AnalyticInitLatent, model, sound_models.latent(), sigmas, SEED, 1.0, moments)
    sampler = run(custom.KSamplerSelect, "euler")[0]
    guider = run(custom.BasicGuider, model, tiny.conditioning())[0]
    assert same(run(custom.SamplerCustomAdvanced, noise, guider, sampler, sigmas, mean)[0]["samples"], one)
    without_noise = run(custom.SamplerCustomAdvanced, NoNoise(), guider, sampler, sigmas, noised)[0]["samples"]
    for a, b in zip(without_noise.unbind(), one.unbind(), strict=True):
        assert torch.allclose(a, b, atol=1e-5 * float(b.abs().max()))


def test_a_kept_frame_stays_kept(model, moments, said):
    picture = torch.randn(sound_models.VIDEO, generator=torch.Generator().manual_seed(2))
    latent = sound_models.keeping_the_first_frame(picture)
    plain, spy = ksampler(model, latent), tiny.Spy(early(model, moments=moments))
    video, _ = ksampler(spy.model, latent).unbind()
    assert torch.allclose(video[:, :, 0], picture[:, :, 0], atol=1e-5) and not torch.equal(video, plain.unbind()[0])
    for x in spy.x:
        assert torch.equal(parts(x)[0][:, :, 0], picture[:, :, 0])
    assert "mask keeps" in said[-1]


def test_a_given_sound_without_a_mask_stays_and_the_video_starts_anew(model, moments, said):
    latent = sound_models.latent(sound=torch.ones(sound_models.SOUND))
    anew, spy = tiny.Spy(early(model, moments=moments)), tiny.Spy(early(model, moments=moments))
    ksampler(anew.model, sound_models.latent())
    ksampler(spy.model, latent)
    (fresh, _), (video, sound) = parts(anew.first_x), parts(spy.first_x)
    assert torch.allclose(video, fresh, atol=1e-5)
    generator = torch.manual_seed(SEED)
    eps = [torch.randn(shape, generator=generator) for shape in SHAPES][1]
    assert torch.allclose(sound, (1 - spy.sigmas[0]) + spy.sigmas[0] * eps, atol=1e-5)


@pytest.mark.parametrize("gain", [1.0, 4.0])
def test_a_noised_latent_allows_for_what_the_host_makes_of_the_sound(model, moments, gain):
    """MiniMax H3 multiplies the sound of a LATENT on its way in; the noise is not."""
    loud = model.clone()
    sampling = copy.copy(model.get_model_object("model_sampling"))
    sampling.audio_scale = gain
    loud.add_object_patch("model_sampling", sampling)
    sigmas = torch.tensor([0.9, 0.5, 0.0])
    *_, plain = run(AnalyticInitLatent, model, sound_models.latent(), sigmas, SEED, 1.0, moments)
    *_, noised = run(AnalyticInitLatent, loud, sound_models.latent(), sigmas, SEED, 1.0, moments)
    (video, sound), (plain_video, plain_sound) = noised["samples"].unbind(), plain["samples"].unbind()
    assert torch.equal(video, plain_video) and torch.allclose(sound * gain, plain_sound)


def left_alone(model, flat, mask, **host):
    """Whether an early start passes a packed latent on with its sigmas as they came."""
    wrapper = early_start.EarlyStart("fraction", FRACTION, True, None, None)

    class Executor:
        class_obj = type("Guider", (), {"model_patcher": model})

        def __call__(self, noise, latent_image, sampler, sigmas, *args, **kwargs):
            return sigmas

    sigmas = torch.tensor([1.0, 0.5, 0.0])
    return wrapper(Executor(), torch.randn(flat.shape), flat, None, sigmas, mask, None, True, SEED, **host) is sigmas


def test_a_mask_that_the_host_does_not_take_apart_is_left_alone(model, said):
    flat, shapes = comfy.utils.pack_latents(sound_models.latent()["samples"].unbind())
    assert left_alone(model, flat, torch.ones(1, 1, 6, 8), latent_shapes=shapes)
    assert "update ComfyUI" in said[-1]


def test_a_packed_latent_whose_parts_the_host_does_not_tell_is_left_alone(said):
    flat, _ = comfy.utils.pack_latents([torch.zeros(1, 16, 2, 4, 4), torch.zeros(1, 8, 10)])
    assert left_alone(tiny.model("flow")[0], flat, None)
    assert "not a video" in said[-1]


def seen(model, latent):
    """-> (what a KSampler makes, [video, sound] as the network saw them first)."""
    calls = []
    hook = model.model.diffusion_model.register_forward_pre_hook(lambda network, args: calls.append([part.clone() for part in args[0]]))
    try:
        return ksampler(model, latent), calls[0]
    finally:
        hook.remove()


def test_timenoise_lands_on_the_kept_frame_alone(model):
    """The picture inside x is noised where the network sees it, the sound beside it is not, and the video keeps it."""
    picture = torch.randn(sound_models.VIDEO, generator=torch.Generator().manual_seed(2))
    latent = sound_models.keeping_the_first_frame(picture)
    cond = tiny.conditioning()
    noisy = run(TimeNoiseCondition, model, cond, cond, "fixed", "as set", 0.5, 5.0, 0, False, True)[0]
    (_, before), (result, after) = seen(model, latent), seen(noisy, latent)
    gap = after[0] - before[0]
    assert gap[:, :, 0].std() == pytest.approx(0.5, rel=0.1) and not gap[:, :, 1:].any()
    assert torch.equal(after[1], before[1])
    assert torch.allclose(result.unbind()[0][:, :, 0], picture[:, :, 0], atol=1e-5)


def test_the_probe_says_why_it_cannot(model):
    clip = sound_models.latent(video=torch.randn(sound_models.VIDEO))
    with pytest.raises(ValueError, match="video and sound together"):
        run(LeakageProbe, model, FROZEN, 1.0, 3, 0.5, 1.0, 1, 0, DIS, positive=tiny.conditioning(), latent=clip)


def test_moments_are_those_of_the_video(model):
    clips = torch.randn(3, *sound_models.VIDEO[1:], generator=torch.Generator().manual_seed(4)) + 0.5
    settings = {"folder": "", "frames": 16, "fps": 3.0, "width": 512, "height": 320, "seed": 0, "flip": False}
    moments = run(EstimateMoments, model=model, latents=sound_models.latent(video=clips), **settings)[0]
    assert moments.space == "ltxav" and moments.count == 3
    assert torch.allclose(moments.mean, clips.mean(0), atol=1e-5)


class FakeVAE:
    """The first three channels as a picture."""

    def decode(self, video):
        return video[0, :3].movedim(0, -1).sigmoid()


def test_a_sweep_samples_both_and_scores_the_video(model):
    guider = run(custom.BasicGuider, model, tiny.conditioning())[0]
    sampler = run(custom.KSamplerSelect, "euler")[0]
    sheet, plot, report, _ = run(StartSweep, guider, sampler, sound_models.latent(), FakeVAE(), "1, 0.8", "fraction", True, "simple", 2, SEED, 1, DIS)
    runs = json.loads(report)["runs"]
    assert [r["start"] for r in runs] == [1.0, 0.8] and runs[0]["motion_score"] != runs[1]["motion_score"]
    assert sheet.std() > 0.01 and plot.std() > 0.01
