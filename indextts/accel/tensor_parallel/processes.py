"""The processes of a tensor parallel group: started, watched and ended by the first one, which is the program.

Commands go through pipes to the others' standard inputs, tensors through ``torch.distributed``. So the others wait for
as long as nobody speaks, without a time limit, and when the program is gone, however it went, their pipes end.
"""

from __future__ import annotations

import datetime
import gc
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import Store, TCPStore  # pyright: ignore[reportPrivateImportUsage]

import indextts
from indextts.accel.deepspeed import join_group
from indextts.errors import SynthesisError, UnsupportedOption

HOST = "127.0.0.1"
BACKENDS = {"cuda": "nccl", "cpu": "gloo"}
"""The devices that can be split over, and how their processes exchange tensors."""

START_S = 300
"""How long the processes may take to start: importing DeepSpeed is slow where nothing of it is compiled."""

EXCHANGE_S = 300
"""How long a process may wait for the others in the middle of a step."""

END_S = 5
"""How long the processes may take to end, and a death to become known."""


@dataclass(frozen=True)
class Place:
    """Where a process stands: its ``rank``, among how many, on what kind of device, and the port where they meet."""

    rank: int
    tp_size: int
    device_type: str
    port: int
    threads: int

    @property
    def device(self) -> torch.device:
        return torch.device(f"cuda:{self.rank}" if self.device_type == "cuda" else self.device_type)

    @property
    def backend(self) -> str:
        return BACKENDS[self.device_type]


def send(tensor: Tensor) -> None:
    """Overwrite ``tensor`` by what process 0 has in it. To be called by all processes at the same point."""
    dist.broadcast(tensor, 0)


def meet(port: int, listener: socket.socket | None = None) -> Store:
    """Where the processes find each other: made by the one that has the ``listener`` of ``port``, found by others."""
    if listener is None:
        return TCPStore(HOST, port, is_master=False)
    return TCPStore(HOST, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach())


def join(place: Place, store: Store) -> None:
    """Become part of the group, as soon as all processes do.

    Raises:
        UnsupportedOption: DeepSpeed works on another kind of device than the model.
    """
    with _loopback_only():
        dist.init_process_group(
            place.backend,
            store=store,
            rank=place.rank,
            world_size=place.tp_size,
            timeout=datetime.timedelta(seconds=EXCHANGE_S),
            device_id=place.device if place.device_type == "cuda" else None,
        )
    join_group(place.device_type, place.backend)


def ready_key(rank: int) -> str:
    """What a process sets in the store when it is about to join."""
    return f"ready/{rank}"


@contextmanager
def _loopback_only() -> Iterator[None]:
    """Let gloo listen where nobody else hears it."""
    name, before = "GLOO_SOCKET_IFNAME", os.environ.get("GLOO_SOCKET_IFNAME")
    os.environ[name] = before or "lo"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]


class Workers:
    """All processes but the first, as the first one sees them. They end with ``close``, or when this is forgotten."""

    def __init__(self, tp_size: int, device_type: str) -> None:
        """Start the processes and form a group with them.

        Raises:
            UnsupportedOption: they do not start, or this process is part of a group already.
        """
        if dist.is_initialized():
            gc.collect()  # it may be the group of an engine that nobody has any more
        if dist.is_initialized():
            raise UnsupportedOption(
                f"--ds-tp-size {tp_size}: this process is part of a group of torch.distributed already, and a model "
                "can only be split in a process that is not"
            )
        self.tp_size, self.device_type = tp_size, device_type
        self.processes: list[subprocess.Popen[bytes]] = []
        self.deaths: dict[int, int] = {}  # exit code by rank
        self.closed = threading.Event()
        self._end = weakref.finalize(self, _end, self.processes, self.closed)
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def tell(self, command: str, *arguments: object) -> None:
        """Let every process run the method ``command`` of `indextts.accel.tensor_parallel.worker.Worker`.

        Raises:
            SynthesisError: one of them has ended.
        """
        self.check()
        message = pickle.dumps((command, arguments))
        try:
            for process in self.processes:
                _stdin(process).write(message)
                _stdin(process).flush()
        except OSError as error:
            self.check(wait_s=END_S)
            raise SynthesisError(f"the processes of --ds-tp-size {self.tp_size} cannot be told: {error}") from error

    def check(self, wait_s: float = 0.0) -> None:
        """Whether all processes are there; a death may take up to ``wait_s`` to become known.

        Raises:
            SynthesisError: one of them has ended, so nothing can be spoken any more.
        """
        deadline_s = time.monotonic() + wait_s
        while not self.deaths and time.monotonic() < deadline_s:
            time.sleep(0.01)
        start_again = "nothing can be spoken until the program is started again"
        for rank, code in self.deaths.copy().items():
            raise SynthesisError(
                f"process {rank} of --ds-tp-size {self.tp_size} has ended with code {code} (its messages are in the "
                f"log): {start_again}"
            )
        if self.closed.is_set():
            raise SynthesisError(f"the processes of --ds-tp-size {self.tp_size} were ended: {start_again}")

    def give_up(self, error: BaseException) -> None:
        """End the processes after an ``error`` in the middle of a command, for nobody knows what they wait for.

        Raises:
            SynthesisError: the error came from the end of one of them.
        """
        try:
            if isinstance(error, RuntimeError):  # such as an exchange with a process that is no more
                self.check(wait_s=END_S)
        finally:
            self.close()

    def close(self) -> None:
        """End the processes and leave the group."""
        self._end()

    def _start(self) -> None:
        listener = socket.create_server((HOST, 0))
        port = listener.getsockname()[1]
        store = meet(port, listener)
        threads = max(1, torch.get_num_threads() // self.tp_size)
        for rank in range(1, self.tp_size):
            process = _launch()
            self.processes.append(process)
            watcher = threading.Thread(
                target=_watch, args=(process, rank, self.deaths, self.closed), name=f"tp-watch-{rank}", daemon=True
            )
            watcher.start()
            _stdin(process).write(pickle.dumps(Place(rank, self.tp_size, self.device_type, port, threads)))
            _stdin(process).flush()
        self._await_start(store)
        join(Place(0, self.tp_size, self.device_type, port, threads), store)

    def _await_start(self, store: Store) -> None:
        """Wait until all processes are about to join: else a missing one would be waited for in vain."""
        deadline_s = time.monotonic() + START_S
        while not store.check([ready_key(rank) for rank in range(1, self.tp_size)]):
            for rank, code in self.deaths.copy().items():
                raise UnsupportedOption(f"--ds-tp-size {self.tp_size}: process {rank} ended at its start, code {code}")
            if time.monotonic() > deadline_s:
                raise UnsupportedOption(f"--ds-tp-size {self.tp_size}: the processes did not start in {START_S} s")
            time.sleep(0.02)


def _launch() -> subprocess.Popen[bytes]:
    root = str(Path(indextts.__file__).parents[1])  # which need not be on the path by itself
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [sys.executable, "-m", "indextts.accel.tensor_parallel.worker"],
        stdin=subprocess.PIPE,
        stdout=2,  # standard output is for results
        env={**os.environ, "PYTHONPATH": path},
    )


def _watch(process: subprocess.Popen[bytes], rank: int, deaths: dict[int, int], closed: threading.Event) -> None:
    """Note the end of a process that was not asked to end, and let go of what waits for it on the GPU."""
    code = process.wait()
    if closed.is_set():
        return
    deaths[rank] = code
    if dist.is_initialized() and dist.get_backend() == "nccl":  # gloo sees by itself that a connection has ended
        cast(dist.ProcessGroup, dist.group.WORLD).abort()


def _end(processes: list[subprocess.Popen[bytes]], closed: threading.Event) -> None:
    closed.set()
    for process in processes:
        with suppress(OSError):  # nobody reads it any more
            _stdin(process).close()
    deadline_s = time.monotonic() + END_S
    for process in processes:
        try:
            process.wait(max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if dist.is_initialized():
        if dist.get_backend() == "nccl":
            cast(dist.ProcessGroup, dist.group.WORLD).abort()  # the others are gone, and would be waited for
        dist.destroy_process_group()


def _stdin(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdin is not None
    return process.stdin
