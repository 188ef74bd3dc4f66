"""Who may use the model next, among several callers."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

WAIT_S = 0.1
"""How often a waiting caller looks whether it still wants its turn."""


class Turns:
    """A lock that is handed on in the order of asking.

    A plain lock goes back to whoever releases and asks again at once, so that one long text would keep everybody
    else waiting to its end.
    """

    def __init__(self) -> None:
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def take(self, check: Callable[[], None]) -> Iterator[None]:
        """Wait for the turn and hold it; ``check`` is called while waiting and raises to give up."""
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
        try:
            check()
            while not self._reached(ticket):
                check()
            yield
        finally:
            with self._changed:
                self._queue.remove(ticket)
                self._changed.notify_all()

    def _reached(self, ticket: object) -> bool:
        """Whether the queue comes to ``ticket`` within ``WAIT_S``."""
        with self._changed:
            return self._changed.wait_for(lambda: self._queue[0] is ticket, WAIT_S)
