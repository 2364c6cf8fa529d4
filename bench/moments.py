"""Where the time of an estimate goes, and that its memory is flat: `python run.py do bench.moments`.

Synthetic clips through the demo's VAE at 320 x 512, 16 frames, on the CPU; then 100 and
10,000 synthetic latents through the accumulator.
"""

import resource
import sys

import torch

from ..cil.estimate import Estimate
from ..moments.estimate import encoder, load_vae


def peak_mib():
    """Largest resident size of this process so far."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / (2**20 if sys.platform == "darwin" else 2**10)


def main(arguments=None):
    latents = torch.randn(4, 16, 40, 64, generator=torch.Generator().manual_seed(0))
    for n in (100, 10_000):
        Estimate({}).run(range(n), lambda i: i, lambda i: latents)
        print(f"{n} latents of 4 x 16 x 40 x 64: peak memory of the process {peak_mib():.0f} MiB")
    encode = encoder(load_vae("demo"), "demo")
    clip = lambda i: torch.randint(0, 256, (16, 320, 512, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(i))
    estimate = Estimate({})
    encode(clip(0))  # warm up
    estimate.run(range(6), clip, encode)
    vae, rest = estimate.seconds["encode"], estimate.seconds["rest"]
    print(f"6 clips of 16 x 320 x 512: VAE {vae:.2f} s, accumulating {rest:.3f} s = {100 * rest / (vae + rest):.2f} % of both")
