"""A backward pass for the rotary embedding of hosts that bring it without one.

From 0.8 the host rotates queries and keys by operators of comfy_kitchen, which know no gradient;
from 0.28 its own switch for training goes round them. Between the two PyTorch is told the
gradient, by its own means for operators of others: nothing of the host is replaced.
"""

import functools

import torch


def rotated_back(grad: torch.Tensor, freqs: torch.Tensor) -> torch.Tensor:
    """The gradient at x of y_i = sum_j freqs[..., i, j] x_j: the transposed rotation of grad. freqs [..., d / 2, 2, 2]."""
    pairs = grad.to(freqs.dtype).reshape(*grad.shape[:-1], -1, 2, 1)  # [..., d / 2, i, 1]
    return (freqs * pairs).sum(-2).reshape(grad.shape).to(grad.dtype)


@functools.cache
def give_rope_a_backward() -> bool:
    """Register the gradients of comfy_kitchen's apply_rope and apply_rope1, once a process. -> whether there are such operators."""
    operators = getattr(torch.ops, "comfy_kitchen", None)
    if operators is None or not hasattr(operators, "apply_rope1"):
        return False

    def keep(ctx, inputs, output):
        ctx.freqs = inputs[-1]

    torch.library.register_autograd("comfy_kitchen::apply_rope1", lambda ctx, grad: (rotated_back(grad, ctx.freqs), None), setup_context=keep)
    torch.library.register_autograd(
        "comfy_kitchen::apply_rope", lambda ctx, q, k: (rotated_back(q, ctx.freqs), rotated_back(k, ctx.freqs), None), setup_context=keep
    )
    return True
