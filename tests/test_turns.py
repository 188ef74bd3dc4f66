"""The lock that is handed on in the order of asking."""

from __future__ import annotations

import threading
import time

import pytest

from indextts.turns import Turns


def nobody_minds() -> None:
    pass


def test_in_the_order_of_asking() -> None:
    turns, order, asked = Turns(), [], []

    def caller(name: int) -> None:
        asked.append(name)
        with turns.take(nobody_minds):
            order.append(name)

    with turns.take(nobody_minds):
        threads = [threading.Thread(target=caller, args=(name,)) for name in range(5)]
        for count, thread in enumerate(threads, 2):
            thread.start()
            while len(turns._queue) < count:
                time.sleep(0.001)
        assert order == []
    for thread in threads:
        thread.join()
    assert order == asked == [0, 1, 2, 3, 4]


def test_who_gives_up_leaves_the_queue() -> None:
    turns = Turns()

    def give_up() -> None:
        raise KeyError("no longer wanted")

    with pytest.raises(KeyError), turns.take(give_up):
        pass
    with pytest.raises(ZeroDivisionError), turns.take(nobody_minds):
        raise ZeroDivisionError
    with turns.take(nobody_minds):
        assert len(turns._queue) == 1
