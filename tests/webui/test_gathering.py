"""Events in steps."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from indextts.webui.gathering import gathered


def test_what_comes_quickly_comes_together_and_in_order() -> None:
    started_s = time.monotonic()
    steps = list(gathered(iter(range(1000)), threading.Event(), 0.2))
    assert [number for step in steps for number in step] == list(range(1000))
    assert len(steps) <= 3 and time.monotonic() - started_s < 5


def test_the_first_comes_at_once_and_nothing_is_told_as_well() -> None:
    go_on = threading.Event()

    def events() -> Iterator[int]:
        yield 1
        go_on.wait(10)
        yield 2

    reader = gathered(events(), threading.Event(), 0.1)
    started_s = time.monotonic()
    assert next(reader) == [1] and time.monotonic() - started_s < 5
    assert next(reader) == []
    go_on.set()
    assert [number for step in reader for number in step] == [2]


def test_an_error_comes_after_what_was_before() -> None:
    def events() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    seen = []
    with pytest.raises(ValueError, match="no more"):
        for step in gathered(events(), threading.Event(), 0.01):
            seen += step
    assert seen == [1]


def test_whoever_goes_away_stops_the_events() -> None:
    stop = threading.Event()
    ended = threading.Event()

    def events() -> Iterator[int]:
        while not stop.wait(0.01):
            yield 1
        ended.set()

    reader = gathered(events(), stop, 0.01)
    next(reader)
    reader.close()  # type: ignore[attr-defined]
    assert ended.is_set()
