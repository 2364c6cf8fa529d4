"""Merge partial estimates: `python run.py do moments.merge A.partial.safetensors B.partial... --out FILE`.

Exact to rounding, in any order. The parts must be of one latent space and one clip size.
"""

import argparse
from pathlib import Path

from ..cil import moments
from ..cil.estimate import Estimate, merge

SHARED = ("space", "frames", "fps", "height", "width", "vae")


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="moments.merge", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        estimates = [Estimate.load(path) for path in options.parts]
        first = estimates[0].settings
        for path, estimate in zip(options.parts, estimates):
            for key in SHARED:
                if estimate.settings[key] != first[key]:
                    raise ValueError(f"{path.name} has {key} {estimate.settings[key]}, but {options.parts[0].name} has {first[key]}: they cannot be merged")
        about = {k: first[k] for k in ("frames", "height", "width", "fps")} | {"source": f"merged from {len(estimates)} parts", "scale": "latents as the network sees them"}
        made = merge(estimates).moments(first["space"], about)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    moments.save(made, options.out)
    print(f"{options.out}: {made}")
