"""How much of what can be generated without end is tried: a little with every change, all of it with ``-m slow``.

Times are those of the processor, so that a busy machine fails nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

ROUND = 500
"""Examples after which hypothesis starts anew: what it keeps of each would hide what memory the tested code takes."""

Check = Callable[[Any], str]
Try = Callable[[SearchStrategy[Any], Check], "Counter[str]"]


def quick_and_slow(quick: int, slow: int) -> pytest.MarkDecorator:
    """Give a test the argument ``attempt``: ``attempt(strategy, check)`` counts the outcomes that ``check`` returns.

    Args:
        quick: Examples of the test in a normal run, always the same.
        slow: Those of its second form, which is marked slow: others at each run, a multiple of ``ROUND``.
    """
    cases = [
        pytest.param(_attempts(1, max_examples=quick, derandomize=True), id=f"{quick}"),
        pytest.param(_attempts(slow // ROUND, max_examples=ROUND), id=f"{slow}", marks=pytest.mark.slow),
    ]
    return pytest.mark.parametrize("attempt", cases)


def _attempts(rounds: int, **how: Any) -> Try:
    relaxed = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck), **how)

    def attempt(strategy: SearchStrategy[Any], check: Check) -> Counter[str]:
        counts: Counter[str] = Counter()
        for _ in range(rounds):
            relaxed(given(strategy)(lambda example: counts.update([check(example)])))()
        return counts

    return attempt
