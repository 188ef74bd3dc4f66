"""What the search asks of the model: one `prefill`, then one `step` for each code.

`DecodeBackend` is the protocol and `EagerBackend` the plain version of it. A faster backend replaces
`run_step`, whose arguments are tensors of fixed shapes: nothing about the position in the text, the padding
or the beams is a number on the host. It may be run several times with the same arguments (as graph capture
does), for it only overwrites the slots that it is given.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from indextts.decoding.kv_cache import KVCache
from indextts.models.gpt import UnifiedVoice

SLOT_BLOCK = 64
"""Attended cache lengths are multiples of this, so that a step has few different shapes."""


class DecodeBackend(Protocol):
    """A model with a cache, ready to be decoded from."""

    start_code: int
    stop_code: int
    max_codes: int

    def prefill(self, embeddings: Tensor, mask: Tensor, *, num_beams: int, max_codes: int) -> Tensor:
        """Start over with a batch of segments.

        Args:
            embeddings: Prefixes ``[S, P, D]``, padded on the left.
            mask: ``[S, P]``, true where a prefix is real.
            num_beams: Rows per segment in the steps to come.
            max_codes: The most codes that will be drawn.

        Returns:
            Logits of the first code ``[S, V]``.
        """
        ...

    def step(self, codes: Tensor, beams: Tensor | None = None) -> Tensor:
        """Feed the chosen codes.

        Args:
            codes: ``[S, B]``.
            beams: ``[S, B]``, the beam that each code continues; None means that every beam continues itself.

        Returns:
            Logits of the next code ``[S, B, V]``.
        """
        ...


class DecodeStep(nn.Module):
    """One code for every beam of every segment: a function of tensors of fixed shapes and of the cache."""

    def __init__(self, model: UnifiedVoice, cache: KVCache) -> None:
        super().__init__()
        self.model = model
        self.cache = cache

    def forward(self, codes: Tensor, position: Tensor, slots: Tensor, mask: Tensor) -> Tensor:
        """Feed ``codes [S, B]`` at code ``position [1]`` into cache ``slots [B]``.

        ``mask [S, B, length]`` says which of the first ``length`` slots each beam sees.
        Returns logits ``[S, B, V]``.
        """
        embeddings = self.model.embed_codes(codes, position)
        bias = attention_bias(mask, embeddings.dtype)
        hidden = self.model.gpt(embeddings, bias, self.cache.layers(mask.shape[-1]), slots)
        return self.model.code_logits(hidden)


class EagerBackend:
    """Runs every step as it comes."""

    def __init__(self, model: UnifiedVoice) -> None:
        self.model = model
        self.start_code = model.config.start_mel_token
        self.stop_code = model.config.stop_mel_token
        self.max_codes = model.max_codes

    def prefill(self, embeddings: Tensor, mask: Tensor, *, num_beams: int, max_codes: int) -> Tensor:
        """See `DecodeBackend.prefill`."""
        segments, prefix_length = mask.shape
        start = torch.full((segments, 1), self.start_code, device=mask.device)
        start = self.model.embed_codes(start, torch.zeros(1, dtype=torch.long, device=mask.device))
        embeddings = torch.cat((embeddings.to(start.dtype), start), dim=1)
        self.num_beams, self.prefix_slots, self.num_steps = num_beams, prefix_length + 1, 0
        capacity = self.prefix_slots + num_beams * (max_codes - 1)
        self._allocate(segments, _round_up(capacity, SLOT_BLOCK), embeddings)

        visible = nn.functional.pad(mask, (0, 1), value=True)
        self.mask[..., : self.prefix_slots] = visible[:, None]
        # A padded row sees itself, or its softmax would have nothing to sum over. Nobody else sees it.
        causal = torch.ones(self.prefix_slots, self.prefix_slots, dtype=torch.bool, device=mask.device).tril()
        own = torch.eye(self.prefix_slots, dtype=torch.bool, device=mask.device)
        bias = attention_bias((visible[:, None] & causal) | own, embeddings.dtype)
        slots = torch.arange(self.prefix_slots, device=mask.device)
        hidden = self.model.gpt(embeddings, bias, self.cache.layers(self.prefix_slots), slots)
        return self.model.code_logits(hidden[:, -1])

    def step(self, codes: Tensor, beams: Tensor | None = None) -> Tensor:
        """See `DecodeBackend.step`."""
        first_slot = self.prefix_slots + self.num_steps * self.num_beams
        end = first_slot + self.num_beams
        if end > self.cache.capacity:
            raise IndexError(f"step {self.num_steps + 1} exceeds the number of codes that prefill was told")
        self.num_steps += 1
        if beams is not None and self.num_beams > 1:
            seen = self.mask[..., :first_slot]
            seen.copy_(seen.gather(1, beams[..., None].expand_as(seen)))
        self.mask[..., first_slot:end] = torch.eye(self.num_beams, dtype=torch.bool, device=codes.device)
        slots = torch.arange(first_slot, end, device=codes.device)
        position = torch.full((1,), self.num_steps + 1, device=codes.device)  # 1 is skipped: spec quirk 8
        return self.run_step(codes, position, slots, self.mask[..., : _round_up(end, SLOT_BLOCK)])

    def run_step(self, codes: Tensor, position: Tensor, slots: Tensor, mask: Tensor) -> Tensor:
        """`DecodeStep`, by the means of this backend."""
        return self.decode_step(codes, position, slots, mask)

    def _allocate(self, segments: int, capacity: int, like: Tensor) -> None:
        config = self.model.config
        self.cache = KVCache(
            config.layers,
            segments,
            config.heads,
            capacity,
            config.model_dim // config.heads,
            device=like.device,
            dtype=like.dtype,
        )
        self.mask = torch.zeros((segments, self.num_beams, capacity), dtype=torch.bool, device=like.device)
        self.decode_step = DecodeStep(self.model, self.cache)


def attention_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Mask ``[S, queries, keys]`` (true: visible) to an addend of the scores ``[S, 1, queries, keys]``."""
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return bias.masked_fill_(~mask, float("-inf"))[:, None]


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
