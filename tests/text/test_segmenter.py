"""Segmentation: properties beyond the golden cases."""

from __future__ import annotations

import logging
import random

import pytest

from indextts.errors import ConfigError
from indextts.text.segmenter import split_segments

PIECES = ["A", "▁WORD", "好", ",", "▁,", "-", ".", "!", "▁?", "▁..."]  # no quotes: those are kept twice


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_lost_and_nothing_is_too_long(seed: int) -> None:
    draw = random.Random(seed)
    tokens = draw.choices(PIECES, weights=[6, 6, 6, 1, 1, 1, 1, 1, 1, 1], k=draw.randint(0, 300))
    budget = draw.choice([1, 2, 5, 20, 120])
    segments = split_segments(tokens, budget, draw.choice([0, 10, 50]))
    assert [token for segment in segments for token in segment] == tokens
    assert all(0 < len(segment) <= budget for segment in segments)


def test_a_quote_after_a_sentence_end_is_kept_twice() -> None:
    tokens = ["A", "B", ".", "'", "C"]
    assert split_segments(tokens, 4) == [["A", "B", ".", "'"], ["'", "C"]]


def test_quick_streaming_cuts_early() -> None:
    tokens = (["A"] * 9 + ["."]) * 4
    assert [len(s) for s in split_segments(tokens, 30)] == [30, 10]
    assert [len(s) for s in split_segments(tokens, 19, quick_streaming_tokens=30)] == [10, 10, 10, 10]


def test_a_text_without_a_place_to_cut_warns(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert [len(s) for s in split_segments(["A"] * 25, 10)] == [10, 1, 10, 4]
    assert "without a place to cut" in caplog.text


@pytest.mark.parametrize("budget, quick", [(0, 0), (-3, 0), (10, -1)])
def test_impossible_budgets_are_errors(budget: int, quick: int) -> None:
    with pytest.raises(ConfigError):
        split_segments(["A"], budget, quick)
