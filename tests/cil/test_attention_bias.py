"""The bias on some keys of an attention: against the explicit softmax, with masks, and its share of a run."""

import pytest
import torch

from cil_pack.cil.attention_bias import Keys, attention, in_first_share, with_mask
from cil_pack.cil.schedules import step_index


def qkv(tokens=12, dim=4, seed=0):
    return torch.randn(3, 2, 3, tokens, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_odds_of_the_biased_keys_fall_by_exp_gamma():
    q, k, _ = qkv()
    keys, weights = Keys(2, 3, 12), torch.eye(12, dtype=torch.float64).expand(2, 3, 12, 12)
    odds = lambda p: p[..., 2:5].sum(-1) / (1 - p[..., 2:5].sum(-1))
    plain, less = (attention(q, k, weights, keys.bias(gamma, q)) for gamma in (0.0, 0.6))
    assert torch.allclose(odds(less), odds(plain) * torch.tensor(-0.6, dtype=torch.float64).exp())
    assert torch.allclose(less[..., 5:] / less[..., 5:6], plain[..., 5:] / plain[..., 5:6])  # among the others nothing shifts


def test_nothing_of_the_size_of_queries_by_keys():
    assert Keys(0, 4, 32760).bias(0.6, torch.zeros(1, dtype=torch.bfloat16)).shape == (1, 1, 1, 32760)


@pytest.mark.parametrize("shape", [(12,), (2, 1, 12), (2, 12, 12), (12, 12), (2, 3, 12, 12)])
@pytest.mark.parametrize("boolean", [False, True])
def test_the_bias_adds_to_a_mask_that_is_there(shape, boolean):
    q, k, v = qkv()
    shape = (1, *shape) if len(shape) == 1 else shape
    mask = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    explicit = torch.zeros(2, 3, 12, 12, dtype=torch.float64) + (mask[:, None] if mask.ndim == 3 else mask)
    if boolean:
        mask, explicit = mask > -0.5, torch.where(explicit > -0.5, 0.0, -1e30).double()
    explicit[..., 2:5] -= 0.6
    both = with_mask(Keys(2, 3, 12).bias(0.6, q), mask)
    assert torch.allclose(attention(q, k, v, both), attention(q, k, v, explicit))


def test_the_authors_share_of_the_steps():
    assert [i for i in range(40) if in_first_share(i, 40, 0.2)] == list(range(8))
    assert [i for i in range(4) if in_first_share(i, 4, 0.2)] == [0] and not in_first_share(0, 4, 0.0)
    assert all(in_first_share(i, 3, 1.0) for i in range(3))


def test_the_step_of_a_call():
    sigmas = torch.tensor([10.0, 6.0, 3.0, 1.0, 0.0])
    assert [step_index(sigmas, s) for s in (12.0, 10.0, 8.0, 6.0, 3.0, 2.0, 1.0, 0.5)] == [0, 0, 0, 1, 2, 2, 3, 3]
