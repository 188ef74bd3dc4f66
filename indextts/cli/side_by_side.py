"""Work on several items at once, each in a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(
    work: Callable[[Item], Result], items: Sequence[Item], threads: int
) -> Generator[tuple[Item, Future[Result]], None, None]:
    """Call ``work`` for every item, for ``threads`` of them at once, in their order.

    Whoever stops reading lets no more of them begin, and does not wait for those that have begun: unlike those of a
    ``ThreadPoolExecutor``, the threads are daemons, so that a program that is interrupted ends at once.

    Yields:
        Each item with what came of it, as they finish.
    """
    waiting: queue.SimpleQueue[Item] = queue.SimpleQueue()
    finished: queue.SimpleQueue[tuple[Item, Future[Result]]] = queue.SimpleQueue()
    for item in items:
        waiting.put(item)
    stopped = threading.Event()

    def worker() -> None:
        while not stopped.is_set():
            try:
                item = waiting.get_nowait()
            except queue.Empty:
                return
            future: Future[Result] = Future()
            try:
                future.set_result(work(item))
            except BaseException as error:  # whatever it is, it is told to who asks for the result
                future.set_exception(error)
            finished.put((item, future))

    for _ in range(min(threads, len(items))):
        threading.Thread(target=worker, name="side by side", daemon=True).start()
    try:
        for _ in items:
            yield finished.get()
    finally:
        stopped.set()
