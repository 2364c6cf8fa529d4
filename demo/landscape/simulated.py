"""A simulated leak: the exact denoiser of one landscape, of whose answer a share is replaced by the still picture.

    D = (1 - l) D* + l F    above a noise level, D = D* below it

D* is the mean of all clips that the first frame allows, given the noisy clip; F the still clip. That
is what a leak is by definition, and a model that leaks by a known amount: cures can be held against it.
The weights of the host's model are not used.
"""

import comfy.patcher_extension
import torch

from .. import model as host_model
from . import graph, latents, scenes


def known(scene):
    """What the model knows of one scene: its clips and their shares, as `scenes.candidates`, those left out whose camera moves."""
    allowed, shares = scenes.candidates(scene)
    stands = ~allowed.motion[:, 2:].any(1)
    return allowed[stands], shares[stands] / shares[stands].sum()


class Leak:
    """The denoiser in a network's place. scene: one; share: l in [0, 1); above: sigma."""

    def __init__(self, scene, share, above):
        allowed, self.shares = known(scene)
        self.clips = torch.cat([latents.encode(scenes.render(some)) for some in _parts(allowed)])  # [m, T, 4, h, w]
        self.share, self.above = share, above
        self.still = latents.encode(scenes.render(scene.replace(motion=0.0), 1))[0]  # [1, 4, h, w]

    def denoised(self, x, sigma):
        """x [T, 4, h, w] the noisy clip -> its prediction."""
        exact = scenes.exact_denoised(x, sigma, self.clips, self.shares)
        leak = self.share if sigma > self.above else 0.0
        return (1 - leak) * exact + leak * self.still

    def __call__(self, executor, x, t, *args, **kwargs):
        """The host's APPLY_MODEL: x [k T, 4, h, w], t [k T] sigmas, k clips."""
        frames = self.clips.shape[1]
        if x.shape[1:] != self.clips.shape[2:] or len(x) % frames:
            size = scenes.SIZE
            raise ValueError(f"the simulated leak knows {frames} frames of {size} x {size}, but latents {tuple(x.shape)} came: set the conditioning to that")
        parts = zip(x.float().cpu().split(frames), t[::frames].tolist())
        return torch.cat([self.denoised(part, sigma) for part, sigma in parts]).to(x)


def _parts(clips, most=32):
    return (clips[i : i + most] for i in range(0, len(clips), most))


class Landscape(host_model.SVDDemo):
    """SVD's class of the host, whose answer the exact denoiser gives."""

    cil_family = "simulated leak"  # see nodes/families.py


def load(scene, share, above):
    """-> (ModelPatcher, ClipVisionModel, VAE)."""
    return loaded(Leak(scene, share, above))


def loaded(denoiser):
    """`load` with any APPLY_MODEL wrapper in the network's place."""
    model = host_model.build(Landscape)
    for weight in model.diffusion_model.parameters():  # not used, but no number that is not one
        torch.nn.init.zeros_(weight)
    patcher = host_model.patcher_of(model)
    patcher.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, "cil_simulated_leak", denoiser)
    return patcher, *graph.sockets()
