"""What early starts and motion gain do to models trained in the landscape world: `python run.py do bench.landscape FILE`, FILE first.

Of SVD's and of Wan's kind (demo/landscape). Held-out pictures, several seeds of each, the amount of motion left
open; the same pictures and seeds in every row, so that differences are paired. Also what the probe says of the model.
Writes bench/results/landscape_NAME.md and .webp, a picture to look at; another --part, number of --steps
than 20 or --cfg than 1 stands in the name. --quick takes 4 pictures with one seed and writes the picture alone,
beside the checkpoint.
"""

import argparse
import shlex
from dataclasses import dataclass
from pathlib import Path

import torch

from ..demo.landscape import graph, measure, panels, scenes, trained
from ..nodes.motion_gain_run import IMAGE, MEAN, OWN
from . import probe, sampling

STEPS = 20
SHOWN, FRAMES_SHOWN = 6, 5
CLIPS = 32  # of the probe
COLUMNS = ("median travel / the data's", "still clips", "frames without a subject", "distance to the nearest true clip", "travel more than plain, same clips", "distance more than plain, same clips")  # fmt: skip
OF_CAMERA = ("the camera moves in", "more clips than plain", "the camera's way", "more than plain, same clips", "the subject's own way", "more than plain, same clips")  # fmt: skip


@dataclass(frozen=True)
class Way:
    """How a clip is sampled. start: of the early start, in sigma; gain above sigma `end`, counted from `reference`."""

    name: str
    start: float | None = None
    analytic: bool = True
    gain: float = 1.0
    end: float = 0.0
    reference: str = OWN

    def patched(self, made, first):
        """The MODEL for one picture, IMAGE [1, H, W, 3]."""
        model = made.model
        if self.start is not None:
            model = graph.early(model, self.start, self.analytic)
        if self.gain != 1:
            still = {"samples": made.vae.encode(first.expand(made.frames, -1, -1, -1))} if self.reference == IMAGE else None
            model = graph.gained(model, self.gain, self.end, self.reference, still)
        return model


def ways(starts, naive, gains, both):
    """plain and the others. gains: (gain, end); both: (start, gain, end)."""
    return [
        Way("plain"),
        *(Way(f"early start, Analytic-Init, sigma {s:g}", s) for s in starts),
        *(Way(f"early start, naive, sigma {s:g}", s, False) for s in naive),
        *(Way(f"motion gain {g:g} above sigma {e:g}", gain=g, end=e) for g, e in gains),
        *(Way(f"early start {s:g} and motion gain {g:g} above {e:g}", s, gain=g, end=e) for s, g, e in both),
    ]


WAYS = {
    "SVD's": ways((30.0, 15.0, 8.0, 5.0), (8.0,), ((1.4, 5.0), (1.7, 5.0), (2.0, 5.0), (1.4, 3.0)), ()),
    "Wan's": ways(
        (0.98, 0.95, 0.9, 0.85, 0.75, 0.6), (0.95, 0.85, 0.75), ((1.2, 0.83), (1.4, 0.83), (1.7, 0.83), (2.0, 0.83), (1.4, 0.7)), ((0.95, 1.4, 0.83),)
    ),
}

REFERENCES = {
    kind: [Way("plain"), *(Way(f"motion gain {g:g} above sigma {e:g}, {r}", gain=g, end=e, reference=r) for r in (OWN, IMAGE, MEAN))]
    for kind, (g, e) in {"SVD's": (1.4, 5.0), "Wan's": (1.4, 0.83)}.items()
}
CAMERA = {"SVD's": ways((15.0,), (), ((1.4, 5.0), (2.0, 5.0)), ()), "Wan's": ways((0.9,), (), ((1.4, 0.83), (2.0, 0.83)), ())}


@dataclass(frozen=True)
class Read:
    """travel [n] over the data's median; lost [n], the share of frames without a subject; distance [n] to the nearest true clip, RGB.

    motion [n, 5]: of that true clip, a row of scenes.MOTIONS.
    """

    travel: torch.Tensor
    lost: torch.Tensor
    distance: torch.Tensor
    motion: torch.Tensor

    def cells(self):
        """The first four of COLUMNS."""
        still = (self.travel < panels.STILL).double()
        return [f"{self.travel.median():.2f}", f"{still.mean():.0%}", f"{self.lost.mean():.0%}", sampling.pm(self.distance)]


@torch.inference_mode()
def sampled(made, way, held_out, seeds, steps, bucket=scenes.OPEN, cfg=1.0):
    """Clips of each picture, seed by seed: RGB [n, t, 3, H, W]. bucket: the amount that a model is told which is told one."""
    out = []
    for scene in (held_out[i : i + 1] for i in range(len(held_out))):
        first = scenes.render(scene, 1)[0].movedim(1, -1)
        conditions, patched = made.conditioned(first, bucket), way.patched(made, first)
        for seed in range(seeds):
            frames = graph.sampled(patched, made.vae, conditions, seed, steps, made.scheduler, cfg)
            out.append(frames.movedim(-1, 1).clamp(0, 1).cpu())
    return torch.stack(out)


def read(pixels, held_out, seeds, typical):
    truth = held_out[torch.arange(len(held_out)).repeat_interleave(seeds)]
    tracks = measure.track(pixels, truth)
    parts = torch.arange(len(pixels)).split(16)
    part = lambda p: measure.Tracks(tracks.places[p], tracks.errors[p], tracks.velocity[p])
    nearest, distance = zip(*(measure.nearest_clip(pixels[p], truth[p], part(p)) for p in parts))
    return Read(tracks.travel / typical, tracks.lost, torch.cat(distance), torch.cat([scene.motion for scene in nearest]))


class Table:
    """A --part: its ways of each kind, its columns, and the columns in words."""

    def __init__(self, ways, columns=COLUMNS, words="Distance: root mean square, full colour range = 1."):
        self.ways, self.columns, self.words = ways, columns, words

    def first(self, made):
        """Rows above the model's."""
        return []

    def row(self, made, name, found, plain):
        """plain: None in the plain row itself."""
        paired = lambda column: "" if plain is None else sampling.pm(getattr(found, column) - getattr(plain, column))
        return line(name, *found.cells(), paired("travel"), paired("distance"))


class Camera(Table):
    """Whether the camera moves, how far it takes the middle of a frame's half, and the subject beside it, over the data's median."""

    def first(self, made):
        return [self.of_motions(made, "the data", trained.typical(made.frames).motion, None)]

    def row(self, made, name, found, plain):
        return self.of_motions(made, name, found.motion, plain and plain.motion)

    def of_motions(self, made, name, found, plain):
        """found, plain: rows of scenes.MOTIONS."""
        unit = (made.frames - 1) / trained.typical_travel(made.frames)
        moves = lambda m: (m[:, 2:] != 0).any(1).double()
        way = lambda m: unit * torch.maximum(m[:, 2:4].norm(dim=1), m[:, 4].abs() * scenes.SIZE / 4)
        own = lambda m: unit * m[:, :2].norm(dim=1)
        return line(name, *(text for of in (moves, way, own) for text in (sampling.pm(of(found)), "" if plain is None else sampling.pm(of(found) - of(plain)))))


def line(*cells):
    """A row of a markdown table."""
    return f"| {' | '.join(cells)} |"


IN_WORDS = "Camera: that of the nearest true clip, its way that of a pan, or of a zoom halfway to the edge; the subject's own way is what it goes beside that."
PARTS = {"cures": Table(WAYS), "references": Table(REFERENCES), "camera": Camera(CAMERA, OF_CAMERA, IN_WORDS)}


def strip(pixels, seeds):
    """A column of the picture: the first clip of each of SHOWN pictures, FRAMES_SHOWN frames in a row: [n H, f W, 3]."""
    shown = pixels[::seeds][:SHOWN]
    shown = shown[:, torch.linspace(0, shown.shape[1] - 1, FRAMES_SHOWN).round().long()]
    return shown.movedim(2, -1).permute(0, 2, 1, 3, 4).flatten(2, 3).flatten(0, 1)


def _named(file):
    """A checkpoint as a reader has it: by its place in the pack, or by its name alone."""
    root = Path(__file__).parent.parent
    return str(file.resolve().relative_to(root)) if file.resolve().is_relative_to(root) else file.name


def main(arguments=None):
    from PIL import Image

    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("file", type=Path, help="a checkpoint that demo.landscape.train made")
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=4, help="clips of each picture")
    parser.add_argument(
        "--part", choices=list(PARTS), default="cures", help="cures, what motion gain counts from, or whether what moves is the camera or the subject"
    )
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--cfg", type=float, default=1.0)
    parser.add_argument("--only", action="append", help="rows whose name has this word, beside plain; may be repeated")
    parser.add_argument("--show", action="append", default=["plain"], help="ways in the picture, by name")
    parser.add_argument("--quick", action="store_true", help="4 pictures with one seed; only the picture is written")
    o = parser.parse_args(arguments)
    pictures, seeds = (min(4, o.pictures), 1) if o.quick else (o.pictures, o.seeds)
    made = trained.of(o.file)
    held_out = trained.held_out(pictures, made.frames)
    typical, plain, columns = trained.typical_travel(made.frames), None, []
    lines = []
    if (o.part, o.steps, o.cfg) == ("cures", STEPS, 1):  # once a model
        finding = probe.found_in(made.model, made.clips(CLIPS, 0), range(CLIPS), scenes.OPEN)
        lines += [f"The probe, on {CLIPS} clips of a fair draw: {finding.sentence}", ""]
    table = PARTS[o.part]
    lines += [line("", *table.columns), "|---" * (len(table.columns) + 1) + "|", *table.first(made)]
    print("\n".join(lines), flush=True)
    for way in table.ways[made.kind]:
        if way.name != "plain" and o.only and not any(word in way.name for word in o.only):
            continue
        pixels = sampled(made, way, held_out, seeds, o.steps, cfg=o.cfg)
        found = read(pixels, held_out, seeds, typical)
        lines.append(table.row(made, way.name, found, plain))
        plain = plain or found
        print(lines[-1], flush=True)
        if o.quick or way.name in o.show:
            columns.append(strip(pixels, seeds))
    image = Image.fromarray((torch.cat(columns, 1) * 255).round().byte().numpy())
    if o.quick:
        image.save(o.file.with_suffix(".webp"), quality=80)
        return
    name = "_".join(
        [
            "landscape",
            o.file.stem,
            *([o.part] if o.part != "cures" else []),
            *([f"{o.steps}_steps"] if o.steps != STEPS else []),
            *([f"cfg_{o.cfg:g}"] if o.cfg != 1 else []),
        ]
    )
    head = [
        f"# Early start and motion gain on a model of {made.kind} kind, trained in the landscape world",
        "",
        f"`python run.py do bench.landscape {shlex.join([_named(o.file), *arguments[1:]])}`: {pictures} held-out pictures, {seeds} seeds each, {o.steps} Euler steps, {made.scheduler}, CFG {o.cfg:g}, the amount of motion left open. "
        f"Travel: of the subject from the first frame to the last, by a tracker that flicker does not fool, over the data's median, {typical:.1f} pixels of {scenes.SIZE}. Still: less than a quarter of that. "
        f"{table.words} Mean ± standard error, differences pair by pair. A demo model on demo data.",
        "",
        f"![Six pictures, five frames of each: {', '.join(o.show)}]({name}.webp)",
        "",
    ]
    sampling.write_result(f"{name}.md", head + lines)
    image.save(sampling.RESULTS / f"{name}.webp", quality=80)
