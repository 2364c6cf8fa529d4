"""Train the landscape world's models: `python run.py do demo.landscape.train --minutes 10 --out FOLDER`.

One run makes everything, as image-to-video models are made: the autoencoder; an image model
(each frame by itself, the layers that look along time switched off); then videos.
Checkpoints are kept along the way, each with what it does: how far its subjects travel, how
many stand still, how much it leaks (watch.py). The patient is the one among them whose
pictures are clean while it still stands still, the control is the end of the run.

--minutes is by the clock, so that a graphics card of any speed ends in time: the number of
video steps is set once, from the speed of the first, and the learning rate follows it.
--steps sets it by hand. Every draw is seeded by (seed, step).
"""

import argparse
import json
import math
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from ..train import DROP_IMAGE, SEED, Optimiser, autocast, draw_sigma, generator, save_atomically, start_weights
from . import latents, scenes
from .watch import Watch

TOLD = 0.5  # share of the clips whose amount of motion the model is told
EMA = 0.998
NOISE = {"P_mean": 1.0, "P_std": 1.6, "tail": 0.2}  # see demo/train.py
COOL = 0.25  # the last share of the video steps, over which the learning rate goes down to zero
MARKS = (0.06, 0.11, 0.18, 0.27, 0.38, 0.52, 0.74, 1.0)  # shares of the video steps at which a checkpoint is kept
MEASURED, LEFT_FOR_LOOKING = 60, 40  # steps that tell the speed; seconds


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


def predict_v(network, x, sigma, concat, context, y, alone=False):
    """The v-prediction of the host's EDM parameterisation: x [n, t, 4, h, w] = x0 + sigma eps, sigma [n] -> [n, t, 4, h, w].

    alone: every frame by itself, as an image.
    """
    n, t = x.shape[:2]
    noisy = (x * (_wide(sigma) ** 2 + 1).rsqrt()).flatten(0, 1)
    times = (0.25 * sigma.log()).repeat_interleave(t)
    indicator = torch.ones(n, t, device=x.device) if alone else None
    out = network(torch.cat([noisy, concat], 1), times, context, y, num_video_frames=t, image_only_indicator=indicator)
    return out.unflatten(0, (n, t)).float()


def _wide(sigma):
    return sigma[:, None, None, None, None]


def denoise(network, x, sigma, *conds):
    """D(x; sigma) = x / (sigma^2 + 1) - sigma / sqrt(sigma^2 + 1) v."""
    s = _wide(sigma)
    return x / (s**2 + 1) - s * (s**2 + 1).rsqrt() * predict_v(network, x, sigma, *conds)


def v_loss(network, x0, sigma, eps, *conds, alone=False):
    """The network is asked for (eps - sigma x0) / sqrt(sigma^2 + 1), per clip: [n]."""
    s = _wide(sigma)
    target = (eps - s * x0) * (s**2 + 1).rsqrt()
    return (predict_v(network, x0 + s * eps, sigma, *conds, alone=alone) - target).square().mean((1, 2, 3, 4))


@dataclass
class Average:
    """Exponential average of the weights, which is what is kept."""

    weights: dict

    @torch.no_grad()
    def follow(self, network, step):
        decay = min(EMA, (step + 1) / (step + 10))
        torch._foreach_lerp_(list(self.weights.values()), list(network.state_dict().values()), 1 - decay)

    def restart(self, network):
        self.weights = {k: v.clone() for k, v in network.state_dict().items()}


class Training:
    """One model's training."""

    def __init__(self, log, seed, batch, device):
        from .. import model as host_model

        self.log, self.seed, self.batch, self.device = log, seed, batch, device
        model = host_model.build()
        self.network = start_weights(model, seed).train().to(device)
        vision = host_model.clip_vision(latents.part("clip_vision."))
        vision.model.to(device)
        self.condition = Conditioner(model, vision, device)
        self.optimiser = Optimiser(self.network, self.network.input_blocks[0], self.network.out)
        self.average = Average({})
        self.average.restart(self.network)
        self.done, self.losses, self.began = 0, [], time.time()

    def step(self, number, scale, alone):
        """One update with the draws of step `number`, at `scale` times the base learning rates."""
        g = generator(self.seed, number)
        noise = torch.Generator(self.device).manual_seed(self.seed * 1_000_003 + number)
        scene = scenes.sample(self.batch, g, TOLD)
        sigma, keep = draw_sigma(self.batch, NOISE, g).to(self.device), (torch.rand(self.batch, generator=g) >= DROP_IMAGE).float().to(self.device)
        with torch.no_grad():
            pixels = scenes.render(scene.to(self.device))
            if alone:
                pixels = pixels[:, [0, *(1 + torch.randperm(scenes.FRAMES - 1, generator=g)[:3]).tolist()]]
            with autocast(self.device):
                x0 = latents.encode(pixels).float()
                conds = self.condition(pixels[:, 0], x0[:, 0], scene.bucket.to(self.device), keep, x0.shape[1])
            eps = torch.randn(x0.shape, generator=noise, device=self.device)
        with autocast(self.device):
            loss = v_loss(self.network, x0, sigma, eps, *conds, alone=alone).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step(scale)
        self.average.follow(self.network, number)
        self.losses.append(loss.detach())

    def run(self, until, scale, alone=False, first=0):
        """Steps up to the `until`-th of all, of a part that began at the `first`-th; scale(k) is the rate of its k-th."""
        while self.done < until:
            self.step(self.done, scale(self.done - first), alone)
            self.done += 1
            if self.done % 50 == 0 or self.done == until:
                self.tell({"step": self.done, "images": alone, "loss": round(float(torch.stack(self.losses).mean()), 5)})
                self.losses = []

    def tell(self, row):
        row["seconds"] = round(time.time() - self.began)
        if not math.isfinite(row.get("loss", 0.0)):
            raise FloatingPointError(f"the loss is {row['loss']} at step {self.done}")
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)

    def watched(self, watch, pictures=None):
        """What the averaged weights do."""
        weights = {k: v.clone() for k, v in self.network.state_dict().items()}
        self.network.load_state_dict(self.average.weights)
        self.network.eval()
        with autocast(self.device):
            row = watch(lambda x, sigma, *conds: denoise(self.network, x, sigma, *conds), pictures)
        self.network.load_state_dict(weights)
        self.network.train()
        return row

    def checkpoint(self):
        """The averaged weights, fp16 on the CPU."""
        return {k: v.half().cpu().contiguous() for k, v in self.average.weights.items()}


def warm(k):
    """Learning rate over its base: 100 steps up, then level."""
    return min(1.0, (k + 1) / 100)


def train_model(out, seed, batch, image_steps, steps, until):
    """-> model_STEP.safetensors and log.jsonl in `out`. steps: of the videos, or None: what `until`, a time, leaves."""
    training = Training(out / "log.jsonl", seed, batch, "cuda" if torch.cuda.is_available() else "cpu")
    watch = Watch(training.condition, training.device)
    training.run(image_steps, warm, alone=True)
    training.average.restart(training.network)
    if steps is None:
        began = time.time()
        training.run(image_steps + MEASURED, warm, first=image_steps)
        steps = MEASURED + max(1, int((until - LEFT_FOR_LOOKING - time.time()) / ((time.time() - began) / MEASURED)))
    training.tell({"image_steps": image_steps, "clip_steps": steps, "batch": batch, "seed": seed, "told": TOLD})
    for mark in sorted({max(1, round(steps * share)) for share in MARKS}):
        training.run(image_steps + mark, lambda k: warm(k) * min(1.0, (steps - k) / (COOL * steps)), first=image_steps)
        about = {"clip_steps": str(mark), "of": str(steps), "image_steps": str(image_steps), "batch": str(batch), "seed": str(seed)}
        save_atomically(lambda path, about=about: save_file(training.checkpoint(), path, about), out / f"model_{mark:05d}.safetensors")
        training.tell({"clips": mark, **training.watched(watch)})


def train_sockets(steps, batch, seed, out):
    """The VAE's two nets, and the image encoder's random weights."""
    from .. import model as host_model

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(seed)
    vision = host_model.clip_vision()
    host_model.initialise(vision.model)
    torch.nn.init.normal_(vision.model.vision_model.embeddings.class_embedding)
    encoder, decoder = latents.encoder().to(device), latents.decoder(latents.WIDTH).to(device)
    both = list(encoder.parameters()) + list(decoder.parameters())
    optimiser, began = torch.optim.AdamW(both, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0), time.time()
    for step in range(steps):
        g = generator(seed, step)
        with torch.no_grad():
            scene = scenes.sample(batch, g).to(device)
            edge = scenes.MARGIN
            anywhere = edge + (scenes.SIZE - 2 * edge) * torch.rand(batch, 2, generator=g)
            target = scenes.render(scene.replace(start=anywhere.to(device)), 1)[:, 0]
        with autocast(device):
            code = encoder(target).float()
            # a sampler's result is not exact: learn to redraw from slightly noisy codes
            blur = 0.25 * torch.rand(batch, 1, 1, 1, generator=g).to(device) * torch.randn(code.shape, generator=g).to(device)
            redrawn = decoder(code + blur).float()
        rest = redrawn - target
        edges = rest.diff(dim=-1).abs().mean() + rest.diff(dim=-2).abs().mean()
        spread = code.mean((0, 2, 3)).square().mean() + (code.std((0, 2, 3)) - 1).square().mean()
        loss = rest.abs().mean() + 2 * rest.square().mean() + 0.5 * edges + 0.1 * spread
        optimiser.param_groups[0]["lr"] = 2e-3 * warm(step) * (1 - step / steps)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(both, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if (step + 1) % 50 == 0:
            row = {
                "step": step + 1,
                "loss": round(loss.item(), 5),
                "rms": round(rest.square().mean().sqrt().item(), 5),
                "code": [round(v, 3) for v in code.std((0, 2, 3)).tolist()],
            }
            print("sockets", row, round(time.time() - began), flush=True)
    parts = {"encoder." + k: v for k, v in encoder.state_dict().items()} | {"decoder." + k: v for k, v in decoder.state_dict().items()}
    parts |= {"clip_vision." + k: v for k, v in vision.get_sd().items()}
    parts = {k: v.half().cpu().contiguous() for k, v in parts.items()}
    save_atomically(lambda path: save_file(parts, path), out)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="of it all, by the clock")
    parser.add_argument("--steps", type=int, help="of the videos, in place of minutes")
    parser.add_argument("--image-steps", type=int, default=400)
    parser.add_argument("--sockets-steps", type=int, default=1400, help="of the autoencoder; 0 = the sockets are there")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    until = time.time() + 60 * options.minutes
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    options.out.mkdir(parents=True, exist_ok=True)
    if options.sockets_steps:
        train_sockets(options.sockets_steps, options.batch, options.seed, latents.SOCKETS)
        shutil.copy(latents.SOCKETS, options.out)
    train_model(options.out, options.seed, options.batch, options.image_steps, options.steps, until)
