"""The gradient that PyTorch is told for the host's rotary embedding, held against the formula's own."""

import sys

import pytest
import torch

from cil_pack.nodes.host import rope


def rotation(x, freqs):
    """As the host defines it: y_i = sum_j freqs[..., i, j] x_j in each pair."""
    return torch.einsum("...ij,...j->...i", freqs, x.reshape(*x.shape[:-1], -1, 2)).reshape(x.shape)


def material():
    torch.manual_seed(0)
    x = torch.randn(2, 5, 3, 8, dtype=torch.float64, requires_grad=True)
    freqs = torch.randn(1, 5, 1, 4, 2, 2, dtype=torch.float64)  # no rotation, so that a transpose that is missing shows
    return x, freqs, torch.randn(2, 5, 3, 8, dtype=torch.float64)


def test_the_gradient_is_the_transposed_rotation():
    x, freqs, grad = material()
    (expected,) = torch.autograd.grad(rotation(x, freqs), x, grad)
    torch.testing.assert_close(rope.rotated_back(grad, freqs), expected)


@pytest.mark.skipif("comfy_kitchen" not in sys.modules, reason="this host does not rotate by comfy_kitchen's operators")
def test_the_hosts_operator_has_a_gradient():
    assert rope.give_rope_a_backward()
    x, freqs, grad = (t.detach().float() for t in material())
    x.requires_grad_()
    (found,) = torch.autograd.grad(torch.ops.comfy_kitchen.apply_rope1(x, freqs), x, grad)
    torch.testing.assert_close(found, rope.rotated_back(grad, freqs))
    both = torch.autograd.grad(torch.ops.comfy_kitchen.apply_rope(x, x, freqs), x, (grad, torch.zeros_like(grad)))
    torch.testing.assert_close(both[0], found)
