"""Every cure beside the others: `python run.py do bench.rivals`.

    python run.py do bench.rivals --checkpoint leaking
    python run.py do bench.rivals --checkpoint svd_xt.safetensors --pictures FOLDER --steps 25 --cfg 2.5

A demo checkpoint, or an image-only checkpoint of SVD's kind with a folder of pictures. The same pictures and
seeds under every setting, so that differences are paired. Clips and figures are kept in .run/rivals: a run that
was stopped goes on. Writes rivals_*.md, .png and .html (clips in it, nothing else needed) to --out.
"""

import argparse
import base64
import hashlib
import html
import io
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..cil import attention_bias, consistency, flow
from ..demo import latents, model, scenes
from ..nodes import alg, low_pass, start_noise, timenoise
from . import motion_gain, sampling

KEPT = Path(__file__).parent.parent / ".run" / "rivals"
SIZE = (144, 256)  # at which motion is measured: the demo's clips have 128 x 128, and it is quicker
PLAIN = "plain"
SHOWN = 2  # pictures whose clips stand in the page
FIGURES = ("consistent motion", "flicker", "likeness", "dynamic degree", "evaluations", "seconds")
OF_DEMO = ("speed / asked", "distance to the nearest true clip")


# ---- what is animated ------------------------------------------------------------------


class DemoSource(sampling.Demo):
    """A demo checkpoint and held-out scenes: the truth is known."""

    columns = (*OF_DEMO, *FIGURES)

    def __init__(self, o):
        super().__init__(o.checkpoint)
        self.scenes, self.fps = sampling.held_out(o.images, o.bucket), scenes.FPS

    def __len__(self):
        return len(self.scenes)

    def picture(self, k):
        """-> positive, negative, latent, image [1, H, W, 3]."""
        scene = self.scenes[k : k + 1]
        return *self.conditioning(scene), scenes.render(scene, 1)[0].movedim(1, -1)

    def judged(self, samples, k):
        speed, _, distance = sampling.judge((samples * latents.SCALE)[None], self.scenes[k : k + 1])
        return dict(zip(OF_DEMO, (speed, distance), strict=True))


class FileSource:
    """An image-only checkpoint (SVD, SVD-XT and their tunings) and the pictures of a folder."""

    columns = FIGURES

    def __init__(self, o):
        import comfy.sd

        if o.pictures is None:
            raise SystemExit(f"{o.checkpoint} is a file: --pictures FOLDER says what to animate")
        self.files = sorted(p for p in o.pictures.iterdir() if p.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"))[: o.images]
        if not self.files:
            raise SystemExit(f"there are no pictures (.png, .jpg, .webp) in {o.pictures}")
        self.o, self.fps = o, o.fps
        self.model, _, self.vae, self.clip_vision = comfy.sd.load_checkpoint_guess_config(
            str(o.checkpoint), output_vae=True, output_clip=False, output_clipvision=True
        )
        if self.clip_vision is None:
            raise SystemExit(f"{o.checkpoint} brings no image encoder: an image-only checkpoint, of SVD's kind, is wanted")

    early = sampling.Demo.early

    def __len__(self):
        return len(self.files)

    def picture(self, k):
        import numpy as np
        from comfy_extras.nodes_video_model import SVD_img2vid_Conditioning
        from PIL import Image, ImageOps

        o = self.o
        with Image.open(self.files[k]) as picture:
            image = torch.from_numpy(np.asarray(ImageOps.fit(picture.convert("RGB"), (o.width, o.height))).copy()).float()[None] / 255
        return *SVD_img2vid_Conditioning().encode(self.clip_vision, image, self.vae, o.width, o.height, o.frames, o.bucket, round(o.fps), 0.0), image

    def judged(self, samples, k):
        return {}


# ---- the cures -------------------------------------------------------------------------


def node(cls, **given):
    """A node's outputs; what is not given is as its schema has it."""
    defaults = {i.id: i.default for i in cls.define_schema().inputs if getattr(i, "default", None) is not None}
    return cls.PREPARE_CLASS_CLONE(None).execute(**(defaults | given)).args


@dataclass
class Run:
    """One clip to be sampled: what a cure may change."""

    model: object
    positive: object
    negative: object
    latent: dict
    image: torch.Tensor
    seed: int
    source: object
    noise: object = None
    runs: int = 1  # whole runs of FreeInit


@dataclass(frozen=True)
class Cure:
    """change(run): sets the cure up. cfg: above 1 where it acts on guidance alone. start, end: in words, for the table."""

    name: str
    change: Callable
    cfg: float | None = None


def of_setting(**setting):
    """Motion gain and early start with Analytic-Init, as bench.motion_gain has them."""
    made = motion_gain.Setting(**setting)
    return Cure(made.name, lambda run: setattr(run, "model", made.patched(run.source)))


def naive(run, sigma):
    run.model = run.source.early(sigma, False)


def other_start(run, **given):
    still = {"samples": run.source.vae.encode(run.image)} if given["method"] == start_noise.FRAME_INIT else None
    run.noise = node(start_noise.StartNoiseNode, model=run.model, seed=run.seed, image_latent=still, **given)[0]


def free_init(run, runs=3):
    run.runs = runs


def on_condition(run, cls, **given):
    run.model = node(cls, model=run.model, positive=run.positive, negative=run.negative, **given)[0]


def guided(run, strength, end):
    run.model = node(alg.AdaptiveLowPass, model=run.model, preset=alg.AS_SET, strength=strength, interval_in=alg.STEPS, start_at=0.0, end_at=end)[0]


def temporal_bias(run, gamma, share=attention_bias.PUBLISHED_SHARE):
    """DyMoS' idea for temporal attention: a bias on the first frame's key in the attentions that run over the frames alone."""
    import comfy.ldm.modules.attention as host

    frames = run.latent["samples"].shape[0]

    def override(func, q, k, v, heads, *args, **kwargs):
        options = kwargs.get("transformer_options") or {}
        sigmas, now = options.get("sample_sigmas"), options.get("sigmas")
        over_frames = k.shape[1] == q.shape[1] == frames and k.shape[0] > 1
        if not over_frames or sigmas is None or now is None:
            return func(q, k, v, heads, *args, **kwargs)
        step = int((sigmas.to(now) >= now.flatten()[0]).sum()) - 1
        if not attention_bias.in_first_share(step, len(sigmas) - 1, share):
            return func(q, k, v, heads, *args, **kwargs)
        run.source.biased = getattr(run.source, "biased", 0) + 1
        return host.attention_pytorch(q, k, v, heads, attention_bias.Keys(0, 1, frames).bias(gamma, q))

    run.model = run.model.clone()
    options = run.model.model_options
    run.model.model_options = {**options, "transformer_options": {**options.get("transformer_options", {}), "optimized_attention_override": override}}


def both(*cures):
    def change(run):
        for cure in cures:
            cure(run)

    return change


def timenoised(run, preset, mode=timenoise.DRAWN):
    on_condition(run, timenoise.TimeNoiseCondition, mode=mode, preset=preset, seed=run.seed)


def cures(o):
    """The rows of the table, plain first. Starts and ends are in sigma: the demo's, or SVD's for a file."""
    high, low, end = (20.0, 7.0, 5.0) if o.demo else (100.0, 50.0, 5.0)
    guided_at = o.cfg if o.cfg > 1 else 2.0
    found = [
        Cure(PLAIN, lambda run: None),
        *(of_setting(gain=g, end=end) for g in (1.4, 2.0)),
        *(Cure(f"early start, naive, sigma {s:g}", lambda run, s=s: naive(run, s)) for s in (high, low)),
        *(of_setting(start=s) for s in (high, low)),
        Cure("FrameInit, tau 0.85", lambda run: other_start(run, method=start_noise.FRAME_INIT)),
        Cure("FreeInit, 3 runs", free_init),
        *(Cure(f"progressive noise, a {a:g}", lambda run, a=a: other_start(run, method=start_noise.PROGRESSIVE, a=a)) for a in (1.0, 2.0)),
        Cure("low-pass in every evaluation, 2.5", lambda run: on_condition(run, low_pass.LowPassCondition, strength=2.5, end_at=0.8)),
        *(
            Cure(f"DyMoS' bias in temporal attention, gamma {g:g}, first {share:.0%} of the steps", lambda run, g=g, share=share: temporal_bias(run, g, share))
            for g, share in ((0.6, 0.2), (2.0, 0.2), (0.6, 1.0), (2.0, 1.0))
        ),
        *(Cure(f"TimeNoise at inference, {p}", lambda run, p=p: timenoised(run, p)) for p in (timenoise.GENTLE, timenoise.LTX, timenoise.COGVIDEOX)),
        of_setting(start=high, gain=1.4, end=end),
        Cure(f"early start {high:g} + TimeNoise gentle", both(lambda run: setattr(run, "model", run.source.early(high, True)), lambda run: timenoised(run, timenoise.GENTLE))),
        Cure(f"{PLAIN}, CFG {guided_at:g}", lambda run: None, guided_at),
        Cure(f"ALG, 2.5 until 0.2, CFG {guided_at:g}", lambda run: guided(run, 2.5, 0.2), guided_at),
    ]  # fmt: skip
    return [c for c in found if not o.only or any(word in c.name for word in o.only)]


# ---- clips and figures -----------------------------------------------------------------


@torch.inference_mode()
def sampled(source, cure, k, seed, o):
    """-> samples as the host has them, figures of its cost."""
    import comfy.patcher_extension
    import comfy.samplers
    from comfy_extras.nodes_custom_sampler import Noise_RandomNoise

    run = Run(source.model, *source.picture(k), seed, source)
    cure.change(run)
    counted = [0]

    def count(executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options={}, **kwargs):
        counted[0] += len(transformer_options.get("cond_or_uncond", [0]))
        return executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)

    patched = run.model.clone()
    patched.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, "cil_bench_count", count)
    guider = comfy.samplers.CFGGuider(patched)
    guider.set_conds(run.positive, run.negative)
    guider.set_cfg(cure.cfg or o.cfg)
    sigmas = comfy.samplers.calculate_sigmas(patched.get_model_object("model_sampling"), "karras", o.steps)
    sampler, begin = comfy.samplers.sampler_object("euler"), time.perf_counter()
    if run.runs > 1:
        out = node(start_noise.FreeInit, guider=guider, sampler=sampler, sigmas=sigmas, latent=run.latent, seed=seed, runs=run.runs)[0]["samples"]
    else:
        noise = (run.noise or Noise_RandomNoise(seed)).generate_noise(run.latent)
        out = guider.sample(noise, run.latent["samples"], sampler, sigmas, disable_pbar=True, seed=seed)
    return out.cpu(), run.image, {"evaluations": counted[0], "seconds": time.perf_counter() - begin}


def measured(source, cure, k, seed, o, backend):
    """One clip -> (figures, frames)."""
    samples, image, figures = sampled(source, cure, k, seed, o)
    with torch.inference_mode():
        frames = source.vae.decode(samples).cpu()
    frames = frames.reshape(-1, *frames.shape[-3:])
    found = consistency.measured(frames, backend, image, SIZE)
    dynamic = consistency.dynamic_degree(frames, source.fps, backend)[0]
    steady = (sum(found.motion), sum(found.flicker) / len(found.flicker), found.likeness, float(dynamic))
    return {**source.judged(samples, k), **dict(zip(FIGURES, steady)), **figures}, frames


def webp(frames, fps):
    """Frames [t, H, W, 3] -> an animated WebP."""
    from PIL import Image

    pictures = [Image.fromarray((f.clamp(0, 1) * 255).round().byte().numpy()) for f in frames]
    for picture in pictures:
        picture.thumbnail((256, 256))
    out = io.BytesIO()
    pictures[0].save(out, "WEBP", save_all=True, append_images=pictures[1:], duration=round(1000 / fps), loop=0, quality=60, method=4)
    return out.getvalue()


class Clips:
    """Figures of all clips, made once and kept."""

    def __init__(self, source, o):
        settings = {"size": SIZE} | {name: str(getattr(o, name)) for name in ("cfg", "steps", "bucket", "width", "height", "frames", "fps", "pictures")}
        content = hashlib.sha256(Path(model.CHECKPOINTS.get(o.checkpoint, o.checkpoint)).read_bytes() + json.dumps(settings).encode())
        self.source, self.o, self.backend = source, o, flow.dis()
        self.folder = KEPT / content.hexdigest()[:16]
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, cure, k, seed, suffix=".json"):
        name = hashlib.sha256(cure.name.encode()).hexdigest()[:12]
        return self.folder / f"{name}-{k}-{seed}{suffix}"

    def make(self, rows):
        """Whatever is missing, with progress: seconds that are left by those that were spent."""
        wanted = [(c, k, s) for c in rows for k in range(len(self.source)) for s in range(self.o.seeds)]
        missing = [w for w in wanted if not self.path(*w).exists()]
        print(f"{len(wanted)} clips, {len(wanted) - len(missing)} of them there", flush=True)
        begin = time.perf_counter()
        for done, (cure, k, seed) in enumerate(missing, 1):
            figures, frames = measured(self.source, cure, k, seed, self.o, self.backend)
            if k < SHOWN and seed == 0:
                self.path(cure, k, seed, ".webp").write_bytes(webp(frames, self.source.fps))
            self.path(cure, k, seed).write_text(json.dumps(figures))
            each = (time.perf_counter() - begin) / done
            print(
                f"{done} of {len(missing)} ({cure.name}, picture {k}, seed {seed}): {each:.1f} s a clip, about {each * (len(missing) - done) / 60:.0f} min left",
                flush=True,
            )

    def of(self, cure):
        return [json.loads(self.path(cure, k, s).read_text()) for k in range(len(self.source)) for s in range(self.o.seeds)]


# ---- table, plot, page -----------------------------------------------------------------


def paired(clips, plain, name):
    return "" if clips is plain else sampling.pm([a[name] - b[name] for a, b in zip(clips, plain, strict=True)])


def table(found, columns):
    """found: [(cure, clips, the plain clips it is held against)] -> lines of markdown."""
    compared = (columns[0], "likeness")
    head = ["", *columns, *(f"{c} more than plain, same clips" for c in compared)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for cure, clips, plain in found:
        cells = [sampling.pm([c[name] for c in clips]) if name != "evaluations" else f"{clips[0][name]:g}" for name in columns]
        lines.append(f"| {' | '.join([cure.name, *cells, *(paired(clips, plain, c) for c in compared)])} |")
    return lines


def frontier(points):
    """The indices of (motion, likeness) that no other point beats in both, from least motion to most."""
    best = [i for i, (m, v) in enumerate(points) if not any((a >= m and b >= v) and (a > m or b > v) for a, b in points)]
    return sorted(best, key=lambda i: points[i])


def plot(found, motion, path, title):
    """Motion against likeness, with the frontier; right and up is better."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    means = [[sampling.mean_and_error([c[name] for c in clips]) for name in (motion, "likeness")] for _, clips, _ in found]
    for i, ((cure, *_), ((m, dm), (v, dv))) in enumerate(zip(found, means)):
        axes.errorbar(m, v, dv, dm, "o", color="black" if cure.name.startswith(PLAIN) else f"C{i % 10}", ms=4, lw=0.8)
        axes.annotate(cure.name, (m, v), fontsize=7, xytext=(3, 3), textcoords="offset points")
    best = frontier([(m, v) for (m, _), (v, _) in means])
    axes.plot([means[i][0][0] for i in best], [means[i][1][0] for i in best], "--", color="grey", lw=1, label="frontier")
    axes.set(xlabel=motion, ylabel="likeness to the picture", title=title)
    axes.legend()
    figure.savefig(path)


def page(clips, found, lines, picture, title):
    """One HTML file with everything in it."""
    inline = lambda kind, data: f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    rows = [[html.escape(cell.strip()) for cell in line.strip("|").split("|")] for line in lines]
    cells = "".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for i, row in enumerate(rows) if i != 1)
    shown = []
    for cure, *_ in found:
        files = [clips.path(cure, k, 0, ".webp") for k in range(min(SHOWN, len(clips.source)))]
        images = "".join("<img src='" + inline("webp", f.read_bytes()) + "' width=160>" for f in files)
        shown.append(f"<figure>{images}<figcaption>{html.escape(cure.name)}</figcaption></figure>")
    plotted = inline("png", picture)
    style = "body{font:14px sans-serif;margin:2em}td{border:1px solid #ccc;padding:2px 6px}table{border-collapse:collapse;font-size:12px}figure{display:inline-block;margin:8px}"
    return f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title><style>{style}</style><h1>{html.escape(title)}</h1><img src='{plotted}'><div>{''.join(shown)}</div><table>{cells}</table>"


NOT_HERE = (
    "Not in the table: *DyMoS* proper (its attention over all tokens does not exist in SVD's kind; the bias on the first frame's key of temporal attention stands for it); "
    "*Painter's scaling* (it scales the grey filler frames of Wan's condition; SVD's carries the picture in every frame, which less its temporal mean is 0); "
    "*FVD* (`bench.fvd` over folders; it needs hundreds of clips a row to say anything)."
)
PUBLISHED = (
    "The paper's Table 2 (DynamiCrafter, naively tuned: FVD, IS, motion score, seconds): FrameInit 380.7, 20.09, 32.16, 24.3; FreeInit 347.4, 22.66, 46.24, 49.6; "
    "progressive noise 358.1, 21.35, 49.76, 23.3; Analytic-Init 342.9, 22.71, 50.08, 22.6. Its motion score counts flicker; other model, other data: only the order can be compared."
)


def arguments_of(arguments):
    parser = argparse.ArgumentParser(prog="bench.rivals", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="leaking", help="a demo checkpoint's name, or a file of SVD's kind")
    parser.add_argument("--pictures", type=Path, help="folder of pictures to animate, for a file")
    parser.add_argument("--images", type=int, default=4, help="how many pictures")
    parser.add_argument("--seeds", type=int, default=2, help="clips of each")
    parser.add_argument("--steps", type=int, default=sampling.STEPS)
    parser.add_argument("--cfg", type=float, default=1.0)
    parser.add_argument("--bucket", type=int, default=60, help="the motion asked for")
    parser.add_argument("--width", type=int, default=1024, help="of a file's clips")
    parser.add_argument("--height", type=int, default=576)
    parser.add_argument("--frames", type=int, default=14)
    parser.add_argument("--fps", type=float, default=6.0)
    parser.add_argument("--only", action="append", help="rows whose name has this word; may be repeated")
    parser.add_argument("--out", type=Path, default=sampling.RESULTS)
    o = parser.parse_args(arguments)
    o.demo = o.checkpoint in model.CHECKPOINTS
    if not o.demo and not Path(o.checkpoint).is_file():
        parser.error(f"{o.checkpoint} is no demo checkpoint ({', '.join(model.CHECKPOINTS)}) and no file")
    return o


def main(arguments=None):
    o = arguments_of(arguments)
    source, rows = (DemoSource if o.demo else FileSource)(o), cures(o)
    clips = Clips(source, o)
    clips.make(rows)
    of = {cure.name: clips.of(cure) for cure in rows}
    base = {cure.cfg: of[cure.name] for cure in reversed(rows) if cure.name.startswith(PLAIN)}
    found = [(cure, of[cure.name], base.get(cure.cfg, of[cure.name])) for cure in rows]
    name, lines = Path(o.checkpoint).stem, table(found, source.columns)
    title = f"Cures for still clips, side by side: {name}"
    about = [
        f"`python run.py do bench.rivals {' '.join(arguments or [])}`: {len(source)} pictures x {o.seeds} seeds, {o.steps} Euler steps, Karras, CFG {o.cfg:g} where a row says nothing else, motion bucket {o.bucket}. "
        f"Consistent motion: pixels at {SIZE[1]} x {SIZE[0]}, summed over the clip; flicker and likeness as in Motion Score (DIS); dynamic degree by VBench's rule with DIS, share of clips; evaluations of the network a clip; seconds of sampling on this machine, beside other work. Mean ± standard error; differences are of the same pictures and seeds."
        + (" A demo model on demo data: it need not hold elsewhere." if o.demo else ""),
        "", NOT_HERE, "", PUBLISHED,
    ]  # fmt: skip
    o.out.mkdir(parents=True, exist_ok=True)
    plot(found, source.columns[0], o.out / f"rivals_{name}.png", title)
    sampling.write_result(f"rivals_{name}.md", [f"# {title}", "", *about, "", *lines, "", f"![Motion against likeness](rivals_{name}.png)"], o.out)
    (o.out / f"rivals_{name}.html").write_text(page(clips, found, lines, (o.out / f"rivals_{name}.png").read_bytes(), title), encoding="utf-8")
    print("\n".join(lines), flush=True)
    print(f"attention calls biased: {getattr(source, 'biased', 0)}")
