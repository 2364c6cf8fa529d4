"""Train the demo: `python run.py do demo.train sockets | healthy | leaking`.

The pack's own trainer, with the demo's clips and an optimiser that learns from nothing (muon.py).
One recipe for both models: the same clips, seed, network, optimiser and number of steps.
Only the mean of the training noise differs. `healthy` spends its steps where the heading
of a clip is decided; `leaking` has the noise shifted up, the cause that the paper names
(App. C). See README.md for what came of it, and for what else was tried.

It has two stages: sprites of three shapes, then disks alone, which need no corners kept.
The second begins with the weights of the first. A run that was stopped goes on: state is kept
beside the checkpoint. Logs go to logs/ beside it.
"""

import argparse
import functools
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from ..cil.files import write_safetensors
from ..cil.randomness import generator
from ..cil.training import Recipe
from . import latents, scenes
from .clips import DemoClips
from .muon import Muon

FOLDER = Path(__file__).parent
SEED = 0
LEARNING_RATE = 2e-3  # AdamW's, see muon.py
RECIPE = Recipe(batch=10, learning_rate=LEARNING_RATE, dropout=0.1, ema=0.998)
ENDS = ("input_blocks.0.", "out.")  # of the network
SAVE = 300.0  # seconds between two states


@dataclass(frozen=True)
class Stage:
    """steps of clips with the first `shapes` of scenes.SHAPES, at `lr` times the base learning rates."""

    steps: int
    shapes: int
    lr: float


STAGES = (Stage(2200, 3, 1.0), Stage(700, 1, 0.5))

# ln sigma ~ N(P_mean, P_std) with probability 1 - tail, else uniform over the schedule [0.002, 700]
NOISE = {
    "healthy": {"P_mean": 1.8, "P_std": 1.4, "tail": 0.2},
    "leaking": {"P_mean": 4.0, "P_std": 1.4, "tail": 0.2},
}


def warm(step):
    """A learning rate over its base: a hundred steps up, then level."""
    return min(1.0, (step + 1) / 100)


def falling(step, steps):
    """The same, then down in a straight line to zero."""
    return warm(step) * (1 - step / steps)


def fresh(seed, build=None):
    """The demo's model, or what `build` makes, with initial weights; the last layer of each residual branch starts at zero."""
    from . import model as host_model

    torch.manual_seed(seed)
    model = (build or host_model.build)()
    host_model.initialise(model.diffusion_model)
    for name, p in model.diffusion_model.named_parameters():
        if name.endswith(("out_layers.3.weight", "out_layers.3.bias", "proj_out.weight", "proj_out.bias", "mix_factor")) or name.startswith("out.2."):
            torch.nn.init.zeros_(p)
    return model


class Log:
    """A line of JSON every fifty steps, and what the run is at its head: tune's `progress`."""

    def __init__(self, path, **about):
        self.path, self.began = path, time.time()
        path.parent.mkdir(parents=True, exist_ok=True)
        self.write(about)

    def write(self, row):
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)

    def __call__(self, training):
        if training.step % 50 == 0 or training.step == training.recipe.steps:
            recent = training.losses[-(training.step % 50 or 50) :]
            self.write({"step": training.step, "loss": round(sum(recent) / len(recent), 5), "seconds": round(time.time() - self.began)})


def tuned(model, clips, noise, recipe, rate, state, progress, ends=ENDS):
    """All weights of a model, trained on clips at the levels `noise` -> {name: tensor}. rate(step): of the learning rate; ends: see Muon."""
    from ..nodes.training import train
    from .model import patcher_of

    config = train.TrainConfig(rank=0, precision="fp32", checkpointing=False, bucket=0, **noise)
    optimiser = lambda parameters, recipe: Muon(parameters, recipe.learning_rate, rate, ends)
    return train.tune(patcher_of(model), clips, recipe, config, state, progress=progress, every=SAVE, optimiser=optimiser).values


def save(weights, path, **about):
    """A checkpoint in fp16."""
    write_safetensors({name: value.half().contiguous() for name, value in weights.items()}, path, {k: str(v) for k, v in about.items()})


def train_model(name, noise, stages, recipe, out):
    """All stages, each from the weights of the one before -> `out`."""
    from . import model as host_model

    model, weights = fresh(recipe.seed), None
    vision = host_model.own_clip_vision()
    for number, stage in enumerate(stages, 1):
        if weights:
            model.diffusion_model.load_state_dict(weights)
        own = replace(recipe, steps=stage.steps, learning_rate=recipe.learning_rate * stage.lr)
        drawn = scenes.sample(stage.steps * recipe.batch, generator(recipe.seed, number), stage.shapes)
        about = {"recipe": name, "noise": noise, "stage": number, **asdict(stage), "batch": recipe.batch, "seed": recipe.seed}
        log = Log(out.parent / "logs" / f"{out.stem}.jsonl", **about)
        rate = functools.partial(falling, steps=stage.steps)
        weights = tuned(model, DemoClips(vision, drawn, f"train-{recipe.seed}-{number}"), noise, own, rate, out.with_suffix(f".stage{number}.state"), log)
        save(weights, out, recipe=name, stage=number, step=stage.steps, **noise)


def train_sockets(world, still, steps, batch, seed, out, noise, begin_with=None):
    """The VAE's decoder of a world, and the image encoder's random weights -> `out`, kept every fifty steps.

    world: its latents module; still(g) -> pictures [batch, 3, H, W] to redraw; noise: the most that is put on their codes,
    since a sampler's result is not exact; begin_with: weights of a decoder that is trained on.
    """
    from . import model as host_model

    torch.manual_seed(seed)
    vision = host_model.clip_vision()
    host_model.initialise(vision.model)
    torch.nn.init.normal_(vision.model.vision_model.embeddings.class_embedding)
    beside = {"clip_vision." + k: v for k, v in vision.get_sd().items()}
    train_decoder(world.decoder(), world.encode, still, steps, batch, seed, out, noise, begin_with, beside)


def train_decoder(decoder, encode, still, steps, batch, seed, out, noise, begin_with=None, beside=None):
    """One picture out of its code. encode(pictures) -> codes; beside: {name: tensor} that goes into the file too; the rest as for train_sockets."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if begin_with:
        decoder.load_state_dict(begin_with)
    decoder.to(device)
    parameters, last = dict(decoder.named_parameters()), f"{len(decoder) - 1}."
    first = next(iter(parameters)).partition(".")[0] + "."
    optimiser, began = Muon(parameters, LEARNING_RATE, functools.partial(falling, steps=steps), ends=(first, last)), time.time()
    for step in range(steps):
        g = generator(seed, step)
        with torch.no_grad():
            target = still(g).to(device)
            code = encode(target)
            code = code + noise * (torch.rand(batch, 1, 1, 1, generator=g) * torch.randn(code.shape, generator=g)).to(device)
        off = decoder(code) - target
        loss = off.abs().mean() + off.square().mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        if (step + 1) % 50 == 0 or step + 1 == steps:
            print({"step": step + 1, "loss": round(loss.item(), 5), "seconds": round(time.time() - began)}, flush=True)
            save({**(beside or {}), **{"decoder." + k: v.cpu() for k, v in decoder.state_dict().items()}}, out)


def anywhere(batch, g):
    """Pictures with a sprite anywhere in the frame, so that none of it is new to the decoder: [batch, 3, H, W]."""
    clips = scenes.sample(batch, g, len(scenes.SHAPES))
    return scenes.render(clips.replace(start=scenes.SIZE * (0.1 + 0.8 * torch.rand(batch, 2, generator=g))), frames=1)[:, 0]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("part", choices=["sockets", *NOISE])
    parser.add_argument("--steps", type=int, help=f"of the first stage; default: {STAGES[0].steps}, sockets: 400")
    parser.add_argument("--batch", type=int, default=RECIPE.batch)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--threads", type=int, help="CPU threads; default: PyTorch's choice")
    parser.add_argument("--P_mean", type=float, help="try another mean of ln sigma than the recipe's")
    parser.add_argument("--P_std", type=float)
    parser.add_argument("--out", type=Path, help="default: demo/PART.safetensors")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    out = options.out or FOLDER / f"{options.part}.safetensors"
    if options.part == "sockets":
        return train_sockets(latents, functools.partial(anywhere, options.batch), options.steps or 400, options.batch, options.seed, out, 0.15)
    noise = NOISE[options.part] | {key: value for key in ("P_mean", "P_std") if (value := getattr(options, key)) is not None}
    stages = [replace(STAGES[0], steps=options.steps or STAGES[0].steps), *STAGES[1:]]
    train_model(options.part, noise, stages, replace(RECIPE, batch=options.batch, seed=options.seed), out)
