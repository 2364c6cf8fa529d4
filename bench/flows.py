"""DIS and RAFT on the same real clips: `python run.py do bench.flows`.

Writes bench/results/flows.md. Fetches the clips and RAFT's weights as the tests do.
"""

import sys
import time
from pathlib import Path

import torch

from ..cil import clips, flow, motion
from . import sampling

SPEC = clips.ClipSpec(frames=5, fps=6.0, height=225, width=400)
SIZE = (225, 400)  # half of SVD's, so that RAFT is bearable on a CPU


def score(frames, engine):
    """The mean flow a pair, brought to SVD's 800 x 450."""
    pairs = [f.norm(dim=-1).mean() for f in motion.flows(frames, engine, SIZE)]
    return float(torch.stack(pairs).mean()) * motion.SVD_SIZE[0] / SIZE[0]


def main(arguments=None):
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    import raft_weights
    import real_clips

    weights = raft_weights.folder()
    engines = {
        "DIS": flow.dis(),
        "RAFT small": flow.raft(weights=weights / "raft-small.pth"),
        "RAFT large (sintel)": flow.raft(weights=weights / "raft-sintel.pth"),
    }
    lines = [
        "# DIS and RAFT on real clips",
        "",
        f"`python run.py do bench.flows`: {SPEC.frames} frames at {SPEC.fps:g} a second, flow at {SIZE[1]} x {SIZE[0]}, mean flow of a pair in pixels at 800 x 450. The scores rank clips alike but are not the same numbers: compare only what one flow has measured.",
        "",
        f"| clip | {' | '.join(engines)} |",
        "|---|" + "---|" * len(engines),
    ]
    seconds, columns = dict.fromkeys(engines, 0.0), []
    for path in sorted(p for p in real_clips.folder().iterdir() if p.is_file()):
        try:
            frames = clips.read(path, SPEC, 0).float() / 255
        except clips.Unreadable as error:  # too short, for one
            print(f"{path.name}: {error}")
            continue
        scores = []
        for name, engine in engines.items():
            began = time.perf_counter()
            scores.append(score(frames, engine))
            seconds[name] += time.perf_counter() - began
        columns.append(scores)
        lines.append(f"| {path.name} | {' | '.join(f'{s:.2f}' for s in scores)} |")
        print(lines[-1], flush=True)
    table = torch.tensor(columns, dtype=torch.float64)
    ranks = table.argsort(0).argsort(0).double()
    correlation = torch.corrcoef(ranks.T)[0, 1:]
    lines += ["", f"Rank correlation with DIS: {', '.join(f'{n} {c:.2f}' for n, c in zip(list(engines)[1:], correlation.tolist()))}. "
              f"Seconds a pair on the CPU: {', '.join(f'{n} {s / len(columns) / (SPEC.frames - 1):.2f}' for n, s in seconds.items())}."]  # fmt: skip
    sampling.write_result("flows.md", lines)
