"""Train the landscape's models: `python run.py do demo.landscape.train sockets | leaking | healthy --out FILE`.

One recipe and one run of steps for both: *healthy* is *leaking* trained on. The learning rate is
level while a run lasts (its trunk) and goes down to zero at its end (Hu et al., 2024, MiniCPM's
warm-up, stable, decay); *leaking* leaves the trunk early, *healthy* late. Nothing is made worse on purpose.

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
from ..train import LEARNING_RATE, SEED, Log, fresh, save, train_sockets, tuned, warm
from . import latents, scenes
from .clips import LandscapeClips

BATCH = 6
TOLD = 0.25  # share of the clips whose amount of motion the model is told
EMA = 0.995
KEEP = 500  # steps between the trunk's states
CLIPS = 20_000  # that are drawn; each comes once before any comes again
NOISE = {"P_mean": 1.0, "P_std": 1.6, "tail": 0.2}  # see demo/train.py


@dataclass(frozen=True)
class Length:
    """Steps at a level learning rate, and steps of its way down to zero."""

    trunk: int
    cool: int


LENGTHS = {"leaking": Length(2200, 600), "healthy": Length(9000, 2000)}


def convolve_time_in_2d(network):
    """Let the convolutions along time, kernel (3, 1, 1), run as 2-D ones: the same sums, faster on a CPU."""

    def convolution(layer):
        def forward(x):  # [n, c, t, h, w]
            return F.conv2d(x.flatten(3), layer.weight.flatten(3), layer.bias, padding=(layer.padding[0], 0)).unflatten(3, x.shape[3:])

        return forward

    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv3d) and layer.kernel_size[1:] == (1, 1):
            layer.forward = convolution(layer)


def rate(step, length):
    """The learning rate over its base."""
    return warm(step) * min(1.0, (length.trunk + length.cool - step) / max(length.cool, 1))


def trunk(step, folder):
    """The file of the trunk's state after so many steps."""
    return folder / f"trunk_{step:05d}.state"


def train_model(name, length, batch, seed, out):
    """-> `out`, and its log; the trunk's states, which both models share, lie beside it."""
    from .. import model as host_model

    folder, last = out.parent, length.trunk + length.cool
    device = "cuda" if torch.cuda.is_available() else "cpu"
    drawn = scenes.sample(CLIPS, generator(seed), TOLD).to(device)
    clips = LandscapeClips(host_model.clip_vision(latents.socket("clip_vision.")), drawn, f"train-{seed}")

    def train(steps, rate, begin, state, progress):
        """Up to `steps`, from the state `begin` unless there is one already -> the weights."""
        if begin.exists() and not state.exists():
            shutil.copyfile(begin, state)
        model = fresh(seed)
        convolve_time_in_2d(model.diffusion_model)
        recipe = Recipe(steps=steps, batch=batch, learning_rate=LEARNING_RATE, dropout=0.1, ema=EMA, seed=seed)
        weights = tuned(model, clips, NOISE, recipe, rate, state, progress)
        state.unlink()
        return weights

    def keep(training):
        log(training)
        if training.step % KEEP == 0 or training.step == length.trunk:
            training.save(trunk(training.step, folder))

    if length.trunk and not trunk(length.trunk, folder).exists():
        log = Log(folder / "logs" / "trunk.jsonl", trunk=length.trunk, batch=batch, seed=seed, told=TOLD)
        behind = [file for file in sorted(folder.glob("trunk_*.state")) if file < trunk(length.trunk, folder)]
        train(length.trunk, warm, behind[-1] if behind else trunk(0, folder), folder / "trunk.state", keep)
    log = Log(folder / "logs" / f"{name}.jsonl", recipe=name, trunk=length.trunk, cool=length.cool, batch=batch, seed=seed, told=TOLD)
    weights = train(last, functools.partial(rate, length=length), trunk(length.trunk, folder), out.with_suffix(".state"), log)
    save(weights, out, recipe=name, trunk=length.trunk, step=last, batch=batch, seed=seed)


def anywhere(batch, g):
    """Pictures with a subject anywhere in the frame and of every size that a zoom gives it: [batch, 3, H, W]."""
    scene = scenes.sample(batch, g)
    start = scenes.MARGIN + (scenes.SIZE - 2 * scenes.MARGIN) * torch.rand(batch, 2, generator=g)
    return scenes.render(scene.replace(start=start, radius=scene.radius * (0.86 + 0.28 * torch.rand(batch, generator=g))), 1)[:, 0]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("part", choices=["sockets", *LENGTHS])
    parser.add_argument("--steps", type=int, default=1200, help="of the sockets")
    parser.add_argument("--trunk", type=int, help=f"another number of steps at a level learning rate than the recipe's, in {KEEP}s")
    parser.add_argument("--cool", type=int, help="another number of steps of its way down")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--threads", type=int, help="CPU threads; default: PyTorch's choice")
    parser.add_argument("--begin-with", type=Path, help="sockets: a file whose decoder is trained on")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    if options.part == "sockets":
        still = functools.partial(anywhere, options.batch)
        return train_sockets(latents, still, options.steps, options.batch, options.seed, options.out, 0.25, options.begin_with)
    length = LENGTHS[options.part]
    length = Length(length.trunk if options.trunk is None else options.trunk, length.cool if options.cool is None else options.cool)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    train_model(options.part, length, options.batch, options.seed, options.out)
