"""A host's MODEL made trainable: what it was trained for, its conditions, its LoRA.

Nothing of the MODEL that came in is changed. Everything is put on a clone by the host's own
means (weight wrappers, object patches) and taken off again when the training ends.
"""

import functools
from collections.abc import Callable

import comfy.lora
import comfy.lora_convert
import comfy.model_sampling
import comfy.sd
import torch
from comfy.weight_adapter import LoRAAdapter

from ...cil import training
from ..fingerprint import of_weights
from ..host.sampling import Sampling
from ..host.tokens import changed_tokens
from ..host.types import Model
from ..lvdm.sampling import RescaledV
from .conditions import adapter_of
from .modes import differentiable_attention

PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}
NETWORK = "diffusion_model."


def objective(
    model: Model, P_mean: float, P_std: float, tail: float = 0.0, noised: tuple = ("image",), sigmas: tuple = training.EVERY_SIGMA
) -> training.Objective:
    """What a MODEL was trained for -> training.Objective, by the host's classes.

    P_mean, P_std: of ln sigma, for EDM models, a share `tail` aside; others draw their time evenly.
    noised: where TimeNoise acts, as a ConditionAdapter says it; sigmas: (least, largest) that are trained.
    """
    sampling = Sampling.of(model)
    host, process, kinds = sampling.host, sampling.process, comfy.model_sampling
    if sampling._table is not None:
        draw = training.uniform_timestep(sampling._table)
    else:
        draw = training.uniform_time(lambda t: max(sampling.sigma(t), sampling.sigma_min))
    if isinstance(host, (kinds.CONST, kinds.COSMOS_RFLOW)):
        weight = functools.partial(training.velocity_weight, process)
    elif isinstance(host, kinds.X0) or not isinstance(host, kinds.EPS):
        raise ValueError(f"the pack does not know what this model's network predicts ({type(host).__mro__[2].__name__}), and cannot train it")
    elif process.name == "VE":
        weight = functools.partial(training.edm_weight, sigma_data=host.sigma_data)
        draw = training.lognormal_sigma(P_mean, P_std, sampling.sigma_min, sampling.sigma_max, tail)
    elif isinstance(host, RescaledV):
        weight = functools.partial(training.velocity_weight, process, rescale=host.factor)
    elif isinstance(host, kinds.V_PREDICTION):
        weight = functools.partial(training.velocity_weight, process)
    else:
        weight = functools.partial(training.eps_weight, process)
    if tuple(sigmas) != training.EVERY_SIGMA:
        draw = training.within(draw, *sigmas)
    return training.Objective(process, weight, draw, sampling.fraction, noised)


class Denoiser:
    """cil's denoise(x, sigma, examples) by a MODEL, conditioned by the host's own code as for sampling.

    fps: of the clips; bucket: the motion bucket that SVD is told, None = each clip's own.
    The level of TimeNoise goes in as SVD's augmentation level.
    """

    def __init__(self, patcher: Model, fps: float, bucket: int | None):
        self.model, self.adapter, self.fps, self.bucket = patcher.model, adapter_of(patcher), fps, bucket

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, examples: list[training.Example]) -> torch.Tensor:
        """x [n, C, T, h, w], sigma [n] -> the predicted clean clips [n, C, T, h, w]."""
        n, _, frames = x.shape[:3]
        batched = self.adapter.frames_as_batch
        flat = x.movedim(2, 1).flatten(0, 1) if batched else x  # [n T, C, h, w] or [n, C, T, h, w]
        rows = len(flat) // n
        sigma = sigma.repeat_interleave(rows)  # [n T] or [n]
        each = [self._conditions(e, flat[:rows]) for e in examples]
        if all(cond.can_concat(other[name]) for other in each[1:] for name, cond in each[0].items()):
            out = self._apply(flat, sigma, {name: cond.concat([other[name] for other in each[1:]]) for name, cond in each[0].items()}, examples)
        else:  # texts of lengths that the host does not put together either
            parts = zip(flat.split(rows), sigma.split(rows), each, examples)
            out = torch.cat([self._apply(part, s, {name: cond.cond for name, cond in own.items()}, [e]) for part, s, own, e in parts])
        return out.unflatten(0, (n, frames)).movedim(1, 2) if batched else out

    def _apply(self, x, sigma, conditions, examples):
        options = {"optimized_attention_override": differentiable_attention}
        noisy = any(e.token_seed is not None for e in examples)
        with changed_tokens(self.model.diffusion_model, functools.partial(training.noise_on_tokens, examples) if noisy else None):
            return self.model.apply_model(x, sigma, transformer_options=options, **conditions)

    def _conditions(self, example, noise):
        """The host's conditions of one clip, repeated for its frames where they are the batch."""
        device = noise.device
        made = self.model.extra_conds(noise=noise, device=device, **self.adapter.conditioning(example, self.fps, self.bucket, device))
        for cond in made.values():
            if torch.is_tensor(cond.cond):
                cond.cond = cond.cond.to(device)
        return {name: cond.process_cond(batch_size=len(noise), device=device, area=None) for name, cond in made.items()}


# ---- what is trained ------------------------------------------------------------------


def as_it_is(weight: torch.Tensor) -> torch.Tensor:
    """A weight wrapper that changes nothing, and whose result autograd can keep.

    A graph's models are made of inference tensors, which it cannot. For a wrapper the host
    hands over a copy, except where it streams weights from the disk.
    """
    return weight.clone() if weight.is_inference() else weight


def new_adapters(model: Model, rank: int, seed: int) -> dict[str, torch.nn.Module]:
    """A LoRA for every matrix and convolution of the network -> {weight key: the host's trainable adapter}."""
    adapters = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, module in _layers(model):
            if module.weight is not None and module.weight.ndim >= 2:
                shape = torch.empty(1).expand(module.weight.shape)  # on the CPU: the same start on every device
                adapters[f"{name}.weight"] = LoRAAdapter.create_train(shape, rank=rank, alpha=float(rank))
    return adapters


def existing_adapters(model: Model, lora: dict) -> dict[str, torch.nn.Module]:
    """A LoRA file's tensors, to be trained on. Raises ValueError if they belong to another model."""
    keys = comfy.lora.model_lora_keys_unet(model.model, {})
    found = comfy.lora.load_lora(comfy.lora_convert.convert_lora(dict(lora)), keys, log_missing=False)
    shapes = {f"{name}.weight": module.weight.shape for name, module in _layers(model) if module.weight is not None}
    adapters = {}
    for key, patch in found.items():
        if not isinstance(patch, LoRAAdapter) or any(part is not None for part in patch.weights[3:]):
            raise ValueError(f"this LoRA changes '{key}' in another way than by two matrices, which cannot be trained on: begin a new LoRA")
        up, down = (part.float().flatten(1) for part in patch.weights[:2])  # [out, rank], [rank, in]
        if key not in shapes or (up.shape[0], down.shape[1]) != (shapes[key][0], shapes[key][1:].numel()):
            raise ValueError(
                f"existing_lora belongs to another model: its '{key}' is for a layer of {up.shape[0]} x {down.shape[1]}, this model's is {tuple(shapes.get(key, ()))}"
            )
        alpha = float(up.shape[1] if patch.weights[2] is None else patch.weights[2])
        adapters[key] = LoRAAdapter(set(), (up, down, alpha, None, None, None)).to_train()
    used = {name for patch in found.values() for name in patch.loaded_keys}
    strange = [name for name in lora if name not in used and not name.endswith(".alpha")]
    if strange or not adapters:
        raise ValueError(
            f"existing_lora belongs to another model: {len(strange)} of its {len(lora)} tensors fit nowhere, for example '{next(iter(strange), '')}'"
        )
    return adapters


def put_on(patcher: Model, adapters: dict) -> dict[str, torch.nn.Parameter]:
    """Adapters on a MODEL's clone -> {name: Parameter}, under the names that the host's loaders know."""
    for name, module in _layers(patcher):
        for part in ("weight", "bias"):
            if getattr(module, part, None) is not None:
                patcher.add_weight_wrapper(f"{name}.{part}", adapters.get(f"{name}.{part}", as_it_is))
    patcher.model.requires_grad_(False)
    return {f"{_layer(key)}.{name}": p for key, adapter in adapters.items() for name, p in adapter.named_parameters() if p.requires_grad}


def lora_of(values: dict, adapters: dict) -> dict[str, torch.Tensor]:
    """Trained values -> a LoRA as the host's nodes pass it on (LORA_MODEL) and its loaders read it."""
    return {name: value.cpu().contiguous() for name, value in values.items()} | {f"{_layer(key)}.alpha": a.alpha.detach().cpu() for key, a in adapters.items()}


def with_lora(model: Model, lora: dict) -> Model:
    """The MODEL with the LoRA on, by the host's own loader: as if it came from a file."""
    return comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0.0)[0]


def open_weights(patcher: Model) -> dict[str, torch.nn.Parameter]:
    """All weights of the network, in fp32 -> {name: Parameter}. For a model that is one's own to change."""
    patcher.model.diffusion_model.float().requires_grad_(True)
    return parameters_of(patcher)


def parameters_of(patcher: Model) -> dict[str, torch.nn.Parameter]:
    """The weights of the network -> {name: Parameter}."""
    return dict(patcher.model.diffusion_model.named_parameters())


def _layers(model):
    """The network's layers that the host's wrappers can act on: (name, module)."""
    return [(name, m) for name, m in model.model.named_modules() if name.startswith(NETWORK) and hasattr(m, "weight_function")]


def _layer(key):
    return key.removesuffix(".weight")


def fingerprint(model: Model, gather: Callable = lambda p: p) -> str:
    """A short name for a network and its weights, patches included where it is loaded. gather(p): all of a weight."""
    return of_weights(parameters_of(model).items(), gather)
