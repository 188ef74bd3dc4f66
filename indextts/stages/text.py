"""Text to segments: normalise, tokenise, and cut into stretches that the model speaks in one go (spec 4)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from indextts.errors import TextError
from indextts.text.glossary import NO_TERMS, Glossary
from indextts.text.limits import check_text
from indextts.text.normalizer import is_chinese
from indextts.text.segmenter import split_segments
from indextts.text.tokenizer import TextTokenizer
from indextts.types import Segment

PASSAGE_END = "\u2029"
"""Unicode's paragraph separator: no segment goes beyond it."""


class TextStage:
    """Owns the tokeniser; everything else here is a pure function of the text."""

    def __init__(self, tokenizer: TextTokenizer, max_text_tokens: int) -> None:
        self.tokenizer = tokenizer
        self.max_text_tokens = max_text_tokens

    def __call__(
        self,
        text: str,
        max_tokens: int = 120,
        quick_streaming_tokens: int = 0,
        glossary: Glossary = NO_TERMS,
        numbers_language: str = "zh",
    ) -> list[Segment]:
        """Cut ``text`` into segments of at most ``max_tokens`` tokens, and of no more than the model can take.

        ``PASSAGE_END`` ends a segment in any case; what stands between two of them is read as a text of its own.

        Args:
            glossary: Readings that go before those of the model folder's own glossary.
            numbers_language: zh or en: by whose rules a passage without letters is read.

        Raises:
            TextError: nothing speakable in the text, too much of it, or ``max_tokens`` below 2.
        """
        if max_tokens < 2:
            raise TextError(f"a segment needs room for at least 2 text tokens, not {max_tokens}")
        check_text(text)
        max_tokens = min(max_tokens, self.max_text_tokens - 1)  # a closing quote may come on top (spec quirk 2)
        found: list[tuple[Sequence[str], Sequence[str]]] = []
        for passage in filter(str.strip, text.split(PASSAGE_END)):
            tokens, written = self.tokenizer.read(with_readings(passage, glossary), numbers_language)
            pieces = split_segments(tokens, max_tokens, quick_streaming_tokens)
            found += zip(pieces, words_of(pieces, written), strict=True)
            quick_streaming_tokens = max(0, quick_streaming_tokens - len(tokens))
        if not any(has_speech(piece) for piece, _ in found):
            raise TextError(f"there is nothing to speak in the text {text[:80]!r}")
        return [
            Segment(index, tuple(piece), tuple(self.tokenizer.ids(piece)), tuple(words))
            for index, (piece, words) in enumerate(found)
        ]

    def normalize(self, text: str, glossary: Glossary = NO_TERMS) -> str:
        """``text`` as it is read out: numbers and symbols as words. Raises ``TextError`` as segmenting does."""
        return self.tokenizer.normalizer(with_readings(text, glossary))


def with_readings(text: str, glossary: Glossary) -> str:
    """``text`` with the terms of ``glossary`` replaced, by the readings for the language whose rules it asks for.

    Raises:
        TextError: it is no text to speak, before or after.
    """
    check_text(text)
    if not glossary.terms:
        return text
    spelled = glossary.apply(text, "zh" if is_chinese(text) else "en")
    check_text(spelled)
    return spelled


def words_of(pieces: Sequence[Sequence[str]], words: Sequence[str]) -> list[Sequence[str]]:
    """Which of the written words each stretch of tokens speaks; none if their numbers do not match.

    A cut inside a word leaves it to the first stretch.
    """
    counts = [sum(token.startswith("▁") for token in piece) for piece in pieces]
    if sum(counts) != len(words):
        return [()] * len(pieces)
    ends = list(accumulate(counts))
    return [words[end - count : end] for count, end in zip(counts, ends, strict=True)]


def has_speech(tokens: Sequence[str]) -> bool:
    """Whether any token holds a letter or a digit, in any script."""
    return any(character.isalnum() for token in tokens for character in token)
