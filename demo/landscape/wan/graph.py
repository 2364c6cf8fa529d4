"""Wan's kind in the host's own graph: its conditioning of a picture, as an artist has it."""

from .. import scenes
from . import model
from .clips import FRAMES


def conditioned(vae, first):
    """IMAGE [1, H, W, 3] -> positive, negative, latent, as WanImageToVideo makes them."""
    from comfy_extras.nodes_wan import WanImageToVideo

    return WanImageToVideo.execute(model.text(), model.text(), vae, scenes.SIZE, scenes.SIZE, FRAMES, 1, start_image=first).args
