"""A key-value cache of fixed shape, shared by the beams of a segment."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Memory = Callable[[tuple[int, ...]], Tensor]
"""Gives a zeroed tensor of a shape. Zeros, for a hidden slot has weight 0, but 0 times NaN would still be NaN."""


class KVCache:
    """Keys and values of every layer: ``storage [2, layers, segments, heads, capacity, head size]``.

    A slot is one position of the cache. The beams of a segment share all slots: the prefix is stored once, and each
    step adds one slot a beam. Which slots a beam descends from is not the cache's business but that of the attention
    mask, so choosing beams moves no keys and values. Nor does it cost reading: P prefix slots and n steps of B beams
    are P + B n slots, where a cache for each beam would have B (P + n).
    """

    def __init__(self, storage: Tensor) -> None:
        self.storage = storage

    @property
    def segments(self) -> int:
        return self.storage.shape[2]

    @property
    def capacity(self) -> int:
        return self.storage.shape[4]

    def layers(self, length: int) -> list[tuple[Tensor, Tensor]]:
        """Per layer, keys and values of the first ``length`` slots, as views to write into and attend to."""
        keys, values = self.storage[..., :length, :].unbind(0)
        return list(zip(keys.unbind(0), values.unbind(0), strict=True))

    def moved(self, rows: Sequence[int] | None, used: int, capacity: int, memory: Memory) -> KVCache:
        """The segments ``rows`` (None: all) with their first ``used`` slots in a cache of another ``capacity``."""
        kept = self.storage[..., :used, :]
        if isinstance(memory, Arena):  # which will give the memory that this cache lies in
            kept = kept.clone()
        kinds, layers, segments, heads, _, head_size = kept.shape
        storage = memory((kinds, layers, segments if rows is None else len(rows), heads, capacity, head_size))
        if rows is None:
            storage[..., :used, :] = kept
        else:
            for place, row in enumerate(rows):
                storage[:, :, place, :, :used] = kept[:, :, row]
        return KVCache(storage)


class Arena:
    """Memory that is used again: every shape begins at the same address, as captured graphs need it.

    It grows when a shape does not fit, to another address. Only the tensor that was given last is valid.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.buffer = torch.zeros(0, device=device, dtype=dtype)

    @property
    def address(self) -> int:
        """Where every tensor begins that this arena gives."""
        return self.buffer.data_ptr()

    def __call__(self, shape: tuple[int, ...]) -> Tensor:
        size = torch.Size(shape).numel()
        if size > len(self.buffer):
            device, dtype = self.buffer.device, self.buffer.dtype
            self.buffer = torch.zeros(0, device=device, dtype=dtype)  # the old one may go before the new one comes
            self.buffer = torch.zeros(size, device=device, dtype=dtype)
        return self.buffer[:size].zero_().view(shape)
