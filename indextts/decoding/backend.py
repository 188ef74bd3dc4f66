"""What the search runs on: one `prefill` of all prefixes, then one step of model and search for each code.

A step is a function of tensors of fixed shapes which it changes in place. Nothing about the position in the text, the
padding, the beams or who has finished is a number on the host, so a step can be captured once and replayed. What the
host does decide, at its rare looks, is the shape: how many segments there are and how long their caches are (`settle`).
`EagerBackend` runs each step as it comes; `indextts.decoding.graphs` replays it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from indextts.decoding.kv_cache import KVCache, Memory
from indextts.decoding.state import Search, SegmentState
from indextts.models.gpt import UnifiedVoice

SLOT_BLOCK = 64
"""Attended cache lengths are multiples of this, so that a step has few different shapes."""

FIRST_STEPS = 256
"""The cache of a new batch has room for this many steps. When it is full, it doubles."""


@dataclass
class DecodeState(SegmentState):
    """What a step of the model reads and changes.

    Attributes:
        cache: Keys and values of all positions so far.
        bias: ``[S, B, capacity]``, minus infinity where a beam does not see a slot, else 0.
        position: ``[S]`` position of the code that is fed next.
        slot: ``[S]`` first of the B cache slots of this code.
    """

    cache: KVCache
    bias: Tensor
    position: Tensor
    slot: Tensor

    def moved(self, rows: Sequence[int] | None, used: int, capacity: int, memory: Memory) -> DecodeState:
        """The segments ``rows`` (None: all) with their first ``used`` slots, and room for ``capacity``."""
        state = copy.copy(self) if rows is None else self.select(rows)
        state.cache = self.cache.moved(rows, used, capacity, memory)
        state.bias = nn.functional.pad(state.bias[..., :used], (0, capacity - used), value=float("-inf"))
        return state


class DecodeStep(nn.Module):
    """One code for every beam of every segment: a function of tensors of fixed shapes and of the cache.

    It may be run several times with the same arguments, for it only overwrites the slots that it is given.
    """

    def __init__(self, model: UnifiedVoice, cache: KVCache) -> None:
        super().__init__()
        self.model = model
        self.cache = cache

    def forward(self, codes: Tensor, position: Tensor, slot: Tensor, bias: Tensor) -> Tensor:
        """Feed ``codes [S, B]`` at code ``position [1]`` into the B slots of the cache from ``slot [1]`` on.

        ``bias [S, B, length]`` says which of the first ``length`` slots each beam sees. Returns logits ``[S, B, V]``.
        """
        embeddings = self.model.embed_codes(codes, position)
        slots = slots_from(slot, codes.shape[1])
        hidden = self.model.gpt(embeddings, bias[:, None], self.cache.layers(bias.shape[-1]), slots)
        return self.model.code_logits(hidden)


def show_slots(bias: Tensor, parents: Tensor | None, slot: Tensor) -> None:
    """Let beams see what the beams saw that they continue, and each its own of the next slots.

    Args:
        bias: ``[S, B, length]``, minus infinity where a beam does not see a slot, else 0. Changed in place.
        parents: ``[S, B]``; None means that every beam continues itself.
        slot: ``[1]``, first of the B next slots.
    """
    num_beams = bias.shape[1]
    if parents is not None and num_beams > 1:
        # A few kilobytes of visibility are all that moves when beams are chosen (see `KVCache`).
        bias.copy_(rows_of_beams(bias, parents))
    own = torch.eye(num_beams, dtype=torch.bool, device=bias.device)
    bias.index_copy_(2, slots_from(slot, num_beams), attention_bias(own, bias.dtype).expand(len(bias), -1, -1))


def choose_codes(search: Search, logits: Tensor) -> None:
    """`Search.choose`, whatever the search is."""
    search.choose(logits)


@dataclass(frozen=True)
class StepKind:
    """How a step is computed: the model, and what the search does before and behind it, each in this or another way."""

    step_type: Callable[[UnifiedVoice, KVCache], DecodeStep]
    show: Callable[[Tensor, Tensor | None, Tensor], None]
    choose: Callable[[Search, Tensor], None]


PLAIN = StepKind(DecodeStep, show_slots, choose_codes)
"""By the means of PyTorch, anywhere."""


@dataclass(frozen=True)
class Parked:
    """A batch that was set aside in the middle of its decoding, in memory of its own."""

    state: DecodeState
    num_beams: int
    used_slots: int
    max_slots: int


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

    def places_for(self, segments: int) -> int:
        """How many places a batch of ``segments`` has. What is too many is filled with copies."""
        ...

    def settle(self, search: Search, rows: Sequence[int] | None, steps: int) -> Search:
        """Make room for the next ``steps`` steps.

        Args:
            search: The search as it stands.
            rows: Segments to go on with, as many as `places_for` says; None means all.
            steps: To be followed by so many calls of `advance`.

        Returns:
            The search to call `advance` with from now on: the given one is used up.
        """
        ...

    def advance(self, search: Search) -> None:
        """One step: feed the codes that the search has chosen, and let it choose the next ones."""
        ...

    def park(self, search: Search) -> tuple[Parked, Search]:
        """Set the batch aside between two `settle`, so that another one can be decoded meanwhile.

        Returns:
            What `resume` takes, and the search to go on with: the given one is used up.
        """
        ...

    def resume(self, parked: Parked) -> None:
        """Go on with a batch that was set aside. `settle` comes next."""
        ...


class EagerBackend:
    """Runs every step as it comes."""

    def __init__(self, model: UnifiedVoice, kind: StepKind = PLAIN) -> None:
        self.model = model
        self.kind = kind
        self.start_code = model.config.start_mel_token
        self.stop_code = model.config.stop_mel_token
        self.max_codes = model.max_codes
        self.heads = model.config.heads  # of which there are keys and values in the cache
        self.memory: Memory = self._fresh_memory

    def prefill(self, embeddings: Tensor, mask: Tensor, *, num_beams: int, max_codes: int) -> Tensor:
        """See `DecodeBackend.prefill`."""
        segments, prefix_length = mask.shape
        device = mask.device
        start = torch.full((segments, 1), self.start_code, device=device)
        start = self.model.embed_codes(start, torch.zeros(1, dtype=torch.long, device=device))
        embeddings = torch.cat((embeddings.to(start.dtype), start), dim=1)
        self.num_beams, self.used_slots = num_beams, prefix_length + 1
        self.max_slots = self.used_slots + num_beams * (max_codes - 1)
        cache = self._new_cache(segments, self.capacity_for(self.used_slots))

        visible = nn.functional.pad(mask, (0, 1), value=True)
        # A padded row sees itself, or its softmax would have nothing to sum over. Nobody else sees it.
        causal = torch.ones(self.used_slots, self.used_slots, dtype=torch.bool, device=device).tril()
        own = torch.eye(self.used_slots, dtype=torch.bool, device=device)
        bias = attention_bias((visible[:, None] & causal) | own, embeddings.dtype)
        slots = torch.arange(self.used_slots, device=device)
        hidden = self.model.gpt(embeddings, bias[:, None], cache.layers(self.used_slots), slots)

        bias = attention_bias(visible[:, None].expand(-1, num_beams, -1), embeddings.dtype)
        self.state = DecodeState(
            cache=cache,
            bias=nn.functional.pad(bias, (0, cache.capacity - self.used_slots), value=float("-inf")),
            position=torch.full((segments,), 2, device=device),  # 1 is skipped: spec quirk 8
            slot=torch.full((segments,), self.used_slots, device=device),
        )
        self.settled_steps, self.attended_slots = 0, self.used_slots
        self._use_cache(cache)
        return self.model.code_logits(hidden[:, -1])

    def places_for(self, segments: int) -> int:
        """As many as there are segments: nothing is gained by fewer shapes."""
        return segments

    def settle(self, search: Search, rows: Sequence[int] | None, steps: int) -> Search:
        """See `DecodeBackend.settle`."""
        self._make_room(rows, steps)
        return search if rows is None else search.select(rows)

    def advance(self, search: Search) -> None:
        """See `DecodeBackend.advance`."""
        self.kind.choose(search, self.step(search.codes, search.parents).float())

    def park(self, search: Search) -> tuple[Parked, Search]:
        """See `DecodeBackend.park`. Copies all there is: where it lies, other batches will have their tensors."""
        everything = range(len(search.done))
        state = self.state.moved(everything, self.used_slots, self.state.cache.capacity, self._fresh_memory)
        return Parked(state, self.num_beams, self.used_slots, self.max_slots), search.select(everything)

    def resume(self, parked: Parked) -> None:
        """See `DecodeBackend.resume`."""
        self.num_beams, self.used_slots, self.max_slots = parked.num_beams, parked.used_slots, parked.max_slots
        self.settled_steps, state = 0, parked.state
        self.state = state.moved(None, self.used_slots, state.cache.capacity, self.memory)
        self._use_cache(self.state.cache)

    def step(self, codes: Tensor, beams: Tensor | None = None) -> Tensor:
        """The model's half of a step. Makes room for it if `settle` has not.

        Args:
            codes: ``[S, B]``.
            beams: ``[S, B]``, the beam that each code continues; None means that every beam continues itself.

        Returns:
            Logits of the next code ``[S, B, V]``.
        """
        if self.settled_steps == 0:
            self._make_room(None, 1)
        self.settled_steps -= 1
        return self.feed(codes, beams)

    def feed(self, codes: Tensor, beams: Tensor | None) -> Tensor:
        """`step` on the device alone: this is what can be captured."""
        state, num_beams = self.state, self.num_beams
        bias = state.bias[..., : self.attended_slots]
        self.kind.show(bias, beams, state.slot[:1])
        logits = self.run_step(codes, state.position[:1], state.slot[:1], bias)
        state.slot += num_beams
        state.position += 1
        return logits

    def run_step(self, codes: Tensor, position: Tensor, slot: Tensor, bias: Tensor) -> Tensor:
        """`DecodeStep`, by the means of this backend."""
        return self.decode_step(codes, position, slot, bias)

    def capacity_for(self, slots: int) -> int:
        """Capacity of a cache that must have ``slots`` slots."""
        room = max(2 * slots, slots + FIRST_STEPS * self.num_beams)
        return _round_up(min(room, self.max_slots), SLOT_BLOCK)

    def _make_room(self, rows: Sequence[int] | None, steps: int) -> None:
        """Keep the segments ``rows`` (None: all), and have slots for the next ``steps`` steps."""
        used = self._reserve(steps)
        capacity = self.state.cache.capacity
        full = self.used_slots > capacity
        if full:
            capacity = self.capacity_for(self.used_slots)
        if full or rows is not None:
            self.state = self.state.moved(rows, used, capacity, self.memory)
            self._use_cache(self.state.cache)
        self.attended_slots = min(_round_up(self.used_slots, SLOT_BLOCK), capacity)

    def _reserve(self, steps: int) -> int:
        """Count the slots of the next ``steps`` steps as used. Returns how many are in use before."""
        used, self.used_slots = self.used_slots, self.used_slots + steps * self.num_beams
        if self.used_slots > self.max_slots:
            raise IndexError(f"{self.used_slots} slots exceed the {self.max_slots} that prefill was told of")
        self.settled_steps = steps
        return used

    def _new_cache(self, segments: int, capacity: int) -> KVCache:
        config = self.model.config
        head_size = config.model_dim // config.heads
        return KVCache(self.memory((2, config.layers, segments, self.heads, capacity, head_size)))

    def _fresh_memory(self, shape: tuple[int, ...]) -> Tensor:
        return torch.zeros(shape, device=self.model.mel_head.weight.device, dtype=self.model.dtype)

    def _use_cache(self, cache: KVCache) -> None:
        self.decode_step = self.kind.step_type(self.model, cache)


def slots_from(slot: Tensor, count: int) -> Tensor:
    """``count`` slots from ``slot [1]`` on."""
    return slot + torch.arange(count, device=slot.device)


def attention_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Mask (true: visible) to an addend of the attention scores of the same shape."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, float("-inf"))


def rows_of_beams(x: Tensor, beams: Tensor) -> Tensor:
    """Rows ``beams [S, B]`` of ``x [S, B, n]``, each segment among its own."""
    first = torch.arange(0, beams.numel(), beams.shape[1], device=beams.device)
    return x.flatten(0, 1).index_select(0, (first[:, None] + beams).flatten()).view_as(x)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
