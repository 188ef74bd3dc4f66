"""The perceiver resampler (spec 7.2): any number of context frames in, a fixed number of latents out."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """``x / max(|x|, 1e-12) * sqrt(width) * gamma``; the norm is taken in float32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x.float(), dim=-1).to(x.dtype) * (math.sqrt(x.shape[-1]) * self.gamma)


class GatedGELU(nn.Module):
    """First half of the features times the exact GELU of the second half."""

    def forward(self, x: Tensor) -> Tensor:
        value, gate = x.chunk(2, dim=-1)
        return F.gelu(gate) * value


class LatentAttention(nn.Module):
    """Latents attend to themselves and to the context."""

    def __init__(self, width: int, heads: int, dim_head: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, heads * dim_head, bias=False)
        self.to_kv = nn.Linear(width, 2 * heads * dim_head, bias=False)
        self.to_out = nn.Linear(heads * dim_head, width, bias=False)

    def forward(self, latents: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
        """``latents [B, N, width]``, ``context [B, T, width]``, ``mask [B, N + T]`` (latents first)."""
        keys_values = self.to_kv(torch.cat((latents, context), dim=1)).chunk(2, dim=-1)
        q, k, v = (
            projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projected in (self.to_q(latents), *keys_values)
        )
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else mask[:, None, None])
        return self.to_out(y.transpose(1, 2).flatten(2))


class PerceiverResampler(nn.Module):
    """Learned latents refined by cross-attention; the layers have no norms inside (spec quirk 22)."""

    def __init__(
        self,
        dim: int,
        dim_context: int,
        num_latents: int,
        heads: int,
        dim_head: int = 64,
        ff_mult: int = 2,
        depth: int = 2,
    ) -> None:
        super().__init__()
        hidden = int(dim * ff_mult * 2 / 3)
        self.proj_context = nn.Linear(dim_context, dim)
        self.latents = nn.Parameter(torch.empty(num_latents, dim).normal_(std=0.02))
        self.layers = nn.ModuleList(
            nn.ModuleList(
                (
                    LatentAttention(dim, heads, dim_head),
                    nn.Sequential(nn.Linear(dim, 2 * hidden), GatedGELU(), nn.Linear(hidden, dim)),
                )
            )
            for _ in range(depth)
        )
        self.norm = RMSNorm(dim)

    def forward(self, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """``context [B, T, dim_context]``, ``mask [B, T]`` (true: a frame) to ``[B, num_latents, dim]``."""
        context = self.proj_context(context)
        latents = self.latents.to(context.dtype).expand(context.shape[0], -1, -1)
        if mask is not None:
            mask = F.pad(mask, (latents.shape[1], 0), value=True)
        for attention, feed_forward in self.layers:  # type: ignore[misc]  # each layer is a pair
            latents = latents + attention(latents, context, mask)
            latents = latents + feed_forward(latents)
        return self.norm(latents)
