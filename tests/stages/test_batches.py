"""Batches: neighbours in order, of similar lengths where that saves something."""

from __future__ import annotations

import itertools
import random

import pytest

from indextts.stages.batches import STEP_ROWS, plan_batches
from indextts.types import Segment


def segments(*lengths: int) -> list[Segment]:
    return [Segment(index, ("a",) * length, (5,) * length) for index, length in enumerate(lengths)]


def sizes(lengths: list[int], batch_size: int) -> list[int]:
    """The sizes of the batches, whose segments are all there and in order."""
    batches = plan_batches(segments(*lengths), batch_size)
    assert [segment.index for batch in batches for segment in batch] == list(range(len(lengths)))
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    return [len(batch) for batch in batches]


@pytest.mark.parametrize(
    ("lengths", "batch_size", "expected"),
    [
        ([7, 7, 7, 7, 7], 1, [1, 1, 1, 1, 1]),
        ([7, 7, 7, 7, 7], 2, [1, 2, 2]),  # no more batches than needed, and the first sound as early as that allows
        ([7] * 8, 4, [4, 4]),
        ([7, 7, 7], 8, [3]),
        ([7], 4, [1]),
        ([120, 118, 119, 5], 4, [3, 1]),
        ([5, 120, 118, 119, 121, 4, 6], 4, [1, 4, 2]),
        ([120, 5, 119, 118], 4, [4]),  # apart, the long ones would need two batches
    ],
)
def test_plans(lengths: list[int], batch_size: int, expected: list[int]) -> None:
    assert sizes(lengths, batch_size) == expected


def test_no_plan_takes_less_time() -> None:
    """Against all the ways there are to cut."""

    def cost(lengths: list[int], plan: list[int]) -> int:
        rest, total = iter(lengths), 0
        for size in plan:
            total += max(itertools.islice(rest, size)) * (STEP_ROWS + size)
        return total

    chooser = random.Random(0)
    for _ in range(30):
        lengths = [chooser.randint(1, 120) for _ in range(chooser.randint(1, 7))]
        batch_size = chooser.randint(1, 4)
        cuts = itertools.product(range(1, batch_size + 1), repeat=len(lengths))
        plans = [list(cut[:n]) for cut in cuts for n in range(1, len(cut) + 1) if sum(cut[:n]) == len(lengths)]
        assert cost(lengths, sizes(lengths, batch_size)) == min(cost(lengths, plan) for plan in plans)
