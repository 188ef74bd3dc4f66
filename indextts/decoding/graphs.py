"""Decoding by CUDA graphs: a step of model and search is captured once per shape, then replayed.

Launching the kernels of a step one by one takes the host far longer than the GPU needs to run them. A graph launches
them all at once, but only ever with the same shapes at the same addresses. So each shape has a `_Stand`: a state of the
model and of the search that the graph reads and changes, and to which a batch moves when it comes to this shape. All
stands share the memory of the cache (`Arena`) and that of the values in between (the pool), as one runs at a time.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from indextts.decoding.backend import DecodeState, EagerBackend, Parked
from indextts.decoding.kv_cache import Arena
from indextts.decoding.state import Search
from indextts.errors import UnsupportedOption
from indextts.models.gpt import UnifiedVoice

logger = logging.getLogger(__name__)

GRAPH_SLOTS = 512
"""Caches of graphs have multiples of this many slots: a graph attends to all of them, the unused ones in vain."""

MAX_GRAPHS = 32
"""The graphs that are kept, the latest used ones: enough for the longest speech of two batch sizes."""

WARM_UP_STEPS = 2
"""Steps before a capture, in which libraries set themselves up as they must not do within it."""

Replay = Callable[[], None]
Capture = Callable[[Callable[[], None], Callable[[], None]], Replay]
"""Given what to capture and how to set back the tensors that it changes, returns what repeats it on these tensors."""

Shape = tuple[object, ...]


@dataclasses.dataclass
class _Stand:
    """One shape: its tensors, and the graph that advances them."""

    state: DecodeState
    search: Search
    replay: Replay


class GraphBackend(EagerBackend):
    """Replays every step. What cannot be captured is an error, never a slower way."""

    def __init__(self, model: UnifiedVoice, capture: Capture | None = None) -> None:
        """``capture`` stands in for CUDA's own in tests.

        Raises:
            UnsupportedOption: the model is not on a CUDA device.
        """
        super().__init__(model)
        device = model.mel_head.weight.device
        if capture is None and device.type != "cuda":
            raise UnsupportedOption(f"CUDA graphs need a CUDA device; the model is on {device}")
        self.capture = capture or CudaCapture(device)
        self.memory = Arena(device, model.dtype)
        self.known_address = self.memory.address
        self.stands: OrderedDict[Shape, _Stand] = OrderedDict()
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
        """The next power of two: few shapes, and a batch that gets smaller rarely changes its shape."""
        return 1 << (segments - 1).bit_length()

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
        shape = (len(search.done), self.state.cache.capacity, params)
        stand = self.stands.pop(shape, None)
        if stand is None:
            stand = self._build(search)
            logger.debug("captured a decode step of %d places and %d slots", *shape[:2])
        self.stands[shape] = stand  # the latest one is the last
        while len(self.stands) > MAX_GRAPHS:
            self.stands.popitem(last=False)
        return stand

    def _build(self, search: Search) -> _Stand:
        """A stand for shapes such as ``search`` and the state have. Changes nothing but the slots of the next step."""
        everything = range(len(search.done))
        current, own = self.state, self.state.select(everything)
        standing = search.select(everything)
        self.state, self.attended_slots = own, own.cache.capacity
        self._use_cache(own.cache)

        def step() -> None:
            standing.choose(self.feed(standing.codes, standing.parents).float())

        def set_back() -> None:
            own.copy_(current)
            standing.copy_(search)

        try:
            replay = self.capture(step, set_back)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise UnsupportedOption(f"--cuda-graph: the decode step cannot be captured here: {error}") from error
        finally:
            self.state = current
        return _Stand(own, standing, replay)


class CudaCapture:
    """Captures CUDA graphs that share their memory. None of them may run while another one does."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.pool = torch.cuda.graph_pool_handle()
        # A pool dies with the last graph in it. This graph keeps it alive when all others are dropped.
        self.keeper = self._graph(lambda: torch.zeros(1, device=device))

    def __call__(self, step: Callable[[], None], set_back: Callable[[], None]) -> Replay:
        """See `Capture`."""
        with torch.cuda.device(self.device):
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP_STEPS):
                    set_back()
                    step()
            torch.cuda.current_stream().wait_stream(stream)
        return self._graph(step).replay

    def _graph(self, work: Callable[[], object]) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self.device), torch.cuda.graph(graph, pool=self.pool):
            work()
        return graph
