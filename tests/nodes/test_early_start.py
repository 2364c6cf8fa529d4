"""CILEarlyStart: where it acts, where it stays out, and what it says."""

import comfy_extras.nodes_custom_sampler as custom
import nodes as host_nodes
import pytest
import tiny
import torch
from cil_pack.nodes import early_start
from cil_pack.nodes.early_start import CILEarlyStart
from cil_pack.nodes.host.sampling import Sampling

import comfy.samplers

SEED = 3


@pytest.fixture
def said(monkeypatch):
    notes = []
    monkeypatch.setattr(early_start, "say", lambda node, text: notes.append(text))
    return notes


def patched(kind, start_as="fraction", start=0.6, analytic=True):
    model, latent = tiny.model(kind)
    out = CILEarlyStart.PREPARE_CLASS_CLONE(None).execute(model, start_as, start, analytic).args[0]
    return model, out, latent


def ksampler(model, latent, denoise=1.0, steps=4, sampler="euler", scheduler="simple"):
    cond = tiny.conditioning()
    return host_nodes.KSampler().sample(model, SEED, steps, 1.0, sampler, scheduler, cond, cond, latent, denoise)[0]["samples"]


def stage(model, latent, start, end, add_noise="enable", leftover="enable", steps=8):
    cond = tiny.conditioning()
    return host_nodes.KSamplerAdvanced().sample(
        model, add_noise, SEED, steps, 1.0, "euler", "simple", cond, cond, latent, start, end, leftover
    )[0]  # fmt: skip


def same_as_plain(model, out, latent, **options):
    spy, plain = tiny.Spy(out), tiny.Spy(model)
    result = torch.equal(ksampler(spy.model, latent, **options), ksampler(plain.model, latent, **options))
    return result and spy.sigmas == plain.sigmas


def test_it_acts_and_says_so(said):
    model, out, latent = patched("eps")
    assert not same_as_plain(model, out, latent)
    assert any("starts at sigma 2.27" in note and "instead of 14.6" in note and "Analytic-Init" in note for note in said)


def test_the_model_that_came_in_is_untouched(said):
    model, out, latent = patched("eps")
    assert out is not model
    assert not model.wrappers.get("outer_sample")


def test_denoise_below_1_is_left_alone(said):
    model, out, latent = patched("eps")
    assert same_as_plain(model, out, {"samples": torch.ones_like(latent["samples"])}, denoise=0.5)
    assert same_as_plain(model, out, latent, denoise=0.5)
    assert "not at the beginning (a later stage, or denoise below 1)" in said[-1]


def test_a_given_picture_is_left_alone(said):
    model, out, latent = patched("eps")
    assert same_as_plain(model, out, {"samples": torch.ones_like(latent["samples"])})
    assert "already holds a picture" in said[-1]


def test_a_mask_is_left_alone(said):
    model, out, latent = patched("eps")
    assert same_as_plain(model, out, {**latent, "noise_mask": torch.ones(1, 1, 8, 12)})
    assert "has a mask" in said[-1]


def test_noise_switched_off_is_left_alone(said):
    model, out, latent = patched("eps")
    stage(out, latent, 0, 10000, add_noise="disable", leftover="disable")
    assert "noise is switched off" in said[-1]


def test_a_second_stage_is_left_alone_and_the_hand_over_stays(said):
    """Two KSamplerAdvanced: the first is squeezed between the start and the hand-over."""
    model, out, latent = patched("eps", start=0.9)
    plain, spy = tiny.Spy(model), tiny.Spy(out)
    for s in (plain, spy):
        middle = stage(s.model, latent, 0, 3)
        stage(s.model, middle, 3, 10000, add_noise="disable", leftover="disable")
    assert len(spy.sigmas) == len(plain.sigmas) == 8
    assert spy.sigmas[0] == pytest.approx(Sampling.of(model).sigma(0.9), rel=1e-6)
    assert spy.sigmas[3:] == plain.sigmas[3:]
    assert all(a < b for a, b in zip(spy.sigmas[:3], plain.sigmas[:3]))
    assert "not at the beginning" in said[-1] and "instead of" in said[-2]


def test_every_scheduler_is_laid_anew_as_truncated_sigma_schedule_does(said):
    from cil_pack.nodes.schedule import LAYOUTS, truncated

    for kind in ("SVD", "eps", "flow shift 8"):
        model, out, latent = patched(kind, analytic=False)
        sampling = Sampling.of(model)
        for scheduler in comfy.samplers.SCHEDULER_NAMES:
            spy = tiny.Spy(out)
            ksampler(spy.model, latent, steps=7, scheduler=scheduler)
            explicit = truncated(sampling, scheduler, 7, sampling.sigma(0.6), LAYOUTS[0])
            assert spy.sigmas == pytest.approx(explicit[:-1].tolist(), rel=1e-5), (kind, scheduler)


def test_samplers_that_drop_the_last_but_one_sigma(said):
    """The host gives dpm_2 and uni_pc one step more and leaves one out; so does the early start."""
    model, out, latent = patched("SVD", "sigma", 100.0, analytic=False)
    spy = tiny.Spy(out)
    ksampler(spy.model, latent, steps=6, sampler="dpm_2", scheduler="karras")
    full = comfy.samplers.k_diffusion_sampling.get_sigmas_karras(7, 0.002, 100.0)
    assert spy.sigmas[0::2] == pytest.approx(full[:-2].tolist(), rel=1e-5)


def test_sigmas_of_ones_own_are_squeezed_in_time(said):
    model, out, latent = patched("SVD", "sigma", 100.0)
    own = torch.tensor([700.0, 54.5, 15.9, 4.2, 0.9, 0.002, 0.0])
    spy = tiny.Spy(out)
    sampler = comfy.samplers.sampler_object("euler")
    custom.SamplerCustom.execute(spy.model, True, SEED, 1.0, tiny.conditioning(), tiny.conditioning(), sampler, own, latent)
    assert len(spy.sigmas) == 6 and spy.sigmas[0] == 100.0
    assert spy.sigmas[-1] == pytest.approx(0.002)
    assert all(a > b for a, b in zip(spy.sigmas, spy.sigmas[1:]))
    assert own[0] == 700.0


def test_two_of_them_do_not_add_up(said):
    model, out, latent = patched("eps", start=0.9)
    twice = CILEarlyStart.PREPARE_CLASS_CLONE(None).execute(out, "fraction", 0.5, True).args[0]
    spy = tiny.Spy(twice)
    ksampler(spy.model, latent)
    assert spy.sigmas[0] == pytest.approx(Sampling.of(model).sigma(0.9), rel=1e-6)
    assert said[-1].startswith("left alone")


def test_a_model_without_evidence_is_left_alone_by_its_preset(said):
    model, out, latent = patched("flow shift 8", "family preset")
    assert same_as_plain(model, out, latent)
    assert "does not know" in said[-1]


def test_it_composes_with_another_packs_wrapper(said):
    import comfy.patcher_extension

    model, out, latent = patched("eps")
    seen = []

    def other(executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
        seen.append(float(sigmas[0]))
        return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)

    out.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, "another pack", other)
    ksampler(out, latent)
    assert seen == pytest.approx([Sampling.of(model).sigma(0.6)])


def test_an_older_hosts_call_without_latent_shapes_works(said):
    """0.3.64 passes its arguments by position and knows no latent_shapes."""
    wrapper = early_start.EarlyStart("fraction", 0.6, True, None, None)
    model, latent = tiny.model("eps")

    class Executor:
        class_obj = type("Guider", (), {"model_patcher": model})

        def __call__(self, noise, latent_image, sampler, sigmas, mask, callback, disable_pbar, seed):
            return sigmas

    full = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 4)
    noise = torch.randn(latent["samples"].shape)
    assert wrapper(Executor(), noise, latent["samples"], None, full, None, None, True, SEED)[0] < full[0]


def test_a_wrong_start_is_an_error_in_this_node():
    model, _ = tiny.model("eps")
    with pytest.raises(ValueError, match="largest sigma, 14.6146"):
        CILEarlyStart.PREPARE_CLASS_CLONE(None).execute(model, "sigma", 100.0, True)
