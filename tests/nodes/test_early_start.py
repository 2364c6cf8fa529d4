"""CILEarlyStart: where it acts, where it stays out, and what it says."""

import comfy.model_sampling
import comfy.samplers
import comfy_extras.nodes_custom_sampler as custom
import comfy_extras.nodes_model_advanced as advanced
import pytest
import tiny
import torch
from node_calls import execute

import nodes as host_nodes
from cil_pack.nodes import early_start
from cil_pack.nodes.analytic_init import AnalyticInitLatent
from cil_pack.nodes.early_start import CILEarlyStart
from cil_pack.nodes.host.sampling import Sampling
from cil_pack.nodes.host.schedule import AUTO, HAND_OVER, TRAILING

SEED = 3


@pytest.fixture
def said(monkeypatch):
    notes = []
    monkeypatch.setattr(early_start, "say", lambda node, text: notes.append(text))
    return notes


def patched(kind, start_as="fraction", start=0.6, analytic=True, layout=AUTO):
    model, latent = tiny.model(kind)
    out = CILEarlyStart.PREPARE_CLASS_CLONE(None).execute(model, start_as, start, analytic, None, layout).args[0]
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
    assert "starts at sigma 2.27" in said[-1] and "Analytic-Init" in said[-1]


def test_the_model_that_came_in_is_untouched(said):
    model, out, latent = patched("eps")
    whole = model.get_model_object("model_sampling")
    before = whole.sigmas.clone()
    ksampler(out, latent)
    assert out is not model and not model.wrappers.get("outer_sample") and not model.object_patches
    assert model.get_model_object("model_sampling") is whole and torch.equal(whole.sigmas, before)


def first_x(model, latent, **options):
    spy = tiny.Spy(model)
    return ksampler(spy.model, latent, **options), spy.first_x, spy.sigmas


def noise_like(latent):
    return torch.randn(latent["samples"].shape, generator=torch.manual_seed(SEED))


def test_denoise_below_1_is_the_last_part_of_what_lies_below_the_start(said):
    """Half of it with 0.5; a picture is kept under that much noise, as without the node."""
    model, out, latent = patched("eps")
    given = {"samples": torch.ones_like(latent["samples"])}
    sampling = Sampling.of(model)
    _, x, sigmas = first_x(out, given, denoise=0.5)
    assert sigmas == pytest.approx(sampling.schedule("simple", 8, sampling.sigma(0.6))[4:-1].tolist())
    inside = model.get_model_object("process_latent_in")(given["samples"])
    assert torch.allclose(x, inside + sigmas[0] * noise_like(latent), atol=1e-5)
    assert "as its sampler says, below the start" in said[-1] and "already holds a picture" in said[-1]


def test_denoise_below_1_from_nothing_starts_from_the_gaussian_there(said):
    model, out, latent = patched("eps")
    _, x, sigmas = first_x(out, latent, denoise=0.5)
    assert x.std() == pytest.approx((sigmas[0] ** 2 + 1.0) ** 0.5, rel=0.05)  # an unknown family: variance 1
    assert "Analytic-Init" in said[-1]


@pytest.mark.parametrize("layout", [AUTO, HAND_OVER])
@pytest.mark.parametrize("kind", ["eps", "flow shift 8", "v zsnr"])
def test_a_given_picture_is_what_the_start_is_drawn_around(said, kind, layout):
    """x_M = alpha_M x_0 + sigma_M eps of the given x_0, instead of the data's mean."""
    model, out, latent = patched(kind, layout=layout)
    given = {"samples": torch.ones_like(latent["samples"])}
    _, x, sigmas = first_x(out, given)
    start = Sampling.of(model).sigma(0.6)
    assert sigmas[0] == pytest.approx(start, rel=1e-6)
    inside = model.get_model_object("process_latent_in")(given["samples"])
    signal = 1 - start if kind.startswith("flow") else 1.0
    assert torch.allclose(x, signal * inside + start * noise_like(latent), rtol=1e-5, atol=1e-5)
    assert "already holds a picture" in said[-1]


def test_what_a_mask_gives_free_starts_anew_and_the_rest_stays(said):
    model, out, latent = patched("eps")
    picture = torch.ones_like(latent["samples"])
    mask = torch.zeros(1, 1, 8, 12)
    mask[..., 6:] = 1
    _, anew, _ = first_x(out, latent)
    result, x, sigmas = first_x(out, {"samples": picture, "noise_mask": mask})
    assert torch.allclose(result[..., :6], picture[..., :6], atol=1e-6)
    assert torch.allclose(x[..., 6:], anew[..., 6:], atol=1e-5) and "mask keeps" in said[-1]


def test_a_mask_that_keeps_all_is_left_alone(said):
    _, out, latent = patched("eps")
    ksampler(out, {**latent, "noise_mask": torch.zeros(1, 1, 8, 12)})
    assert "leaves nothing free" in said[-1]


def test_noise_switched_off_goes_on_from_what_the_latent_holds(said):
    model, out, latent = patched("eps")
    held = {"samples": noise_like(latent)}
    spy = tiny.Spy(out)
    stage(spy.model, held, 0, 10000, add_noise="disable", leftover="disable")
    assert torch.allclose(spy.first_x, model.get_model_object("process_latent_in")(held["samples"]), atol=1e-5)
    assert "noise is switched off" in said[-1]


def test_two_stages_of_one_model_meet_below_the_start(said):
    model, out, latent = patched("eps", start=0.9)
    spy, sampling = tiny.Spy(out), Sampling.of(model)
    middle = stage(spy.model, latent, 0, 3)
    assert "hands over at sigma" in said[-1] and "same Early Start" in said[-1]
    stage(spy.model, middle, 3, 10000, add_noise="disable", leftover="disable")
    assert spy.sigmas == pytest.approx(sampling.schedule("simple", 8, sampling.sigma(0.9))[:-1].tolist(), rel=1e-6)


@pytest.mark.parametrize("second", ["patched", "plain"])
def test_a_kept_hand_over_stays_and_so_does_the_second_stage(said, second):
    """Two KSamplerAdvanced: the first is squeezed between the start and the hand-over."""
    model, out, latent = patched("eps", start=0.9, layout=HAND_OVER)
    plain, spy = tiny.Spy(model), tiny.Spy(out)
    for s, later in ((plain, plain), (spy, spy if second == "patched" else tiny.Spy(model))):
        middle = stage(s.model, latent, 0, 3)
        stage(later.model, middle, 3, 10000, add_noise="disable", leftover="disable")
    ran = spy.sigmas + ([] if second == "patched" else later.sigmas)
    assert len(ran) == len(plain.sigmas) == 8
    assert ran[0] == pytest.approx(Sampling.of(model).sigma(0.9), rel=1e-6)
    assert ran[3:] == plain.sigmas[3:] and all(a < b for a, b in zip(ran[:3], plain.sigmas[:3]))
    assert any("above the hand-over at" in note for note in said)


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
    execute(custom.SamplerCustom, spy.model, True, SEED, 1.0, tiny.conditioning(), tiny.conditioning(), sampler, own, latent)
    assert len(spy.sigmas) == 6 and spy.sigmas[0] == 100.0
    assert spy.sigmas[-1] == pytest.approx(0.002)
    assert all(a > b for a, b in zip(spy.sigmas, spy.sigmas[1:]))
    assert own[0] == 700.0


def test_of_two_of_them_the_later_one_counts(said):
    model, out, latent = patched("eps", start=0.5)
    twice = CILEarlyStart.PREPARE_CLASS_CLONE(None).execute(out, "fraction", 0.9, True).args[0]
    assert "the Early Start before this one no longer acts" in said[-1]
    once = CILEarlyStart.PREPARE_CLASS_CLONE(None).execute(model, "fraction", 0.9, True).args[0]
    assert same_as_plain(once, twice, latent)
    neutral = CILEarlyStart.PREPARE_CLASS_CLONE(None).execute(out, "fraction", 1.0, False).args[0]
    assert same_as_plain(model, neutral, latent)
    assert first_x(out, latent)[2][0] == pytest.approx(Sampling.of(model).sigma(0.5), rel=1e-6)  # the first itself is as it was


def test_a_clone_of_the_patched_model_starts_as_early(said):
    _, out, latent = patched("v zsnr")
    assert same_as_plain(out, out.clone(), latent)


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("shift", [1.0, 5.0, 12.0])
def test_a_node_that_sets_the_sampling_before_or_after(said, shift, order):
    """After: its object replaces the truncated one, and the wrapper squeezes, by the time of the new shift."""
    model, latent = tiny.model("flow")
    shifted = lambda m: advanced.ModelSamplingSD3().patch(m, shift)[0]
    early = lambda m: CILEarlyStart.PREPARE_CLASS_CLONE(None).execute(m, "fraction", 0.9, True).args[0]
    out = early(shifted(model)) if order == "before" else shifted(early(model))
    _, _, sigmas = first_x(out, latent, steps=6, scheduler="normal")
    sampling = Sampling.of(shifted(model))
    assert sigmas == pytest.approx(sampling.schedule("normal", 6, sampling.sigma(0.9))[:-1].tolist(), rel=2e-3)
    assert ("squeezed" in said[-1]) == (order == "after")


def test_trailing_reaches_the_authors_timesteps_under_a_ksampler(said):
    model, out, latent = patched("v zsnr", start=0.94, layout=TRAILING)
    for scheduler in ("simple", "karras"):  # whatever the sampler's own
        _, _, sigmas = first_x(out, latent, steps=50, scheduler=scheduler)
        steps = [round(float(Sampling.of(model).host.timestep(torch.tensor(s)))) for s in sigmas]
        assert steps[:4] == [939, 920, 901, 883] and steps[-1] == 18 and len(steps) == 50
    ordinary = patched("v zsnr", start=1.0, analytic=False, layout=TRAILING)[1]
    assert [round(float(Sampling.of(model).host.timestep(torch.tensor(s)))) for s in first_x(ordinary, latent, steps=50)[2]][:3] == [999, 979, 959]


def test_trailing_is_refused_where_time_is_continuous():
    with pytest.raises(ValueError, match="this model's time is continuous"):
        patched("SVD", layout=TRAILING)


def test_trailing_says_that_it_lays_whole_runs_only(said):
    _, out, latent = patched("eps", layout=TRAILING)
    stage(out, latent, 0, 3)
    assert "lays whole runs" in said[-1]


@pytest.mark.parametrize("kind", ["eps", "v zsnr", "v rescaled zsnr"])
@pytest.mark.parametrize("layout", [AUTO, HAND_OVER])
def test_the_naive_start_of_vp_is_the_papers_unit_noise_for_the_network(said, kind, layout):
    """p_T = N(0, I): the network is given exactly the sampler's noise."""
    model, out, latent = patched(kind, start=0.9, analytic=False, layout=layout)
    _, x, sigmas = first_x(out, latent)
    told = model.get_model_object("model_sampling").calculate_input(torch.tensor([sigmas[0]]), x)
    assert torch.allclose(told, noise_like(latent), rtol=1e-5, atol=1e-6)


def test_ddim_uniform_begins_where_its_scheduler_says_and_is_no_later_stage(said):
    """With uni_pc and dpm_2 too, of which the host drops a step."""
    for sampler in ("euler", "dpm_2", "uni_pc"):
        model, out, latent = patched("eps", start=0.9)
        _, x, sigmas = first_x(out, latent, steps=7, scheduler="ddim_uniform", sampler=sampler)
        assert x.std() == pytest.approx((sigmas[0] ** 2 + 1) ** 0.5, rel=0.05) and "Analytic-Init" in said[-1]


def test_a_model_that_samples_from_a_picture_is_refused_in_words():
    """IMG_TO_IMG_FLOW of newer hosts: its noise factor is 0."""
    model, latent = tiny.model("flow")

    class PictureToPicture(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
        def noise_scaling(self, sigma, noise, latent_image, max_denoise=False):
            return latent_image

    model.add_object_patch("model_sampling", PictureToPicture())
    with pytest.raises(ValueError, match="samples from a picture, not from noise"):
        CILEarlyStart.PREPARE_CLASS_CLONE(None).execute(model, "fraction", 0.9, True)
    with pytest.raises(ValueError, match="samples from a picture, not from noise"):
        AnalyticInitLatent.PREPARE_CLASS_CLONE(None).execute(model, latent, torch.tensor([0.9, 0.0]), 0, 1.0)


def test_a_flow_whose_noise_has_another_scale():
    """`noise_scale` of newer hosts: x = sigma s eps + (1 - sigma) x_0, so Eq. 5's standard deviation holds sigma s."""
    model, latent = tiny.model("flow")

    class Flow(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
        pass

    class Scaled(Flow):
        """The same on hosts before 0.28, which have no such scale."""

        def noise_scaling(self, sigma, noise, latent_image, max_denoise=False):
            return super().noise_scaling(sigma, self.noise_scale * noise, latent_image)

    sampling = Flow() if hasattr(Flow, "set_noise_scale") else Scaled()
    sampling.noise_scale = 2.5
    model.add_object_patch("model_sampling", sampling)
    out = CILEarlyStart.PREPARE_CLASS_CLONE(None).execute(model, "fraction", 0.6, True).args[0]
    _, x, sigmas = first_x(out, latent)
    assert sigmas[0] == pytest.approx(0.6)
    assert x.std() == pytest.approx((0.4**2 + (0.6 * 2.5) ** 2) ** 0.5, rel=0.02)  # an unknown family: variance 1


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
