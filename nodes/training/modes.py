"""A host's MODEL while it is trained: on its device or in shares, with gradients, its blocks computed twice to save memory.

Everything is put on a clone by the host's own means and taken off again when the training ends.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import comfy.ldm.modules.attention
import comfy.model_management
import torch
from torch.utils.checkpoint import checkpoint

from ...cil import processes
from ..host.rope import give_rope_a_backward
from ..host.types import Model

# of comfy.ldm.modules.attention; SageAttention and FlashAttention's inference kernels have no backward pass
DIFFERENTIABLE = ("attention_basic", "attention_sub_quad", "attention_split", "attention_xformers", "attention_pytorch")


def _blocks(module, name):
    """The largest parts of a network that are called as one: (name, module)."""
    for child_name, child in module.named_children():
        path = f"{name}.{child_name}"
        if isinstance(child, (torch.nn.ModuleList, torch.nn.Sequential)):
            yield from _blocks(child, path)
        elif next(child.children(), None) is not None:
            yield path, child


def checkpoint_blocks(patcher: Model) -> None:
    """Compute each block again in the backward pass instead of keeping its activations."""
    for name, block in _blocks(patcher.model.diffusion_model, "diffusion_model"):
        patcher.add_object_patch(f"{name}.forward", functools.partial(checkpoint, block.forward, use_reentrant=False))


@contextmanager
def gradients() -> Iterator[None]:
    """Out of the host's inference mode, and into its mode for training where it has one (0.28 and later)."""
    management = comfy.model_management
    before = getattr(management, "in_training", None)
    if before is None:
        give_rope_a_backward()
    try:
        if before is not None:
            management.in_training = True
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        if before is not None:
            management.in_training = before


def differentiable_attention(attention: Callable, *args, **kwargs) -> torch.Tensor:
    """The host's attention where it has a backward pass, else PyTorch's. An `optimized_attention_override` of the host."""
    return (attention if attention.__name__ in DIFFERENTIABLE else comfy.ldm.modules.attention.attention_pytorch)(*args, **kwargs)


def check_gradients(parameters: dict[str, torch.nn.Parameter]) -> None:
    """Raise ValueError where the first backward pass has not reached a weight: it would never be trained, without a word."""
    left = [name for name, p in parameters.items() if p.grad is None]
    if left:
        raise ValueError(
            f"no gradient reaches {len(left)} of {len(parameters)} trained tensors, for example '{left[0]}': an attention or another part of this model "
            "has no backward pass (SageAttention, set up by another node or pack?). Take that off the model, and train again"
        )


@contextmanager
def loaded(patcher: Model) -> Iterator:
    """The whole model on its device, everything else off it -> the device; taken off again at the end."""
    comfy.model_management.load_models_gpu([patcher], memory_required=1e20, force_full_load=True)
    try:
        yield patcher.load_device
    finally:
        patcher.detach()


@contextmanager
def split(patcher: Model, team: processes.Shards) -> Iterator:
    """The network's weights spread over a team's processes instead of loaded on each one's device -> the device.

    For a model that is one's own to change: its weights stay in shares.
    """
    device, base = patcher.load_device, patcher.model
    patcher.patch_model(load_weights=False)  # the compute type, the checkpointed blocks
    for name, part in base.named_children():
        if name != "diffusion_model":
            part.to(device)
    for module in base.diffusion_model.modules():
        if hasattr(module, "comfy_cast_weights"):
            module.comfy_cast_weights = True  # weights are fp32, the network computes in the compute type
    team.split(base.diffusion_model, [block for _, block in _blocks(base.diffusion_model, "diffusion_model")], device)
    try:
        yield device
    finally:
        patcher.unpatch_model(unpatch_weights=False)
