"""How many tokens a text has, by an estimate: reading a book takes the tokeniser half a minute."""

from __future__ import annotations

import re
from collections.abc import Callable

from indextts.errors import TextError
from indextts.text.passages import estimate_s

SAMPLES = 6
SAMPLE_CHARACTERS = 200

Count = Callable[[str], int]
"""The tokens of a short text; raises ``TextError`` if nothing in it can be spoken."""


def token_rate(text: str, count: Count) -> float | None:
    """Tokens a second of estimated speech (``passages``), from a few stretches of ``text``; None if it says nothing."""
    tokens, seconds = 0, 0.0
    for stretch in stretches(text):
        try:
            tokens += count(stretch)
        except TextError:
            continue
        seconds += estimate_s(stretch)
    return tokens / seconds if tokens and seconds else None


def stretches(text: str) -> list[str]:
    """A few stretches of whole words from all over ``text``."""
    text = re.sub(r"\s+", " ", text).strip()
    if len(text) <= SAMPLES * SAMPLE_CHARACTERS:
        return [text]
    step = (len(text) - SAMPLE_CHARACTERS) // (SAMPLES - 1)
    found = []
    for start in range(0, len(text), step):
        stretch = text[start : start + SAMPLE_CHARACTERS]
        found.append(stretch.split(" ", 1)[-1].rsplit(" ", 1)[0] if stretch.count(" ") > 2 else stretch)
    return found[:SAMPLES]
