"""The motion slider in the host: its attention against the explicit softmax in float64, which rows and steps, and what it composes with."""

from types import SimpleNamespace

import comfy.ldm.modules.attention as host_attention
import comfy.samplers
import comfy_extras.nodes_custom_sampler as custom
import family_models
import pytest
import torch
from network_inputs import sample
from node_calls import execute

from cil_pack.cil.attention_bias import Keys, attention
from cil_pack.nodes import motion_slider
from cil_pack.nodes.host import notes as host_notes
from cil_pack.nodes.host import tokens
from cil_pack.nodes.host.calls import STEPS, TIME
from cil_pack.nodes.motion_slider import MotionSliderNode

GAMMA, LOUD = 0.9, 4
# where the first latent frame's keys lie, and how many keys a self-attention has: written down by hand from the networks,
# 4 frames of 4 x 4 tokens unless another word stands there, text of 5 tokens
FRAME_KEYS = {
    "Wan 2.1 I2V": (slice(0, 16), 64),
    "Wan 2.2 14B I2V": (slice(0, 16), 64),
    "Wan 2.1 FLF2V": (slice(0, 16), 64),
    "Wan VACE": (slice(0, 16), 64),
    "Wan 2.2 5B": (slice(0, 4), 16),  # 2 x 2
    "Hunyuan I2V concat": (slice(0, 16), 69),
    "Hunyuan I2V replace": (slice(0, 16), 69),
    "Hunyuan reference": (slice(16, 32), 85),  # after the reference's own 16
    "Hunyuan 1.5 I2V": (slice(0, 16), 64 + 5 + 3),  # and 3 tokens of the image
    "LTXV": (slice(0, 16), 64),
    "Cosmos": (slice(0, 16), 64),
    "Cosmos Predict2": (slice(0, 16), 64),
}
TEXT_FIRST = not hasattr(family_models.model("Hunyuan I2V concat").model.diffusion_model.double_blocks[0], "flipped_img_txt")


@pytest.fixture(autouse=True)
def said(monkeypatch):
    notes = []
    for module in (motion_slider, host_notes):
        monkeypatch.setattr(module, "say", lambda node, text: notes.append(text))
    return notes


@pytest.fixture(scope="module")
def loud_models(models):
    """Models whose attention is far from uniform: (MODEL, positive, negative, LATENT)."""
    made = {}

    def get(name):
        if name not in made:
            model = family_models.model(name)
            for parameter in model.model.diffusion_model.parameters():
                parameter.data *= LOUD
            made[name] = (model, *family_models.conditioning(name))
        return made[name]

    return get


def slid(model, gamma=GAMMA, share=1.0, share_of=TIME):
    return MotionSliderNode.PREPARE_CLASS_CLONE(None).execute(model, gamma, share, share_of).args[0]


def overridden(model, override):
    """As another pack does it."""
    out = model.clone()
    out.model_options["transformer_options"]["optimized_attention_override"] = override
    return out


def explicit(keys, total):
    """An attention of the test's own: softmax in float64, with the bias in the rows of the conditional branch."""

    def attend(func, q, k, v, heads, mask=None, attn_precision=None, skip_reshape=False, skip_output_reshape=False, transformer_options={}, **kwargs):
        if not skip_reshape:
            q, k, v = (t.unflatten(2, (heads, -1)).transpose(1, 2) for t in (q, k, v))
        bias = torch.zeros(k.shape[0], 1, 1, k.shape[2], dtype=torch.float64)
        if mask is not None:
            bias = bias + (mask[:, None] if mask.ndim == 3 else mask)
        if k.shape[2] == total:
            rows = transformer_options["cond_or_uncond"]
            for chunk, which in zip(bias.chunk(len(rows)), rows):
                chunk[..., keys] -= GAMMA * (which == 0)
        out = attention(q.double(), k.double(), v.double(), bias).to(q.dtype)
        return out if skip_output_reshape else out.transpose(1, 2).flatten(2)

    return attend


def where(name):
    keys, total = FRAME_KEYS[name]
    text = {"Hunyuan I2V concat": 5, "Hunyuan I2V replace": 5, "Hunyuan reference": 5, "Hunyuan 1.5 I2V": 8}.get(name, 0)
    return (slice(keys.start + text, keys.stop + text) if TEXT_FIRST else keys), total


@pytest.mark.parametrize("name", FRAME_KEYS)
def test_the_attention_is_the_explicit_softmax_in_every_family(loud_models, said, name):
    model, positive, negative, latent = loud_models(name)
    expected = sample(overridden(model, explicit(*where(name))), positive, negative, latent, cfg=3.0)[0]
    plain = sample(model, positive, negative, latent, cfg=3.0)[0]
    result = sample(slid(model), positive, negative, latent, cfg=3.0)[0]
    effect = (result - plain).abs().max()
    assert (result - expected).abs().max() < 1e-2 * effect and effect > 1e-4
    assert said[-1].startswith("attention to the first frame -0.9 at 2 noise levels of a run of 2 steps")


@pytest.mark.parametrize(
    "attend", [host_attention.attention_basic, host_attention.attention_pytorch, host_attention.attention_sub_quad, host_attention.attention_split]
)
@pytest.mark.parametrize("skip_reshape", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("rows", [[0], [1, 0], [0, 1], [1]])
def test_the_hosts_attentions(attend, skip_reshape, masked, rows):
    heads, total, dim, batch = 2, 40, 8, 2
    q, k, v = torch.randn(3, batch * len(rows), heads, total, dim, generator=torch.Generator().manual_seed(0))
    mask = torch.randn(len(q), 1, total, generator=torch.Generator().manual_seed(1)) if masked else None
    call = motion_slider.Call(Keys(8, 8, total), GAMMA, None, False, motion_slider.new_run())
    options = {"cond_or_uncond": rows, motion_slider.CALL: call, motion_slider.OVERRIDE: motion_slider.biased}
    flat = (lambda t: t) if skip_reshape else (lambda t: t.transpose(1, 2).flatten(2))
    out = attend(flat(q), flat(k), flat(v), heads, mask=mask, skip_reshape=skip_reshape, transformer_options=options)
    bias = torch.zeros(len(q), 1, 1, total, dtype=torch.float64) + (0 if mask is None else mask[:, None])
    for chunk, which in zip(bias.chunk(len(rows)), rows):
        chunk[..., 8:16] -= GAMMA * (which == 0)
    expected = attention(q.double(), k.double(), v.double(), bias).transpose(1, 2).flatten(2)
    assert torch.allclose(out.double(), expected, atol=1e-5)
    assert call.run.acted == (0 in rows)


@pytest.mark.parametrize("name", ["Wan 2.1 I2V", "LTXV", "Hunyuan 1.5 I2V"])
def test_neutral_settings_are_the_model_as_it_came(models, said, name):
    model = models(name)[0]
    assert slid(model, gamma=0.0) is model and slid(model, share=0.0) is model
    assert said[-1] == "nothing is changed: the setting is neutral"


def test_outside_its_share_plain_to_the_bit_and_the_step_counts(models, said):
    model, positive, negative, latent = models("Wan 2.1 I2V")
    for share, share_of, levels in ((0.2, STEPS, 2), (0.21, STEPS, 3), (0.2, TIME, 2)):
        sample(slid(model, share=share, share_of=share_of), positive, negative, latent, steps=10)
        assert f"at {levels} noise levels of a run of 10 steps" in said[-1]
    late = execute(custom.SplitSigmas, comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 4), 2).args[1]
    run = lambda of: execute(custom.SamplerCustom, of, True, 1, 3.0, positive, negative, comfy.samplers.sampler_object("euler"), late, latent).args[0][
        "samples"
    ]
    assert torch.equal(run(slid(model, share=0.4)), run(model)) and said[-1].startswith("nothing changed in 2 steps")


def test_at_cfg_1_and_in_both_directions(loud_models):
    """gamma takes off attention, -gamma gives it: the two results lie on different sides of the plain one."""
    model, positive, negative, latent = loud_models("Wan 2.1 I2V")
    plain, more, less = (sample(slid(model, gamma), positive, negative, latent, steps=1, cfg=1.0)[0] for gamma in (0.0, 0.3, -0.3))
    a, b = (more - plain).flatten(), (less - plain).flatten()
    assert a.norm() > 1e-4 and torch.cosine_similarity(a, b, dim=0) < -0.5


def test_only_the_conditional_branch(loud_models):
    model, positive, negative, latent = loud_models("Wan 2.1 I2V")
    predictions = []

    def note(args):
        predictions.append((args["cond_denoised"].clone(), args["uncond_denoised"].clone()))
        return args["denoised"]

    for of in (model, slid(model)):
        of = of.clone()
        of.set_model_sampler_post_cfg_function(note)
        sample(of, positive, negative, latent, steps=1, cfg=3.0)
    (cond, uncond), (slid_cond, slid_uncond) = predictions
    assert not torch.allclose(cond, slid_cond, atol=1e-4) and torch.allclose(uncond, slid_uncond, atol=1e-6)


def test_another_packs_override_is_chained(loud_models):
    model, positive, negative, latent = loud_models("Wan 2.1 I2V")
    calls = []

    def theirs(func, *args, **kwargs):
        calls.append(1)
        return func(*args, **kwargs)

    for order in (lambda m: slid(overridden(m, theirs)), lambda m: overridden(slid(m), theirs)):
        calls.clear()
        result = sample(order(model), positive, negative, latent, cfg=3.0)[0]
        assert torch.allclose(result, sample(slid(model), positive, negative, latent, cfg=3.0)[0], atol=1e-5) and len(calls) > 4


@pytest.mark.parametrize("answer", ["ignored", "raised"])
def test_an_attention_that_takes_no_bias_is_found_out(loud_models, said, answer):
    """Some attentions drop a mask without a word; then PyTorch's does the biased calls, and the node says so."""
    model, positive, negative, latent = loud_models("Wan 2.1 I2V")

    def theirs(func, q, k, v, heads, mask=None, **kwargs):
        if mask is not None and answer == "raised":
            raise NotImplementedError("no mask")
        return func(q, k, v, heads, **kwargs)

    result = sample(slid(overridden(model, theirs)), positive, negative, latent, cfg=3.0)[0]
    assert torch.allclose(result, sample(slid(model), positive, negative, latent, cfg=3.0)[0], atol=1e-5)
    assert [motion_slider.FALLBACK in note for note in said] == [False, True, False, False]


def test_the_trial_of_the_hosts_own_attentions(monkeypatch):
    for name in ("attention_basic", "attention_pytorch", "attention_sub_quad", "attention_split"):
        monkeypatch.setattr(host_attention, "optimized_attention", getattr(host_attention, name))
        assert motion_slider.takes_bias(None, torch.float32, "cpu")
    monkeypatch.setattr(host_attention, "optimized_attention", host_attention.attention_flash)
    assert not motion_slider.takes_bias(None, torch.float32, "cpu")


def test_the_branches_one_at_a_time_give_the_same(loud_models, monkeypatch):
    model, positive, negative, latent = loud_models("Wan 2.1 I2V")
    together = sample(slid(model), positive, negative, latent, cfg=3.0)[0]
    monkeypatch.setattr(comfy.samplers, "can_concat_cond", lambda a, b: a is b)
    assert torch.allclose(sample(slid(model), positive, negative, latent, cfg=3.0)[0], together, atol=1e-5)


def test_it_says_where_it_cannot_act(models, said):
    for name in ("SVD", "Mochi"):
        assert slid(models(name)[0]) is models(name)[0] and said[-1].startswith("nothing is changed: ")
    model, positive, negative, latent = models("LTXV guide")
    assert torch.equal(sample(slid(model), positive, negative, latent)[0], sample(model, positive, negative, latent)[0])
    assert "guides of LTXVAddGuide" in said[-1]
    model, positive, negative, latent = models("Wan 2.1 I2V")
    crowded = [[torch.zeros(1, 64, 8), c[1]] for c in positive]  # as many tokens of text as of video
    assert torch.equal(sample(slid(model), crowded, crowded, latent)[0], sample(model, crowded, crowded, latent)[0])
    assert "cannot be told apart" in said[-1]
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 2)

    def run(of):
        guider = execute(custom.DualCFGGuider, of, positive, positive, negative, 3.0, 2.0, "regular").args[0]
        return execute(custom.SamplerCustomAdvanced, custom.Noise_RandomNoise(1), guider, comfy.samplers.sampler_object("euler"), sigmas, latent).args[0][
            "samples"
        ]

    assert torch.equal(run(slid(model)), run(model)) and "three conditionings" in said[-1]


def test_of_context_windows_only_those_that_begin_with_the_first_frame(models):
    model = models("LTXV")[0].model
    slider = motion_slider.MotionSlider(None, GAMMA, 1.0, TIME, None)
    window = lambda *frames: {"context_window": SimpleNamespace(index_list=list(frames))}  # all that is read of the host's
    assert [slider.active(model, 1.0, options) for options in (window(0, 1), window(2, 3), {})] == [True, False, True]


def test_cogvideox_has_its_text_first():
    """Of hosts that have it; the network alone, called as its model class does."""
    cogvideo = pytest.importorskip("comfy.ldm.cogvideo.model")
    import comfy.ops

    net = cogvideo.CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=32,
        time_embed_dim=16,
        text_embed_dim=8,
        num_layers=1,
        use_rotary_positional_embeddings=True,
        dtype=torch.float32,
        device="cpu",
        operations=comfy.ops.disable_weight_init,
    )
    family_models.randomise(net)
    x, text = torch.randn(1, 32, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(1))
    keys = tokens.ORDERS["CogVideoX"](net, x, {"c_crossattn": text})
    assert keys == Keys(5, 16, 69)
    call = motion_slider.Call(keys, GAMMA, None, False, motion_slider.new_run())
    ours = {"cond_or_uncond": [0], motion_slider.CALL: call, motion_slider.OVERRIDE: motion_slider.biased}
    theirs = {"cond_or_uncond": [0], motion_slider.OVERRIDE: explicit(slice(5, 21), 69)}
    plain, result, expected = (net(x, torch.tensor([500.0]), text, transformer_options=options) for options in ({}, ours, theirs))
    assert call.run.acted and (result - expected).abs().max() < 1e-2 * (result - plain).abs().max()


def test_a_second_slider_replaces_the_first_and_nothing_is_left_behind(models):
    model, positive, negative, latent = models("Wan 2.1 I2V")
    options, plain = repr(model.model_options), sample(model, positive, negative, latent)[0]
    once = sample(slid(model, 0.3), positive, negative, latent)[0]
    assert torch.equal(sample(slid(slid(model, 5.0), 0.3), positive, negative, latent)[0], once)
    assert repr(model.model_options) == options and torch.equal(sample(model, positive, negative, latent)[0], plain)
