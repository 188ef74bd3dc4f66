"""A recorder stands in for CUDA's capture on the CPU, in tests of graphs.

It keeps the operations of one step with the very tensors that they worked on, and repeats them there. As in a graph,
Python is not asked again, and a tensor that a step puts in place of another one is lost. It refuses what a capture
refuses: reading a number on the host, and random numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

FORBIDDEN = {"item", "_local_scalar_dense", "exponential_", "multinomial", "nonzero", "masked_select"}


class Recorder(TorchDispatchMode):
    """What happens within, operation by operation."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, list[Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in FORBIDDEN:
            raise RuntimeError(f"{func} in a capture")
        result = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, [x for x in tree_leaves(result) if isinstance(x, Tensor)]))
        return result

    def replay(self) -> None:
        for func, args, kwargs, recorded in self.operations:
            results = [x for x in tree_leaves(func(*args, **kwargs)) if isinstance(x, Tensor)]
            for old, new in zip(recorded, results, strict=True):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def record(step: Callable[[], None], set_back: Callable[[], None]) -> Callable[[], None]:
    recorder = Recorder()
    with recorder:
        step()
    return recorder.replay
