"""The first x that the model sees, by every route, for every kind of sampling the host has."""

import comfy.sample
import comfy.samplers
import comfy.utils
import comfy_extras.nodes_custom_sampler as custom
import pytest
import tiny
import torch
from node_calls import run

import nodes as host_nodes
from cil_pack.cil import moments as cil_moments
from cil_pack.nodes.analytic_init import AnalyticInitLatent
from cil_pack.nodes.early_start import CILEarlyStart
from cil_pack.nodes.host.sampling import Sampling
from cil_pack.nodes.schedule import LAYOUTS, TruncatedSigmaSchedule

SEED = 7
EVERY = list(tiny.KINDS)
CLOSED_FORM = {  # the forward process in the host's space, written out by hand
    "flow": lambda s: (1 - s, s),
    "flow shift 8": lambda s: (1 - s, s),
    "flux": lambda s: (1 - s, s),
}


def some_moments(latent, variance=0.7):
    samples = latent["samples"]
    channels = samples.shape[1]
    mean = torch.linspace(-1, 1, channels * 3 * 8 * 12).reshape(channels, 3, 8, 12)
    space = {4: "sd", 16: "wan21"}[channels]
    return cil_moments.Moments(mean, variance, space)


def setup(kind, fraction):
    model, latent = tiny.model(kind)
    sigmas, sigma, _ = run(TruncatedSigmaSchedule, model, "simple", 4, "fraction", fraction, LAYOUTS[0])
    return model, latent, sigmas, sigma


def expected_x(model, latent, sigma, moments, seed=SEED):
    """mu_p + sigma_p eps of Eq. 5, in float64 and from nothing but the closed form."""
    shape = latent["samples"].shape
    signal, noise = CLOSED_FORM.get(model.kind, lambda s: (1.0, s))(sigma)
    mean = cil_moments.fit(moments, shape).double()
    eps = torch.randn(shape, generator=torch.manual_seed(seed)).double()
    return signal * mean + (signal**2 * moments.variance + noise**2) ** 0.5 * eps


def agree(x, expected, rel=1e-5):
    return (x.double() - expected).abs().max() <= rel * expected.abs().max()


@pytest.fixture(params=EVERY)
def kind(request):
    return request.param


@pytest.fixture(params=[0.6, 1.0])
def fraction(request):
    return request.param


def advanced(spy, noise, sigmas, latent):
    guider = run(custom.BasicGuider, spy.model, tiny.conditioning())[0]
    sampler = run(custom.KSamplerSelect, "euler")[0]
    return run(custom.SamplerCustomAdvanced, noise, guider, sampler, sigmas, latent)[0]


def sampler_custom(spy, sigmas, latent, add_noise):
    sampler = run(custom.KSamplerSelect, "euler")[0]
    return run(custom.SamplerCustom, spy.model, add_noise, SEED, 1.0, tiny.conditioning(), tiny.conditioning(), sampler, sigmas, latent)[0]


def test_custom_advanced_sees_eq_5(kind, fraction):
    model, latent, sigmas, sigma = setup(kind, fraction)
    model.kind = kind
    moments = some_moments(latent)
    mean, noise, _ = run(AnalyticInitLatent, model, latent, sigmas, SEED, 1.0, moments)
    spy = tiny.Spy(model)
    advanced(spy, noise, sigmas, mean)
    assert spy.sigmas[0] == pytest.approx(sigma, rel=1e-6)
    assert agree(spy.first_x, expected_x(model, latent, sigma, moments))
    assert not latent["samples"].any()  # what came in is left as it was


def test_the_first_x_has_the_stated_mean_and_deviation(kind, fraction):
    """Eq. 5 by statistics alone: over many noises, mean mu_p and standard deviation sigma_p."""
    model, latent, sigmas, sigma = setup(kind, fraction)
    latent = {"samples": torch.cat(4 * [latent["samples"]], -1)}  # a wide one: many numbers in few runs
    moments = some_moments(latent)
    process = Sampling.of(model).process
    spy = tiny.Spy(model)
    for seed in range(3):
        mean, noise, _ = run(AnalyticInitLatent, model, latent, sigmas, seed, 1.0, moments)
        advanced(spy, noise, sigmas[:2], mean)
    x = torch.stack(spy.x).double()
    mu = process.signal(sigma) * cil_moments.fit(moments, latent["samples"].shape).double()
    std = (process.signal(sigma) ** 2 * moments.variance + process.noise(sigma) ** 2) ** 0.5
    residual = (x - mu) / std
    n = residual.numel()
    assert abs(float(residual.mean())) < 5 / n**0.5
    assert abs(float(residual.std()) - 1) < 5 / (2 * n) ** 0.5


def test_noised_latent_gives_the_same_x(kind, fraction):
    model, latent, sigmas, sigma = setup(kind, fraction)
    model.kind = kind
    moments = some_moments(latent)
    _, _, noised = run(AnalyticInitLatent, model, latent, sigmas, SEED, 1.0, moments)
    if kind.startswith("fl") and fraction == 1.0:
        assert "multiplies a latent by zero" in noised.message
        return
    spy = tiny.Spy(model)
    sampler_custom(spy, sigmas, noised, add_noise=False)
    assert agree(spy.first_x, expected_x(model, latent, sigma, moments))


def test_early_start_sees_the_same_bit_for_bit(kind, fraction):
    """KSampler and KSamplerAdvanced with the one node = SamplerCustomAdvanced with the explicit ones."""
    model, latent = tiny.model(kind)
    moments = some_moments(latent)
    scheduler = "simple"
    sigmas, sigma, _ = run(TruncatedSigmaSchedule, model, scheduler, 4, "fraction", fraction, LAYOUTS[0])
    mean, noise, _ = run(AnalyticInitLatent, model, latent, sigmas, SEED, 1.0, moments)
    explicit = tiny.Spy(model)
    result = advanced(explicit, noise, sigmas, mean)["samples"]

    patched = run(CILEarlyStart, model, "fraction", fraction, True, moments)[0]
    spy = tiny.Spy(patched)
    cond = tiny.conditioning()
    one = host_nodes.KSampler().sample(spy.model, SEED, 4, 1.0, "euler", scheduler, cond, cond, latent, 1.0)[0]["samples"]
    two = host_nodes.KSamplerAdvanced().sample(spy.model, "enable", SEED, 4, 1.0, "euler", scheduler, cond, cond, latent, 0, 10000, "disable")[0]["samples"]
    three = sampler_custom(spy, run(custom.BasicScheduler, patched, scheduler, 4, 1.0)[0], latent, add_noise=True)["samples"]
    assert torch.equal(torch.tensor(spy.sigmas[:4]), sigmas[:-1])
    assert all(torch.equal(x, explicit.first_x) for x in spy.x[::4])
    assert torch.equal(one, result) and torch.equal(two, result) and torch.equal(three, result)


def test_neutral_settings_change_nothing(kind):
    """M = T and no moments: bit-identical to the graph without the nodes."""
    model, latent = tiny.model(kind)
    cond = tiny.conditioning()
    sample = lambda m: host_nodes.KSampler().sample(m, SEED, 4, 1.0, "euler", "simple", cond, cond, latent, 1.0)[0]["samples"]
    plain_spy, spy = tiny.Spy(model), tiny.Spy(run(CILEarlyStart, model, "fraction", 1.0, False)[0])
    assert torch.equal(sample(plain_spy.model), sample(spy.model))
    assert spy.sigmas == plain_spy.sigmas and all(torch.equal(a, b) for a, b in zip(spy.x, plain_spy.x))
    for name in comfy.samplers.SCHEDULER_NAMES:
        full = run(custom.BasicScheduler, model, name, 5, 1.0)[0]
        if torch.isfinite(full).all():
            assert torch.equal(run(TruncatedSigmaSchedule, model, name, 5, "fraction", 1.0, LAYOUTS[0])[0], full), name


def test_strength_0_has_no_mean(kind):
    model, latent, sigmas, _ = setup(kind, 0.6)
    mean, noise, _ = run(AnalyticInitLatent, model, latent, sigmas, SEED, 0.0, some_moments(latent))
    assert not mean["samples"].any()
    spy = tiny.Spy(model)
    advanced(spy, noise, sigmas, mean)
    eps = torch.randn(latent["samples"].shape, generator=torch.manual_seed(SEED))
    assert torch.allclose(spy.first_x / spy.first_x.std(), eps / eps.std(), atol=1e-5)


def test_the_same_seed_gives_the_same_result_and_another_another(kind):
    model, latent, sigmas, _ = setup(kind, 0.6)
    xs = []
    for seed in (SEED, SEED, SEED + 1):
        mean, noise, noised = run(AnalyticInitLatent, model, latent, sigmas, seed, 1.0, some_moments(latent))
        spy = tiny.Spy(model)
        advanced(spy, noise, sigmas, mean)
        xs.append((spy.first_x, noised["samples"]))
    assert torch.equal(xs[0][0], xs[1][0]) and torch.equal(xs[0][1], xs[1][1])
    assert not torch.equal(xs[0][0], xs[2][0])


def test_the_process_by_class_is_what_the_host_does(kind):
    """The closed form that the class promises, against the host's own noise_scaling."""
    sampling = Sampling.of(tiny.model(kind)[0])
    process = sampling.process
    assert process.name != "measured"
    for fraction in (0.1, 0.5, 0.9):
        sigma = sampling.sigma(fraction)
        assert sampling._scaled(sigma, noise=0, latent=1) == pytest.approx(process.signal(sigma), rel=1e-6)
        assert sampling._scaled(sigma, noise=1, latent=0) == pytest.approx(process.noise(sigma), rel=1e-6)


def test_a_sampling_that_the_pack_does_not_know_is_measured():
    model, latent = tiny.model("flow")

    class Foreign(torch.nn.Module):
        sigma_min, sigma_max = torch.tensor(0.01), torch.tensor(1.0)
        sigmas = torch.linspace(0.01, 1, 100)

        def noise_scaling(self, sigma, noise, latent_image, max_denoise=False):
            return 2 * sigma * noise + (1 - sigma) ** 2 * latent_image

        def percent_to_sigma(self, percent):
            return 1 - percent

    sampling = Sampling(Foreign())
    assert sampling.process.name == "measured"
    assert (sampling.process.signal(0.5), sampling.process.noise(0.5)) == pytest.approx((0.25, 1.0))
    assert sampling.fraction(0.5) == pytest.approx(0.5)


def test_m_and_sigma_are_inverse(kind):
    sampling = Sampling.of(tiny.model(kind)[0])
    for fraction in (0.05, 0.5, 0.96, 1.0):
        assert sampling.fraction(sampling.sigma(fraction)) == pytest.approx(fraction, rel=1e-4)
    assert sampling.sigma(1.0) == sampling.sigma_max


def test_continuous_fractions_are_the_hosts_percents(kind):
    sampling = Sampling.of(tiny.model(kind)[0])
    if sampling._table is None:
        assert sampling.sigma(0.7) == pytest.approx(float(sampling.host.percent_to_sigma(0.3)), rel=1e-6)
    else:
        assert sampling.sigma(0.7) == float(sampling.host.sigmas[699])


def test_where_a_mask_keeps_the_picture_it_stays():
    model, latent = tiny.model("eps")
    picture = torch.randn(latent["samples"].shape, generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(1, 1, 8, 12)
    mask[..., 6:] = 1
    given = {"samples": picture, "noise_mask": mask}
    sigmas = run(TruncatedSigmaSchedule, model, "simple", 4, "fraction", 0.6, LAYOUTS[0])[0]
    mean, noise, _ = run(AnalyticInitLatent, model, given, sigmas, SEED, 1.0, some_moments(latent))
    assert mean["noise_mask"] is mask
    assert torch.equal(mean["samples"][..., :6], picture[..., :6])
    spy = tiny.Spy(model)
    result = advanced(spy, noise, sigmas, mean)["samples"]
    assert torch.allclose(result[..., :6], picture[..., :6], atol=1e-5)
    plain = custom.Noise_RandomNoise(SEED).generate_noise(given)
    assert torch.equal(noise.generate_noise(given)[..., :6], plain[..., :6])


def masks(latent):
    """Every kind of mask a graph can carry, hard and soft."""
    shape = latent["samples"].shape
    half = torch.zeros(1, 1, 8, 12)
    half[..., 6:] = 1
    frames = shape[0] if len(shape) == 4 else shape[2]
    some = torch.zeros((frames, 1, 8, 12) if len(shape) == 4 else (1, 1, frames, 8, 12))
    some[1:] = 1
    if len(shape) == 5:
        some[:, :, 1:] = 1
    soft = half.clone()
    soft[..., 5:7] = 0.5
    return {"all free": torch.ones(1, 1, 8, 12), "none free": torch.zeros(1, 1, 8, 12), "half a picture": half, "all but the first frame": some, "soft": soft}


@pytest.mark.parametrize("output", ["latent and noise", "noised_latent"])
@pytest.mark.parametrize("name", ["all free", "none free", "half a picture", "all but the first frame", "soft"])
@pytest.mark.parametrize("kind", ["SVD", "eps", "flow shift 8"])
def test_every_output_keeps_what_every_mask_keeps(kind, name, output):
    """The result holds the picture where the mask keeps it, and is the same from either output where it is free."""
    model, latent = tiny.model(kind)
    shape = latent["samples"].shape
    picture = 5 + torch.randn(shape, generator=torch.Generator().manual_seed(1))
    mask = masks(latent)[name]
    given = {"samples": picture, "noise_mask": mask}
    sigmas = run(TruncatedSigmaSchedule, model, "simple", 4, "fraction", 0.6, LAYOUTS[0])[0]
    mean, noise, noised = run(AnalyticInitLatent, model, given, sigmas, SEED, 1.0, some_moments(latent))
    spy = tiny.Spy(model)
    expected = advanced(spy, noise, sigmas, mean)["samples"]
    kept = comfy.utils.reshape_mask(mask, shape).expand(shape) == 0
    assert torch.allclose(expected[kept], picture[kept], atol=1e-4)
    if output == "latent and noise":
        return
    if name == "soft":
        assert "keeps a part of the picture by half" in noised.message and "SamplerCustomAdvanced" in noised.message
        return
    assert torch.equal(noised["samples"][kept], picture[kept])
    result = sampler_custom(spy, sigmas, noised, add_noise=False)["samples"]
    assert torch.allclose(result[kept], picture[kept], atol=1e-4)
    assert torch.allclose(result[~kept], expected[~kept], atol=1e-4 * float(expected.abs().max()))


def test_an_empty_latent_is_sized_as_the_hosts_samplers_size_it(monkeypatch):
    """Newer hosts bring a latent of another model's scale to this one's by what the LATENT tells."""
    model, latent = tiny.model("eps")
    told = {}

    def newer(model, samples, downscale_ratio_spacial=None, downscale_ratio_temporal=None):
        told.update(spacial=downscale_ratio_spacial, temporal=downscale_ratio_temporal)
        return samples

    monkeypatch.setattr(comfy.sample, "fix_empty_latent_channels", newer)
    run(AnalyticInitLatent, model, {**latent, "downscale_ratio_spacial": 16}, torch.tensor([5.0, 0.0]), SEED, 1.0, some_moments(latent))
    assert told == {"spacial": 16, "temporal": None}


@pytest.mark.parametrize("kind, shape", [("SVD", (1, 4, 6, 8, 12)), ("SVD", (6, 16, 8, 12)), ("flow", (1, 4, 5, 8, 12)), ("flow", (16, 8, 12))])
def test_a_latent_of_another_make_is_told(kind, shape):
    """An empty one with other channels is sized by the host; a picture in the latent, or another number of dimensions, cannot be."""
    model, latent = tiny.model(kind)
    with pytest.raises(ValueError, match="this model takes latents of"):
        run(AnalyticInitLatent, model, {"samples": torch.ones(shape)}, torch.tensor([0.5, 0.0]), 0, 1.0)


@pytest.mark.parametrize("kind", ["SVD", "eps", "flow", "EDM"])
def test_a_start_above_the_models_levels_is_told(kind):
    model, latent = tiny.model(kind)
    top = Sampling.of(model).sigma_max
    with pytest.raises(ValueError, match="above the model's largest sigma"):
        run(AnalyticInitLatent, model, latent, torch.tensor([1.1 * top, 0.0]), 0, 1.0)
    run(AnalyticInitLatent, model, latent, torch.tensor([top, 0.0]), 0, 1.0)
