"""Finds operations that make the host wait for a GPU, on a machine that has none."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode

WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "bincount", "unique_dim", "_unique2", "equal", "item"}


class NoWaiting(TorchDispatchMode):
    """Raises ``AssertionError`` where an operation's result would have to be known on the host."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__.split(".")[0]
        assert name not in WAITING, f"{func} waits for the device"
        if name.startswith("index"):
            indices = args[1] if isinstance(args[1], (list, tuple)) else [args[1]]
            chosen = [i for i in indices if isinstance(i, torch.Tensor) and i.dtype == torch.bool]
            assert not chosen, f"{func} by a mask waits for the device"
        return func(*args, **(kwargs or {}))
