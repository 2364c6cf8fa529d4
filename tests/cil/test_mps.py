"""What Apple's GPUs cannot do: they have no float64, so sums in double precision are taken on the CPU."""

import pytest
import torch

from cil_pack.cil import calibration, estimate, forward, initial_noise, probe
from cil_pack.cil.views import Views


class OnMps(torch.Tensor):
    """A tensor that refuses to be float64 until it has been brought to the CPU."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func.__name__ == "cpu" or (func.__name__ == "to" and "cpu" in map(str, args[1:])):
            return func(args[0].as_subclass(torch.Tensor), *args[1:], **(kwargs or {}))
        out = super().__torch_function__(func, types, args, kwargs or {})
        if isinstance(out, cls) and out.dtype == torch.float64:
            raise TypeError("the MPS framework doesn't support float64")
        return out


def clip(seed):
    return torch.randn(4, 5, 6, 6, generator=torch.Generator().manual_seed(seed)).as_subclass(OnMps)


def test_the_stand_in_refuses():
    for wrong in (lambda: clip(0).double(), lambda: clip(0).to(torch.float64), lambda: clip(0).sum(dtype=torch.float64)):
        with pytest.raises(TypeError, match="float64"):
            wrong()
    assert clip(0).to("cpu", torch.float64).dtype == clip(0).cpu().double().dtype == torch.float64


def test_probe_calibration_moments_and_starts_work_there():
    a, b = clip(1), clip(2)
    still = probe.frozen(a, 1)
    assert probe.motion_gain(a, a, still) == pytest.approx(1) and probe.responsiveness(a, b, a, b) == pytest.approx(1)
    assert 0 < probe.readable(forward.VE, 10.0, a, b) < 1
    assert Views(still)(a - still)
    sums, dims, moments = calibration.measure(lambda xs, sigma: xs, forward.VE, a, [10.0, 1.0], 1, 0)
    assert all(torch.isfinite(value).all() for value in sums.values())
    accumulator = estimate.Accumulator()
    accumulator.add(torch.stack([a, b]).as_subclass(OnMps))
    assert accumulator.mean.dtype == torch.float64
    assert initial_noise.frame_init(still, a, 0.1).shape == a.shape
