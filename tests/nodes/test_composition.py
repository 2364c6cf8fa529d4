"""Our nodes with the host's own model patches: what the help pages' list of combinations says."""

import inspect

import comfy_extras.nodes_context_windows as windows
import einops
import pytest
import tiny
import torch
from host_patches import compiled, easy, lazy
from network_inputs import PLACES, cut, sample

from cil_pack.cil.randomness import generator_for
from cil_pack.nodes.early_start import CILEarlyStart
from cil_pack.nodes.host.sampling import Sampling
from cil_pack.nodes.timenoise import AS_SET, FIXED, TimeNoiseCondition

LEVEL, SEED = 0.3, 11


def ours(model, positive, negative):
    """TimeNoise and the early start on a MODEL."""
    noised = TimeNoiseCondition.PREPARE_CLASS_CLONE(None).execute(model, positive, negative, FIXED, AS_SET, LEVEL, 5.0, SEED, False, True).args[0]
    return CILEarlyStart.PREPARE_CLASS_CLONE(None).execute(noised, "fraction", 0.9, True).args[0]


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


def window(node, model, length, **more):
    """A host's node of context windows on a MODEL; newer hosts ask for more."""
    settings = {"context_schedule": "standard_static", "context_stride": 1, "closed_loop": False, "fuse_method": "pyramid", "freenoise": False, **more}
    known = inspect.signature(node.execute).parameters
    return node.execute(model, context_length=length, context_overlap=1, **{k: v for k, v in settings.items() if k in known}).args[0]


def test_context_windows_over_a_videos_frames(models):
    model, positive, negative, latent = models("Mochi")
    windowed = window(windows.WanContextWindowsManualNode, ours(model, positive, negative), 5)
    result, seen = sample(windowed, positive, negative, latent, steps=2)
    assert seen.sigmas[0] == pytest.approx(Sampling.of(model).sigma(0.9)) and seen.calls[0]["x"].shape[2] == 2
    assert torch.isfinite(result).all()


@pytest.mark.parametrize("name, dim", [("Wan 2.1 I2V", 2), ("SVD", 0)])
def test_context_windows_where_the_host_cuts_what_lies_beside_x(models, name, dim):
    """Some hosts cut x into windows, but not the image, or not the noise levels, with or without us."""
    model, positive, negative, latent = models(name)
    try:
        sample(window(windows.ContextWindowsManualNode, model, 3, dim=dim), positive, negative, latent, steps=1)
    except (RuntimeError, einops.EinopsError):
        pytest.skip(f"this host's context windows fail on {name} without us too")
    result, seen = sample(window(windows.ContextWindowsManualNode, ours(model, positive, negative), 3, dim=dim), positive, negative, latent, steps=2)
    assert torch.isfinite(result).all() and seen.of("x", 0).shape[dim] == 3
