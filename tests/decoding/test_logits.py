"""Score processing on cases small enough to work out by hand."""

from __future__ import annotations

import torch

from indextts.config import SamplingParams
from indextts.decoding.logits import (
    filter_top_k,
    filter_top_p,
    filter_typical,
    penalize_repetition,
    process_logits,
)

NEVER = float("-inf")
HALVES = torch.tensor([0.5, 0.25, 0.125, 0.125]).log()


def kept(scores: torch.Tensor) -> list[int]:
    return torch.isfinite(scores).nonzero()[:, 0].tolist()


def test_penalty_divides_positive_and_multiplies_negative_scores_of_seen_codes() -> None:
    scores = torch.tensor([4.0, -4.0, 4.0, -4.0])
    seen = torch.tensor([True, True, False, False])
    assert penalize_repetition(scores, seen, 2.0).tolist() == [2.0, -8.0, 4.0, -4.0]


def test_top_k_keeps_ties_of_the_kth() -> None:
    scores = torch.tensor([3.0, 1.0, 2.0, 2.0])
    assert kept(filter_top_k(scores, 2)) == [0, 2, 3]
    assert kept(filter_top_k(scores, 1)) == [0]
    assert kept(filter_top_k(scores, 1, keep_at_least=2)) == [0, 2, 3]
    assert kept(filter_top_k(scores, 100)) == [0, 1, 2, 3]


def test_top_p_keeps_the_code_that_crosses_the_mass() -> None:
    assert kept(filter_top_p(HALVES, 0.7)) == [0, 1]
    assert kept(filter_top_p(HALVES, 0.45)) == [0]
    assert kept(filter_top_p(HALVES, 0.45, keep_at_least=2)) == [0, 1]
    assert kept(filter_top_p(HALVES, 0.0)) == [0]


def test_typical_prefers_average_information_to_the_most_probable() -> None:
    # Entropy 1.75 bits: code 1 (2 bits) is nearest, then code 0 (1 bit), then the last two (3 bits).
    assert kept(filter_typical(HALVES, 0.2)) == [1]
    assert kept(filter_typical(HALVES, 0.3)) == [0, 1]
    assert kept(filter_typical(HALVES, 0.2, keep_at_least=2)) == [0, 1]


def test_the_filters_see_scores_after_the_temperature() -> None:
    seen = torch.zeros(4, dtype=torch.bool)
    params = {"num_beams": 1, "top_k": 0, "top_p": 0.7, "repetition_penalty": 1.0}
    assert kept(process_logits(HALVES, seen, SamplingParams(temperature=1.0, **params))) == [0, 1]
    assert kept(process_logits(HALVES, seen, SamplingParams(temperature=0.1, **params))) == [0]


def test_with_beams_the_penalty_works_on_log_probabilities() -> None:
    logits = torch.tensor([5.0, 5.0])  # both have log-probability -ln 2
    seen = torch.tensor([True, False])
    params = SamplingParams(num_beams=2, repetition_penalty=3.0, temperature=1.0, top_k=0, top_p=1.0)
    scores = process_logits(logits, seen, params)
    torch.testing.assert_close(scores, torch.tensor([-3.0, -1.0]) * torch.tensor(2.0).log())


def test_a_banned_code_leaves_room_for_another() -> None:
    seen = torch.zeros(4, dtype=torch.bool)
    params = SamplingParams(num_beams=1, top_k=1, top_p=1.0, repetition_penalty=1.0)
    assert kept(process_logits(HALVES, seen, params, banned_code=0)) == [1]


def test_rows_are_processed_independently() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 50)
    seen = torch.rand(2, 3, 50) < 0.2
    params = SamplingParams(typical_sampling=True)
    together = process_logits(logits, seen, params)
    for index in ((0, 0), (1, 2)):
        torch.testing.assert_close(together[index], process_logits(logits[index], seen[index], params))
