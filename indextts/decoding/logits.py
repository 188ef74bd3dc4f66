"""From logits to the scores that codes are drawn by (spec 7.7, 7.8), for all rows at once."""

from __future__ import annotations

import torch
from torch import Tensor

from indextts.config import SamplingParams


def process_logits(logits: Tensor, seen: Tensor, params: SamplingParams, banned_code: int | None = None) -> Tensor:
    """Apply penalty and filters in the order that the released model was tuned with.

    Args:
        logits: ``[..., V]`` in float32.
        seen: ``[..., V]``, true for every code that occurs in the history of the row.
        params: With several beams the scores are log-probabilities and the filters keep at least two codes.
        banned_code: A code that is never drawn.

    Returns:
        Scores ``[..., V]``, minus infinity where a code is filtered out.
    """
    beams = params.num_beams > 1
    keep_at_least = 2 if beams else 1
    scores = logits.log_softmax(-1) if beams else logits
    scores = penalize_repetition(scores, seen, params.repetition_penalty)
    if banned_code is not None:
        scores = scores.clone()
        scores[..., banned_code] = float("-inf")
    if params.typical_sampling:
        scores = filter_typical(scores, params.typical_mass, keep_at_least)
    if params.temperature != 1.0:
        scores = scores / params.temperature
    if params.top_k > 0:
        scores = filter_top_k(scores, params.top_k, keep_at_least)
    if params.top_p < 1.0:
        scores = filter_top_p(scores, params.top_p, keep_at_least)
    return scores


def penalize_repetition(scores: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Multiply negative scores of seen codes by ``penalty``, divide positive ones (arXiv:1909.05858)."""
    if penalty == 1.0:
        return scores
    penalized = torch.where(scores < 0, scores * penalty, scores / penalty)
    return torch.where(seen, penalized, scores)


def filter_top_k(scores: Tensor, top_k: int, keep_at_least: int = 1) -> Tensor:
    """Keep the scores that reach the ``top_k``-th largest."""
    top_k = min(max(top_k, keep_at_least), scores.shape[-1])
    threshold = scores.topk(top_k, dim=-1).values[..., -1:]
    return scores.masked_fill(scores < threshold, float("-inf"))


def filter_top_p(scores: Tensor, top_p: float, keep_at_least: int = 1) -> Tensor:
    """Keep the most probable codes until their mass reaches ``top_p`` (nucleus, arXiv:1904.09751)."""
    ascending, order = scores.sort(dim=-1)
    removed = ascending.softmax(-1).cumsum(-1) <= 1.0 - top_p
    removed[..., -keep_at_least:] = False
    return scores.masked_fill(torch.empty_like(removed).scatter_(-1, order, removed), float("-inf"))


def filter_typical(scores: Tensor, mass: float, keep_at_least: int = 1) -> Tensor:
    """Keep the codes whose information is closest to the entropy, up to ``mass`` (arXiv:2202.00666)."""
    log_probs = scores.log_softmax(-1)
    entropy = -(log_probs.exp() * log_probs).nansum(-1, keepdim=True)
    distance, order = (-log_probs - entropy).abs().sort(dim=-1)
    cumulative = scores.gather(-1, order).softmax(-1).cumsum(-1)
    cut = (cumulative < mass).sum(-1, keepdim=True).clamp(max=scores.shape[-1] - 1)
    removed = distance > distance.gather(-1, cut)
    removed[..., :keep_at_least] = False
    return scores.masked_fill(torch.empty_like(removed).scatter_(-1, order, removed), float("-inf"))
