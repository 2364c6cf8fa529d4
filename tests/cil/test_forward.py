import pytest
import torch

from cil_pack.cil import forward

RESCALED = forward.rescaled(lambda s: 1 / (1 + 0.1 * s))
PROCESSES = [forward.VE, forward.VP, forward.FLOW, forward.RFLOW, RESCALED]


def vp_table(T=1000):
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, T, dtype=torch.float64) ** 2
    alphas = torch.cumprod(1 - betas, 0)
    return ((1 - alphas) / alphas).sqrt()


def test_vp_preserves_variance():
    for sigma in (0.03, 1.0, 14.6):
        assert forward.VP.alpha(sigma) ** 2 + forward.VP.sigma(sigma) ** 2 == pytest.approx(1, rel=1e-12)


def test_host_space_of_vp_and_rflow_looks_like_ve():
    """Dividing Eq. 1 by alpha_t leaves x_0 + sigma_host eps."""
    for process in (forward.VP, forward.RFLOW, forward.VE, RESCALED):
        for sigma in (0.01, 0.7, 80.0):
            assert process.signal(sigma) == pytest.approx(1, rel=1e-12)
            assert process.noise(sigma) == pytest.approx(sigma, rel=1e-12)


def test_the_dynamic_rescale_shrinks_the_data_alone():
    """alpha = alpha_t s_t with alpha_t^2 + sigma_t^2 = 1; a factor of 1 is plain VP."""
    for sigma in (0.03, 1.0, 14.6):
        s = 1 / (1 + 0.1 * sigma)
        assert (RESCALED.alpha(sigma) / s) ** 2 + RESCALED.sigma(sigma) ** 2 == pytest.approx(1, rel=1e-12)
        assert RESCALED.sigma(sigma) / RESCALED.alpha(sigma) == pytest.approx(sigma, rel=1e-12)
        assert forward.rescaled(lambda s: 1.0).alpha(sigma) == pytest.approx(forward.VP.alpha(sigma), rel=1e-12)


def test_flow_goes_in_a_straight_line():
    assert [forward.FLOW.signal(s) for s in (0.0, 0.25, 1.0)] == [1.0, 0.75, 0.0]
    assert [forward.FLOW.noise(s) for s in (0.0, 0.25, 1.0)] == [0.0, 0.25, 1.0]


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: p.name)
def test_tensors_and_numbers_agree(process):
    sigmas = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    for f in (process.alpha, process.sigma, process.scale):
        assert torch.as_tensor(f(sigmas)).tolist() == pytest.approx([f(s) for s in sigmas.tolist()])


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: p.name)
def test_corrupt_has_the_stated_moments(process):
    g = torch.Generator().manual_seed(0)
    x0 = 3 + 0.5 * torch.randn(200_000, generator=g, dtype=torch.float64)
    x = process.corrupt(x0, torch.randn(200_000, generator=g, dtype=torch.float64), 0.6)
    assert float(x.mean()) == pytest.approx(3 * process.signal(0.6), abs=0.01)
    assert float(x.std()) == pytest.approx((0.25 * process.signal(0.6) ** 2 + process.noise(0.6) ** 2) ** 0.5, rel=0.01)


@pytest.mark.parametrize("m, index", [(1.0, 999), (0.94, 939), (0.96, 959), (0.001, 0), (0.28, 279), (0.57, 569)])
def test_table_index_is_m_t_minus_1(m, index):
    table = vp_table()
    assert forward.table_sigma(table, m) == float(table[index])
    assert forward.table_fraction(table, float(table[index])) == pytest.approx(m, rel=1e-12)


def test_table_interpolates_between_timesteps():
    table = vp_table()
    sigma = forward.table_sigma(table, 0.9405)
    assert float(table[939]) < sigma < float(table[940])
    assert forward.table_fraction(table, sigma) == pytest.approx(0.9405, rel=1e-9)


def test_fraction_of_a_sigma_beyond_the_table_is_its_end():
    table = vp_table()
    assert forward.table_fraction(table, 1e9) == 1.0
    assert forward.table_fraction(table, 1e-9) == 0.001


def test_curve_is_inverted():
    curve = lambda f: 0.002 * (700 / 0.002) ** f
    for f in (0.1, 0.5, 0.9999, 1.0):
        assert forward.curve_fraction(curve, curve(f)) == pytest.approx(f, rel=1e-9)


@pytest.mark.parametrize("m", [0.0, -0.5, 1.001, float("nan")])
def test_a_start_outside_0_1_is_refused(m):
    with pytest.raises(ValueError, match="fraction of T above 0 and at most 1"):
        forward.table_sigma(vp_table(), m)


def test_a_start_below_the_first_timestep_is_refused():
    with pytest.raises(ValueError, match="the least is 0.001"):
        forward.table_sigma(vp_table(), 0.0004)
