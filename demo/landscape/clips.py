"""Clips of the landscape as a prepared set: to train in this world, and a fair draw of what a simulated leak was made for."""

import torch

from ..clips import DemoClips
from . import latents, scenes, simulated


def fair(scene, n, generator):
    """n clips of one scene, drawn by the shares that the simulated leak knows. generator: a CPU torch.Generator."""
    clips, shares = simulated.known(scene)
    return clips[torch.multinomial(shares, n, replacement=True, generator=generator)]


class LandscapeClips(DemoClips):
    """See DemoClips."""

    settings = {"fps": scenes.FPS}
    render, encode = staticmethod(scenes.render), staticmethod(latents.encode)
