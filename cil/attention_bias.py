"""A bias on the attention to the reference frame: DyMoS, the signed dial of motion.

Jeon et al., "Rebalancing Reference Frame Dominance" (arXiv 2605.19398): the other frames attend
too much to the tokens of the first latent frame. In the self-attention of all blocks

    logit(q, k) <- logit(q, k) - gamma      for the keys k of that frame, every query alike

in the conditional branch, during the first steps (Wan 2.2: gamma 0.6, 8 of 40). gamma > 0 sets
motion free, gamma < 0 damps it, 0 is neutral. The bias depends on the key only: it is one row.
"""

from dataclasses import dataclass

import torch

PUBLISHED_GAMMA, PUBLISHED_SHARE = 0.6, 0.2  # Wan 2.2 I2V A14B: the first 8 of 40 steps


@dataclass(frozen=True)
class Keys:
    """Which keys of a self-attention are biased: `count` from `first` on, of `total`. Other attentions have another total."""

    first: int
    count: int
    total: int

    def bias(self, gamma: float, like: torch.Tensor) -> torch.Tensor:
        """[1, 1, 1, total]: -gamma at these keys, 0 elsewhere, of the type and on the device of `like`."""
        row = like.new_zeros(1, 1, 1, self.total)
        row[..., self.first : self.first + self.count] = -gamma
        return row


def with_mask(row: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """The bias [1, 1, 1, keys] on top of an attention's own mask: None, [q, k], [b, q, k] or [b, h, q, k]; bool keeps where True."""
    if mask is None:
        return row
    mask = mask[None, None] if mask.ndim == 2 else mask[:, None] if mask.ndim == 3 else mask
    if mask.dtype == torch.bool:
        return torch.where(mask, row, torch.finfo(row.dtype).min)
    return mask.to(row.dtype) + row


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """The explicit softmax attention that everything here is held against. q, k, v: [b, heads, tokens, d]."""
    return torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + bias, -1) @ v


def in_first_share(index: int, steps: int, share: float) -> bool:
    """Whether step `index` of `steps` lies in the first `share` of them: 0.2 of 40 steps are steps 0 to 7."""
    return index < share * steps - 1e-9
