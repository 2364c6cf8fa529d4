"""Train the landscape's models: `python run.py do demo.landscape.train sockets | leaking | healthy --out FILE`.

One recipe and one run of steps for both: *healthy* is *leaking* trained on. The learning rate is
level while a run lasts (its trunk) and goes down to zero at its end (Hu et al., 2024, MiniCPM's
warm-up, stable, decay); *leaking* leaves the trunk early, *healthy* late. Nothing is made worse on purpose.

Every draw is seeded by (seed, step) and the trunk's state is kept every hundred steps beside
the checkpoints, so a run that was stopped goes on, and the second model begins where the first
left the trunk. Logs go to logs/ beside the checkpoint. README.md tells how far this has come.
"""

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from ..latents import socket
from ..train import DROP_IMAGE, SEED, Optimiser, autocast, draw_sigma, generator, save_atomically, start_weights, v_loss
from . import latents, scenes

BATCH = 6
TOLD = 0.25  # share of the clips whose amount of motion the model is told
EMA = 0.995
WARM = 100  # steps
KEEP = 100  # steps between the trunk's states


@dataclass(frozen=True)
class Recipe:
    """Steps at a level learning rate, and steps of its way down to zero."""

    trunk: int
    cool: int


RECIPES = {"leaking": Recipe(2200, 600), "healthy": Recipe(9000, 2000)}

NOISE = {"P_mean": 1.0, "P_std": 1.6, "tail": 0.2}  # see demo/train.py


class Conditioner:
    """What the host's SVD conditioning node and `extra_conds` give the network, for a batch."""

    def __init__(self, model, clip_vision, device):
        self.clip_vision = clip_vision
        y = [model.encode_adm(fps=scenes.FPS, motion_bucket_id=float(b), augmentation_level=0.0) for b in range(scenes.MAX_BUCKET + 1)]
        self.y = torch.cat(y).to(device)

    def __call__(self, first, image, bucket, keep, frames):
        """first [n, 3, H, W] RGB, image [n, 4, h, w] its code; bucket [n]; keep [n] in {0, 1}, 0 = unconditional.

        -> concat [n t, 4, h, w] (unscaled latents), context [n t, 1, c], y [n t, 768]
        """
        from comfy.clip_vision import clip_preprocess

        per_frame = lambda v: v.repeat_interleave(frames, 0)
        pixels = clip_preprocess(first.movedim(1, -1), size=self.clip_vision.image_size)
        context = self.clip_vision.model(pixel_values=pixels)[2][:, None].float() * keep[:, None, None]
        return per_frame(image / latents.SCALE * keep[:, None, None, None]), per_frame(context), per_frame(self.y[bucket.long()])


def convolve_time_in_2d(network):
    """Let the convolutions along time, kernel (3, 1, 1), run as 2-D ones: the same sums, faster on a CPU."""

    def convolution(layer):
        def forward(x):  # [n, c, t, h, w]
            return F.conv2d(x.flatten(3), layer.weight.flatten(3), layer.bias, padding=(layer.padding[0], 0)).unflatten(3, x.shape[3:])

        return forward

    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv3d) and layer.kernel_size[1:] == (1, 1):
            layer.forward = convolution(layer)


class Training:
    """One model's weights on their way: a step, an average of the weights, a state to go on from."""

    def __init__(self, seed, batch):
        from .. import model as host_model

        self.seed, self.batch, self.device = seed, batch, "cuda" if torch.cuda.is_available() else "cpu"
        model = host_model.build()
        self.network = start_weights(model, seed).train().to(self.device)
        convolve_time_in_2d(self.network)
        vision = host_model.clip_vision(latents.socket("clip_vision."))
        vision.model.to(self.device)
        self.condition = Conditioner(model, vision, self.device)
        self.optimiser = Optimiser(self.network, self.network.input_blocks[0], self.network.out)
        self.average = {k: v.clone() for k, v in self.network.state_dict().items()}
        self.done = 0

    def state(self):
        return {"network": self.network.state_dict(), "optimiser": self.optimiser.state_dict(), "average": self.average, "done": self.done}

    def go_on_from(self, path):
        state = torch.load(path, weights_only=True, map_location=self.device)
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average, self.done = state["average"], state["done"]

    def step(self, scale):
        """One update at `scale` times the base learning rates -> the loss, [] on the device."""
        g = generator(self.seed, self.done)
        scene = scenes.sample(self.batch, g, TOLD)
        sigma, keep = draw_sigma(self.batch, NOISE, g).to(self.device), (torch.rand(self.batch, generator=g) >= DROP_IMAGE).float().to(self.device)
        noise = torch.Generator(self.device).manual_seed(self.seed * 1_000_003 + self.done)
        with torch.no_grad():
            pixels = scenes.render(scene.to(self.device))
            x0 = latents.encode(pixels)
            conds = self.condition(pixels[:, 0], x0[:, 0], scene.bucket.to(self.device), keep, x0.shape[1])
            eps = torch.randn(x0.shape, generator=noise, device=self.device)
        with autocast(self.device):
            loss = v_loss(self.network, x0, sigma, eps, *conds).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step(scale)
        with torch.no_grad():
            now = list(self.network.state_dict().values())
            torch._foreach_lerp_(list(self.average.values()), now, 1 - min(EMA, (self.done + 1) / (self.done + 10)))
        self.done += 1
        return loss.detach()

    def run(self, until, scale, log, keep=None):
        """Steps up to the `until`-th at scale(step) times the base learning rates; keep: where the states of the way go."""
        began, losses = time.time(), []
        while self.done < until:
            losses.append(self.step(scale(self.done)))
            if self.done % 50 == 0 or self.done == until:
                row = {"step": self.done, "loss": round(float(torch.stack(losses).mean()), 5), "seconds": round(time.time() - began)}
                losses = []
                if not math.isfinite(row["loss"]):
                    raise FloatingPointError(f"the loss is {row['loss']} at step {self.done}; the states before it are in {keep or log.parent}")
                with log.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                print(row, flush=True)
            if keep and (self.done % KEEP == 0 or self.done == until):
                save_atomically(lambda path: torch.save(self.state(), path), keep / f"trunk_{self.done:05d}.state")


def warm(step):
    """The trunk's learning rate over its base."""
    return min(1.0, (step + 1) / WARM)


def train_model(name, recipe, batch, seed, out):
    """-> `out`, and its log; the trunk's states, which both models share, lie beside it."""
    logs = out.parent / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    training = Training(seed, batch)
    behind = [p for p in sorted(out.parent.glob("trunk_*.state")) if int(p.stem[6:]) <= recipe.trunk]
    if behind:
        training.go_on_from(behind[-1])
    training.run(recipe.trunk, warm, logs / "trunk.jsonl", out.parent)
    training.average = {k: v.clone() for k, v in training.network.state_dict().items()}
    log, last = logs / f"{name}.jsonl", recipe.trunk + recipe.cool
    log.write_text(
        json.dumps({"recipe": name, "trunk": recipe.trunk, "cool": recipe.cool, "batch": batch, "seed": seed, "told": TOLD}) + "\n", encoding="utf-8"
    )
    training.run(last, lambda step: (last - step) / recipe.cool, log)
    half = {k: v.half().cpu().contiguous() for k, v in training.average.items()}
    about = {"recipe": name, "trunk": str(recipe.trunk), "step": str(last), "batch": str(batch), "seed": str(seed)}
    save_atomically(lambda path: save_file(half, path, about), out)


def train_sockets(steps, batch, seed, out, begin_with=None):
    """The VAE's decoder, and the image encoder's random weights."""
    from .. import model as host_model

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(seed)
    vision = host_model.clip_vision()
    host_model.initialise(vision.model)
    torch.nn.init.normal_(vision.model.vision_model.embeddings.class_embedding)
    parts = {"clip_vision." + k: v for k, v in vision.get_sd().items()}
    decoder = latents.decoder()
    if begin_with:
        decoder.load_state_dict(socket(begin_with, "decoder."))
    decoder.to(device)

    def save():
        both = parts | {"decoder." + k: v for k, v in decoder.state_dict().items()}
        save_atomically(lambda path: save_file({k: v.half().cpu().contiguous() for k, v in both.items()}, path), out)

    save()
    optimiser, began = Optimiser(decoder, decoder[1], decoder[-1]), time.time()
    for step in range(steps):
        g = generator(seed, step)
        with torch.no_grad():
            # subjects anywhere in the frame and of every size that a zoom gives them
            scene = scenes.sample(batch, g)
            grown = 0.86 + 0.28 * torch.rand(batch, generator=g)
            anywhere = scenes.MARGIN + (scenes.SIZE - 2 * scenes.MARGIN) * torch.rand(batch, 2, generator=g)
            target = scenes.render(scene.replace(start=anywhere, radius=scene.radius * grown).to(device), 1)[:, 0]
            code = latents.encode(target)
            # a sampler's result is not exact: learn to redraw from slightly noisy codes
            code = code + 0.25 * (torch.rand(batch, 1, 1, 1, generator=g) * torch.randn(code.shape, generator=g)).to(device)
        with autocast(device):
            off = decoder(code).float() - target
        loss = off.abs().mean() + off.square().mean()
        loss.backward()
        optimiser.step(warm(step) * (1 - step / steps))
        if (step + 1) % 50 == 0:
            print({"step": step + 1, "loss": round(loss.item(), 5), "seconds": round(time.time() - began)}, flush=True)
            save()
    save()


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("part", choices=["sockets", *RECIPES])
    parser.add_argument("--steps", type=int, default=1200, help="of the sockets")
    parser.add_argument("--trunk", type=int, help="another number of steps at a level learning rate than the recipe's")
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
    out = options.out
    out.parent.mkdir(parents=True, exist_ok=True)
    if options.part == "sockets":
        return train_sockets(options.steps, options.batch, options.seed, out, options.begin_with)
    recipe = RECIPES[options.part]
    recipe = Recipe(recipe.trunk if options.trunk is None else options.trunk, recipe.cool if options.cool is None else options.cool)
    train_model(options.part, recipe, options.batch, options.seed, out)
