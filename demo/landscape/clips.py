"""Clips of the landscape as a prepared set: to train in this world, and a fair draw of what a simulated leak was made for."""

import torch

from ..clips import DemoClips
from . import latents, scenes, simulated


def fair(scene, n, generator):
    """n clips of one scene, drawn by the shares that the simulated leak knows. generator: a CPU torch.Generator."""
    clips, shares = simulated.known(scene)
    return clips[torch.multinomial(shares, n, replacement=True, generator=generator)]


def of_training(clip_vision, n, seed):
    """n clips of the kind that SVD's kind was trained on, the amount of motion told by nobody; none of them was trained on."""
    drawn = scenes.sample(n, torch.Generator().manual_seed(scenes.SEEN_BY_NO_TRAINING + seed), told=0.0, alike=True)
    return LandscapeClips(clip_vision, drawn, f"probe-{seed}")


class LandscapeClips(DemoClips):
    """See DemoClips."""

    settings = {"fps": scenes.FPS}
    render, encode = staticmethod(scenes.render), staticmethod(latents.encode)
