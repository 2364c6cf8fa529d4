"""Adaptive low-pass guidance in the host: its output against the formula, when it acts, and that nothing else changes."""

import comfy.samplers
import comfy_extras.nodes_custom_sampler as custom
import comfy_extras.nodes_easycache as easycache
import family_models
import pytest
import torch
from network_inputs import PLACES, cut, sample
from node_calls import execute

from cil_pack.cil.low_pass import down_up
from cil_pack.nodes import alg as nodes_alg
from cil_pack.nodes.alg import AS_SET, FAMILY_PRESET, STEPS, TIME, AdaptiveLowPass, AdaptiveLowPassGuider
from cil_pack.nodes.host import notes as host_notes
from cil_pack.nodes.timenoise import FIXED, TimeNoiseCondition

FAMILIES = ["SVD", "Wan 2.1 I2V", "Hunyuan I2V concat", "Hunyuan 1.5 I2V"]
CFG, LOUD = 4.0, 4


@pytest.fixture(autouse=True)
def said(monkeypatch):
    notes = []
    for module in (nodes_alg, host_notes):
        monkeypatch.setattr(module, "say", lambda node, text: notes.append(text))
    return notes


def settings(preset=AS_SET, filter="down and up", strength=2.0, interval_in=STEPS, start_at=0.0, end_at=0.0, schedule="constant", decay=10.0):
    return (preset, filter, strength, interval_in, start_at, end_at, schedule, decay)


def alg(model, **changes):
    return AdaptiveLowPass.PREPARE_CLASS_CLONE(None).execute(model, *settings(**changes)).args[0]


def with_image(conditioning, source, change=lambda latents: latents):
    """A conditioning with the image latents of another, the frames that fill up made restless, as a VAE makes them."""
    latents = source[0][1]["concat_latent_image"]
    latents = latents + torch.randn(latents.shape, generator=torch.Generator().manual_seed(9))
    extra = {k: v for k, v in source[0][1].items() if k.startswith("concat") or k in ("clip_vision_output", "augmentation_level")}
    return [[c[0], {**c[1], **extra, "concat_latent_image": change(latents)}] for c in conditioning]


def pair(models, name, change=lambda latents: latents):
    model, positive, negative, latent = models(name)
    return model, with_image(positive, positive, change), with_image(negative, positive, change), latent


def denoised(model, positive, negative, latent, cfg):
    """What guidance makes of the first evaluations -> (float64, the rows that they had)."""
    noted, out = model.clone(), []
    noted.set_model_sampler_post_cfg_function(lambda args: out.append(args["denoised"].double()) or args["denoised"])
    _, seen = sample(noted, positive, negative, latent, steps=1, cfg=cfg)
    return out[0], seen.rows


@pytest.mark.parametrize("name", FAMILIES)
def test_the_output_is_the_published_formula(models, name):
    """Three evaluations without any guidance, put together by hand in float64; their filtered latents come by the conditioning."""
    _, positive, negative, latent = pair(models, name)
    model = family_models.model(name)
    for parameter in model.model.diffusion_model.parameters():
        parameter.data *= LOUD  # so that image and text mean something to each other
    _, blurred_positive, blurred_negative, _ = pair(models, name, lambda latents: down_up(latents, 2.0))
    sharp, text, null = (denoised(model, c, c, latent, 1.0)[0] for c in (negative, blurred_positive, blurred_negative))
    result, rows = denoised(alg(model), positive, negative, latent, CFG)
    plain, _ = denoised(model, positive, negative, latent, CFG)
    effect = (plain - result).abs().max()
    assert effect > 1e-3 and (sharp + CFG * (text - null) - result).abs().max() < 1e-2 * effect
    assert sum(map(len, rows)) == 3


def test_evaluations_one_at_a_time_give_the_same(models, monkeypatch):
    model, positive, negative, latent = pair(models, "Wan 2.1 I2V")
    together, seen = sample(alg(model), positive, negative, latent, steps=1, cfg=CFG)
    assert seen.rows == [[1, 0], [1]] or seen.rows == [[0, 1], [1]]
    monkeypatch.setattr(comfy.samplers, "can_concat_cond", lambda a, b: a is b)
    single, seen = sample(alg(model), positive, negative, latent, steps=1, cfg=CFG)
    assert [len(rows) for rows in seen.rows] == [1, 1, 1]
    assert torch.allclose(single, together, atol=1e-5)


def test_the_base_sees_the_sharp_image_and_the_padding_is_filtered_too(models):
    model, positive, negative, latent = pair(models, "Wan 2.1 I2V")
    _, plain = sample(model, positive, negative, latent, steps=1, cfg=CFG)
    _, seen = sample(alg(model), positive, negative, latent, steps=1, cfg=CFG)
    key, channels, _ = PLACES["Wan 2.1 I2V"]
    frames = list(range(latent["samples"].shape[2]))
    image = cut(plain.of(key, 0), channels, frames)
    for cond in (0, 1):
        assert torch.allclose(cut(seen.of(key, cond), channels, frames), down_up(image, 2.0), atol=1e-5)
    assert torch.equal(cut(seen.of(key, 1, call=1), channels, frames), image)
    assert torch.equal(seen.of("clip_fea", 0), plain.of("clip_fea", 0))


@pytest.mark.parametrize("name", ["SVD", "Wan 2.1 I2V", "LTXV"])
def test_at_cfg_1_outside_the_interval_and_with_neutral_strength_plain_to_the_bit(models, said, name):
    model, positive, negative, latent = models(name)
    for cfg, changes in ((1.0, {"end_at": 1.0}), (CFG, {"start_at": 0.6, "end_at": 0.9, "interval_in": TIME}), (CFG, {"strength": 1.0})):
        plain, of_plain = sample(model, positive, negative, latent, cfg=cfg)
        result, seen = sample(alg(model, **changes), positive, negative, latent, cfg=cfg)
        assert torch.equal(result, plain) and seen.rows == of_plain.rows
    assert nodes_alg.CFG1 in said


def test_at_cfg_1_where_another_node_asks_for_both_predictions_it_is_off_too(models, said):
    model, positive, negative, latent = models("Wan 2.1 I2V")
    both = model.clone()
    both.set_model_sampler_cfg_function(lambda args: args["cond"], disable_cfg1_optimization=True)
    plain = sample(both, positive, negative, latent, cfg=1.0)[0]
    assert torch.equal(sample(alg(both, end_at=1.0), positive, negative, latent, cfg=1.0)[0], plain)
    assert said[-1] == nodes_alg.CFG1


def test_only_the_steps_of_the_interval_cost_an_evaluation_more(models, said):
    model, positive, negative, latent = models("Wan 2.1 I2V")
    for changes, acting in (({"end_at": 0.25}, [0, 1]), ({"interval_in": TIME, "start_at": 0.3, "end_at": 0.65}, [2, 3])):
        _, seen = sample(alg(model, **changes), positive, negative, latent, steps=6, cfg=CFG)
        sigmas = sorted(set(seen.sigmas), reverse=True)
        evaluations = [sum(len(r) for r, s in zip(seen.rows, seen.sigmas) if s == sigma) for sigma in sigmas]
        assert [i for i, n in enumerate(evaluations) if n == 3] == acting and set(evaluations) == {2, 3}
        assert said[-1].startswith("guided by the filtered image at 2 noise levels of a run of 6 steps")


def test_linear_weakens_the_filter_step_by_step(models):
    model, positive, negative, latent = models("Wan 2.1 I2V")
    _, seen = sample(alg(model, strength=4.0, schedule="linear", end_at=1.0), positive, negative, latent, steps=3, cfg=CFG)
    key, channels, frames = PLACES["Wan 2.1 I2V"]
    image = cut(seen.of(key, 1, call=1), channels, frames)
    half = cut(seen.of(key, 0, call=2), channels, frames)
    assert torch.allclose(half, down_up(image, 1 / (1 - 0.75 * 0.5)), atol=1e-5)
    assert len(seen.rows) == 5  # nothing is left of it at the last step


def test_the_guider_does_what_the_model_does(models, said):
    model, positive, negative, latent = pair(models, "Wan 2.1 I2V")
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 2)
    make = lambda cfg: AdaptiveLowPassGuider.PREPARE_CLASS_CLONE(None).execute(model, positive, negative, cfg, *settings()).args[0]
    run = lambda guider: execute(
        custom.SamplerCustomAdvanced, custom.Noise_RandomNoise(1), guider, comfy.samplers.sampler_object("euler"), sigmas, latent
    ).args[0]["samples"]
    assert torch.equal(run(make(CFG)), sample(alg(model), positive, negative, latent, cfg=CFG)[0])
    assert torch.equal(run(make(1.0)), sample(model, positive, negative, latent, cfg=1.0)[0])
    assert nodes_alg.CFG1 in said[-2]


def test_a_guider_of_three_conditionings_passes_untouched(models, said):
    model, positive, negative, latent = models("Wan 2.1 I2V")
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 2)

    def run(of):
        guider = execute(custom.DualCFGGuider, of, positive, positive, negative, CFG, 2.0, "regular").args[0]
        return execute(custom.SamplerCustomAdvanced, custom.Noise_RandomNoise(1), guider, comfy.samplers.sampler_object("euler"), sigmas, latent).args[0][
            "samples"
        ]

    assert torch.equal(run(alg(model)), run(model)) and "asks for no pair" in said[-1]


def test_presets(models, said):
    model, positive, negative, latent = models("Wan 2.1 I2V")
    _, seen = sample(alg(model, preset=FAMILY_PRESET, strength=7.0), positive, negative, latent, steps=11, cfg=CFG)
    assert [len(rows) for rows in seen.rows].count(1) == 3  # i / 10 <= 0.2
    assert any("Wan 2.1, authors' code" in note and "down and up 2.5, constant, from 0 to 0.2 of the steps" in note for note in said)
    assert alg(models("LTXV")[0], preset=FAMILY_PRESET) is models("LTXV")[0] and "no setting is published for LTXV" in said[-1]
    alg(model, preset="Wan 2.2", end_at=0.3)
    assert "not published" in said[-1] and "2.5, constant, from 0 to 0.3" in said[-1]


def test_a_second_node_replaces_the_first(models):
    model, positive, negative, latent = models("Wan 2.1 I2V")
    once = sample(alg(model, strength=3.0), positive, negative, latent, cfg=CFG)[0]
    assert torch.equal(sample(alg(alg(model, end_at=1.0), strength=3.0), positive, negative, latent, cfg=CFG)[0], once)


def test_with_time_noise_and_with_a_cache(models):
    model, positive, negative, latent = models("Wan 2.1 I2V")
    noised = TimeNoiseCondition.PREPARE_CLASS_CLONE(None).execute(model, positive, negative, FIXED, AS_SET, 0.3, 5.0, 1, False, True).args[0]
    _, only = sample(noised, positive, negative, latent, steps=1, cfg=CFG)
    _, both = sample(alg(noised), positive, negative, latent, steps=1, cfg=CFG)
    key, channels, frames = PLACES["Wan 2.1 I2V"]
    image = cut(only.of(key, 0), channels, frames)
    assert torch.allclose(cut(both.of(key, 0), channels, frames), down_up(image, 2.0), atol=1e-5)
    assert torch.equal(cut(both.of(key, 1, call=1), channels, frames), image)
    cached = easycache.EasyCacheNode.execute(alg(model, end_at=1.0), 0.0, 0.0, 1.0, False).args[0]  # looks, and leaves nothing out
    assert torch.equal(
        sample(cached, positive, negative, latent, steps=4, cfg=CFG)[0], sample(alg(model, end_at=1.0), positive, negative, latent, steps=4, cfg=CFG)[0]
    )


def test_the_model_that_came_in_is_as_it_was(models):
    model, positive, negative, latent = models("Wan 2.1 I2V")
    before = sample(model, positive, negative, latent)[0]
    options = repr(model.model_options)
    sample(alg(model, end_at=1.0), positive, negative, latent, cfg=CFG)
    assert repr(model.model_options) == options and torch.equal(sample(model, positive, negative, latent)[0], before)


@pytest.mark.parametrize(
    "changes, message",
    [({"start_at": 0.5, "end_at": 0.2}, "from 0.5 to 0.2"), ({"strength": 0.5}, "1 .nothing. or more, but 0.5"), ({"end_at": 1.5}, "from 0 to 1, but 1.5")],
)
def test_bad_values_are_errors(models, changes, message):
    with pytest.raises(ValueError, match=message):
        alg(models("Wan 2.1 I2V")[0], **changes)
