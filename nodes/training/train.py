"""Fine-tune an image-to-video model: `python run.py do nodes.training.train SET --model MODEL --out FILE`.

SET is a folder made by nodes.training.prepare; MODEL a checkpoint of SVD, DynamiCrafter or
VideoCrafter1, a diffusion model file of Wan 2.1 / 2.2 14B image-to-video, or `demo:leaking`,
`demo:healthy`, `demo:FILE`. FILE becomes a LoRA for the host's loader, or with --full a
checkpoint of all weights in the layout of MODEL's. TimeNoise is on unless --naive is given.
Stopped or killed, the same command goes on where it was.

Under torchrun the clips of an update are spread over the processes (DDP), and with --shard the
weights too (FSDP), for a --full training that does not fit one card:
    COMFYUI_PATH=... CIL_INSIDE=1 torchrun --nproc-per-node 8 run.py do nodes.training.train ...
"""

import argparse
import hashlib
import json
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import comfy.utils

from ...cil import prepared, processes, training
from ...cil.files import claim, write_safetensors
from ...cil.timenoise import TimeNoise
from ..host.sampling import Sampling
from ..host.types import Model
from ..lvdm import checkpoint as lvdm_checkpoint
from . import model as trainable
from . import modes
from .conditions import LVDM, adapter_of
from .prepare import add_variant, load_checkpoint
from .watch import Watch


@dataclass(frozen=True)
class TrainConfig:
    """What a recipe leaves open. rank: of the LoRA, 0 = all weights (of a model that is one's own).

    lora: tensors of a LoRA to train on, instead of a new one; bucket: the motion bucket that SVD
    is told, 0 = each clip's own motion score; P_mean, P_std: of ln sigma (EDM models); tail: the
    share of examples whose ln sigma is drawn evenly over the model's range instead; tokens:
    TimeNoise on the image encoder's output too; sigmas: the least and the largest level that is
    trained, for a model that samples one of several stages; shard: spread the weights over
    torchrun's processes (rank 0 alone).
    """

    rank: int = 16
    lora: dict | None = None
    precision: str = "bf16"
    checkpointing: bool = True
    bucket: int = 20
    P_mean: float = -1.2
    P_std: float = 1.2
    tail: float = 0.0
    tokens: bool = False
    sigmas: tuple = training.EVERY_SIGMA
    shard: bool = False


@dataclass(frozen=True)
class TrainResult:
    """values: the LoRA (rank > 0) or all weights of the network, on the CPU; losses: one an update."""

    values: dict
    losses: list


def check(model: Model, clips: prepared.ClipSet, config: TrainConfig) -> None:
    """Raise ValueError, before anything is loaded, for what cannot be trained."""
    adapter = adapter_of(model)
    prepared_for = clips.settings.get("kind", "SVD")  # sets for SVD do not say it
    channels = model.get_model_object("latent_format").latent_channels
    if clips.shape[0] != channels or clips.shape[1] < 2:
        raise ValueError(
            f"this model takes clips of {channels} channels and at least two frames, but the prepared ones are {' x '.join(map(str, clips.shape))}: prepare them with this model's VAE"
        )
    if prepared_for != adapter.name:
        raise ValueError(f"these clips were prepared for {prepared_for}, and lack what {adapter.name} is told of them: prepare them with this model")
    if adapter.vision and clips[0].embed is None:
        raise ValueError("these clips were prepared without an image encoder, which this model needs: prepare them with this model")
    adapter.noised(config.tokens)
    if config.shard and (config.rank or processes.team().world == 1):
        raise ValueError("--shard spreads all weights over several processes: give --full, and start it by torchrun")
    sampling, (low, high) = Sampling.of(model), config.sigmas
    if not (low < high and low < sampling.sigma_max and high > sampling.sigma_min):
        raise ValueError(
            f"this model's noise levels run from {sampling.sigma_min:g} to {sampling.sigma_max:g}, but [{low:g}, {high:g}] is to be trained: give a range that meets them"
        )
    if adapter.name == "SVD" and config.bucket == 0 and not any(clips.motion):
        raise ValueError(
            "motion bucket 0 means each clip's own motion score, but these clips were prepared without: prepare them with a flow, or give a number"
        )


def identity(patcher: Model, clips: prepared.ClipSet, recipe: training.Recipe, config: TrainConfig, team: processes.Alone) -> dict:
    """The settings that two runs must share to be one. Steps, learning rate and clipping may change on the way."""
    kept = {k: v for k, v in asdict(recipe).items() if k not in ("steps", "learning_rate", "clip_norm", "noise")}
    digest = lambda thing: hashlib.sha256(repr(thing).encode()).hexdigest()[:16]
    lora = None if config.lora is None else digest([(k, float(v.float().sum())) for k, v in sorted(config.lora.items())])
    tuning = None if recipe.noise is None else asdict(recipe.noise)
    # left out where they act on nothing, so that it equals what older versions wrote
    tokens = list(adapter_of(patcher).noised(True)) if config.tokens else []
    own = ({"tokens": tokens} if tokens else {}) | ({"sigmas": list(config.sigmas)} if config.sigmas != training.EVERY_SIGMA else {})
    own |= {"rank": config.rank, "precision": config.precision, "bucket": config.bucket, "P_mean": config.P_mean, "P_std": config.P_std, "tail": config.tail}
    return {
        **kept,
        **own,
        "lora": lora,
        "timenoise": tuning,
        "world": team.world,
        "model": trainable.fingerprint(patcher, team.gather),
        "clips": digest((clips.names, clips.settings)),
    }


def tune(
    model: Model, clips: prepared.ClipSet, recipe: training.Recipe, config: TrainConfig, state: Path | None = None, resume: bool = True,
    progress: Callable | None = None, every: float = 60.0, optimiser: Callable | None = None,
    watch: Watch | None = None,
) -> TrainResult:  # fmt: skip
    """The training -> TrainResult. model: a MODEL; clips: a ClipSet; state: where it is kept while under way.

    progress(training) after each update; whatever it raises ends the training, state saved. optimiser: see training.Training;
    watch: samples a clip now and then and measures the leakage, on its first process.
    """
    check(model, clips, config)
    team = processes.team(config.shard)
    with modes.gradients():
        patcher, adapters = model.clone(), None
        patcher.set_model_compute_dtype(trainable.PRECISIONS[config.precision])
        if config.rank:
            adapters = trainable.new_adapters(patcher, config.rank, recipe.seed) if config.lora is None else trainable.existing_adapters(patcher, config.lora)
            parameters = trainable.put_on(patcher, adapters)
        else:
            parameters = trainable.open_weights(patcher)
        if config.checkpointing:
            modes.checkpoint_blocks(patcher)
        with modes.split(patcher, team) if config.shard else modes.loaded(patcher) as device:
            parameters = trainable.parameters_of(patcher) if config.shard else parameters  # the shares are other objects
            run = training.Training(parameters, recipe, identity(patcher, clips, recipe, config, team), team, modes.check_gradients, optimiser)
            if state and resume and state.exists():
                run.resume(state)
            goal = trainable.objective(patcher, config.P_mean, config.P_std, config.tail, adapter_of(patcher).noised(config.tokens), config.sigmas)
            denoise = trainable.Denoiser(patcher, clips.settings["fps"], config.bucket or None)
            if watch:
                watch.begin(patcher, denoise, clips, recipe.seed, device, run.step, config.sigmas)
            make = lambda step, part: training.batch_of(recipe, goal, clips, step, part, team.rank, team.world)
            with training.prefetched(make, recipe) as batch:
                run.run(lambda step, part: training.denoising_loss(denoise, goal, batch(step, part), device), state, every, progress)
            values = {name: value.cpu().clone() for name, value in run.result.items()}
    return TrainResult(trainable.lora_of(values, adapters) if config.rank else values, run.losses)


# ---- files ----------------------------------------------------------------------------


def save_checkpoint(weights: dict, model: Model, source: str, path: Path, about: dict) -> None:
    """All weights of a network into a copy of the checkpoint `source`, in its own names and types, atomically."""
    lvdm = LVDM.matches(model.model)  # its loader knows the names that differ between the released files
    tensors = lvdm_checkpoint.read(source) if lvdm else comfy.utils.load_torch_file(source, safe_load=True)
    named = model.model.model_config.process_unet_state_dict_for_saving(dict(weights))
    if not named.keys() <= tensors.keys():
        named = weights  # a network alone, as the demo's files are
    missing = [name for name in named if name not in tensors]
    if missing:
        raise ValueError(f"{source} has no '{missing[0]}': the trained weights do not fit into it")
    tensors |= {name: value.to(tensors[name].dtype).contiguous() for name, value in named.items()}
    write_safetensors(tensors, path, about)


def read_lora(path: str | Path) -> dict:
    """The tensors of a LoRA file. Raises ValueError with its name and the reason."""
    try:
        return comfy.utils.load_torch_file(str(path), safe_load=True)
    except Exception as error:  # the host's loader raises nearly anything on a file of another kind
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{Path(path).name} cannot be read as a LoRA ({reason}): choose a safetensors file of one") from None


def arguments_of(arguments: list[str] | None) -> argparse.Namespace:
    recipe, config = training.Recipe(), TrainConfig()
    parser = argparse.ArgumentParser(prog="nodes.training.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, help="prepared data set")
    parser.add_argument("--model", required=True, help="checkpoint, diffusion model, or demo:leaking, demo:healthy, demo:FILE")
    add_variant(parser)
    parser.add_argument("--out", type=Path, required=True, help="file to write; a LoRA belongs into models/loras, a checkpoint into models/checkpoints")
    parser.add_argument("--full", action="store_true", help="train all weights instead of a LoRA")
    parser.add_argument("--shard", action="store_true", help="with --full, under torchrun: each process holds a share of the weights only (FSDP)")
    parser.add_argument("--rank", type=int, default=config.rank, help="of the LoRA")
    parser.add_argument("--lora", type=Path, help="train this LoRA on")
    parser.add_argument("--naive", action="store_true", help="no TimeNoise: the paper's baseline")
    parser.add_argument("--beta-m", type=float, default=100.0, help="largest level of TimeNoise, in units of the image latents")
    parser.add_argument("--a", type=float, default=5.0, help="exponent of TimeNoise")
    parser.add_argument("--steps", type=int, default=recipe.steps)
    parser.add_argument("--batch", type=int, default=recipe.batch, help="clips a forward pass and process")
    parser.add_argument("--accumulation", type=int, default=recipe.accumulation, help="forward passes an update")
    parser.add_argument("--learning-rate", type=float, default=recipe.learning_rate)
    parser.add_argument("--weight-decay", type=float, default=recipe.weight_decay)
    parser.add_argument("--clip-norm", type=float, default=recipe.clip_norm, help="0 = none")
    parser.add_argument("--dropout", type=float, default=recipe.dropout, help="share of examples without their condition")
    parser.add_argument("--ema", type=float, default=recipe.ema, help="decay of the averaged weights, 0 = none")
    parser.add_argument("--seed", type=int, default=recipe.seed)
    parser.add_argument("--precision", choices=list(trainable.PRECISIONS), default=config.precision)
    parser.add_argument("--no-checkpointing", action="store_true", help="keep all activations: faster, more memory")
    parser.add_argument("--bucket", type=int, default=config.bucket, help="motion bucket that SVD is told; 0 = each clip's motion score")
    parser.add_argument("--image-tokens", action="store_true", help="TimeNoise on the image encoder's output too, as the paper has it for DynamiCrafter")
    parser.add_argument("--sigma-from", type=float, default=config.sigmas[0], help="least noise level to train; of Wan 2.2's high-noise model 0.9")
    parser.add_argument("--sigma-to", type=float, default=config.sigmas[1], help="largest; of Wan 2.2's low-noise model 0.9")
    parser.add_argument("--P-mean", type=float, default=config.P_mean, help="mean of ln sigma, of SVD; the others draw their time evenly")
    parser.add_argument("--P-std", type=float, default=config.P_std)
    parser.add_argument("--tail", type=float, default=config.tail, help="share of examples with ln sigma drawn evenly over the whole range")
    return parser.parse_args(arguments)


def report(run: training.Training) -> None:
    if run.step == 1 and (held := run.team.share_held(run.parameters.values())) < 1:
        print(f"each of {run.team.world} processes holds {held:.0%} of the weights", flush=True)
    if run.step % 10 == 0 or run.step in (1, run.recipe.steps):
        recent = run.losses[-10:]
        print(f"step {run.step} of {run.recipe.steps}: loss {sum(recent) / len(recent):.4f}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    o = arguments_of(arguments)
    state = o.out.with_name(o.out.stem + ".state.safetensors")
    with processes.command(), claim(o.out, state) if processes.team().rank == 0 else nullcontext():
        train(o, state)


def train(o: argparse.Namespace, state: Path) -> None:
    """The command, its arguments read. state: the file of a training under way."""
    noise = None if o.naive else TimeNoise(o.beta_m, o.a)
    recipe = training.Recipe(o.steps, o.batch, o.accumulation, o.learning_rate, o.weight_decay, o.clip_norm, o.dropout, o.ema, o.seed, noise)
    lora = None if o.lora is None else read_lora(o.lora)
    config = TrainConfig(
        0 if o.full else o.rank,
        lora,
        o.precision,
        not o.no_checkpointing,
        o.bucket,
        o.P_mean,
        o.P_std,
        o.tail,
        o.image_tokens,
        (o.sigma_from, o.sigma_to),
        o.shard,
    )
    first = processes.team().rank == 0
    clips, model = prepared.load(o.clips), load_checkpoint(o.model, o.variant)[0]
    if state.exists() and first:
        print(f"going on from {state.name}", flush=True)
    result = tune(model, clips, recipe, config, state, progress=report if first else None, every=float(os.environ.get("CIL_SAVE_EVERY", 60)))
    processes.disband()
    if not first:
        return
    about = {
        "format": "pt",
        "cil_training": json.dumps({**asdict(recipe), "full": o.full, "model": Path(o.model).name, "clips": len(clips), "losses": result.losses[-100:]}),
    }
    if o.full:
        save_checkpoint(result.values, model, source_of(o.model), o.out, about)
    else:
        write_safetensors(result.values, o.out, about)
    state.unlink(missing_ok=True)
    print(f"{o.out}: {'all weights' if o.full else f'LoRA of {len(result.values) // 3} layers'} after {len(result.losses)} steps", flush=True)


def source_of(name: str) -> str:
    """The file behind a --model."""
    from ...demo.model import CHECKPOINTS

    return str(CHECKPOINTS.get(name.removeprefix("demo:"), name.removeprefix("demo:")))
