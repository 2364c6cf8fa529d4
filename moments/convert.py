"""Convert the authors' .pt files, or others' safetensors of them: `python run.py do moments.convert FILE [FILE ...]`.

Writes FILE.cil.safetensors beside each. (The files also load as they are; this is for sharing.)
"""

import argparse
from pathlib import Path

from ..cil import moments


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="moments.convert", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    failed = False
    for path in parser.parse_args(arguments).files:
        try:
            made = moments.load(path)
        except ValueError as error:
            print(error)
            failed = True
            continue
        out = path.with_name(path.stem + ".cil.safetensors")
        moments.save(made, out)
        print(f"{out}: {made}")
        if moments.warning(made):
            print(f"warning: {moments.warning(made)}")
    if failed:
        raise SystemExit(1)
