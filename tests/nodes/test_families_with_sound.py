"""Early start and TimeNoise on the host's own models of video and sound: LTX-2 to 2.5, MiniMax H3. Hosts without them: test_video_with_sound.py."""

import comfy.utils
import comfy_extras.nodes_custom_sampler as custom
import family_models
import pytest
import tiny
import torch
from node_calls import execute

import nodes as host_nodes
from cil_pack.cil import moments as cil_moments
from cil_pack.cil.randomness import generator_for
from cil_pack.nodes import timenoise
from cil_pack.nodes.early_start import CILEarlyStart
from cil_pack.nodes.families import family_of
from cil_pack.nodes.host.sampling import Sampling

if not family_models.SOUND:
    pytest.skip("this host has no model of video and sound", allow_module_level=True)

SEED, FRACTION, VARIANCE, LEVEL = 5, 0.8, 0.6, 0.3
EVERY, LTX = list(family_models.SOUND), [name for name in family_models.SOUND if name.startswith("LTX")]
H3 = "MiniMax H3"
needs_h3 = pytest.mark.skipif(H3 not in EVERY, reason="this host has no MiniMax H3")


def early(model, start=FRACTION, analytic=True, moments=None):
    return CILEarlyStart.PREPARE_CLASS_CLONE(None).execute(model, "fraction", start, analytic, moments).args[0]


def ksampler(model, positive, negative, latent, steps=2, cfg=2.0):
    return host_nodes.KSampler().sample(model, SEED, steps, cfg, "euler", "simple", positive, negative, latent, 1.0)[0]["samples"]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.unbind(), b.unbind(), strict=True))


def parts(latent, flat):
    return comfy.utils.unpack_latents(flat, [part.shape for part in latent["samples"].unbind()])


def noised(model, positive, negative, mode, level=LEVEL, preset=timenoise.AS_SET, tell=True):
    return timenoise.TimeNoiseCondition.PREPARE_CLASS_CLONE(None).execute(model, positive, negative, mode, preset, level, 5.0, 11, False, tell).args[0]


class Seen:
    """What the network of a MODEL is given: [([video, sound], its other inputs)]."""

    def __init__(self, model):
        self.calls, self.rows = [], []

        def note(network, args, kwargs):
            self.calls.append(([part.clone() for part in args[0]], kwargs))
            self.rows.append(list(kwargs["transformer_options"]["cond_or_uncond"]))

        self.hook = model.model.diffusion_model.register_forward_pre_hook(note, with_kwargs=True)

    def payload(self, cond=0):
        """MiniMax H3's own inputs in the first call of a conditioning."""
        return next(kwargs["minimax_payload"] for (_, kwargs), rows in zip(self.calls, self.rows) if cond in rows)


def seen(model, positive, negative, latent):
    """-> (what a KSampler makes in one step, what the network saw)."""
    network = Seen(model)
    try:
        return ksampler(model, positive, negative, latent, 1), network
    finally:
        network.hook.remove()


@pytest.mark.parametrize("name", EVERY)
def test_the_table_knows_it_and_neutral_settings_change_nothing(models, name):
    model, positive, negative, latent = models(name)
    assert family_of(model.model).key == family_models.SOUND[name].family
    plain = ksampler(model, positive, negative, latent)
    assert same(ksampler(early(model, 1.0, analytic=False), positive, negative, latent), plain)
    for mode, level in ((timenoise.CLEAN, LEVEL), (timenoise.FIXED, 0.0), (timenoise.MIX, 0.0)):
        assert same(ksampler(noised(model, positive, negative, mode, level), positive, negative, latent), plain)


@pytest.mark.parametrize("name", EVERY)
def test_the_video_starts_from_eq_5_and_the_sound_from_plain_noise(models, name):
    model, positive, negative, latent = models(name)
    video, sound = latent["samples"].unbind()
    space = family_of(model.model).space
    mean = torch.linspace(-1, 1, video.shape[1] * 2 * 2 * 2).reshape(video.shape[1], 2, 2, 2)
    spy = tiny.Spy(early(model, moments=cil_moments.Moments(mean, VARIANCE, space)))
    ksampler(spy.model, positive, negative, latent)
    sigma, generator = spy.sigmas[0], torch.manual_seed(SEED)
    assert sigma == pytest.approx(Sampling.of(model).sigma(FRACTION), rel=1e-6)
    eps = [torch.randn(part.shape, generator=generator).double() for part in (video, sound)]
    fitted = cil_moments.fit(cil_moments.Moments(mean, VARIANCE, space), video.shape).double()
    expected = (1 - sigma) * fitted + ((1 - sigma) ** 2 * VARIANCE + sigma**2) ** 0.5 * eps[0]
    first_video, first_sound = (part.double() for part in parts(latent, spy.first_x[:1]))
    free = slice(1, None) if name in LTX else slice(None)  # LTX's first frame is kept
    assert (first_video - expected)[:, :, free].abs().max() <= 2e-5 * expected.abs().max()
    assert (first_sound - sigma * eps[1]).abs().max() <= 2e-5 * eps[1].abs().max()


@pytest.mark.parametrize("name", EVERY)
def test_all_sampler_nodes_agree(models, name):
    model, positive, negative, latent = models(name)
    patched = early(model)
    one = ksampler(patched, positive, negative, latent)
    two = host_nodes.KSamplerAdvanced().sample(patched, "enable", SEED, 2, 2.0, "euler", "simple", positive, negative, latent, 0, 10000, "disable")[0]
    sigmas, sampler = execute(custom.BasicScheduler, patched, "simple", 2, 1.0).args[0], execute(custom.KSamplerSelect, "euler").args[0]
    three = execute(custom.SamplerCustom, patched, True, SEED, 2.0, positive, negative, sampler, sigmas, latent).args[0]
    guider = execute(custom.CFGGuider, patched, positive, negative, 2.0).args[0]
    four = execute(custom.SamplerCustomAdvanced, custom.Noise_RandomNoise(SEED), guider, sampler, sigmas, latent).args[0]
    assert all(same(one, other["samples"]) for other in (two, three, four))


@pytest.mark.parametrize("name", LTX)
def test_the_kept_frame_is_noised_for_the_network_alone(models, name):
    """One draw of the seed on the first frame's channels; nothing on later frames, nothing on the sound; the video keeps it."""
    model, positive, negative, latent = models(name)
    out = noised(model, positive, negative, timenoise.FIXED)
    plain, before = seen(model, positive, negative, latent)
    result, after = seen(out, positive, negative, latent)
    (video, sound), (noisy, beside) = before.calls[0][0], after.calls[0][0]
    eps = torch.randn((1, *video.shape[1:]), generator=generator_for(11, "image"))
    assert torch.allclose(noisy[:, :, :1], video[:, :, :1] + LEVEL * eps[:, :, :1], atol=2e-5)
    assert torch.equal(noisy[:, :, 1:], video[:, :, 1:]) and torch.equal(beside, sound)
    kept, free = (torch.equal(a, b) for a, b in zip(*([v[:, :, :1], v[:, :, 1:]] for v in (result.unbind()[0], plain.unbind()[0]))))
    assert kept and not free
    assert torch.allclose(ksampler(early(model), positive, negative, latent).unbind()[0][:, :, :1], latent["samples"].unbind()[0][:, :, :1], atol=1e-5)


@needs_h3
def test_h3s_keyframes_are_noised_and_nothing_else(models):
    model, positive, negative, latent = models(H3)
    _, before = seen(model, positive, negative, latent)
    _, after = seen(noised(model, positive, negative, timenoise.FIXED), positive, negative, latent)
    plain, told = before.payload(), after.payload()
    assert len(plain["cond_video_latents"]) == 2
    for clean, noisy in zip(plain["cond_video_latents"], told["cond_video_latents"], strict=True):
        eps = torch.randn(clean.shape, generator=generator_for(11, "image"))
        assert torch.allclose(noisy, clean + LEVEL * eps, atol=1e-6)
    assert "visual_cond_noise_aug" not in told and set(told) == set(plain)
    assert all(torch.equal(a, b) for a, b in zip(before.calls[0][0], after.calls[0][0]))
    assert "cond_video_latents" not in after.payload(cond=1)
    assert positive[0][1]["minimax_keyframes"][0]["latent"] is plain["cond_video_latents"][0]  # what came in is untouched


@needs_h3
def test_mix_is_h3s_own_level_told_to_it(models, monkeypatch):
    """Told 1 - level, it mixes by itself; its own preset is what it does without us, to the bit. Not told, the latents are mixed here."""
    notes = []
    monkeypatch.setattr(timenoise, "say", lambda node, text: notes.append(text))
    model, positive, negative, latent = models(H3)
    plain, before = seen(model, positive, negative, latent)
    own, _ = seen(noised(model, positive, negative, timenoise.FIXED, preset=timenoise.H3), positive, negative, latent)
    assert same(own, plain) and "by itself" in notes[-1]
    strong = timenoise.Noised(timenoise.FIXED_MIX, timenoise.TimeNoise(0.25), 11, False, True)
    told = timenoise.patched(model, "test", timenoise.ConditionPatcher(family_of(model.model), strong.at))
    by_setting = [[text, {**more, "minimax_visual_cond_noise_aug": 0.75}] for text, more in positive]
    result, after = seen(told, positive, negative, latent)
    assert after.payload()["visual_cond_noise_aug"] == 0.75
    assert all(a is b for a, b in zip(after.payload()["cond_video_latents"], before.payload()["cond_video_latents"]))
    assert same(result, seen(model, by_setting, negative, latent)[0]) and not same(result, plain)
    _, untold = seen(noised(model, positive, negative, timenoise.FIXED, preset=timenoise.H3, tell=False), positive, negative, latent)
    clean, mixed = (s.payload()["cond_video_latents"][0] for s in (before, untold))
    eps = torch.randn(clean.shape, generator=generator_for(11, "image"))
    assert torch.allclose(mixed, 0.999 * clean + 0.001 * eps, atol=1e-6) and not torch.equal(mixed, clean)
    noised(model, positive, negative, timenoise.FIXED)
    assert "knows mixed noise only" in notes[-1] and "keyframes" in notes[-1]
