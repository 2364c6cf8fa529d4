"""Train the landscape's models: `python run.py do demo.landscape.train sockets | leaking | healthy --out FILE`.

One recipe for both. The learning rate is level at first (the trunk, which both share) and goes down to zero in a
straight line (Hu et al., 2024, MiniCPM's warm-up, stable, decay): soon for *leaking* (never, of SVD's kind), later or more slowly for *healthy*. They see
one balloon alone, which they draw whole; the trunk of Wan's kind subjects of all looks. Nothing is made worse on purpose.

The trunk's state is kept beside the checkpoints, so a run that was stopped
goes on, and the second model begins where the first left the trunk. Logs go to logs/ beside the checkpoint.
"""

import argparse
import functools
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from ...cil.randomness import generator
from ...cil.training import Recipe
from ..latents import socket
from ..train import ENDS, LEARNING_RATE, SEED, Log, fresh, save, train_decoder, train_sockets, tuned, warm
from . import latents, scenes
from .clips import LandscapeClips

EMA = 0.995
KEEP = 500  # steps between the trunk's states
CLIPS = 20_000  # that are drawn; each comes once before any comes again


@dataclass(frozen=True)
class Length:
    """Steps at a level learning rate, and steps of its way down to zero."""

    trunk: int
    cool: int


def convolve_time_in_2d(network):
    """Let the convolutions along time, kernel (3, 1, 1), run as 2-D ones: the same sums, faster on a CPU."""

    def convolution(layer):
        def forward(x):  # [n, c, t, h, w]
            return F.conv2d(x.flatten(3), layer.weight.flatten(3), layer.bias, padding=(layer.padding[0], 0)).unflatten(3, x.shape[3:])

        return forward

    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv3d) and layer.kernel_size[1:] == (1, 1):
            layer.forward = convolution(layer)


def in_bf16(network):
    """Let the products run in bfloat16, by PyTorch's autocast; weights and sums stay in float32. A third of the time on a CPU that has them in hardware."""
    forward = network.forward

    def cast(x, *args, **more):
        with torch.autocast(x.device.type, torch.bfloat16):
            return forward(x, *args, **more).float()

    network.forward = cast


def rate(step, length):
    """The learning rate over its base."""
    return warm(step) * min(1.0, (length.trunk + length.cool - step) / max(length.cool, 1))


def trunk(step, folder):
    """The file of the trunk's state after so many steps."""
    return folder / f"trunk_{step:05d}.state"


class SVD:
    """What is trained, of SVD's kind: noise, the share of the examples without their picture, Muon's `ends`.

    alike: whether the decoder's pictures show one balloon alone; trunk_alike: whether the trunk's clips do.
    """

    told = 0.25  # share of the clips whose amount of motion the model is told
    noise, dropout, ends = {"P_mean": 1.0, "P_std": 1.6, "tail": 0.2}, 0.1, ENDS  # see demo/train.py
    alike, trunk_alike, batch = False, True, 6
    lengths = {"leaking": Length(1000, 0), "healthy": Length(2000, 500)}

    def fresh(self, seed):
        from . import svd

        model = fresh(seed, svd.build)
        convolve_time_in_2d(model.diffusion_model)
        in_bf16(model.diffusion_model)
        return model

    def clips(self, seed, alike):
        from .. import model as host_model

        device = "cuda" if torch.cuda.is_available() else "cpu"
        drawn = scenes.sample(CLIPS, generator(seed), self.told, alike=alike).to(device)
        return LandscapeClips(host_model.clip_vision(latents.socket("clip_vision.")), drawn, f"train-{seed}")

    def sockets(self, still, o):
        begin_with = o.begin_with and socket(o.begin_with, "decoder.")
        train_sockets(latents, still, o.steps, o.batch, o.seed, o.out, 0.25, begin_with)


class Wan:
    """The same of Wan's kind, whose times are drawn evenly under its shift."""

    told, noise, dropout = 0.0, {}, 0.0
    alike, trunk_alike, batch = True, False, 8
    lengths = {"leaking": Length(2000, 2200), "healthy": Length(2000, 5000)}
    SCENES = 8000  # twice as many clips; drawn once and kept

    @property
    def ends(self):
        """All but the blocks' matrices."""
        from .wan import model

        network = model.build().diffusion_model
        return tuple(name for name, p in network.named_parameters() if p.ndim != 2 or not name.startswith("blocks."))

    def fresh(self, seed):
        from .wan import model

        made = model.build()
        model.initialise(made.diffusion_model, seed)
        return made

    def clips(self, seed, alike):
        from .wan import clips

        return clips.WanClips(clips.drawn(self.SCENES, generator(seed), alike), f"train-{seed}")

    def sockets(self, still, o):
        from .wan import latents as code

        begin_with = socket(o.begin_with, "decoder.") if o.begin_with else code.from_svd_decoder(latents.socket("decoder."))
        train_decoder(code.decoder(), code.one_frame, still, o.steps, o.batch, o.seed, o.out, 0.15, begin_with)


KINDS = {"svd": SVD(), "wan": Wan()}


def train_model(name, length, kind, batch, seed, out):
    """-> `out`, and its log; the trunk's states, which both models share, lie beside it."""
    folder, last, ends = out.parent, length.trunk + length.cool, kind.ends

    def train(steps, rate, begin, state, progress, alike):
        """Up to `steps`, from the state `begin` unless there is one already -> the weights."""
        if begin.exists() and not state.exists():
            shutil.copyfile(begin, state)
        recipe = Recipe(steps=steps, batch=batch, learning_rate=LEARNING_RATE, dropout=kind.dropout, ema=EMA, seed=seed)
        weights = tuned(kind.fresh(seed), kind.clips(seed, alike), kind.noise, recipe, rate, state, progress, ends)
        state.unlink()
        return weights

    def keep(training):
        log(training)
        if training.step % KEEP == 0 or training.step == length.trunk:
            training.save(trunk(training.step, folder))

    if length.trunk and not trunk(length.trunk, folder).exists():
        log = Log(folder / "logs" / "trunk.jsonl", trunk=length.trunk, batch=batch, seed=seed, told=kind.told)
        behind = [file for file in sorted(folder.glob("trunk_*.state")) if file < trunk(length.trunk, folder)]
        train(length.trunk, warm, behind[-1] if behind else trunk(0, folder), folder / "trunk.state", keep, kind.trunk_alike)
    log = Log(folder / "logs" / f"{name}.jsonl", recipe=name, trunk=length.trunk, cool=length.cool, batch=batch, seed=seed, told=kind.told)
    weights = train(last, functools.partial(rate, length=length), trunk(length.trunk, folder), out.with_suffix(".state"), log, True)
    save(weights, out, recipe=name, trunk=length.trunk, step=last, batch=batch, seed=seed)


def anywhere(batch, alike, g):
    """Pictures with a subject anywhere in the frame and of every size that a zoom gives it: [batch, 3, H, W]. alike: see scenes.sample."""
    scene = scenes.sample(batch, g, alike=alike)
    start = scenes.MARGIN + (scenes.SIZE - 2 * scenes.MARGIN) * torch.rand(batch, 2, generator=g)
    return scenes.render(scene.replace(start=start, radius=scene.radius * (0.86 + 0.28 * torch.rand(batch, generator=g))), 1)[:, 0]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("part", choices=["sockets", *SVD.lengths])
    parser.add_argument("--kind", choices=list(KINDS), default="svd", help="of the model")
    parser.add_argument("--steps", type=int, default=1200, help="of the sockets")
    parser.add_argument("--trunk", type=int, help=f"another number of steps at a level learning rate than the recipe's, in {KEEP}s")
    parser.add_argument("--cool", type=int, help="another number of steps of its way down")
    parser.add_argument("--batch", type=int, help="clips a step")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--threads", type=int, help="CPU threads; default: PyTorch's choice")
    parser.add_argument("--alike", action="store_true", help="sockets: pictures of the one balloon alone")
    parser.add_argument("--begin-with", type=Path, help="sockets: a file whose decoder is trained on")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    if options.part == "sockets":
        options.batch = options.batch or 6
        kind = KINDS[options.kind]
        return kind.sockets(functools.partial(anywhere, options.batch, kind.alike or options.alike), options)
    kind = KINDS[options.kind]
    length = kind.lengths[options.part]
    length = Length(length.trunk if options.trunk is None else options.trunk, length.cool if options.cool is None else options.cool)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    train_model(options.part, length, kind, options.batch or kind.batch, options.seed, options.out)
