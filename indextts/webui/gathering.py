"""Events of a thread of their own, a few times a second: for readers that are slower, or that may go away."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from typing import TypeVar

Event = TypeVar("Event")


class End:
    """The last that comes. ``error`` None: there were no more events."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error


def gathered(events: Iterator[Event], stop: threading.Event, step_s: float) -> Iterator[list[Event]]:
    """What has come of ``events`` since the last time, at most once in ``step_s``; nothing if nothing has come.

    Whoever stops reading sets ``stop``, on which ``events`` shall end. Raises what ``events`` raises, after all that
    came before.
    """
    items: queue.SimpleQueue[Event | End] = queue.SimpleQueue()

    def work() -> None:
        try:
            for event in events:
                items.put(event)
        except Exception as error:  # raised again where it is read
            items.put(End(error))
        else:
            items.put(End())

    worker = threading.Thread(target=work, name="gathering", daemon=True)
    worker.start()
    last_s, end = -step_s, None
    try:
        while end is None:
            found: list[Event] = []
            try:
                came = [items.get(timeout=step_s)]
            except queue.Empty:
                came = []
            time.sleep(max(0.0, last_s + step_s - time.monotonic()))
            while not items.empty():
                came.append(items.get())
            for item in came:
                if isinstance(item, End):
                    end = item
                else:
                    found.append(item)
            last_s = time.monotonic()
            yield found
    finally:
        stop.set()
        worker.join()
    if end.error is not None:
        raise end.error
