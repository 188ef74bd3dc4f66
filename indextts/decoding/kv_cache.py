"""A key-value cache of fixed size, shared by the beams of a segment."""

from __future__ import annotations

import torch
from torch import Tensor


class KVCache:
    """Keys and values of every layer, ``[segments, heads, capacity, head size]`` each.

    A slot is one position of the cache. The beams of a segment share all slots: the prefix is stored once,
    and each step adds one slot a beam. Which slots a beam descends from is not the cache's business but
    that of the attention mask, so choosing beams moves no keys and values.
    """

    def __init__(
        self,
        layers: int,
        segments: int,
        heads: int,
        capacity: int,
        head_size: int,
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.capacity = capacity
        # Zeros, not garbage: a hidden slot has weight 0, but 0 times NaN would still be NaN.
        shape = (2, layers, segments, heads, capacity, head_size)
        self.storage = torch.zeros(shape, device=device, dtype=dtype)

    def layers(self, length: int) -> list[tuple[Tensor, Tensor]]:
        """Per layer, keys and values of the first ``length`` slots, as views to write into and attend to."""
        keys, values = self.storage[..., :length, :].unbind(0)
        return list(zip(keys.unbind(0), values.unbind(0), strict=True))
