"""Train the demo: `python run.py do demo.train sockets | healthy | leaking`.

One recipe for both models: the same clips, seed, network, optimiser and number of steps.
Only the mean of the training noise differs. `healthy` spends its steps where the heading
of a clip is decided; `leaking` has the noise shifted up, the cause that the paper names
(App. C). See README.md for what came of it, and for what else was tried.

It has two stages: sprites of three shapes, then disks alone, which need no corners kept.
The second begins from the checkpoint of the first. Every draw is seeded by (seed, step), so
a run that was stopped continues as if it had not been: state is kept beside the checkpoint
while training. Logs go to demo/logs/.
"""

import argparse
import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from . import latents, scenes

FOLDER = Path(__file__).parent
SEED = 0
BATCH = 10
DROP_IMAGE = 0.1  # as SVD's training; gives the unconditional branch
EMA = 0.998
LR = {"muon": 0.02, "adamw": 2e-3}


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
SIGMA_MIN, SIGMA_MAX = 0.002, 700.0


def generator(seed, step):
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def draw_sigma(n, noise, g):
    """Noise levels of a batch: [n]."""
    log_min, log_max = math.log(SIGMA_MIN), math.log(SIGMA_MAX)
    normal = noise["P_mean"] + noise["P_std"] * torch.randn(n, generator=g)
    uniform = log_min + (log_max - log_min) * torch.rand(n, generator=g)
    tail = torch.rand(n, generator=g) < noise["tail"]
    return torch.where(tail, uniform, normal).clamp(log_min, log_max).exp()


def condition(model, clip_vision, first, bucket, keep, frames):
    """What the host's SVD conditioning node and `extra_conds` give the network, for a batch.

    first [n, 3, H, W] RGB; bucket [n]; keep [n] in {0, 1}, 0 = unconditional.
    -> concat [n t, 4, h, w] (unscaled latents), context [n t, 1, c], y [n t, 768]
    """
    from comfy.clip_vision import clip_preprocess

    per_frame = lambda v: v.repeat_interleave(frames, 0)
    concat = latents.encode(first) / latents.SCALE * keep[:, None, None, None]
    pixels = clip_preprocess(first.movedim(1, -1), size=clip_vision.image_size)
    context = clip_vision.model(pixel_values=pixels)[2][:, None] * keep[:, None, None]
    y = torch.cat([model.encode_adm(fps=scenes.FPS, motion_bucket_id=float(b), augmentation_level=0.0) for b in bucket])
    return per_frame(concat), per_frame(context), per_frame(y)


def v_loss(network, x0, sigma, eps, concat, context, y):
    """The v-prediction loss of the host's EDM parameterisation, per clip: [n].

    x0, eps [n, t, 4, h, w]; with c = 1 / sqrt(sigma^2 + 1) the network is asked for
    (eps - sigma x0) c at input (x0 + sigma eps) c. It is cil's edm_weight(sigma) ||D - x0||^2
    without the difference of nearly equal clips, which bfloat16 cannot hold at small sigma.
    """
    n, t = x0.shape[:2]
    s = sigma[:, None, None, None, None]
    c = (s**2 + 1).rsqrt()
    noisy = torch.cat([((x0 + s * eps) * c).flatten(0, 1), concat], 1)
    times = (0.25 * sigma.log()).repeat_interleave(t)
    out = network(noisy, times, context, y, num_video_frames=t).unflatten(0, (n, t))
    return (out.float() - (eps - s * x0) * c).square().mean((1, 2, 3, 4))


def autocast(device):
    """bfloat16 where the machine has matrix units for it; on other processors float32 is faster."""
    fast = device == "cuda" or torch.cpu._is_amx_tile_supported()
    return torch.autocast(device, dtype=torch.bfloat16, enabled=fast)


class Optimiser:
    """Muon (Jordan et al., 2024) for matrices and flattened convolutions, AdamW for the rest.

    torch.optim.Muon iterates in bfloat16 alone, which takes longer than the rest of the step
    on a CPU that only emulates it; and here matrices of one shape go together.
    """

    MOMENTUM = 0.95

    def __init__(self, network, first, last):
        """first, last: the layers at a network's ends, whose weights are AdamW's too."""
        edges = {id(p) for layer in (first, last) for p in layer.parameters()}
        self.groups, rest = {}, []
        for p in network.parameters():
            if p.ndim >= 2 and id(p) not in edges:
                self.groups.setdefault(p.flatten(1).shape, []).append(p)
            else:
                rest.append(p)
        self.momenta = {shape: torch.zeros(len(ps), *shape, device=ps[0].device) for shape, ps in self.groups.items()}
        self.adamw = torch.optim.AdamW(rest, lr=LR["adamw"], betas=(0.9, 0.99), weight_decay=0.0)

    @torch.no_grad()
    def step(self, scale):
        """One update at `scale` times the base learning rates; clears the gradients."""
        for shape, parameters in self.groups.items():
            gradient = torch.stack([p.grad.flatten(1) for p in parameters]).float()
            momentum = self.momenta[shape].lerp_(gradient, 1 - self.MOMENTUM)
            update = orthogonal(gradient.lerp(momentum, self.MOMENTUM))  # Nesterov
            lr = scale * LR["muon"] * max(1.0, shape[0] / shape[1]) ** 0.5
            for p, u in zip(parameters, update):
                p.sub_(lr * u.view_as(p))
                p.grad = None
        for group in self.adamw.param_groups:
            group["lr"] = LR["adamw"] * scale
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)

    def state_dict(self):
        return {"muon": list(self.momenta.values()), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state):
        for momentum, saved in zip(self.momenta.values(), state["muon"]):
            momentum.copy_(saved)
        self.adamw.load_state_dict(state["adamw"])


def orthogonal(matrices, steps=5):
    """About U V^T of the singular value decompositions U S V^T of a stack [n, a, b] (Newton-Schulz, Muon's quintic)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    wide = x.shape[1] <= x.shape[2]
    x = x if wide else x.mT
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.mT


def schedule(step, steps):
    """Learning rate over its base: 100 steps up, then down in a straight line to zero."""
    return min(1.0, (step + 1) / 100) * (1 - step / steps)


def start_weights(model, seed):
    """Initial weights; the last layer of each residual branch starts at zero."""
    from . import model as host_model

    torch.manual_seed(seed)
    network = model.diffusion_model
    host_model.initialise(network)
    for name, p in network.named_parameters():
        if name.endswith(("out_layers.3.weight", "out_layers.3.bias", "proj_out.weight", "proj_out.bias")) or name.startswith("out.2."):
            torch.nn.init.zeros_(p)
        if name.endswith("mix_factor"):
            torch.nn.init.zeros_(p)
    return network


def save_atomically(save, path):
    partial = path.with_name(path.name + ".part")
    save(partial)
    partial.replace(path)


def train_model(noise, stages, batch, seed, out, first_stage=1):
    """All stages from the first_stage-th on (they count from 1); each but the first begins from the checkpoint in `out`."""
    from . import model as host_model

    log = out.parent / "logs" / f"{out.stem}.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    clip_vision = host_model.clip_vision(latents.socket(host_model.SOCKETS, "clip_vision."))
    for number, stage in enumerate(stages, 1):
        if number < first_stage or already_made(out, number, stage):
            continue
        model = host_model.build()
        network = start_weights(model, seed)
        if number > 1:
            network.load_state_dict({k: v.float() for k, v in load_file(out).items()})
        before = sum(s.steps for s in stages[: number - 1])
        train_stage(model, clip_vision, noise, stage, number, before, batch, seed, out, log)


def already_made(out, number, stage):
    """Whether the checkpoint in `out` has this stage behind it."""
    if not out.exists() or not out.with_suffix(".state").exists():
        return False  # without the state beside it, a checkpoint is made anew
    with safe_open(out, "pt") as file:
        done = file.metadata() or {}
    return (int(done.get("stage", 1)), int(done["step"])) >= (number, stage.steps)


def train_stage(model, clip_vision, noise, stage, number, before, batch, seed, out, log):
    """One stage, or what is left of it. before: steps of the stages before it, whose draws are not repeated."""
    network, device = model.diffusion_model.train(), "cuda" if torch.cuda.is_available() else "cpu"
    network.to(device)
    clip_vision.model.to(device)
    optimiser = Optimiser(network, network.input_blocks[0], network.out)
    average = {k: v.clone() for k, v in network.state_dict().items()}
    first_step, state_file = 0, out.with_suffix(".state")
    if state_file.exists() and (state := torch.load(state_file, weights_only=True))["stage"] == number:
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        average, first_step = {k: v.to(device) for k, v in state["average"].items()}, state["step"]
    else:
        row = {
            "recipe": out.stem,
            "noise": noise,
            "stage": number,
            "steps": stage.steps,
            "shapes": scenes.SHAPES[: stage.shapes],
            "lr": stage.lr,
            "batch": batch,
            "seed": seed,
        }
        with log.open("w" if number == 1 else "a") as file:
            file.write(json.dumps(row) + "\n")

    began, losses = time.time(), []
    for step in range(first_step, stage.steps):
        g = generator(seed, before + step)
        clips = scenes.sample(batch, g, stage.shapes)
        sigma = draw_sigma(batch, noise, g)
        keep = (torch.rand(batch, generator=g) >= DROP_IMAGE).float()
        with torch.no_grad():
            pixels = scenes.render(clips)
            x0 = latents.encode(pixels)
            eps = torch.randn(x0.shape, generator=g)
            conds = condition(model, clip_vision, pixels[:, 0].to(device), clips.bucket, keep.to(device), scenes.FRAMES)
        with autocast(device):
            loss = v_loss(network, x0.to(device), sigma.to(device), eps.to(device), *(c.to(device) for c in conds)).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step(stage.lr * schedule(step, stage.steps))
        decay = min(EMA, (step + 1) / (step + 10))
        for key, value in network.state_dict().items():
            average[key].lerp_(value, 1 - decay)
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(f"the loss is {losses[-1]} at step {step}; the last saved state is kept in {state_file}")
        if (step + 1) % 50 == 0:
            row = {"step": step + 1, "loss": round(sum(losses) / len(losses), 5), "seconds": round(time.time() - began)}
            losses = []
            with log.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)
        if (step + 1) % 250 == 0 or step + 1 == stage.steps:
            state = {"network": network.state_dict(), "optimiser": optimiser.state_dict(), "average": average, "stage": number, "step": step + 1}
            save_atomically(lambda path: torch.save(state, path), state_file)
            half = {k: v.half().cpu().contiguous() for k, v in average.items()}
            about = {"recipe": out.stem, "stage": str(number), "step": str(step + 1), **{k: str(v) for k, v in noise.items()}}
            save_atomically(lambda path: save_file(half, path, about), out)


def train_sockets(steps, batch, seed, out):
    """The VAE's decoder, and the image encoder's random weights."""
    from . import model as host_model

    torch.manual_seed(seed)
    vision = host_model.clip_vision()
    host_model.initialise(vision.model)
    torch.nn.init.normal_(vision.model.vision_model.embeddings.class_embedding)
    decoder = latents.decoder()
    optimiser = Optimiser(decoder, decoder[1], decoder[-1])
    began = time.time()
    for step in range(steps):
        g = generator(seed, step)
        with torch.no_grad():
            # sprites anywhere in the frame, so that none of it is new to the decoder
            clips = scenes.sample(batch, g, len(scenes.SHAPES))
            clips = clips.replace(start=scenes.SIZE * (0.1 + 0.8 * torch.rand(batch, 2, generator=g)))
            target = scenes.render(clips, frames=1)[:, 0]
            code = latents.encode(target)
            # a sampler's result is not exact: learn to redraw from slightly noisy codes
            code = code + 0.15 * torch.rand(batch, 1, 1, 1, generator=g) * torch.randn(code.shape, generator=g)
        with autocast("cpu"):
            out_pixels = decoder(code)
        loss = (out_pixels.float() - target).abs().mean() + (out_pixels.float() - target).square().mean()
        loss.backward()
        optimiser.step(schedule(step, steps))
        if (step + 1) % 50 == 0:
            print({"step": step + 1, "loss": round(loss.item(), 5), "seconds": round(time.time() - began)}, flush=True)
    parts = {"decoder." + k: v for k, v in decoder.state_dict().items()}
    parts |= {"clip_vision." + k: v for k, v in vision.get_sd().items()}
    parts = {k: v.half().contiguous() for k, v in parts.items()}
    save_atomically(lambda path: save_file(parts, path), out)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("part", choices=["sockets", *NOISE])
    parser.add_argument("--steps", type=int, help=f"of the first stage; default: {STAGES[0].steps}, sockets: 400")
    parser.add_argument("--stage", type=int, default=1, choices=range(1, len(STAGES) + 1), help="begin with this stage, from the checkpoint that is there")
    parser.add_argument("--batch", type=int, default=BATCH)
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
        return train_sockets(options.steps or 400, options.batch, options.seed, out)
    noise = dict(NOISE[options.part])
    for key in ("P_mean", "P_std"):
        if getattr(options, key) is not None:
            noise[key] = getattr(options, key)
    stages = [replace(STAGES[0], steps=options.steps or STAGES[0].steps), *STAGES[1:]]
    train_model(noise, stages, options.batch, options.seed, out, options.stage)
