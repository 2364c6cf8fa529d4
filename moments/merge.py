"""Merge partial estimates: `python run.py do moments.merge A.partial.safetensors B.partial... --out FILE`.

Exact to rounding, in any order. The parts must be of one latent space, one VAE and one clip
size, and of different clips.
"""

import argparse
import itertools
from pathlib import Path

from ..cil import moments
from ..cil.estimate import Estimate, content, merge, shared
from ..cil.files import claim
from ..cil.processes import command

SHARED = ("space", "frames", "fps", "height", "width", "vae", "vae_weights")


def check(paths: list[Path], estimates: list[Estimate], doubles: bool):
    """Raise ValueError where parts do not go together, or hold the same clips."""
    first = estimates[0].settings
    for path, estimate in zip(paths, estimates):
        for key in SHARED:
            known = key in estimate.settings and key in first  # of version 1 not all of them
            if known and estimate.settings[key] != first[key]:
                raise ValueError(f"{path.name} has {key} {estimate.settings.get(key)}, but {paths[0].name} has {first.get(key)}: they cannot be merged")
    for (path, one), (other_path, other) in itertools.combinations(zip(paths, estimates), 2):
        both = shared(one, other)
        if both and not doubles:
            raise ValueError(
                f"{path} and {other_path} hold {both} of the same clips, which would count twice: merge parts of different files (or give --doubles if they are to count twice)"
            )


def main(arguments: list[str] | None = None):
    parser = argparse.ArgumentParser(prog="moments.merge", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--doubles", action="store_true", help="count clips that several parts hold as often as they come")
    o = parser.parse_args(arguments)
    with command(), claim(o.out):
        estimates = [Estimate.load(path) for path in o.parts]
        check(o.parts, estimates, o.doubles)
        first = estimates[0].settings
        about = {k: first.get(k) for k in ("frames", "height", "width", "fps")} | {
            "source": f"merged from {len(estimates)} parts",
            "scale": "latents as the network sees them",
        }
        about["content"] = content([h for estimate in estimates for h in estimate.hashes])
        made = merge(estimates).moments(str(first.get("space")), about)
        moments.save(made, o.out)
        print(f"{o.out}: {made}")
