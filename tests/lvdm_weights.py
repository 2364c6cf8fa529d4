"""Small LVDM networks with weights and inputs that anyone can make again from names and shapes.

The recipe: the tensors sorted by name; the k-th is drawn from a generator seeded with k.
Matrices and kernels are normal over the square root of their fan-in, norms' weights are
1 + 0.1 normal, everything else is 0.1 normal.
"""

import torch

FRAMES = 4
UNET = {"model_channels": 32, "channel_mult": (1, 2), "res_blocks": 1, "head_channels": 16, "context_dim": 24, "out_channels": 4}
RESAMPLER = {"dim": 24, "depth": 2, "heads": 12, "head_dim": 2, "embedding_dim": 20, "output_dim": 24}
# name: (input channels, learned weight of image attention, image tokens for each frame)
NETWORKS = {
    "DynamiCrafter 256": (8, True, True),
    "DynamiCrafter 512": (8, False, True),
    "VideoCrafter1": (4, False, False),
}


def draw(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def weights(shapes):
    """{name: shape} -> {name: float32 tensor}."""
    made = {}
    for seed, name in enumerate(sorted(shapes)):
        shape = tuple(shapes[name])
        value = draw(shape, seed)
        if len(shape) > 1:
            made[name] = value / (value[0].numel() ** 0.5)
        else:
            made[name] = 0.1 * value + (1.0 if name.endswith("weight") else 0.0)
    return made


def inputs(channels):
    """A batch of two clips, one frame longer than FRAMES, [b, C, t, h, w], and what goes with them."""
    return {
        "x": draw((2, channels, FRAMES + 1, 8, 12), 1000),
        "text": draw((2, 77, UNET["context_dim"]), 1001),
        "clip": draw((2, 5, RESAMPLER["embedding_dim"]), 1002),
        "timesteps": torch.tensor([999, 37]),
        "fps": torch.tensor([24, 3]),
    }
