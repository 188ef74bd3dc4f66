"""``python -m indextts.accel.tensor_parallel.worker``: one of the processes that the program starts.

Reads commands from its standard input, runs them, and ends with the input.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import IO

import torch
from torch import Tensor

from indextts.accel.ds_config import DeepSpeedConfig
from indextts.accel.tensor_parallel import blocks, processes
from indextts.decoding.kv_cache import KVCache
from indextts.models.gpt2 import GPT2


class Worker:
    """A share of the blocks and of the caches. Every public method is a command.

    There is the cache of the batch that is being decoded, the ``current`` one, and those of batches that are set aside.
    """

    def __init__(self, place: processes.Place) -> None:
        self.place = place
        self.caches: dict[int, KVCache] = {}

    def hold(self, width: int, layers: int, heads: int, dtype: torch.dtype, ds_config: DeepSpeedConfig) -> None:
        """Take a share of blocks of these sizes."""
        self.dtype = dtype
        with torch.device("meta"):
            trunk = GPT2(width, layers, heads).to(dtype).eval().requires_grad_(False)
        trunk = trunk.to_empty(device=self.place.device)
        self.engine = blocks.share(trunk, self.place.tp_size, ds_config)

    def use_cache(self, number: int, shape: tuple[int, ...], kept: Sequence[int]) -> None:
        """Start over with an empty cache. Of the others, only those of the numbers ``kept`` are still needed."""
        self.caches = {known: cache for known, cache in self.caches.items() if known in kept}
        self.caches[number] = KVCache(self._zeros(shape))
        self.current = number

    def move_cache(self, number: int, new_number: int, rows: list[int] | None, used: int, capacity: int) -> None:
        """See `KVCache.moved`."""
        self.caches[new_number] = self.caches.pop(number).moved(rows, used, capacity, self._zeros)
        self.current = new_number

    @torch.inference_mode()
    def run(self, x_shape: tuple[int, ...], bias_shape: tuple[int, ...] | None) -> None:
        """Run the blocks on ``x`` by itself, or on the cache as far as ``bias`` goes."""
        x = self._receive(x_shape, self.dtype)
        if bias_shape is None:
            self.engine(x)
            return
        bias = self._receive(bias_shape, self.dtype)
        slots = self._receive(x_shape[1:2], torch.long)
        self.engine(x, bias, self.caches[self.current].layers(bias_shape[-1]), slots)

    def _zeros(self, shape: tuple[int, ...]) -> Tensor:
        return torch.zeros(shape, dtype=self.dtype, device=self.place.device)

    def _receive(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        tensor = torch.empty(shape, dtype=dtype, device=self.place.device)
        processes.send(tensor)
        return tensor


def read(stream: IO[bytes], commands: queue.SimpleQueue) -> None:
    """Queue what comes in. When nothing can come any more, end the process, also if it waits for the others."""
    try:
        while True:
            commands.put(pickle.load(stream))
    finally:
        os._exit(0)


def main() -> None:
    """Join the group and obey it. An error ends the process, which the first one notices."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program, and ends its pipes
    commands: queue.SimpleQueue = queue.SimpleQueue()
    threading.Thread(target=read, args=(sys.stdin.buffer, commands), daemon=True).start()
    try:
        place = commands.get()
        torch.set_num_threads(place.threads)
        if place.device_type == "cuda":
            torch.cuda.set_device(place.device)
        store = processes.meet(place.port)
        store.set(processes.ready_key(place.rank), "")
        processes.join(place, store)
        worker = Worker(place)
        while True:
            command, arguments = commands.get()
            getattr(worker, command)(*arguments)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


if __name__ == "__main__":
    main()
