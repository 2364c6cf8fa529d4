"""Our nodes with the host's own model patches: what the help pages' list of combinations says."""

import comfy_extras.nodes_context_windows as windows
import comfy_extras.nodes_easycache as easycache
import pytest
import tiny
import torch
from cil_pack.cil.timenoise import generator_for
from cil_pack.nodes.early_start import CILEarlyStart
from cil_pack.nodes.host.sampling import Sampling
from cil_pack.nodes.timenoise import AS_SET, FIXED, TimeNoiseCondition
from comfy_api.torch_helpers import set_torch_compile_wrapper
from network_inputs import PLACES, cut, sample

LEVEL, SEED = 0.3, 11


def ours(model, positive, negative):
    """TimeNoise and the early start on a MODEL."""
    noised = TimeNoiseCondition.PREPARE_CLASS_CLONE(None).execute(model, positive, negative, FIXED, AS_SET, LEVEL, 5.0, SEED, False, True).args[0]
    return CILEarlyStart.PREPARE_CLASS_CLONE(None).execute(noised, "fraction", 0.9, True).args[0]


def easy(model):
    return easycache.EasyCacheNode.execute(model, 3.0, 0.0, 1.0, False).args[0]


def lazy(model):
    return easycache.LazyCacheNode.execute(model, 3.0, 0.0, 1.0, False).args[0]


def compiled(model):
    out = model.clone()
    set_torch_compile_wrapper(out, backend="eager")
    return out


@pytest.mark.parametrize("patch", [easy, lazy, compiled])
@pytest.mark.parametrize("order", ["ours first", "ours last"])
def test_caches_and_torch_compile(models, patch, order):
    """The first step starts early and sees the noised image, whichever node stands first."""
    model, positive, negative, latent = models("Wan 2.1 I2V")
    together = patch(ours(model, positive, negative)) if order == "ours first" else ours(patch(model), positive, negative)
    spy, heads = tiny.Spy(together), []
    counter = model.model.diffusion_model.head.register_forward_pre_hook(lambda *args: heads.append(1))
    result, seen = sample(spy.model, positive, negative, latent, steps=6)
    counter.remove()
    assert spy.sigmas[0] == pytest.approx(Sampling.of(model).sigma(0.9)) and torch.isfinite(result).all()
    _, plain = sample(model, positive, negative, latent, steps=1)
    _, channels, frames = PLACES["Wan 2.1 I2V"]
    before = plain.of("x", 0)[:, channels]
    eps = torch.randn(before.shape, generator=generator_for(SEED, "image"))[:, :, frames]
    assert torch.allclose(cut(seen.of("x", 0), channels, frames), before[:, :, frames] + LEVEL * eps, atol=1e-5)
    assert len(heads) < 6 or patch is compiled  # a cache really leaves steps out


def test_context_windows_over_a_videos_frames(models):
    model, positive, negative, latent = models("Mochi")
    windowed = windows.WanContextWindowsManualNode.execute(ours(model, positive, negative), 5, 1, "standard_static", 1, False, "pyramid").args[0]
    result, seen = sample(windowed, positive, negative, latent, steps=2)
    assert seen.sigmas[0] == pytest.approx(Sampling.of(model).sigma(0.9)) and seen.calls[0]["x"].shape[2] == 2
    assert torch.isfinite(result).all()


@pytest.mark.parametrize(
    "name, dim, message",
    [
        ("Wan 2.1 I2V", 2, "Sizes of tensors must match"),  # x is cut into windows, but not the image beside it
        ("SVD", 0, "must match the size of tensor"),  # as many noise levels as frames come, and are compared with the schedule
    ],
)
def test_context_windows_that_fail_in_this_host_without_us_too(models, name, dim, message):
    """When a later host learns it, this test will say so, and the help page's list is to be mended."""
    model, positive, negative, latent = models(name)
    windowed = windows.ContextWindowsManualNode.execute(model, 3, 1, "standard_static", 1, False, "pyramid", dim).args[0]
    with pytest.raises(RuntimeError, match=message):
        sample(windowed, positive, negative, latent, steps=1)
