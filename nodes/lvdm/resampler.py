"""The image resampler: what CLIP saw of the picture -> tokens for the UNet's cross-attention.

A perceiver (learned queries that attend to the picture's tokens and to each other), with the
released checkpoints' key names under `image_proj_model`.
"""

from collections.abc import Iterable
from typing import Any, cast

import comfy.ops
import torch
from comfy.ldm.modules.attention import optimized_attention
from torch import nn


class PerceiverAttention(nn.Module):
    """Queries attend to the picture's tokens and to themselves."""

    def __init__(
        self, dim: int, heads: int, head_dim: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None, operations: Any | None = None
    ):
        super().__init__()
        made: dict[str, Any] = {"dtype": dtype, "device": device}
        self.heads = heads
        self.norm1 = operations.LayerNorm(dim, **made)
        self.norm2 = operations.LayerNorm(dim, **made)
        self.to_q = operations.Linear(dim, heads * head_dim, bias=False, **made)
        self.to_kv = operations.Linear(dim, 2 * heads * head_dim, bias=False, **made)
        self.to_out = operations.Linear(heads * head_dim, dim, bias=False, **made)

    def forward(self, x: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        x, latents = self.norm1(x), self.norm2(latents)
        k, v = self.to_kv(torch.cat([x, latents], dim=1)).chunk(2, dim=-1)  # [B, tokens + queries, heads head_dim] each
        return self.to_out(optimized_attention(self.to_q(latents), k, v, self.heads))


class FeedForward(nn.Sequential):
    def __init__(self, dim: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None, operations: Any | None = None):
        made: dict[str, Any] = {"bias": False, "dtype": dtype, "device": device}
        super().__init__(
            operations.LayerNorm(dim, dtype=dtype, device=device),
            operations.Linear(dim, 4 * dim, **made),
            nn.GELU(),
            operations.Linear(4 * dim, dim, **made),
        )


class Resampler(nn.Module):
    """[B, tokens, embedding_dim] -> [B, queries, output_dim].

    DynamiCrafter has 16 queries for each of 16 frames, VideoCrafter1 16 for the whole clip.
    """

    def __init__(
        self,
        dim: int,
        depth: int,
        heads: int,
        head_dim: int,
        queries: int,
        embedding_dim: int,
        output_dim: int,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        operations: Any | None = None,
    ):
        super().__init__()
        made: dict[str, Any] = {"dtype": dtype, "device": device}
        self.latents = nn.Parameter(torch.empty(1, queries, dim, **made))
        self.proj_in = operations.Linear(embedding_dim, dim, **made)
        self.proj_out = operations.Linear(dim, output_dim, **made)
        self.norm_out = operations.LayerNorm(output_dim, **made)
        layer = lambda: nn.ModuleList(
            [
                PerceiverAttention(dim, heads, head_dim, operations=operations, **made),
                FeedForward(dim, operations=operations, **made),
            ]
        )
        self.layers = nn.ModuleList([layer() for _ in range(depth)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.proj_in(x)  # [B, tokens, dim]
        latents = comfy.ops.cast_to_input(self.latents, x).expand(len(x), -1, -1)  # [B, queries, dim]
        for attention, feed_forward in cast(Iterable, self.layers):
            latents = latents + attention(x, latents)
            latents = latents + feed_forward(latents)
        return self.norm_out(self.proj_out(latents))
