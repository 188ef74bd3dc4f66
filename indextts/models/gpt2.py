"""The GPT-2 trunk (spec 7.4): pre-norm blocks over embeddings that already carry their positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LayerCache = tuple[Tensor, Tensor]
"""Keys and values of one layer, each ``[B, heads, cache slots, head size]``."""

Watch = Callable[[Tensor, Tensor], None]
"""Is shown the queries and keys of each layer in turn, ``[B, heads, T, head size]``."""


class Conv1D(nn.Module):
    """A linear layer whose weight is stored ``[in, out]``, as GPT-2 checkpoints have it."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(in_features, out_features).normal_(std=0.02))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.flatten(0, -2), self.weight).unflatten(0, x.shape[:-1])


class Attention(nn.Module):
    """Multi-head self-attention, over the sequence itself or over a cache."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.head_size = width // heads
        self.c_attn = Conv1D(width, 3 * width)
        self.c_proj = Conv1D(width, width)

    def forward(
        self,
        x: Tensor,
        bias: Tensor | None,
        cache: LayerCache | None,
        slots: Tensor | None,
        watch: Watch | None = None,
    ) -> Tensor:
        q, k, v = self.c_attn(x).unflatten(-1, (3, -1, self.head_size)).permute(2, 0, 3, 1, 4).unbind(0)
        if watch is not None:
            watch(q, k)
        if cache is not None and slots is not None:
            keys, values = cache
            keys.index_copy_(2, slots, k)
            values.index_copy_(2, slots, v)
            k, v = keys, values
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, is_causal=bias is None)
        return self.c_proj(y.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Feed-forward of four times the width with the tanh-approximated GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = Conv1D(width, 4 * width)
        self.c_proj = Conv1D(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = MLP(width)

    def forward(
        self,
        x: Tensor,
        bias: Tensor | None,
        cache: LayerCache | None,
        slots: Tensor | None,
        watch: Watch | None = None,
    ) -> Tensor:
        x = x + self.attn(self.ln_1(x), bias, cache, slots, watch)
        return x + self.mlp(self.ln_2(x))


class GPT2(nn.Module):
    """A stack of blocks and the norm ``ln_f``. No embeddings and no head."""

    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.h = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.ln_f = nn.LayerNorm(width)

    def forward(
        self,
        x: Tensor,
        bias: Tensor | None = None,
        caches: Sequence[LayerCache] | None = None,
        slots: Tensor | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """Run the trunk.

        Args:
            x: Embeddings ``[B, T, width]``.
            bias: Added to the attention scores, ``[B, 1, T, keys]``, minus infinity where a key is hidden.
                None means causal attention within ``x``.
            caches: One ``LayerCache`` a layer. The keys and values of ``x`` are written into it at ``slots``,
                and attention runs over all of its slots, as far as ``bias`` shows them.
            slots: ``[T]`` cache slots of the rows of ``x``.
            watch: Called by every layer. Changes nothing.

        Returns:
            ``[B, T, width]`` after ``ln_f``.
        """
        for index, block in enumerate(self.h):
            x = block(x, bias, None if caches is None else caches[index], slots, watch)
        return self.ln_f(x)
