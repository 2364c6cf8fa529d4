"""Convert the authors' .pt files, or others' safetensors of them: `python run.py do moments.convert FILE [FILE ...]`.

Writes FILE.cil.safetensors beside each. (The files also load as they are; this is for sharing.)
"""

import argparse
from pathlib import Path

from ..cil import moments
from ..cil.files import claim
from ..cil.processes import command


def convert(path: Path):
    """One file, and what became of it in the terminal."""
    out = path.with_name(path.stem + ".cil.safetensors")
    made = moments.load(path)
    with claim(out):
        moments.save(made, out)
    print(f"{out}: {made}")
    if moments.warning(made):
        print(f"warning: {moments.warning(made)}")


def main(arguments: list[str] | None = None):
    parser = argparse.ArgumentParser(prog="moments.convert", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    failed = False
    with command():
        for path in parser.parse_args(arguments).files:
            try:
                convert(path)
            except (ValueError, OSError) as error:
                print(error)
                failed = True
    if failed:
        raise SystemExit(1)
