"""Decoding by CUDA graphs: a step of model and search is captured once per shape, then replayed.

Each shape has a `_Stand`: a state of the model and of the search that the graph reads and changes, and to which a batch
moves when it comes to this shape. All stands share the memory of the cache (`Arena`) and that of the values in between
(the pool), as one runs at a time.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence

from torch import Tensor

from indextts.cuda_graphs import Capture, CudaCapture, LatestUsed, Replay, captured
from indextts.decoding.backend import PLAIN, DecodeState, EagerBackend, Parked, StepKind
from indextts.decoding.kv_cache import Arena
from indextts.decoding.state import Search
from indextts.models.gpt import UnifiedVoice

logger = logging.getLogger(__name__)

GRAPH_SLOTS = 512
"""Caches of graphs have multiples of this many slots: a graph attends to all of them, the unused ones in vain."""

MAX_EXACT_PLACES = 8
"""Batches of up to so many segments have shapes of their own."""

MAX_GRAPHS = 64
"""The graphs that are kept, the latest used ones: enough for the longest speech of every batch size."""


@dataclasses.dataclass
class _Stand:
    """One shape: its tensors, and the graph that advances them."""

    state: DecodeState
    search: Search
    replay: Replay


class GraphBackend(EagerBackend):
    """Replays every step. What cannot be captured is an error, never a slower way."""

    def __init__(self, model: UnifiedVoice, capture: Capture | None = None, kind: StepKind = PLAIN) -> None:
        """``capture`` is CUDA's own if it is None.

        Raises:
            UnsupportedOption: the model is not on a CUDA device.
        """
        super().__init__(model, kind)
        device = model.mel_head.weight.device
        self.capture = capture or CudaCapture(device)
        self.memory = Arena(device, model.dtype)
        self.known_address = self.memory.address
        self.stands: LatestUsed[_Stand] = LatestUsed(MAX_GRAPHS)
        self.stand: _Stand | None = None

    def prefill(self, embeddings: Tensor, mask: Tensor, *, num_beams: int, max_codes: int) -> Tensor:
        """See `DecodeBackend.prefill`."""
        self.stand = None
        return super().prefill(embeddings, mask, num_beams=num_beams, max_codes=max_codes)

    def resume(self, parked: Parked) -> None:
        """See `DecodeBackend.resume`."""
        self.stand = None
        super().resume(parked)

    def places_for(self, segments: int) -> int:
        """As many, or the next power of two of more: a place too many costs more than a shape too many."""
        return segments if segments <= MAX_EXACT_PLACES else 1 << (segments - 1).bit_length()

    def capacity_for(self, slots: int) -> int:
        """The least capacity of a graph for ``slots`` slots."""
        return -(-slots // GRAPH_SLOTS) * GRAPH_SLOTS

    def settle(self, search: Search, rows: Sequence[int] | None, steps: int) -> Search:
        """Move to the stand of the shape that the next ``steps`` steps have, and build it if there is none."""
        before = self.state
        self._make_room(rows, steps)
        if self.memory.address != self.known_address:  # the graphs of the old address are worthless
            self.stands.clear()
            self.known_address = self.memory.address
        if self.stand is not None and self.state is before:
            return search
        search = search if rows is None else search.select(rows)
        self.stand = stand = self._stand_for(search)
        stand.state.copy_(self.state)
        stand.search.copy_(search)
        self.state = stand.state
        return stand.search

    def advance(self, search: Search) -> None:
        """See `DecodeBackend.advance`."""
        if self.stand is None or search is not self.stand.search or self.settled_steps == 0:
            raise RuntimeError("settle must come before advance, and gives the search that advances")
        self.settled_steps -= 1
        self.stand.replay()

    def _stand_for(self, search: Search) -> _Stand:
        """The stand of the shape that ``search`` and the state have now."""
        # How many codes there may be is the host's affair. The other parameters are frozen in a graph.
        params = dataclasses.replace(search.params, max_mel_tokens=1)
        shape = (type(search), len(search.done), self.state.cache.capacity, params)
        return self.stands.get(shape, lambda: self._build(search))

    def _build(self, search: Search) -> _Stand:
        """A stand for shapes such as ``search`` and the state have. Changes nothing but the slots of the next step."""
        everything = range(len(search.done))
        current, own = self.state, self.state.select(everything)
        standing = search.select(everything)
        self.state, self.attended_slots = own, own.cache.capacity
        self._use_cache(own.cache)

        def step() -> None:
            self.kind.choose(standing, self.feed(standing.codes, standing.parents).float())

        def set_back() -> None:
            own.copy_(current)
            standing.copy_(search)

        logger.debug("capturing a decode step of %d places and %d slots", len(everything), own.cache.capacity)
        try:
            replay = captured("the decode step", self.capture, step, set_back)
        finally:
            self.state = current
        return _Stand(own, standing, replay)
