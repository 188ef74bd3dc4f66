"""Where in its text speech is, read from the language model's own attention.

Some heads of a model that speaks look at the text that is being spoken. Which ones, nobody need know: in each utterance
they are those that look sharply, at one token after the other. Where no head does, as in a model that has learnt
nothing, nothing is said.
"""

from __future__ import annotations

import torch
from torch import Tensor

HEADS = 2
"""So many of the heads that follow the text best are believed, on average."""

MIN_STEADY = 0.9
MIN_SHARP = 0.5
MIN_TOKENS = 4
"""A head that follows the text goes on by at most two tokens in this share of its steps, looks at one token with this
share of its attention on the mean, and at so many different tokens (a shorter text has fewer)."""


class TextFollower:
    """Takes the attention of each layer (`indextts.models.gpt.WatchText`), and keeps that of the best heads."""

    def __init__(self, text_lengths: Tensor, code_lengths: Tensor) -> None:
        """Of a batch with texts of ``text_lengths [B]`` and speech of ``code_lengths [B]``."""
        self.text_lengths, self.code_lengths = text_lengths, code_lengths
        self.scores: Tensor | None = None  # [B, kept heads], 0 of those that do not follow
        self.attention: Tensor | None = None  # [B, kept heads, M, L + 2]

    def __call__(self, attention: Tensor) -> None:
        """Look at ``attention [B, heads, M, L + 2]`` of one layer."""
        scores = self._scores(attention)
        if self.scores is not None and self.attention is not None:
            scores, attention = torch.cat((self.scores, scores), 1), torch.cat((self.attention, attention), 1)
        self.scores, best = scores.topk(min(HEADS, scores.shape[1]), dim=1)
        self.attention = attention.gather(1, best[..., None, None].expand(-1, -1, *attention.shape[2:]))

    def alignments(self) -> list[Tensor | None]:
        """For each row float32 ``[M, L + 2]`` on the CPU: how each code looks at start, tokens and stop; or None."""
        if self.scores is None or self.attention is None:
            return [None] * len(self.text_lengths)
        follows = self.scores > 0
        mean = (self.attention * follows[..., None, None]).sum(1) / follows.sum(1).clamp(min=1)[:, None, None]
        sizes = torch.stack((follows.any(1).long(), self.code_lengths, self.text_lengths + 2), dim=1).tolist()
        return [
            row[:codes, :texts] if known else None for row, (known, codes, texts) in zip(mean.cpu(), sizes, strict=True)
        ]

    def _scores(self, attention: Tensor) -> Tensor:
        """How well each head follows its text, ``[B, heads]``; 0 if it does not."""
        peaks, path = attention.max(-1)
        real = torch.arange(path.shape[-1], device=path.device) < self.code_lengths[:, None, None]  # [B, 1, M]
        path = path.where(real, path[..., :1])
        moves = path.diff(dim=-1)
        forward = (moves >= 0) & (moves <= 2) & real[..., 1:]
        steady = forward.sum(-1) / (self.code_lengths - 1).clamp(min=1)[:, None]
        sharp = (peaks * real).sum(-1) / self.code_lengths[:, None]
        seen = torch.zeros_like(attention[:, :, 0]).scatter_(2, path, 1.0).sum(-1)
        enough = seen >= self.text_lengths.clamp(max=MIN_TOKENS)[:, None]
        follows = (steady >= MIN_STEADY) & (sharp >= MIN_SHARP) & enough
        return steady * sharp * follows
