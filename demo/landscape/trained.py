"""The landscape's trained models, of both kinds, each with what its graph is wired with.

A kind has the MODEL and VAE of a checkpoint, `conditioned(first, bucket)` -> positive, negative, latent, `clips(n, seed)`, a
prepared set for the probe, and what its graph is set to.
"""

import functools
from pathlib import Path

import torch
from safetensors import safe_open

from . import clips, graph, scenes, svd
from .wan import clips as wan_clips
from .wan import graph as wan_graph
from .wan import model as wan_model

CHECKPOINTS = svd.CHECKPOINTS | wan_model.CHECKPOINTS
HELD_OUT = 2_000_000_011  # seed of the pictures that are animated


def held_out(n, frames):
    """n scenes that no training has drawn, the amount of their motion told by nobody."""
    return scenes.sample(n, torch.Generator().manual_seed(HELD_OUT), told=0.0, frames=frames, alike=True)


def typical(frames):
    """Many scenes, as the data has them."""
    return scenes.sample(4096, torch.Generator().manual_seed(2_000_000_033), frames=frames)


@functools.cache
def typical_travel(frames):
    """The median way of a subject in the data from the first frame to the last, pixels."""
    places = scenes.path(typical(frames), frames)
    return float((places[:, -1] - places[:, 0]).norm(dim=-1).median())


class SVD:
    """SVD's kind."""

    scheduler, frames, kind = "karras", scenes.FRAMES, "SVD's"

    def __init__(self, file):
        self.file = file
        self.model, self.vision, self.vae = svd.load(file)

    def conditioned(self, first, bucket=scenes.OPEN):
        return graph.conditioned(self.vision, self.vae, first, bucket)

    def clips(self, n, seed):
        return clips.of_training(self.vision, n, seed)


class Wan:
    """Wan's kind."""

    scheduler, frames, kind = "simple", wan_clips.FRAMES, "Wan's"

    def __init__(self, file):
        self.file = file
        self.model, self.vae = wan_model.load(file)

    def conditioned(self, first, bucket=scenes.OPEN):
        """Nobody tells it an amount."""
        return wan_graph.conditioned(self.vae, first)

    def clips(self, n, seed):
        return wan_clips.fair(n, seed)


def of(file):
    """The kind of a checkpoint, loaded: a file, or a name of CHECKPOINTS."""
    file = CHECKPOINTS.get(file, Path(file))
    with safe_open(file, "pt") as opened:
        return (Wan if "patch_embedding.weight" in opened.keys() else SVD)(file)
