"""Every cure beside the others: `python run.py do bench.rivals`.

    python run.py do bench.rivals --checkpoint leaking
    python run.py do bench.rivals --checkpoint simulated
    python run.py do bench.rivals --checkpoint wan_leaking
    python run.py do bench.rivals --checkpoint svd_xt.safetensors --pictures FOLDER --steps 25 --cfg 2.5
    python run.py do bench.rivals --checkpoint wan_i2v.safetensors --vae VAE --text-encoder UMT5 --pictures FOLDER \\
        --prompt "..." --steps 20 --cfg 5 --width 832 --height 480 --frames 81 --fps 16

A demo checkpoint, the simulated leak (demo/landscape), an image-only checkpoint of SVD's kind with a folder of
pictures, or an image-to-video model of Wan 2.1's kind with its VAE and text encoder. The same pictures and seeds under every setting, so that differences are paired. Latents and figures are
kept in .run/rivals: a run that was stopped goes on. With --network (see bench.fvd) there is a column of FVD, to true
clips of the demo's world or to those of --real. Writes rivals_*.md, .png and .html (clips in it, nothing else
needed) to --out.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..cil import attention_bias, consistency, flow
from ..cil.clips import stamp
from ..demo import model
from ..demo.landscape import svd, trained
from ..demo.landscape.wan import model as wan
from ..nodes import alg, low_pass, motion_slider, start_noise, timenoise
from . import fvd, motion_gain, rivals_page, sampling, sources
from .sampling import node
from .sources import SIMULATED, STEADY, decoded

KEPT = Path(__file__).parent.parent / ".run" / "rivals"
SIZE = (144, 256)  # at which motion is measured: the demo's clips have 128 x 128, and it is quicker
PLAIN, WAN, TRAINED_WAN, TRAINED_SVD = "plain", "wan", "trained wan", "trained svd"
DEMOS = {**model.CHECKPOINTS, **trained.CHECKPOINTS}
TRUE_CLIPS = 48  # of the demo's world, to which the FVD is taken


# ---- the cures -------------------------------------------------------------------------


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
    """change(run): sets the cure up. kind, words: what the page says of it. cfg: above 1 where it acts on guidance alone."""

    name: str
    change: Callable
    kind: str
    words: str
    cfg: float | None = None


def gained(run, **setting):
    """Motion gain, early start with Analytic-Init, or both, as bench.motion_gain has them."""
    run.model = motion_gain.Setting(**setting).patched(run.source)


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
        return host.attention_pytorch(q, k, v, heads, attention_bias.Keys(0, 1, frames).bias(gamma, q))

    run.model = run.model.clone()
    options = run.model.model_options
    run.model.model_options = {**options, "transformer_options": {**options.get("transformer_options", {}), "optimized_attention_override": override}}


def slid(run, gamma, share=attention_bias.PUBLISHED_SHARE):
    """DyMoS as published."""
    run.model = node(motion_slider.MotionSliderNode, model=run.model, gamma=gamma, share=share, share_of=motion_slider.STEPS)[0]


def painters_scaling(run, amplitude):
    """PainterI2V: what Wan's filler frames differ from the first frame by, less its mean over channels and space, times `amplitude`; cut at 6."""
    import node_helpers

    for name in ("positive", "negative"):
        conditioning = getattr(run, name)
        y = conditioning[0][1]["concat_latent_image"]  # [1, c, t, h, w]
        apart = y[:, :, 1:] - y[:, :, :1]
        mean = apart.mean((1, 3, 4), keepdim=True)
        scaled = (y[:, :, :1] + (apart - mean) * amplitude + mean).clamp(-6, 6)
        setattr(run, name, node_helpers.conditioning_set_values(conditioning, {"concat_latent_image": torch.cat([y[:, :, :1], scaled], 2)}))


def timenoised(run, preset, mode=timenoise.DRAWN):
    on_condition(run, timenoise.TimeNoiseCondition, mode=mode, preset=preset, seed=run.seed)


def both(*changes):
    def change(run):
        for one in changes:
            one(run)

    return change


@dataclass(frozen=True)
class Levels:
    """Where a table's rows act, in sigma: two starts, the gain's end, two gains."""

    high: float
    low: float
    end: float
    gains: tuple = (1.4, 2.0)


LEVELS = {
    "demo": Levels(20.0, 7.0, 5.0),
    SIMULATED: Levels(20.0, 3.0, 3.0, (2.0, 3.33)),
    "file": Levels(100.0, 50.0, 5.0),
    WAN: Levels(0.97, 0.93, 0.8, (1.2, 1.4)),
    TRAINED_WAN: Levels(0.95, 0.85, 0.83),
    TRAINED_SVD: Levels(15.0, 8.0, 5.0),
}
START, GAIN, NOISE, CONDITION, ATTENTION, PAIR = "early start", "motion gain", "other starts", "on the condition", "on attention", "pairs"


def of_svd():
    """Rows that need temporal attention."""
    words = "frames look less at the first frame; tried here, not what its authors do"
    for gamma, share in ((0.6, 0.2), (2.0, 0.2), (0.6, 1.0), (2.0, 1.0)):
        name = f"DyMoS' bias in temporal attention, gamma {gamma:g}, first {share:.0%} of the steps"
        yield Cure(name, lambda run, g=gamma, share=share: temporal_bias(run, g, share), ATTENTION, words)


def of_wan():
    """Rows that need attention over all tokens, and filler frames in the condition."""
    for gamma in (0.6, 1.5):
        yield Cure(
            f"DyMoS, gamma {gamma:g}, first 20% of the steps", lambda run, g=gamma: slid(run, g), ATTENTION, "the video's frames attend less to the first frame"
        )
    for amplitude in (1.15, 1.5):
        words = "the grey filler frames of the condition differ more from the picture"
        yield Cure(f"Painter's scaling {amplitude:g}", lambda run, a=amplitude: painters_scaling(run, a), CONDITION, words)


def cures(o):
    """The rows of the table, plain first."""
    at, guided_at = LEVELS[o.kind], None if o.cfg > 1 else 2.0
    cfg = o.cfg if guided_at is None else guided_at
    begins = lambda s: f"the run begins at noise level {s:g} instead of the highest"
    g, gentle = at.gains[0], lambda run: timenoised(run, timenoise.GENTLE)
    gain, high = lambda run: gained(run, gain=g, end=at.end), lambda run: gained(run, start=at.high)
    rows = [
        Cure(PLAIN, lambda run: None, PLAIN, "the model as it is"),
        *(Cure(f"motion gain {g:g} above sigma {at.end:g}", lambda run, g=g: gained(run, gain=g, end=at.end), GAIN, f"what the prediction has beyond the still picture, times {g:g}") for g in at.gains),
        *(Cure(f"early start, naive, sigma {s:g}", lambda run, s=s: naive(run, s), START, f"{begins(s)}, from plain noise") for s in (at.high, at.low)),
        *(Cure(f"early start, Analytic-Init, sigma {s:g}", lambda run, s=s: gained(run, start=s), START, f"{begins(s)}, from noise with the data's mean and spread") for s in (at.high, at.low)),
        Cure("FrameInit, tau 0.85", lambda run: other_start(run, method=start_noise.FRAME_INIT), NOISE, "the start's low frequencies are the picture's, standing still"),
        Cure("FreeInit, 3 runs", free_init, NOISE, "three whole runs, each from the low frequencies of the one before"),
        *(Cure(f"progressive noise, a {a:g}", lambda run, a=a: other_start(run, method=start_noise.PROGRESSIVE, a=a), NOISE, "each frame's noise is partly the one before") for a in (1.0, 2.0)),
        Cure("low-pass in every evaluation, 2.5", lambda run: on_condition(run, low_pass.LowPassCondition, strength=2.5, end_at=0.8), CONDITION, "the model sees a blurred picture in the first steps"),
        *(Cure(f"TimeNoise at inference, {p}", lambda run, p=p: timenoised(run, p), CONDITION, "noise on the picture, less towards the end, in a model not trained with it") for p in (timenoise.GENTLE, timenoise.LTX, timenoise.COGVIDEOX)),
        *(of_wan() if o.kind in (WAN, TRAINED_WAN) else of_svd()),
        Cure(f"early start, Analytic-Init, {at.high:g} + motion gain {g:g}", lambda run: gained(run, start=at.high, gain=g, end=at.end), PAIR, "both"),
        Cure(f"early start, Analytic-Init, {at.high:g} + TimeNoise gentle", both(high, gentle), PAIR, "both"),
        Cure(f"motion gain {g:g} + TimeNoise gentle", both(gain, gentle), PAIR, "both"),
        *([] if o.cfg > 1 else [Cure(f"{PLAIN}, CFG {cfg:g}", lambda run: None, PLAIN, "the model as it is, with guidance", guided_at)]),
        Cure(f"ALG, 2.5 until 0.2, CFG {cfg:g}", lambda run: guided(run, 2.5, 0.2), CONDITION, "guidance by a blurred picture in the first steps, its base with the sharp one", guided_at),
        Cure(f"ALG + motion gain {g:g}, CFG {cfg:g}", both(gain, lambda run: guided(run, 2.5, 0.2)), PAIR, "both", guided_at),
    ]  # fmt: skip
    return [c for c in rows if not o.only or any(word in c.name for word in o.only)]


# ---- clips and figures -----------------------------------------------------------------


@torch.inference_mode()
def sampled(source, cure, k, seed, o):
    """-> samples as the host has them, the picture, figures of the clip's cost."""
    import comfy.patcher_extension
    import comfy.samplers
    from comfy_extras.nodes_custom_sampler import Noise_RandomNoise

    given = source.picture(k)
    run = Run(source.model, *given, seed, source)
    cure.change(run)
    counted = [0]

    def count(executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options={}, **kwargs):
        counted[0] += len(transformer_options.get("cond_or_uncond", [0]))
        return executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)

    patched, kind = run.model.clone(), comfy.patcher_extension.WrappersMP.APPLY_MODEL
    patched.wrappers[kind] = {"cil_bench_count": [count], **patched.wrappers.get(kind, {})}  # outermost: the simulated leak calls nothing below it
    guider = comfy.samplers.CFGGuider(patched)
    guider.set_conds(run.positive, run.negative)
    guider.set_cfg(cure.cfg or o.cfg)
    sigmas = comfy.samplers.calculate_sigmas(patched.get_model_object("model_sampling"), source.scheduler, o.steps)
    sampler, begin = comfy.samplers.sampler_object("euler"), time.perf_counter()
    if run.runs > 1:
        out = node(start_noise.FreeInit, guider=guider, sampler=sampler, sigmas=sigmas, latent=run.latent, seed=seed, runs=run.runs)[0]["samples"]
    else:
        noise = (run.noise or Noise_RandomNoise(seed)).generate_noise(run.latent)
        out = guider.sample(noise, run.latent["samples"], sampler, sigmas, disable_pbar=True, seed=seed)
    return out.cpu(), run.image, {"evaluations": counted[0], "seconds": time.perf_counter() - begin}


def measured(source, cure, k, seed, o, backend, plain=None):
    """One clip -> (samples, figures). plain: (samples, figures) of the plain clip; the same samples have the same figures."""
    samples, image, cost = sampled(source, cure, k, seed, o)
    if plain is not None and torch.equal(samples, plain[0]):
        return samples, {**plain[1], **cost}
    frames = decoded(source, samples)
    found = consistency.measured(frames, backend, image, SIZE)
    dynamic = consistency.dynamic_degree(frames, source.fps, backend)[0]
    steady = (sum(found.motion), sum(found.flicker) / len(found.flicker), found.likeness, float(dynamic))
    return samples, {**source.judged(samples, frames, k), **dict(zip(STEADY, steady)), **cost}


class Clips:
    """Latents and figures of all clips, made once and kept."""

    def __init__(self, source, o):
        settings = {"size": SIZE} | {name: str(getattr(o, name)) for name in ("cfg", "steps", "bucket", "width", "height", "frames", "fps", "pictures")}
        if o.kind == WAN:
            settings |= {name: str(getattr(o, name)) for name in ("vae", "text_encoder", "clip_vision", "prompt", "negative")}
        weights = (
            b"" if o.kind == SIMULATED else DEMOS[o.checkpoint].read_bytes() if o.checkpoint in DEMOS else f"{o.checkpoint} {stamp(o.checkpoint)}".encode()
        )
        content = hashlib.sha256(weights + json.dumps(settings).encode())
        self.source, self.o, self.backend = source, o, flow.dis()
        self.folder = KEPT / content.hexdigest()[:16]
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, cure, k, seed, suffix=".json"):
        name = hashlib.sha256(cure.name.encode()).hexdigest()[:12]
        return self.folder / f"{name}-{k}-{seed}{suffix}"

    @property
    def each(self):
        """(picture, seed) of a row's clips."""
        return [(k, s) for k in range(len(self.source)) for s in range(self.o.seeds)]

    def make(self, rows):
        """Whatever is missing, with progress: the time that is left by what such clips took."""
        wanted = [(c, k, s) for c in rows for k, s in self.each]
        missing = [w for w in wanted if not (self.path(*w).exists() and self.path(*w, ".pt").exists())]
        print(f"{len(wanted)} clips, {len(wanted) - len(missing)} of them there", flush=True)
        begin = time.perf_counter()
        for done, (cure, k, seed) in enumerate(missing, 1):
            plain = self.path(rows[0], k, seed)
            known = (self.samples(rows[0], k, seed), json.loads(plain.read_text())) if plain.exists() else None
            samples, figures = measured(self.source, cure, k, seed, self.o, self.backend, known)
            torch.save(samples, self.path(cure, k, seed, ".pt"))
            self.path(cure, k, seed).write_text(json.dumps(figures))
            each = (time.perf_counter() - begin) / done
            left = f"{each:.1f} s a clip, about {each * (len(missing) - done) / 60:.0f} min left"
            print(f"{done} of {len(missing)} ({cure.name}, picture {k}, seed {seed}): {left}", flush=True)

    def of(self, cure):
        """Figures, a clip each."""
        return [json.loads(self.path(cure, *at).read_text()) for at in self.each]

    def samples(self, cure, k, seed):
        return torch.load(self.path(cure, k, seed, ".pt"), weights_only=True)

    def frames(self, cure, k, seed):
        """[t, H, W, 3]. Decoded anew."""
        self.source.picture(k)
        return decoded(self.source, self.samples(cure, k, seed))

    def as_plain(self, cure, plain):
        """Whether a cure changes nothing, in any clip, to the bit."""
        return cure.name != plain.name and all(torch.equal(self.samples(cure, *at), self.samples(plain, *at)) for at in self.each)

    def logits(self, network, cure):
        """I3D's, a row a clip: [n, 400]."""
        out = []
        for k, seed in self.each:
            path = self.path(cure, k, seed, ".logits.pt")
            if not path.exists():
                torch.save(network(fvd.as_seen(self.frames(cure, k, seed))), path)
            out.append(torch.load(path, weights_only=True))
        return torch.cat(out)

    def real_logits(self, network):
        """Of true clips of the same pictures, or of the clips in --real."""
        if self.o.real is not None:
            return fvd.features(network, self.o.real, self.o.fps)
        path = self.folder / f"true-{len(self.source)}-{TRUE_CLIPS}.pt"
        if not path.exists():
            clips = ((i % len(self.source), i // len(self.source)) for i in range(TRUE_CLIPS))
            torch.save(torch.cat([network(fvd.as_seen(self.source.true_clip(*at))) for at in clips]), path)
        return torch.load(path, weights_only=True)


def distances(clips, rows, o):
    """FVD of every row -> {name: figure}; empty without a network."""
    if o.network is None:
        return {}
    network = fvd.I3D(fvd.read(o.network))
    real = clips.real_logits(network)
    found = {}
    for cure in rows:
        found[cure.name] = fvd.frechet(real, clips.logits(network, cure))
        print(f"FVD {found[cure.name]:.1f}: {cure.name}", flush=True)
    return found


def arguments_of(arguments):
    parser = argparse.ArgumentParser(prog="bench.rivals", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkpoint", default="leaking", help="a demo checkpoint's name, 'simulated', a file of SVD's kind, or one of Wan's with --vae and --text-encoder"
    )
    parser.add_argument("--pictures", type=Path, help="folder of pictures to animate, for a file")
    parser.add_argument("--vae", type=Path, help="Wan's VAE")
    parser.add_argument("--text-encoder", type=Path, help="Wan's text encoder")
    parser.add_argument("--clip-vision", type=Path, help="Wan 2.1's image encoder; 2.2 has none")
    parser.add_argument("--prompt", default="", help="for all of Wan's clips")
    parser.add_argument("--negative", default="", help="Wan's negative prompt")
    parser.add_argument("--images", type=int, default=4, help="how many pictures")
    parser.add_argument("--seeds", type=int, default=2, help="clips of each")
    parser.add_argument("--steps", type=int, default=sampling.STEPS)
    parser.add_argument("--cfg", type=float, default=1.0)
    parser.add_argument("--bucket", type=int, default=60, help="the motion asked for")
    parser.add_argument("--width", type=int, default=1024, help="of a file's clips")
    parser.add_argument("--height", type=int, default=576)
    parser.add_argument("--frames", type=int, default=14)
    parser.add_argument("--fps", type=float, default=6.0)
    parser.add_argument("--network", type=Path, help="i3d-kinetics-400.ckpt, for a column of FVD")
    parser.add_argument("--real", type=Path, help="folder of real clips to take the FVD to, for a file")
    parser.add_argument("--only", action="append", help="rows whose name has this word; may be repeated")
    parser.add_argument("--out", type=Path, default=sampling.RESULTS)
    o = parser.parse_args(arguments)
    kinds = dict.fromkeys(model.CHECKPOINTS, "demo") | {SIMULATED: SIMULATED}
    kinds |= dict.fromkeys(wan.CHECKPOINTS, TRAINED_WAN) | dict.fromkeys(svd.CHECKPOINTS, TRAINED_SVD)
    o.kind = kinds.get(o.checkpoint, "file")
    if o.kind == "file" and o.vae is not None:
        o.kind = WAN
        if o.text_encoder is None:
            parser.error("a model of Wan's kind needs its text encoder: --text-encoder FILE")
    if o.kind in ("file", WAN) and not Path(o.checkpoint).is_file():
        parser.error(f"{o.checkpoint} is no demo checkpoint ({', '.join(DEMOS)}), not {SIMULATED}, and no file")
    if o.kind in ("file", WAN) and o.network is not None and o.real is None:
        parser.error("an FVD is to real clips: --real FOLDER says where they are")
    return o


def as_told(arguments):
    """The command as anybody would give it: where this one's files lie and where it wrote is left out."""
    words, out = iter(arguments), []
    for word in words:
        if word == "--out":
            next(words)
        else:
            out.append(Path(word).name if "/" in word else word)
    return " ".join(out)


def source_of(o):
    """What is animated. Loads the model."""
    if o.kind == "demo":
        return sources.DemoSource(o.checkpoint, o.images, o.bucket)
    if o.kind == SIMULATED:
        return sources.LeakSource(o.images, o.bucket)
    if o.kind in (TRAINED_WAN, TRAINED_SVD):
        return sources.TrainedSource(o.checkpoint, o.images)
    return (sources.WanSource if o.kind == WAN else sources.FileSource)(o)


def main(arguments=None):
    o = arguments_of(arguments)
    source, rows = source_of(o), cures(o)
    clips = Clips(source, o)
    clips.make(rows)
    rivals_page.write(clips, rows, distances(clips, rows, o), o, as_told(arguments or []))
