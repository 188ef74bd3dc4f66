"""The order in which jobs get the model, and how much of it may be asked for."""

from __future__ import annotations

from typing import Any

import pytest

from indextts.errors import ConfigError
from indextts.service import FairQueue, Job, ServiceConfig


def test_fewest_running_first() -> None:
    queue = FairQueue(ServiceConfig(simultaneous=4))
    jobs = {name: Job(None, name[0], None, None) for name in ("a1", "a2", "b1", "a3", "b2")}  # type: ignore[arg-type]
    for name in ("a1", "a2"):
        queue.add(jobs[name], 1.0)
    assert [queue.start_next(), queue.start_next()] == [jobs["a1"], jobs["a2"]]
    for name in ("a3", "b1", "b2"):
        queue.add(jobs[name], 1.0)
    assert queue.start_next() is jobs["b1"]
    assert queue.start_next() is jobs["b2"]
    assert queue.start_next() is None and queue.waiting == [jobs["a3"]]


def test_the_order_of_turns_is_the_one_in_which_jobs_start() -> None:
    queue = FairQueue(ServiceConfig(simultaneous=9))
    for name in ("a1", "a2", "a3", "b1", "c1", "b2"):
        queue.add(Job(None, name[0], None, None), 1.0)  # type: ignore[arg-type]
    first = queue.start_next()
    turns = queue.turns()
    assert [job.client for job in (first, *turns) if job] == ["a", "b", "c", "a", "b", "a"]
    assert [queue.start_next() for _ in turns] == turns and queue.turns() == []


@pytest.mark.parametrize(
    ("config", "says"),
    [({"simultaneous": 0}, "simultaneous"), ({"max_queue": 0}, "max_queue"), ({"idle_unload_s": 0}, "idle_unload_s")],
)
def test_wrong_configurations(config: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ServiceConfig(**config)
