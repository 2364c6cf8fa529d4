"""The truncated process: only its end is another; a sigma, a timestep and a per cent mean what they meant."""

import math

import comfy.model_sampling
import comfy.samplers
import comfy_extras.nodes_model_advanced as advanced
import pytest
import tiny
import torch

from cil_pack.cil import schedules
from cil_pack.nodes.early_start import CILEarlyStart
from cil_pack.nodes.host.sampling import Sampling
from cil_pack.nodes.host.truncated import whole_of

EVERY = [*tiny.KINDS, *tiny.SHIFTED]
FRACTIONS = [0.96, 0.9, 0.7533, 0.3]


def sampling_of(kind):
    if kind == "lcm":
        return Sampling.of(advanced.ModelSamplingDiscrete().patch(tiny.model("eps")[0], "lcm", False)[0])
    return Sampling.of(tiny.model(kind)[0])


@pytest.fixture(params=[*EVERY, "lcm"])
def sampling(request):
    return sampling_of(request.param)


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_its_largest_sigma_is_the_start_and_its_smallest_the_models(sampling, fraction):
    start = sampling.sigma(fraction)
    short = sampling.truncated(start)
    assert float(short.sigma_max) == pytest.approx(start, rel=1e-7) and short.sigmas[-1] == short.sigma_max
    assert float(short.sigma_min) == pytest.approx(sampling.sigma_min, rel=1e-6)
    assert (short.sigmas[1:] >= short.sigmas[:-1]).all() and short.sigmas[-1] > short.sigmas[-2]  # Cascade's own table repeats its first


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_the_network_is_told_the_same_timestep_for_the_same_sigma(sampling, fraction):
    short = sampling.truncated(sampling.sigma(fraction))
    for sigma in short.sigmas[:: len(short.sigmas) // 7]:
        assert torch.equal(short.timestep(sigma), sampling.host.timestep(sigma))


def test_a_per_cent_is_one_of_the_whole_schedule(sampling):
    """ControlNet ranges, conditioning ranges and caches mean the model's own."""
    short = sampling.truncated(sampling.sigma(0.9))
    for percent in (0.0, 0.05, 0.3, 0.95, 1.0):
        assert short.percent_to_sigma(percent) == sampling.host.percent_to_sigma(percent)


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_the_models_arithmetic_is_the_same(sampling, fraction):
    short, whole = sampling.truncated(sampling.sigma(fraction)), sampling.host
    g = torch.Generator().manual_seed(0)
    x, out = torch.randn(2, 4, 6, 6, generator=g), torch.randn(2, 4, 6, 6, generator=g)
    sigma = short.sigmas[[-1, len(short.sigmas) // 2]]
    assert torch.equal(short.calculate_input(sigma, x), whole.calculate_input(sigma, x))
    assert torch.equal(short.calculate_denoised(sigma, out, x), whole.calculate_denoised(sigma, out, x))
    assert torch.equal(short.noise_scaling(sigma[:1], x.clone(), out, True), whole.noise_scaling(sigma[:1], x.clone(), out, False))
    for kind in (comfy.model_sampling.CONST, comfy.model_sampling.EPS, comfy.model_sampling.ModelSamplingDiscrete):
        assert isinstance(short, kind) == isinstance(whole, kind)


@pytest.mark.parametrize("fraction", FRACTIONS)
@pytest.mark.parametrize("shift", [1, 3, 5, 8, 12, 17])
def test_normal_and_sgm_uniform_are_even_in_a_shifted_flows_own_time(shift, fraction):
    """By the definition of the shift alone: sigma(t) = shift t / (1 + (shift - 1) t), t even from the start's."""
    sigma = lambda t: shift * t / (1 + (shift - 1) * t)
    sampling = sampling_of("flow" if shift == 1 else f"flow shift {shift}")
    short = sampling.truncated(sigma(fraction))
    end, n = sampling.sigma_min, 30  # the host's own end: its timestep() of the smallest sigma, shifted again
    for name, shares in (("normal", [i / (n - 1) for i in range(n)]), ("sgm_uniform", [i / n for i in range(n)])):
        closed = [sigma(fraction + (end - fraction) * share) for share in shares]
        laid = comfy.samplers.calculate_sigmas(short, name, n)
        assert len(laid) == n + 1 and laid[:-1].tolist() == pytest.approx(closed, rel=1e-4)


def test_svd_karras_from_100_is_the_papers_under_a_ksampler():
    """Karras et al. 2022, Eq. 5: rho = 7 between 100 and 0.002."""
    model, _ = tiny.model("SVD")
    patched = CILEarlyStart.PREPARE_CLASS_CLONE(None).execute(model, "sigma", 100.0, True).args[0]
    laid = comfy.samplers.KSampler(patched, 25, "cpu", "euler", "karras").sigmas
    closed = [(100 ** (1 / 7) + i / 24 * (0.002 ** (1 / 7) - 100 ** (1 / 7))) ** 7 for i in range(25)]
    assert laid[:-1].tolist() == pytest.approx(closed, rel=2e-5)


def test_simple_is_the_authors_trailing_spacing_at_the_whole_schedule_alone():
    """What the help of Load DynamiCrafter says."""
    sampling = sampling_of("v zsnr")
    told = lambda sigmas: [round(float(t)) for t in sampling.host.timestep(sigmas[:-1])]
    assert told(comfy.samplers.calculate_sigmas(sampling.host, "simple", 50)) == schedules.trailing(1000, 50)
    assert told(sampling.schedule("simple", 50, sampling.sigma(0.94)))[:3] == [939, 921, 902] and schedules.trailing(940, 50)[:3] == [939, 920, 901]


def test_the_pack_itself_reads_the_whole_process_of_a_patched_model(sampling):
    short = sampling.truncated(sampling.sigma(0.9))
    again = Sampling(short)
    assert again.host is sampling.host is whole_of(short) and again.sigma(0.9) == sampling.sigma(0.9)


def test_it_is_moved_without_moving_the_models_own(sampling):
    short = sampling.truncated(sampling.sigma(0.9)).double()
    assert short.sigmas.dtype == torch.float64 and sampling.host.sigmas.dtype == torch.float32
    assert "whole" not in dict(short.named_modules()) and not math.isnan(float(short.sigma_max))
