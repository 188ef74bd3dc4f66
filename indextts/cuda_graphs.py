"""Work on the GPU as CUDA graphs.

Launching kernels one by one takes the host far longer than the GPU needs to run small ones. A graph launches them all
at once, but only ever with the same shapes at the same addresses. So whoever uses graphs keeps its tensors in one place
(`StaticMemory`), has a graph for each shape, and forgets those that it has not used for long (`LatestUsed`).
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import torch
from torch import Tensor

from indextts.errors import UnsupportedOption

WARM_UP_STEPS = 2
"""Runs before a capture, in which libraries set themselves up as they must not do within it."""

ALIGNMENT_BYTES = 256
"""Where tensors begin, as if each of them had been allocated."""

Replay = Callable[[], None]
Capture = Callable[[Callable[[], None], Callable[[], None]], Replay]
"""Given what to capture and how to set back the tensors that it changes, returns what repeats it on these tensors."""

Value = TypeVar("Value")


class CudaCapture:
    """Captures CUDA graphs that share their memory. None of them may run while another one does."""

    def __init__(self, device: torch.device) -> None:
        """
        Raises:
            UnsupportedOption: it is not a CUDA device.
        """
        if device.type != "cuda":
            raise UnsupportedOption(f"CUDA graphs need a CUDA device; the model is on {device}")
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


def captured(what: str, capture: Capture, step: Callable[[], None], set_back: Callable[[], None]) -> Replay:
    """``capture``, with an error that says what it is about.

    Raises:
        UnsupportedOption: ``what`` cannot be captured.
        torch.OutOfMemoryError: the device has no memory for it.
    """
    try:
        return capture(step, set_back)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise UnsupportedOption(f"--cuda-graph: {what} cannot be captured here: {error}") from error


class LatestUsed(Generic[Value]):
    """Values by key, of which the ``limit`` latest used ones are kept."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._values: OrderedDict[Hashable, Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of ``key``, made if there is none."""
        value = self._values.pop(key) if key in self._values else make()
        self._values[key] = value  # the latest one is the last
        while len(self._values) > self.limit:
            self._values.popitem(last=False)
        return value

    def clear(self) -> None:
        self._values.clear()


class StaticMemory:
    """Memory for one bundle of tensors at a time: bundles of the same shapes lie at the same addresses.

    A bundle is a tensor, or a dataclass or a dictionary of bundles; other values in it stay as they are.
    """

    def __init__(self, device: torch.device) -> None:
        self.buffer = torch.zeros(0, device=device, dtype=torch.uint8)

    @property
    def address(self) -> int:
        """Where every bundle begins. It changes when one comes that is larger than all before."""
        return self.buffer.data_ptr()

    def hold(self, bundle: Value) -> Value:
        """A copy of ``bundle`` in this memory. The one before is lost."""
        sizes = [-(-tensor.nbytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES for tensor in tensors_of(bundle)]
        total = sum(sizes)
        if total > len(self.buffer):
            device, dtype = self.buffer.device, self.buffer.dtype
            self.buffer = torch.zeros(0, device=device, dtype=dtype)  # the old one may go before the new one comes
            self.buffer = torch.zeros(1 << (total - 1).bit_length(), device=device, dtype=dtype)  # grows rarely
        places = iter(self.buffer[:total].split(sizes))

        def place(tensor: Tensor) -> Tensor:
            return next(places)[: tensor.nbytes].view(tensor.dtype).view(tensor.shape).copy_(tensor)

        return map_tensors(place, bundle)


def tensors_of(bundle: object) -> list[Tensor]:
    """The tensors in a bundle, in order."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_tensors(note, bundle)
    return found


def map_tensors(function: Callable[[Tensor], Tensor], bundle: Value) -> Value:
    """A bundle like ``bundle`` (see `StaticMemory`), of what ``function`` makes of each tensor in it."""
    if isinstance(bundle, Tensor):
        return function(bundle)
    if isinstance(bundle, dict):
        return type(bundle)((key, map_tensors(function, value)) for key, value in bundle.items())
    if dataclasses.is_dataclass(bundle) and not isinstance(bundle, type):
        names = [field.name for field in dataclasses.fields(bundle)]
        return dataclasses.replace(bundle, **{name: map_tensors(function, getattr(bundle, name)) for name in names})
    return bundle
