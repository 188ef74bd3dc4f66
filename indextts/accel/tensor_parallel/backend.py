"""Process 0 of a tensor parallel group: decodes as ever, with blocks that all processes run."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from indextts.accel.ds_config import DeepSpeedConfig
from indextts.accel.tensor_parallel import blocks
from indextts.accel.tensor_parallel.processes import Workers, send
from indextts.decoding.backend import EagerBackend, Parked
from indextts.decoding.kv_cache import KVCache, Memory
from indextts.decoding.state import Search
from indextts.models.gpt import UnifiedVoice
from indextts.models.gpt2 import GPT2, LayerCache, Watch


class TensorParallelBackend(EagerBackend):
    """Runs every step as it comes. The model keeps the share of its blocks that is this process's.

    ``close`` ends the other processes, and so does the end of this object.
    """

    def __init__(self, model: UnifiedVoice, tp_size: int, ds_config: DeepSpeedConfig) -> None:
        """Start the other processes and split the blocks of ``model``, of which nothing else changes.

        Raises:
            UnsupportedOption: DeepSpeed cannot be imported, or the processes do not start.
            ConfigError: DeepSpeed refuses the settings.
        """
        super().__init__(model)
        self.heads //= tp_size
        self.parked: weakref.WeakSet[SplitCache] = weakref.WeakSet()
        self.workers = Workers(tp_size, model.mel_head.weight.device.type)
        try:
            model.add_module("gpt", SplitTrunk(model, self.workers, ds_config))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the other processes. The model is of no use any more."""
        self.workers.close()

    def park(self, search: Search) -> tuple[Parked, Search]:
        """See `DecodeBackend.park`."""
        parked, search = super().park(search)
        assert isinstance(parked.state.cache, SplitCache)
        self.parked.add(parked.state.cache)
        return parked, search

    def _new_cache(self, segments: int, capacity: int) -> KVCache:
        storage, kept = super()._new_cache(segments, capacity).storage, [cache.number for cache in self.parked]
        return SplitCache.started(storage, self.workers, kept)


class SplitCache(KVCache):
    """Keys and values of this process's heads. What is done to it, the others do to theirs, of the same ``number``."""

    numbers = itertools.count()

    def __init__(self, storage: Tensor, workers: Workers) -> None:
        super().__init__(storage)
        self.workers, self.number = workers, next(self.numbers)

    @classmethod
    def started(cls, storage: Tensor, workers: Workers, kept: Sequence[int]) -> SplitCache:
        """A new cache, here and in the other processes, which of all others keep only those of the numbers ``kept``."""
        cache = cls(storage, workers)
        workers.tell("use_cache", cache.number, tuple(storage.shape), kept)
        return cache

    def moved(self, rows: Sequence[int] | None, used: int, capacity: int, memory: Memory) -> SplitCache:
        """See `KVCache.moved`. The other processes do not have this cache any more, only the new one."""
        storage = super().moved(rows, used, capacity, memory).storage  # first: there may be no memory for it
        cache = SplitCache(storage, self.workers)
        self.workers.tell("move_cache", self.number, cache.number, None if rows is None else list(rows), used, capacity)
        return cache


class SplitTrunk(nn.Module):
    """Stands for a `GPT2` whose blocks are split: whenever it runs, all processes run their shares."""

    def __init__(self, model: UnifiedVoice, workers: Workers, ds_config: DeepSpeedConfig) -> None:
        super().__init__()
        trunk, config = model.gpt, model.config
        assert isinstance(trunk, GPT2)
        self.workers = workers
        workers.tell("hold", config.model_dim, config.layers, config.heads, model.dtype, ds_config)
        self.engine = blocks.share(trunk, workers.tp_size, ds_config)
        self.summed_layers, self.sums = blocks.summed_layers(trunk), 0
        for layer in self.summed_layers:
            layer.register_forward_hook(self._count)

    def forward(
        self,
        x: Tensor,
        bias: Tensor | None = None,
        caches: Sequence[LayerCache] | None = None,
        slots: Tensor | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """See `GPT2.forward`; the caches are those of the latest `SplitCache`, and ``watch`` sees this process's heads.

        Raises:
            SynthesisError: another process has ended.
        """
        inputs = [tensor.contiguous() for tensor in (x, bias, slots) if tensor is not None]
        self.sums = 0
        self.workers.tell("run", tuple(x.shape), None if bias is None else tuple(bias.shape))
        try:
            for tensor in inputs:
                send(tensor)
            return self.engine(x, bias, caches, slots, watch)
        except torch.OutOfMemoryError:
            # The others do not know, and wait for this process at every layer that is left.
            for _ in range(len(self.summed_layers) - self.sums):
                dist.all_reduce(torch.zeros_like(x))
            raise
        except BaseException as error:
            self.workers.give_up(error)
            raise

    def _count(self, *_: object) -> None:
        self.sums += 1
