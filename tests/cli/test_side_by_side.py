"""Work in several threads: as many as asked for, all of it, and no more once nobody reads."""

from __future__ import annotations

import threading
import time

import pytest

from indextts.cli.side_by_side import side_by_side

WAIT_S = 20.0


@pytest.mark.parametrize("threads", [1, 3, 50])
def test_everything_is_done_by_so_many_at_once(threads: int) -> None:
    lock, at_once, most = threading.Lock(), 0, 0
    together = threading.Barrier(min(threads, 9))  # passed only if so many are there at once

    def double(number: int) -> int:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        together.wait(WAIT_S)
        with lock:
            at_once -= 1
        return 2 * number

    results = [(number, future.result()) for number, future in side_by_side(double, range(9), threads)]
    assert sorted(results) == [(number, 2 * number) for number in range(9)]
    assert most == min(threads, 9)


def test_results_come_as_they_are_ready() -> None:
    go_on = threading.Event()

    def work(number: int) -> None:
        assert number > 0 or go_on.wait(WAIT_S)

    finished = side_by_side(work, range(3), 2)
    assert [next(finished)[0], next(finished)[0]] == [1, 2]
    go_on.set()
    number, future = next(finished)
    assert (number, future.result()) == (0, None)


def test_an_error_is_that_of_its_item() -> None:
    futures = dict(side_by_side(lambda number: 1 // number, range(-1, 2), 2))
    assert (futures[-1].result(), futures[1].result()) == (-1, 1)
    with pytest.raises(ZeroDivisionError):
        futures[0].result()


def test_who_stops_reading_waits_for_nothing_and_nothing_more_begins() -> None:
    begun: list[int] = []
    go_on, ended = threading.Event(), threading.Event()

    def work(number: int) -> None:
        begun.append(number)
        if number == 1:
            go_on.wait(WAIT_S)
            ended.set()

    finished = side_by_side(work, range(9), 1)
    next(finished)
    finished.close()  # the second one is under way, or never begins
    go_on.set()
    if begun != [0]:
        assert ended.wait(WAIT_S)
    time.sleep(0.1)
    assert begun in ([0], [0, 1])


def test_nothing_to_do() -> None:
    assert list(side_by_side(str, [], 4)) == []
