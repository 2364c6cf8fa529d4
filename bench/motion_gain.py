"""Motion gain against the early start on the demo models: `python run.py do bench.motion_gain`.

The same pictures and seeds under every setting, so that differences are paired. Writes
bench/results/motion_gain_*.md and .png. --part does one table alone and writes nothing,
--quick takes few clips and writes nothing; clips that were made once are kept in
.run/motion_gain, so a run that was stopped goes on.
"""

import argparse
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ..demo import measure, model, scenes
from ..nodes.motion_gain import CILMotionGain
from . import sampling

KEPT = Path(__file__).parent.parent / ".run" / "motion_gain"
PLAIN = "plain"
COLUMNS = (
    "speed / asked",
    "still clips",
    "distance to the nearest true clip",
    "first frame",
    "flicker",
    "speed / asked more than plain, same clips",
    "distance more than plain, same clips",
)
SLOW, FAST = 60, 200  # motion buckets: these models make half and nine tenths of what they are asked for
STILL = 0.25  # of the speed asked for, below which a clip counts as still


@dataclass(frozen=True)
class Setting:
    """How a clip is sampled. start: of the early start with Analytic-Init; gain and the rest: of CILMotionGain."""

    start: float | None = None
    gain: float = 1.0
    end: float = 5.0  # sigma
    reference: str = "own first frame"
    protect: str = "nothing"
    shape: str = "constant"
    cfg: float = 1.0
    steps: int = sampling.STEPS
    bucket: int = SLOW

    @property
    def name(self):
        if self.start is None and self.gain == 1:
            return PLAIN
        words = [f"early start, sigma {self.start:g}"] if self.start else []
        words += [f"gain {self.gain:g} above sigma {self.end:g}"] if self.gain != 1 else []
        words += [w for w, usual in ((self.reference, "own first frame"), (self.shape, "constant")) if w != usual]
        words += [f"{self.protect} protected"] if self.protect != "nothing" else []
        return ", ".join(words)

    def patched(self, demo):
        made = demo.early(self.start, True)
        node = CILMotionGain.PREPARE_CLASS_CLONE(None)
        return node.execute(made, self.gain, "sigma", self.end, self.shape, self.reference, self.protect, 1.0).args[0]


def table_of(base, others):
    """Settings that differ from `base` as each of `others` says; the first is plain."""
    return [Setting(**base), *(Setting(**{**base, **other}) for other in others)]


GAINS = [{"gain": 1.2}, {"gain": 1.4}, {"gain": 1.7}, {"gain": 2.0}]
STARTS = [{"start": 20.0}, {"start": 7.0}]
PARTS = {
    "Gain and early start": table_of({}, [*STARTS, *GAINS]),
    "Where it ends": table_of({}, [{"gain": 1.4, "end": e} for e in (20.0, 10.0, 5.0, 2.0, 1.0)]),
    "Reference, shape, protection": table_of({}, [{"gain": 1.4}, {"gain": 1.4, "reference": "image"}, {"gain": 1.4, "reference": "mean over time"}, {"gain": 1.4, "shape": "smooth"}, {"gain": 1.4, "protect": "brightness and colour"}, {"gain": 1.4, "protect": "brightness, colour and contrast"}]),
    "Both, and less": table_of({}, [{"start": 20.0, "gain": 1.2}, {"gain": 0.7}]),
    "CFG 2": table_of({"cfg": 2.0}, [{"start": 20.0}, {"gain": 1.4}]),
    **{f"{n} steps": table_of({"steps": n}, [{"start": 20.0}, {"gain": 1.4}]) for n in (4, 6, 8, 25)},
    "Fast motion asked for": table_of({"bucket": FAST}, [{"start": 20.0}, {"gain": 1.2}, {"gain": 1.4}]),
}  # fmt: skip


def judged(demo, scene, seed, setting, patched):
    """One clip -> figures: speed over the one asked for; distance in latent units; the others RMS with the full colour range as 1."""
    sample = demo.sample(scene, seed, patched, cfg=setting.cfg, steps=setting.steps)
    speed, heading, distance = measure.nearest_clip(sample, scene)
    nearest = scene.replace(heading=heading, bucket=speed * scenes.MAX_BUCKET / scenes.MAX_SPEED)
    frames = demo.frames(sample).movedim(-1, 1).float().cpu()  # [t, 3, H, W]
    rest = frames - scenes.render(nearest, len(frames))[0]
    rms = lambda x: float(x.square().mean().sqrt())
    first = rms(frames[0] - scenes.render(scene, 1)[0, 0])
    return {"speed": float(speed / scenes.speed(scene.bucket)), "distance": float(distance), "first": first, "flicker": rms(rest[1:] - rest[:-1])}


class Clips:
    """Figures of a checkpoint's clips, made once and kept."""

    def __init__(self, checkpoint, images, seeds):
        path = Path(model.CHECKPOINTS.get(checkpoint, checkpoint))
        self.demo, self.images, self.seeds = sampling.Demo(checkpoint), images, seeds
        self.folder = KEPT / hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        self.folder.mkdir(parents=True, exist_ok=True)

    def of(self, setting):
        """-> a list of figures, a clip each: picture by picture, seed by seed."""
        key = hashlib.sha256(json.dumps(asdict(setting), sort_keys=True).encode()).hexdigest()[:16]
        path = self.folder / f"{key}.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        pictures, patched, out = sampling.held_out(self.images, setting.bucket), None, []
        for k in range(self.images):
            for seed in range(self.seeds):
                if f"{k} {seed}" not in known:
                    patched = patched or setting.patched(self.demo)
                    known[f"{k} {seed}"] = judged(self.demo, pictures[k : k + 1], seed, setting, patched)
                    path.write_text(json.dumps(known))
                out.append(known[f"{k} {seed}"])
        return out


def row(setting, clips, plain):
    """One line of a table."""
    column = lambda name: [c[name] for c in clips]
    still = sampling.mean_and_error([100.0 * (speed < STILL) for speed in column("speed")])
    paired = lambda name: "" if clips is plain else sampling.pm([a[name] - b[name] for a, b in zip(clips, plain, strict=True)])
    cells = [
        setting.name,
        sampling.pm(column("speed")),
        f"{still[0]:.0f} ± {still[1]:.0f} %",
        *(sampling.pm(column(n)) for n in ("distance", "first", "flicker")),
        paired("speed"),
        paired("distance"),
    ]
    return f"| {' | '.join(cells)} |"


def table(clips, title, settings):
    """-> lines of markdown, [(setting, motion, distance)]."""
    lines, points, plain = [f"## {title}", "", f"| | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"], [], None
    for setting in settings:
        found = clips.of(setting)
        plain = plain or found
        lines.append(row(setting, found, plain))
        points.append((setting, sampling.mean_and_error([c["speed"] for c in found]), sampling.mean_and_error([c["distance"] for c in found])))
        print(lines[-1], flush=True)
    return lines, points


def plot(points, path, title):
    """Motion against distance, a point a setting: more to the right and lower is better."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.6), dpi=110)
    kind = lambda s: PLAIN if s.name == PLAIN else "both" if s.start and s.gain != 1 else "early start" if s.start else "motion gain"
    for name, colour in ((PLAIN, "black"), ("early start", "tab:orange"), ("motion gain", "tab:blue"), ("both", "tab:green")):
        of = [p for p in points if kind(p[0]) == name]
        if of:
            axes.errorbar(
                [m[0] for _, m, _ in of],
                [d[0] for _, _, d in of],
                [d[1] for _, _, d in of],
                [m[1] for _, m, _ in of],
                "o",
                color=colour,
                label=name,
                ms=4,
                lw=0.8,
                alpha=0.8,
            )
        for setting, motion, distance in of:
            label = {
                PLAIN: "",
                "early start": f"{setting.start}",
                "motion gain": f"{setting.gain:g} > {setting.end:g}",
                "both": f"{setting.start}, {setting.gain:g}",
            }[name]
            axes.annotate(label, (motion[0], distance[0]), fontsize=7, xytext=(3, 3), textcoords="offset points")
    axes.axvline(1, color="grey", lw=0.8)
    axes.set(xlabel="speed / asked", ylabel="distance to the nearest true clip", title=title)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--checkpoint", action="append", help="leaking, healthy or a file; default: both")
    parser.add_argument("--part", action="append", choices=list(PARTS), help="one table; default: all")
    parser.add_argument("--images", type=int, default=4, help="held-out pictures")
    parser.add_argument("--seeds", type=int, default=3, help="clips of each")
    parser.add_argument("--quick", action="store_true", help="4 pictures with 1 seed, nothing written")
    parser.add_argument("--name", help="of the result's files; default: the checkpoint's")
    options = parser.parse_args(arguments)
    images, seeds = (4, 1) if options.quick else (options.images, options.seeds)
    for checkpoint in options.checkpoint or ("leaking", "healthy"):
        clips, lines, points = Clips(checkpoint, images, seeds), [], []
        name = options.name or Path(checkpoint).stem
        for title in options.part or PARTS:
            print(f"{name}: {title}", flush=True)
            rows, found = table(clips, title, PARTS[title])
            lines += ["", *rows]
            points += [p for p in found if p[0].cfg == 1 and p[0].steps == sampling.STEPS and p[0].bucket == SLOW]
        if options.quick or options.part:
            continue
        head = [
            f"# Motion gain on the {name} demo model",
            "",
            f"`python run.py do bench.motion_gain --images {images} --seeds {seeds}`: {images} held-out pictures, {seeds} seeds each, {sampling.STEPS} Euler steps, Karras, CFG 1 and a slow motion (bucket 60) asked for where a table says nothing else. "
            "Speed: of the nearest true clip; still: below a quarter of the speed asked. Distance: in latents, of unit variance. First frame (to the picture) and flicker (what differs from the nearest true clip, from frame to frame): root mean square, full colour range = 1. Mean ± standard error, differences pair by pair. Early starts with Analytic-Init. A demo model on demo data.",
            "",
            f"![Motion against distance](motion_gain_{name}.png)",
        ]
        sampling.write_result(f"motion_gain_{name}.md", head + lines)
        unique = list({p[0].name: p for p in points}.values())
        plot(unique, sampling.RESULTS / f"motion_gain_{name}.png", f"Motion gain and early start, {name} demo model")
