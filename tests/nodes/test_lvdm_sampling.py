"""The noise process of LVDM models: the published tables, the authors' DDIM, and what the network sees."""

import comfy.k_diffusion.sampling
import pytest
import torch
from lvdm_ddim import ddim, published

from cil_pack.cil import schedules
from cil_pack.nodes.host.sampling import Sampling
from cil_pack.nodes.lvdm.model import VARIANTS
from cil_pack.nodes.lvdm.sampling import RescaledDiscrete, sampling_for


@pytest.fixture(params=VARIANTS, ids=lambda v: v.name)
def variant(request):
    return request.param


def host_sampling(variant):
    return sampling_for(variant, variant.prediction)


def test_the_tables_are_the_published_ones(variant):
    alpha, sigma, s = published(variant)
    table = host_sampling(variant).sigmas.double()
    assert (table / (sigma / (alpha * s)) - 1).abs().max() < 1e-5


def test_the_process_is_x_t_in_the_paper_s_terms(variant):
    """`Sampling.process`: data times alpha s, noise times sigma, the host's x over x_t."""
    alpha, sigma, s = published(variant)
    sampling = Sampling(host_sampling(variant))
    for t in (0, 1, 200, 399, 400, 700, 998):
        at = sampling.sigma((t + 1) / 1000)
        process = sampling.process
        assert process.alpha(at) == pytest.approx(float(alpha[t] * s[t]), rel=1e-5)
        assert process.sigma(at) == pytest.approx(float(sigma[t]), rel=1e-5)
        assert process.scale(at) == pytest.approx(1 / float(alpha[t] * s[t]), rel=1e-5)
        assert (process.signal(at), process.noise(at)) == (pytest.approx(1, rel=1e-6), pytest.approx(at, rel=1e-6))


def network(x, t):
    """Some network of x_t and t, far from linear."""
    return torch.sin(3 * x + t / 200) + 0.3 * x.flip(-1)


def test_25_euler_steps_are_the_authors_ddim(variant):
    timesteps = schedules.trailing(1000, 25)
    host = host_sampling(variant).double()
    alpha, sigma, s = published(variant)
    host.sigmas = sigma / (alpha * s)  # the host keeps its tables in float32; the identity needs no such allowance
    host.log_sigmas = host.sigmas.log()
    x_t = torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def denoise(z, at, **kwargs):
        return host.calculate_denoised(at, network(host.calculate_input(at, z), float(host.timestep(at)[0])), z)

    sigmas = torch.cat([host.sigmas[timesteps], torch.zeros(1, dtype=torch.float64)])
    z = host.noise_scaling(sigmas[0], x_t.clone(), torch.zeros_like(x_t), max_denoise=True)
    assert torch.allclose(host.calculate_input(sigmas[0], z), x_t, rtol=1e-9)  # the network begins with unit noise
    found = comfy.k_diffusion.sampling.sample_euler(denoise, z, sigmas, disable=True)
    expected = ddim(variant, network, x_t, timesteps)
    assert (found - expected).abs().max() < 1e-6 * expected.abs().max()


def test_between_two_timesteps_the_rescale_lies_between(variant):
    host = host_sampling(variant)
    if not isinstance(host, RescaledDiscrete):
        assert variant.base_scale == 1
        return
    a, b = host.sigmas[200].double(), host.sigmas[201].double()
    low, middle, high = (float(host.factor(v)) for v in (b, (a * b).sqrt(), a))
    assert low < middle < high and middle == pytest.approx((low + high) / 2, abs=1e-5)
    outside = host.factor(torch.tensor([1e-6, 1e9]))
    assert outside.tolist() == pytest.approx([1.0, variant.base_scale])


def test_the_ordinary_start_is_unit_noise_and_the_first_answer_is_its_v():
    """At zero terminal SNR x_0 = -v / s, to the accuracy of the finite last sigma."""
    variant = next(v for v in VARIANTS if v.name == "DynamiCrafter 1024")
    host = host_sampling(variant)
    eps, v = (torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(i)) for i in (1, 2))
    z = host.noise_scaling(host.sigma_max, eps, torch.zeros_like(eps), max_denoise=True)
    assert torch.allclose(host.calculate_input(host.sigma_max[None], z), eps, atol=1e-6)
    x0 = host.calculate_denoised(host.sigma_max[None], v, z)
    assert (x0 + v / 0.3).abs().max() < 3e-3 * (v / 0.3).abs().max()
