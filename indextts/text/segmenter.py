"""Cuts a text's tokens into segments that are spoken in one go (spec 4.3).

The cut follows a token budget, not sentences: a walk splits at commas, hyphens and sentence ends, then
neighbours are joined again as long as they fit.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from indextts.errors import ConfigError

_SENTENCE_ENDS = frozenset({".", "!", "?", "▁.", "▁?", "▁..."})
_COMMAS = frozenset({",", "▁,"})
_HYPHEN = frozenset({"-"})
_QUOTES = frozenset({"'", "▁'"})

_log = logging.getLogger(__name__)


def split_segments(tokens: Sequence[str], max_tokens: int = 120, quick_streaming_tokens: int = 0) -> list[list[str]]:
    """Cut ``tokens`` into segments of at most ``max_tokens``.

    A segment can have one token more: a quote that follows a sentence end is kept in both segments, as the
    released model does it.

    Args:
        tokens: the pieces of the whole text.
        max_tokens: budget of one segment.
        quick_streaming_tokens: within this many tokens from the start, segments are kept short, so that the
            first sound comes early.

    Raises:
        ConfigError: a budget that is not positive.
    """
    if max_tokens < 1:
        raise ConfigError(f"a segment needs room for at least one token, not {max_tokens}")
    if quick_streaming_tokens < 0:
        raise ConfigError(f"quick_streaming_tokens must not be negative: {quick_streaming_tokens}")
    return _split(tokens, _SENTENCE_ENDS, max_tokens, quick_streaming_tokens)


def _split(tokens: Sequence[str], ends: frozenset[str], max_tokens: int, quick: int) -> list[list[str]]:
    parts: list[list[str]] = []
    buffer: list[str] = []
    for position, token in enumerate(tokens):
        buffer.append(token)
        if not ends & _COMMAS and not _COMMAS.isdisjoint(buffer):
            parts += _split(buffer, _COMMAS, max_tokens, quick)
            buffer = []
        elif "-" not in ends and "-" in buffer:
            parts += _split(buffer, _HYPHEN, max_tokens, quick)
            buffer = []
        elif len(buffer) <= max_tokens:
            if token in ends and len(buffer) > 2:
                following = tokens[position + 1 : position + 2]
                parts.append(buffer + [t for t in following if t in _QUOTES])
                buffer = []
        else:
            _log.warning("%d tokens without a place to cut; cut after every %d", len(buffer), max_tokens)
            parts += [buffer[start : start + max_tokens] for start in range(0, len(buffer), max_tokens)]
            buffer = []
    parts.append(buffer)
    return _join(parts, max_tokens, quick)


def _join(parts: list[list[str]], max_tokens: int, quick: int) -> list[list[str]]:
    joined: list[list[str]] = []
    seen = 0
    for part in filter(None, parts):
        seen += len(part)
        length = len(joined[-1]) + len(part) if joined else 0
        if joined and ((length <= max_tokens and seen > quick) or length <= max_tokens / 2):
            joined[-1] = joined[-1] + part
        else:
            joined.append(part)
    return joined
