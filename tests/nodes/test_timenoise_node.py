"""TimeNoiseCondition: what the network of every family sees, channel by channel and frame by frame."""

import math
from types import SimpleNamespace

import lvdm_tiny
import pytest
import torch
from family_models import TINY
from network_inputs import NO_IMAGE, PLACES, blanked, cut, sample

from cil_pack.cil.randomness import generator_for
from cil_pack.cil.timenoise import TimeNoise
from cil_pack.nodes import timenoise as nodes_timenoise
from cil_pack.nodes.early_start import CILEarlyStart
from cil_pack.nodes.host import notes as host_notes
from cil_pack.nodes.host.sampling import Sampling
from cil_pack.nodes.host.tokens import projectors_of
from cil_pack.nodes.timenoise import (
    AS_SET,
    CLEAN,
    COGVIDEOX,
    CONSTANT,
    DRAWN,
    FIXED,
    FRACTION,
    GENTLE,
    H3,
    LTX,
    MEDIAN,
    MIX,
    PAPER,
    SHARE,
    TimeNoiseCondition,
    share_of_largest,
)

SEED, LEVEL = 11, 0.3


@pytest.fixture(autouse=True)
def said(monkeypatch):
    notes = []
    for module in (nodes_timenoise, host_notes):
        monkeypatch.setattr(module, "say", lambda node, text: notes.append(text))
    return notes


def noised(model, positive, negative, mode=FIXED, preset=AS_SET, level=LEVEL, a=5.0, seed=SEED, tokens=False, tell=True):
    return TimeNoiseCondition.PREPARE_CLASS_CLONE(None).execute(model, positive, negative, mode, preset, level, a, seed, tokens, tell).args


def eps_of(name, like, seed=SEED, sigma=None):
    """The noise that the help page promises: one draw of a generator of the seed (and the noise level), one for all frames of SVD and SV3D."""
    shape = (1, *like.shape[1:]) if name in ("SVD", "SV3D u", "SV3D p") else like.shape
    return torch.randn(shape, generator=generator_for(*((seed, "image") if sigma is None else (seed, "image", sigma))))


def whole(name, where):
    """The shape of which the noise is drawn: all frames of the input's image channels."""
    return where[:, PLACES[name][1]] if where.ndim == 4 else cut(where, PLACES[name][1], list(range(where.shape[-3])))


@pytest.mark.parametrize("name", PLACES)
def test_the_model_sees_the_image_plus_beta_eps_and_nothing_else_changes(models, name):
    model, positive, negative, latent = models(name)
    out, _, _ = noised(model, positive, negative)
    _, plain = sample(model, positive, negative, latent, steps=1)
    _, seen = sample(out, positive, negative, latent, steps=1)
    key, channels, frames = PLACES[name]
    before, after = plain.of(key, 0), seen.of(key, 0)
    eps = eps_of(name, whole(name, before))
    eps = eps.expand_as(whole(name, before))
    eps = eps[frames] if before.ndim == 4 else eps[..., frames, :, :]
    unit = 0.5 if name == "Cosmos" else 1.0  # Cosmos divides its latents by sigma_data
    assert torch.allclose(cut(after, channels, frames), cut(before, channels, frames) + LEVEL * eps / unit, atol=2e-5)
    assert torch.equal(blanked(before, channels, frames), blanked(after, channels, frames))
    for other in plain.calls[0]:
        if other not in (key, "y"):
            assert torch.equal(plain.of(other, 0), seen.of(other, 0)), other


def test_dynamicrafter_sees_one_noise_on_the_image_beside_every_frame():
    model, (positive, negative, latent) = lvdm_tiny.model("DynamiCrafter 512"), lvdm_tiny.picture_conditioning()
    out, _, _ = noised(model, positive, negative)
    _, plain = sample(model, positive, negative, latent, steps=1)
    _, seen = sample(out, positive, negative, latent, steps=1)
    before, after = plain.of("x", 0), seen.of("x", 0)
    eps = torch.randn((1, *before[:, 4:].shape[1:]), generator=generator_for(SEED, "image"))
    assert torch.allclose(after[:, 4:], before[:, 4:] + LEVEL * eps, atol=2e-5)
    assert torch.equal(after[:, :4], before[:, :4])


def test_videocrafter1_takes_its_image_as_tokens_only(said):
    model, (positive, negative, latent) = lvdm_tiny.model("VideoCrafter1 512"), lvdm_tiny.picture_conditioning()
    out, _, _ = noised(model, positive, negative)
    assert "this conditioning holds no image that can be noised" in said[-1]
    tokens, _, _ = noised(model, positive, negative, tokens=True)
    plain, *others = (sample(m, positive, negative, latent, steps=1)[0] for m in (model, out, tokens))
    assert torch.equal(plain, others[0]) and not torch.equal(plain, others[1])


@pytest.mark.parametrize("name", PLACES)
def test_the_unconditional_branch(models, name):
    """The same noise where it holds the image too; SVD's and Hunyuan's hold none and stay bit for bit."""
    model, positive, negative, latent = models(name)
    out, _, _ = noised(model, positive, negative)
    _, plain = sample(model, positive, negative, latent, steps=1)
    _, seen = sample(out, positive, negative, latent, steps=1)
    key, channels, frames = PLACES[name]
    calls = [(p, s) for p, s in zip(range(len(plain.rows)), range(len(seen.rows))) if 1 in plain.rows[p]]
    (p, s), cond = calls[0], next(i for i, rows in enumerate(seen.rows) if 0 in rows)
    if key not in plain.calls[p]:  # Hunyuan's negative conditioning carries no reference at all
        assert key not in seen.calls[s]
        return
    if name in ("SVD", "SV3D u", "SV3D p", "Hunyuan I2V concat", "SkyReels I2V", "Hunyuan I2V replace"):
        assert torch.equal(plain.of(key, 1, p), seen.of(key, 1, s))
    elif name.startswith("HuMo"):  # a blank picture, of which the network is told that it is given
        noise = [cut(seen.of(key, i, s if i else cond), channels, frames) - cut(plain.of(key, i, p if i else 0), channels, frames) for i in (0, 1)]
        assert torch.allclose(*noise, atol=1e-5) and noise[1].any()
    else:
        assert torch.equal(cut(seen.of(key, 1, s), channels, frames), cut(seen.of(key, 0, cond), channels, frames))
        assert not torch.equal(cut(seen.of(key, 1, s), channels, frames), cut(plain.of(key, 1, p), channels, frames))


@pytest.mark.parametrize("name", ["SVD", "Wan 2.1 I2V", "Wan 2.2 5B", "Wan VACE"])
def test_little_memory_gives_the_same(models, name, monkeypatch):
    """The host then asks for cond and uncond one after the other."""
    model, positive, negative, latent = models(name)
    out, _, _ = noised(model, positive, negative, DRAWN)
    together, a = sample(out, positive, negative, latent)
    monkeypatch.setattr(model.model, "memory_required", lambda *args, **kwargs: 1e30)
    apart, b = sample(out, positive, negative, latent)
    assert len(a.calls) == 2 and len(b.calls) == 4
    key = PLACES[name][0]
    for cond in (0, 1):
        assert torch.equal(a.of(key, cond), b.of(key, cond, next(i for i, rows in enumerate(b.rows) if rows == [cond])))
    assert torch.allclose(together, apart, atol=1e-4)


@pytest.mark.parametrize("name", [*PLACES, *NO_IMAGE])
def test_neutral_settings_change_nothing_to_the_bit(models, name):
    model, positive, negative, latent = models(name)
    plain = sample(model, positive, negative, latent)[0]
    for mode, level in ((CLEAN, LEVEL), (FIXED, 0.0), (DRAWN, 0.0), (MIX, 0.0)):
        out, p, n = noised(model, positive, negative, mode, level=level)
        assert p is positive and n is negative
        assert torch.equal(sample(out, p, n, latent)[0], plain)


@pytest.mark.parametrize("mode", [DRAWN, MEDIAN, CONSTANT, MIX])
@pytest.mark.parametrize("name", ["SVD", "Wan 2.1 I2V", "Cosmos Predict2"])
def test_the_level_of_every_step_is_the_stated_one(models, name, mode):
    model, positive, negative, latent = models(name)
    out, _, _ = noised(model, positive, negative, mode, level=0.8, a=2.0)
    _, plain = sample(model, positive, negative, latent, steps=3)
    _, seen = sample(out, positive, negative, latent, steps=3)
    key, channels, frames = PLACES[name]
    noise, sampling = TimeNoise(0.8, 2.0), Sampling.of(model)
    image = cut(plain.of(key, 0), channels, frames)
    for call, sigma in enumerate(seen.sigmas):
        time = sampling.fraction(sigma)
        level = {
            DRAWN: lambda: float(noise.sample(torch.tensor([time]), generator_for(SEED, "level", sigma))),
            MEDIAN: lambda: 0.8 / (1 + 2.718281828459045 ** -(2 * time**2 - 1)),
            CONSTANT: lambda: 0.8 * time**2,
            MIX: lambda: float(noise.sample(torch.tensor([time]), generator_for(SEED, "level", sigma))),
        }[mode]()
        eps = eps_of(name, whole(name, plain.of(key, 0)), sigma=sigma).expand_as(whole(name, plain.of(key, 0)))
        eps = eps[frames] if eps.ndim == 4 else eps[..., frames, :, :]
        expected = (1 - level) * image + level * eps if mode == MIX else image + level * eps
        assert torch.allclose(cut(seen.of(key, 0, call), channels, frames), expected, atol=5e-5), (call, sigma)


def test_svd_is_told_the_level(models):
    model, positive, negative, latent = models("SVD")
    _, plain = sample(model, positive, negative, latent, steps=1)
    for tell in (True, False):
        out, _, _ = noised(model, positive, negative, tell=tell)
        _, seen = sample(out, positive, negative, latent, steps=1)
        told = model.model.embedder(torch.tensor([LEVEL if tell else 0.0]))
        for cond in (0, 1):
            y = seen.of("y", cond)
            assert torch.allclose(y[:, 512:768], told.expand(len(y), -1), atol=1e-6)
            assert torch.equal(y[:, :512], plain.of("y", cond)[:, :512])


def test_svds_image_token_is_noised_when_asked(models):
    model, positive, negative, latent = models("SVD")
    out, _, _ = noised(model, positive, negative, tokens=True)
    _, plain = sample(model, positive, negative, latent, steps=1)
    _, seen = sample(out, positive, negative, latent, steps=1)
    before, after = plain.of("context", 0), seen.of("context", 0)
    eps = torch.randn((1, *before.shape[1:]), generator=generator_for(SEED, "tokens"))
    assert torch.allclose(after, before + LEVEL * eps, atol=1e-5)
    assert torch.equal(seen.of("context", 1), plain.of("context", 1))  # the negative's token is zero: it stays


PROJECTED = ["DynamiCrafter 512", "VideoCrafter1 512", "Wan 2.1 I2V", "Hunyuan 1.5 I2V", "SCAIL", "Wan Animate", "Wan Animate 2", "WanDancer"]


@pytest.mark.parametrize("name", [name for name in PROJECTED if name in TINY or "Crafter" in name])
def test_tokens_are_noised_behind_the_networks_own_projection(models, name):
    """One noise of their own, on what attention sees; the resampler, Wan's and Hunyuan's projection, is given the clean picture."""
    if name in TINY:
        model, positive, negative, latent = models(name)
    else:
        model, (positive, negative, latent) = lvdm_tiny.model(name), lvdm_tiny.picture_conditioning()
    out, _, _ = noised(model, positive, negative, tokens=True)
    images, _, _ = noised(model, positive, negative)  # the latents' noise alone, where the model has latents of it
    network, given, level = model.model.diffusion_model, [], [0.0]
    projectors = {key: getattr(network, key) for key in projectors_of(network)}

    def by_hand(module, args, tokens):
        given.append(args[0].clone())
        return tokens + level[0] * torch.randn((1, *tokens.shape[1:]), generator=generator_for(SEED, "tokens"))

    hooks = [projector.register_forward_hook(by_hand) for projector in projectors.values()]
    try:
        result = sample(out, positive, negative, latent, steps=1)[0]
        clean = given[-1]
        level[0] = LEVEL
        expected = sample(images, positive, negative, latent, steps=1)[0]
    finally:
        for hook in hooks:
            hook.remove()
    assert torch.equal(clean, given[-1]) and all(getattr(network, key) is projector for key, projector in projectors.items())
    assert torch.allclose(result, expected, atol=1e-5) and not torch.allclose(expected, sample(images, positive, negative, latent, steps=1)[0], atol=1e-5)


def test_svds_time_as_the_authors_take_it(models):
    """sigma / 700: at sigma 100 a median of 27 for beta_m 100, by the fraction of ln sigma 47."""
    model = models("SVD")[0]
    sampling, noise = Sampling.of(model), TimeNoise(100.0)
    assert noise.median(share_of_largest(sampling, 100.0)) == pytest.approx(26.9, abs=0.1)
    assert noise.median(sampling.fraction(100.0)) == pytest.approx(47, abs=0.5)
    levels = []
    for time in (FRACTION, SHARE):
        out = TimeNoiseCondition.PREPARE_CLASS_CLONE(None).execute(*models("SVD")[:3], MEDIAN, AS_SET, 0.8, 5.0, SEED, False, True, time).args[0]
        patcher = next(iter(out.wrappers["apply_model"].values()))[0]
        levels.append(patcher.change(SimpleNamespace(model_sampling=model.get_model_object("model_sampling")), 100.0, {}).level)
    assert levels == pytest.approx([TimeNoise(0.8).median(sampling.fraction(100.0)), TimeNoise(0.8).median(1 / 7)])


KEPT = ("Wan 2.2 5B", "Hunyuan I2V replace", "LTXV", "LTXV guide", "Cosmos", "Cosmos Predict2", "SCAIL-2 continued")


@pytest.mark.parametrize("name", [name for name in KEPT if name in PLACES])
def test_a_kept_frame_is_noised_for_the_model_but_comes_out_exactly_kept(models, name):
    model, positive, negative, latent = models(name)
    out, _, _ = noised(model, positive, negative)
    plain, result = (sample(m, positive, negative, latent)[0] for m in (model, out))
    frames = PLACES[name][2]
    assert torch.equal(result[:, :, frames], plain[:, :, frames])
    assert not torch.equal(result, plain)


def test_the_same_seed_is_the_same_video_and_another_another(models):
    model, positive, negative, latent = models("Wan 2.1 I2V")
    results = [sample(noised(model, positive, negative, DRAWN, seed=seed)[0], positive, negative, latent)[0] for seed in (1, 1, 2)]
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_a_fixed_level_is_one_noise_for_the_run_and_others_are_new_at_each_step(models):
    model, positive, negative, latent = models("Wan 2.1 I2V")
    _, channels, frames = PLACES["Wan 2.1 I2V"]
    for mode, same in ((FIXED, True), (MEDIAN, False)):
        _, seen = sample(noised(model, positive, negative, mode)[0], positive, negative, latent, steps=2)
        first, second = (cut(seen.of("x", 0, call), channels, frames) for call in (0, 1))
        assert torch.equal(first, second) == same


def test_it_composes_with_the_early_start_and_a_lora(models):
    model, positive, negative, latent = models("Wan 2.1 I2V")
    lora = model.clone()
    weight = lora.model.diffusion_model.head.head.weight
    lora.add_patches({"diffusion_model.head.head.weight": ("diff", (0.5 * torch.ones_like(weight),))}, 1.0)
    out, _, _ = noised(lora, positive, negative)
    early = CILEarlyStart.PREPARE_CLASS_CLONE(None).execute(out, "fraction", 0.8, True).args[0]
    result, seen = sample(early, positive, negative, latent)
    assert seen.sigmas[0] == pytest.approx(Sampling.of(model).sigma(0.8))
    _, channels, frames = PLACES["Wan 2.1 I2V"]
    _, plain = sample(model, positive, negative, latent)
    eps = eps_of("Wan 2.1 I2V", whole("Wan 2.1 I2V", plain.of("x", 0)))[..., frames, :, :]
    assert torch.allclose(cut(seen.of("x", 0), channels, frames), cut(plain.of("x", 0), channels, frames) + LEVEL * eps, atol=1e-5)
    without_lora = CILEarlyStart.PREPARE_CLASS_CLONE(None).execute(noised(model, positive, negative)[0], "fraction", 0.8, True).args[0]
    assert not torch.allclose(result, sample(without_lora, positive, negative, latent)[0])


def test_what_came_in_is_untouched(models):
    model, positive, negative, latent = models("SVD")
    before = positive[0][1]["concat_latent_image"].clone()
    out, _, _ = noised(model, positive, negative)
    sample(out, positive, negative, latent, steps=1)
    assert torch.equal(positive[0][1]["concat_latent_image"], before)
    assert out is not model and not model.wrappers.get("apply_model")


def test_presets(models, said):
    for name, mode, preset, level in (
        ("SVD", FIXED, PAPER, 100), ("SVD", FIXED, GENTLE, 0.49), ("Wan 2.1 I2V", FIXED, GENTLE, 0.1), ("SVD", MIX, PAPER, 1), ("Wan 2.1 I2V", MIX, GENTLE, 0.1),
    ):  # fmt: skip
        noised(*models(name)[:3], mode, preset)
        assert f"level {level:g} on" in said[-1]
    with pytest.raises(ValueError, match="no TimeNoise setting for Wan: choose 'gentle'"):
        noised(*models("Wan 2.1 I2V")[:3], FIXED, PAPER)


@pytest.mark.parametrize("preset", [LTX, COGVIDEOX, H3])
@pytest.mark.parametrize("name", ["SVD", "Wan 2.1 I2V", "LTXV"])
def test_published_levels_to_the_number(models, said, name, preset):
    """Against the formula by hand: LTX's time is a flow's sigma; for others noise over noise and signal."""
    model, positive, negative, latent = models(name)
    out, _, _ = noised(model, positive, negative, DRAWN, preset, tell=False)
    assert said[-1].splitlines()[1].startswith(preset.split("(")[1].rstrip(")"))
    _, plain = sample(model, positive, negative, latent, steps=1)
    _, seen = sample(out, positive, negative, latent, steps=1)
    key, channels, frames = PLACES[name]
    before, after = (cut(s.of(key, 0), channels, frames) for s in (plain, seen))
    sigma = Sampling.of(model).sigma_max
    time = sigma / (1 + sigma) if name == "SVD" else sigma
    eps = eps_of(name, whole(name, plain.of(key, 0)), sigma=float(sigma) if preset == LTX else None).expand_as(whole(name, plain.of(key, 0)))
    eps = eps[frames] if plain.of(key, 0).ndim == 4 else eps[..., frames, :, :]
    expected = {LTX: before + 0.15 * time**2 * eps, COGVIDEOX: before + math.exp(-3) * eps, H3: 0.999 * before + 0.001 * eps}[preset]
    assert torch.allclose(after, expected, atol=2e-5) and not torch.equal(after, before)


def test_a_published_level_and_the_mode_clean(models, said):
    model, positive, negative, _ = models("Wan 2.1 I2V")
    assert noised(model, positive, negative, CLEAN, LTX)[0] is model
    assert said[-1] == "nothing is changed: the mode is clean, and the preset does nothing"


def test_settings_that_cannot_act_say_so(models, said):
    model, positive, negative, _ = models("LTXV")
    noised(model, positive, negative, tokens=True)
    assert "image_tokens does nothing" in said[-1] and "tell_model does nothing" in said[-1]
    noised(*models("Mochi")[:3])
    assert said[-1] == "nothing to do for Mochi: this conditioning holds no image that can be noised"
    model, positive, negative, _ = models("Wan 2.1 I2V")
    noised(model, [[positive[0][0], {}]], negative)
    assert "holds no image" in said[-1]
    noised(model, positive, negative, CLEAN)
    assert said[-1] == "nothing is changed: the mode is clean"


def test_an_unknown_model_says_that_it_is_unknown(said):
    import tiny

    model, _ = tiny.model("eps")
    noised(model, tiny.conditioning(), tiny.conditioning())
    assert "does not know where it takes its image" in said[-1]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"mode": MIX, "level": 2.0}, "at most 1, but 2 was given"),
        ({"level": -1.0}, "level takes numbers from 0 to 1000, but -1"),
        ({"a": 0.0, "mode": DRAWN}, "a takes numbers from 0.01 to 100, but 0"),
        ({"level": float("nan")}, "level takes a finite number, but nan"),
    ],
)
def test_bad_values_are_errors(models, changes, message):
    with pytest.raises(ValueError, match=message):
        noised(*models("Wan 2.1 I2V")[:3], **changes)
