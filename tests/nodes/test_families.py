"""Early start and Analytic-Init on every family's own host class: the first x, kept frames, every sampler node."""

import comfy.model_base
import comfy.utils
import comfy_extras.nodes_custom_sampler as custom
import family_models
import lvdm_tiny
import network_inputs
import pytest
import tiny
import torch
from node_calls import run

import nodes as host_nodes
from cil_pack.cil import moments as cil_moments
from cil_pack.nodes import early_start, probe_clip
from cil_pack.nodes.analytic_init import AnalyticInitLatent
from cil_pack.nodes.early_start import ANEW, AUTO, CILEarlyStart
from cil_pack.nodes.families import FAMILIES, channels, family_of
from cil_pack.nodes.host.evaluation import SamplingContext
from cil_pack.nodes.host.sampling import Sampling
from cil_pack.nodes.lvdm import model as lvdm

SEED, FRACTION, VARIANCE = 5, 0.8, 0.6
EVERY = list(family_models.TINY)
# on the tested host perhaps not there; LTXAV: see sound_models.py
OF_NEWER_HOSTS = {"LTXAV", "HunyuanVideo15", "HunyuanVideo15_SR_Distilled", "WAN22_Animate", "WAN22_S2V", "WAN21_HuMo", "WAN21_SCAIL", "WAN21_SCAIL2"}
OF_NEWER_HOSTS |= {"WAN_Animate2", "WAN22_WanDancer", "CogVideoX", "Kandinsky5", "MiniMaxH3"}
KEPT = {"Wan 2.2 5B": [0], "Hunyuan I2V replace": [0], "LTXV": [0], "LTXV guide": [4], "Cosmos": [0], "Cosmos Predict2": [0], "SCAIL-2 continued": [0, 1]}
KEPT = {name: frames for name, frames in KEPT.items() if name in EVERY}
UNSCALED = [name for name in EVERY if name.startswith("CogVideoX")]  # sampled by VOIDSampler alone


@pytest.fixture(autouse=True)
def said(monkeypatch):
    notes = []
    monkeypatch.setattr(early_start, "say", lambda node, text: notes.append(text))
    return notes


def early(model, start_as="fraction", start=FRACTION, analytic=True, moments=None, layout=AUTO):
    return run(CILEarlyStart, model, start_as, start, analytic, moments, layout)[0]


def some_moments(model, latent):
    """A mean with structure, in the model's own space."""
    count = latent["samples"].shape[1]
    mean = torch.linspace(-1, 1, count * 2 * 4 * 4).reshape(count, 2, 4, 4)
    return cil_moments.Moments(mean, VARIANCE, family_of(model.model).space)


def ksampler(model, positive, negative, latent, steps=2, seed=SEED):
    if type(model.model).__name__ == "CogVideoX":
        return network_inputs.own_sampler(model, positive, negative, latent, steps, seed)
    return host_nodes.KSampler().sample(model, seed, steps, 2.0, "euler", "simple", positive, negative, latent, 1.0)[0]["samples"]


def closed_form(name, sigma):
    """alpha and sigma of the forward process in the host's space, by hand."""
    if name in UNSCALED:
        return 1 / (1 + sigma**2) ** 0.5, sigma / (1 + sigma**2) ** 0.5
    return (1.0, sigma) if name in ("SVD", "SV3D u", "SV3D p", "Cosmos", "Cosmos Predict2") else (1 - sigma, sigma)


def free_frames(name, samples):
    dim = 0 if samples.ndim == 4 else 2
    return [i for i in range(samples.shape[dim]) if i not in KEPT.get(name, [])]


def frames_of(samples, frames):
    return samples[frames] if samples.ndim == 4 else samples[:, :, frames]


def test_the_table_recognises_every_model(models):
    for name, entry in family_models.TINY.items():
        assert family_of(models(name)[0].model).key == entry.family, name


def test_the_tables_classes_exist_and_nothing_stands_behind_its_parent():
    """In the host, or among the pack's own. An entry after its parent's would never be reached."""
    seen = []
    for family in FAMILIES:
        for name in sorted(family.classes):
            cls = getattr(comfy.model_base, name, None) or getattr(lvdm, name, None)
            if cls is None and name in OF_NEWER_HOSTS:
                continue
            assert not [other for other in seen if issubclass(cls, other)], name
            seen.append(cls)


def test_layouts():
    assert channels("mask4 image", 20, 16) == {"mask": (0, 4), "image": (4, 16)}
    assert channels("control mask4 image", 36, 16) == {"control": (0, 16), "mask": (16, 4), "image": (20, 16)}
    assert channels("mask4 image", 52, 48) == {"mask": (0, 4), "image": (4, 48)}
    assert channels("control mask4 image", 36, 16)["image"] == channels("control16 mask4 image16", 36, 24)["image"]
    assert channels("image", 20, 16) is None


@pytest.mark.parametrize("name", EVERY)
def test_the_first_x_is_eq_5_where_it_is_free(models, name):
    """mu_p + sigma_p eps of Eq. 5 in float64, from nothing but the closed form and the seed."""
    model, positive, negative, latent = models(name)
    moments = some_moments(model, latent)
    spy = tiny.Spy(early(model, moments=moments))
    ksampler(spy.model, positive, negative, latent)
    samples, sigma = latent["samples"], spy.sigmas[0]
    assert sigma == pytest.approx(Sampling.of(model).sigma(FRACTION), rel=1e-6)
    signal, noise = closed_form(name, sigma)
    mean = cil_moments.fit(moments, samples.shape).double()
    eps = torch.randn(samples.shape, generator=torch.manual_seed(SEED)).double()
    expected = signal * mean + (signal**2 * VARIANCE + noise**2) ** 0.5 * eps
    frames = free_frames(name, samples)
    x = spy.first_x[: samples.shape[0]].double()
    gap = frames_of(x, frames) - frames_of(expected, frames)
    assert gap.abs().max() <= 2e-5 * expected.abs().max()


@pytest.mark.parametrize("analytic", [True, False])
@pytest.mark.parametrize("name", KEPT)
def test_kept_frames_are_kept(models, name, analytic):
    """The network is shown the kept frame to the bit, at every step, and the video holds it.

    The sampler's own arithmetic on the way out, x + (x - kept) / sigma * (0 - sigma), rounds by the start.
    """
    model, positive, negative, latent = models(name)
    plain_spy, spy = tiny.Spy(model), tiny.Spy(early(model, analytic=analytic))
    plain, result = (ksampler(s.model, positive, negative, latent) for s in (plain_spy, spy))
    assert torch.allclose(result[:, :, KEPT[name]], plain[:, :, KEPT[name]], atol=1e-6) and not torch.equal(result, plain)
    assert torch.allclose(result[:, :, KEPT[name]], latent["samples"][:, :, KEPT[name]], atol=1e-5)
    assert latent["samples"][:, :, KEPT[name]].any()
    kept = plain_spy.first_x[:1][:, :, KEPT[name]]
    if name not in ("Cosmos", "Cosmos Predict2"):  # there x holds it scaled by sigma
        assert all(torch.equal(x[:1][:, :, KEPT[name]], kept) for x in spy.x)


@pytest.mark.parametrize("name", KEPT)
def test_from_the_ordinary_start_kept_frames_come_out_to_the_bit(models, name):
    """The same sigmas, other moments: nothing of the kept frame changes at all."""
    model, positive, negative, latent = models(name)
    patched = early(model, start=1.0, moments=some_moments(model, latent))
    plain, result = (ksampler(m, positive, negative, latent) for m in (model, patched))
    assert torch.equal(result[:, :, KEPT[name]], plain[:, :, KEPT[name]])


@pytest.mark.parametrize("name", KEPT)
def test_the_naive_start_is_plain_noise_beside_the_kept_frame(models, name):
    """The host would let the empty frames' values through its latent format; at M < T that would be a mean."""
    model, positive, negative, latent = models(name)
    spy = tiny.Spy(early(model, analytic=False))
    ksampler(spy.model, positive, negative, latent)
    eps = torch.randn(latent["samples"].shape, generator=torch.manual_seed(SEED))
    frames = free_frames(name, latent["samples"])
    assert torch.allclose(spy.first_x[:1][:, :, frames], (spy.sigmas[0] * eps)[:, :, frames], rtol=1e-5, atol=1e-5 * spy.sigmas[0])


@pytest.mark.parametrize("name", EVERY)
def test_neutral_settings_change_nothing_to_the_bit(models, name):
    model, positive, negative, latent = models(name)
    plain = ksampler(model, positive, negative, latent)
    assert torch.equal(ksampler(early(model, start=1.0, analytic=False), positive, negative, latent), plain)
    if name != "SVD":  # whose preset is the paper's
        assert torch.equal(ksampler(early(model, "family preset"), positive, negative, latent), plain)


@pytest.mark.parametrize("name", UNSCALED)
def test_cogvideox_starts_early_by_its_own_sampler_and_says_so_to_others(models, name, said):
    model, positive, negative, latent = models(name)
    patched = early(model)
    one, two = (network_inputs.own_sampler(patched, positive, negative, latent, 2, SEED, advanced=advanced) for advanced in (True, False))
    assert torch.equal(one, two) and not torch.equal(one, ksampler(model, positive, negative, latent))
    other = lambda m: host_nodes.KSampler().sample(m, SEED, 2, 2.0, "euler", "simple", positive, negative, latent, 1.0)[0]["samples"]
    whole = early(model, start=1.0)
    assert torch.equal(other(whole), other(model)) and "VOIDSampler" in said[-1]
    with pytest.raises(ValueError, match="VOIDSampler"):
        run(AnalyticInitLatent, model, latent, torch.tensor([10.0, 0.0]), SEED, 1.0, None)


@pytest.mark.parametrize("name", [name for name in EVERY if name not in UNSCALED])
def test_all_sampler_nodes_agree(models, name):
    model, positive, negative, latent = models(name)
    patched = early(model)
    one = ksampler(patched, positive, negative, latent)
    two = host_nodes.KSamplerAdvanced().sample(patched, "enable", SEED, 2, 2.0, "euler", "simple", positive, negative, latent, 0, 10000, "disable")[0][
        "samples"
    ]
    sigmas = run(custom.BasicScheduler, patched, "simple", 2, 1.0)[0]
    sampler = run(custom.KSamplerSelect, "euler")[0]
    three = run(custom.SamplerCustom, patched, True, SEED, 2.0, positive, negative, sampler, sigmas, latent)[0]["samples"]
    guider = run(custom.CFGGuider, patched, positive, negative, 2.0)[0]
    four = run(custom.SamplerCustomAdvanced, custom.Noise_RandomNoise(SEED), guider, sampler, sigmas, latent)[0]["samples"]
    assert torch.equal(one, two) and torch.equal(one, three) and torch.equal(one, four)


@pytest.mark.parametrize("name", ["Wan 2.1 I2V", "Wan 2.2 5B", "LTXV", "Cosmos Predict2", "Mochi"])
def test_the_explicit_nodes_agree_with_the_one_node(models, name):
    """AnalyticInitLatent with the same sigmas: the same video to the bit, kept frames included."""
    model, positive, negative, latent = models(name)
    moments = some_moments(model, latent)
    one = ksampler(early(model, moments=moments, layout=ANEW), positive, negative, latent)  # Wan by itself keeps the hand-over
    sampling = Sampling.of(model)
    sigmas = sampling.schedule("simple", 2, sampling.sigma(FRACTION))
    mean, noise, _ = run(AnalyticInitLatent, model, latent, sigmas, SEED, 1.0, moments)
    guider = run(custom.CFGGuider, model, positive, negative, 2.0)[0]
    sampler = run(custom.KSamplerSelect, "euler")[0]
    explicit = run(custom.SamplerCustomAdvanced, noise, guider, sampler, sigmas, mean)[0]["samples"]
    assert torch.equal(one, explicit)


def test_a_frame_that_is_kept_in_part_stays_as_the_host_has_it(models):
    """LTXVImgToVideo at strength 0.7: the host blends that frame at every step; its latent is not replaced by the mean."""
    model, positive, negative, _ = models("LTXV")
    partly = family_models._ltxv(0.7)(positive, negative, family_models.picture())[2]
    spy = tiny.Spy(early(model, moments=some_moments(model, partly)))
    ksampler(spy.model, positive, negative, partly)
    y = model.get_model_object("process_latent_in")(partly["samples"])
    eps = torch.randn(y.shape, generator=torch.manual_seed(SEED))
    sigma = spy.sigmas[0]
    blended = 0.3 * ((1 - sigma) * y + sigma * eps) + 0.7 * y
    assert torch.allclose(spy.first_x[:1][:, :, 0], blended[:, :, 0], atol=1e-5)


def test_a_mask_that_leaves_nothing_free_is_left_alone(models, said):
    model, positive, negative, latent = models("Wan 2.2 5B")
    full = {**latent, "noise_mask": torch.zeros_like(latent["noise_mask"])}
    assert torch.allclose(ksampler(early(model), positive, negative, full), ksampler(model, positive, negative, full), atol=1e-5)
    assert "leaves nothing free" in said[-1]


# those whose image stands beside the noisy latents; this host cannot run Hunyuan's reference mode on two clips at once
BESIDE = [name for name in EVERY if name not in KEPT and name not in ("Mochi", "Hunyuan reference")]
LVDM = ("DynamiCrafter 256", "DynamiCrafter 512", "VideoCrafter1 512")


@pytest.mark.parametrize("name", [*BESIDE, *LVDM])
def test_the_probe_shows_the_noisy_clip_and_the_image(models, name):
    """The network is asked about signal clip + noise eps, with the image of the conditioning beside it."""
    if name in LVDM:
        model, (positive, _, latent) = lvdm_tiny.model(name), lvdm_tiny.picture_conditioning()
    else:
        model, positive, _, latent = models(name)
    clip = torch.randn(latent["samples"].shape, generator=torch.Generator().manual_seed(2))
    spy, hook = tiny.Spy(model), network_inputs.Seen(model)
    context = SamplingContext(spy.model, positive, None, 1.0, 0)
    levels = [(f, Sampling.of(model).sigma(f)) for f in (0.9, 0.4)]
    other = clip.flip(0 if clip.ndim == 4 else 2)
    try:
        found = probe_clip.measure(context, Sampling.of(model).process, clip, other, levels, 7, 1, lambda: None)
    finally:
        hook.hook.remove()
    inside = model.get_model_object("process_latent_in")(clip)
    for level, (_, sigma) in enumerate(levels):
        signal, noise = (1.0, sigma) if name in LVDM else closed_form(name, sigma)
        noisy = signal * inside + noise * probe_clip.probe.noise_for(inside, 7, level, 0)
        assert any(torch.allclose(x[: len(noisy)], noisy, atol=1e-4 * noise) for x in spy.x)
    if name in network_inputs.PLACES:
        key, channels, frames = network_inputs.PLACES[name]
        assert all(network_inputs.cut(call[key], channels, frames).any() for call in hook.calls)
    assert len(found.predictions) == 2 and all(torch.isfinite(p).all() for p in found.predictions)


# ---- Wan 2.2 in two stages ----


def stage(model, positive, negative, latent, start, end, first, steps=8):
    add, leftover = ("enable", "enable") if first else ("disable", "disable")
    return host_nodes.KSamplerAdvanced().sample(model, add, SEED, steps, 2.0, "euler", "simple", positive, negative, latent, start, end, leftover)[0]


def two_stages(high, low, positive, negative, latent, hand_over=4):
    """The graph of the host's template -> (sigmas of the first stage, of the second, video)."""
    spies = tiny.Spy(high), tiny.Spy(low)
    middle = stage(spies[0].model, positive, negative, latent, 0, hand_over, True)
    out = stage(spies[1].model, positive, negative, middle, hand_over, 10000, False)
    steps = lambda spy: sorted(set(spy.sigmas), reverse=True)
    return steps(spies[0]), steps(spies[1]), out["samples"]


def test_two_stages_only_the_first_starts_early_and_the_hand_over_stays(models, said):
    model, positive, negative, latent = models("Wan 2.2 14B I2V")
    high, low = model.clone(), model.clone()
    plain = two_stages(high, low, positive, negative, latent)
    started = two_stages(early(high, start=0.9), early(low, start=0.9), positive, negative, latent)
    assert len(started[0]) == len(plain[0]) == 4 and started[0][0] == pytest.approx(Sampling.of(model).sigma(0.9), rel=1e-6)
    assert plain[0][0] == 1.0 and all(a < b for a, b in zip(started[0], plain[0]))
    assert started[1] == plain[1]  # the second stage, from the hand-over on
    assert min(started[0]) > started[1][0]
    assert "noise is switched off" in said[-1]
    assert torch.isfinite(started[2]).all() and not torch.equal(started[2], plain[2])
    only_first = two_stages(early(high, start=0.9), low, positive, negative, latent)
    assert torch.equal(only_first[2], started[2])


def test_a_start_below_the_hand_over_is_left_alone(models, said):
    """Squeezing the first stage there would turn its sigmas round."""
    model, positive, negative, latent = models("Wan 2.2 14B I2V")
    plain = two_stages(model, model, positive, negative, latent)
    result = two_stages(early(model, start=0.3), model, positive, negative, latent)
    assert result[0] == plain[0] and torch.equal(result[2], plain[2])
    assert "this stage ends at sigma" in said[-1] and "hand over later" in said[-1]
