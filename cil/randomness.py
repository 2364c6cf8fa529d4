"""Every random draw of the pack: what it depends on, and nothing else.

A draw has a key: a seed, and what it is for. Whoever asks twice for one key gets the same numbers,
on every device and in whatever order. What a key is made of differs, and each kind keeps its
numbers for ever, so that a clip, a training or a probe of an older version comes back to the bit.
"""

import hashlib
import random
from pathlib import Path

import numpy as np
import torch


def seeded(seed: int) -> torch.Generator:
    """A CPU generator of one seed, as the host draws a sampler's noise."""
    return torch.Generator().manual_seed(seed)


def generator(*numbers: int) -> torch.Generator:
    """A CPU generator for a tuple of whole numbers >= 0, such as a training's seed and the number of an example; different tuples have nothing in common."""
    return seeded(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]))


def generator_for(*key) -> torch.Generator:
    """A CPU generator for a seed, a purpose in words and a sigma: the noise of a call while a sampler runs.

    A sigma counts to five digits, so that devices which round it differently agree.
    """
    text = "/".join(f"{part:.5g}" if isinstance(part, float) else str(part) for part in key)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return seeded(int.from_bytes(digest, "little") >> 1)


def clip_seed(seed: int, index: int) -> int:
    """A probe's seed for each clip of a set."""
    return seed * 1_000_033 + index + 1


def noise_for(x0: torch.Tensor, seed: int, level: int, draw: int) -> torch.Tensor:
    """Unit noise of one level and draw of a probe: like x0."""
    return torch.randn(x0.shape, generator=seeded((seed * 1_000_003 + level * 1009 + draw) % 2**63)).to(x0)


def chance_of(path: Path, seed: int, draw: int) -> random.Random:
    """Where a clip begins in a video, and whether it is mirrored: by the file's name, wherever it lies."""
    return random.Random(f"{seed} {draw} {Path(path).name}".encode("utf-8", "surrogateescape"))  # names need not be UTF-8
