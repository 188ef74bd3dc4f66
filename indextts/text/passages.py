"""Cuts a long text, as it is written, into passages that are spoken one by one.

The model's own segments (``segmenter``) are cut from normalised tokens. Passages are stretches of the text itself, so
that people can read and change them and subtitles show what was written. They follow paragraphs and sentences, and
take no normalisation, which would be seconds for a book: how long a stretch is to speak is estimated from its letters.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from indextts.text.pauses import split_pauses
from indextts.text.tokenizer import CJK

_LETTERS_A_SECOND = 12.5  # of alphabets: 150 English words a minute
_CHARACTERS_A_SECOND = 4.5  # of Chinese, Japanese and Korean
_DIGITS_A_SECOND = 3.0
_MARK_S = 0.15  # how long punctuation makes a speaker stop

_CJK = re.compile(f"[{CJK}]")
_DIGIT = re.compile(r"\d")
_WORD_CHARACTER = re.compile(r"[^\W_]")
_MARK = re.compile(r"[,.;:!?…，。；：！？、—]")

_CLOSING = "\"'”’»）)\\]」』】"
_NO_END = "".join(  # of initials, titles and the numbers of a list
    rf"(?<!\b(?:{words})\.)"
    for words in (r"[A-Z]|\d", r"Mr|Ms|Dr|St|Jr|Sr|vs|No|\d\d", "Mrs|Sra|Rev|Gen|Col", "Capt|Prof")
)
_ENDS = (  # of sentences, clauses and words: what a stretch is cut at, the best first
    # Behind a quotation that ends like a sentence, the sentence around it may go on: He said “Go!” and left.
    re.compile(rf"(?:[.!?…]+(?:{_NO_END}(?=\s)|[{_CLOSING}]+(?=\s)(?!\s+[a-z]))|[。！？…]+[{_CLOSING}]*)\s*"),
    re.compile(r"[,;:—](?=\s)\s*|[，、；：—]+\s*"),
    re.compile(r"\s+"),
)

_PAGE_WIDTHS = range(40, 121)  # where editors and mail programs break lines


@dataclass(frozen=True)
class Passage:
    """A stretch of text that is spoken in one go.

    Attributes:
        pause_ms: The silence that the text asks for behind it; None: it does not say.
        ends_paragraph: Whether a paragraph ends with it.
    """

    text: str
    pause_ms: int | None = None
    ends_paragraph: bool = False


@dataclass(frozen=True)
class Passages:
    """A text in passages, and the silence in front of the first."""

    passages: tuple[Passage, ...]
    lead_ms: int = 0


def split_passages(text: str, max_s: float) -> Passages:
    """Cut ``text`` into passages of at most about ``max_s`` seconds of speech, see ``estimate_s``.

    A passage is never part of two paragraphs. What holds neither letter nor digit is no passage of its own.

    Raises:
        UnusableText: a pause (``pauses``) that is none; its line is named.
    """
    found: list[Passage] = []
    lead_ms = 0
    for part in _paragraphs(text):
        if isinstance(part, str):
            pieces = _joined(_fitting(part, max_s), max_s)
            found += [Passage(piece, None, last) for piece, last in zip(pieces, _last(pieces), strict=True)]
        elif found:
            found[-1] = replace(found[-1], pause_ms=(found[-1].pause_ms or 0) + part)
        else:
            lead_ms += part
    return Passages(tuple(found), lead_ms)


def estimate_s(text: str) -> float:
    """How long ``text`` takes to speak, from its letters alone; within a quarter for usual prose."""
    cjk, digits = len(_CJK.findall(text)), len(_DIGIT.findall(text))
    letters = len(_WORD_CHARACTER.findall(text)) - cjk - digits
    return (
        max(0, letters) / _LETTERS_A_SECOND
        + cjk / _CHARACTERS_A_SECOND
        + digits / _DIGITS_A_SECOND
        + len(_MARK.findall(text)) * _MARK_S
    )


def has_speech(text: str) -> bool:
    """Whether there is anything to speak in ``text``: a letter or a digit, in any script."""
    return any(character.isalnum() for character in text)


def _paragraphs(text: str) -> Iterator[str | int]:
    """Paragraphs, each on one line, and the milliseconds of the pauses in between."""
    block: list[str] = []
    for number, line in enumerate([*text.splitlines(), ""], 1):
        parts = split_pauses(line, number)
        if len(parts) == 1 and isinstance(parts[0], str):
            block.append(parts[0])
            continue
        yield from _unwrapped(block)
        block = []
        yield from (part for part in parts if isinstance(part, int) or has_speech(part))


def _unwrapped(block: Sequence[str]) -> Iterator[str]:
    """Lines without an empty one in between as paragraphs.

    A line is a paragraph of its own, unless the lines are of a page's width, most of them go on in small letters, and
    this one had no room for the next one's first word: then an editor has broken it.
    """
    width = max(map(len, block), default=0)
    broken = width in _PAGE_WIDTHS and 2 * sum(line[:1].islower() for line in block) >= len(block)
    paragraph = ""
    for line, following in zip(block, [*block[1:], ""], strict=False):
        paragraph = f"{paragraph} {line}" if paragraph else line
        first_word = following.split(maxsplit=1)[:1]
        if broken and first_word and len(line) + 1 + len(first_word[0]) > width:
            continue
        if has_speech(paragraph):
            yield paragraph
        paragraph = ""


def _fitting(text: str, max_s: float, level: int = 0) -> list[str]:
    """``text`` in pieces that are short enough, cut as well as possible. Together they are ``text``."""
    if level == 0 or estimate_s(text) > max_s:
        if level == len(_ENDS):
            return _letters(text, max_s)
        return [fit for piece in _pieces(text, _ENDS[level]) for fit in _fitting(piece, max_s, level + 1)]
    return [text]


def _pieces(text: str, end: re.Pattern[str]) -> list[str]:
    """``text`` cut behind every match of ``end``."""
    cuts = [0, *(match.end() for match in end.finditer(text)), len(text)]
    return [text[start:stop] for start, stop in pairwise(cuts) if start < stop]


def _letters(text: str, max_s: float) -> list[str]:
    """A word without an end in pieces of equal length."""
    count = max(1, int(len(text) * max_s / max(estimate_s(text), max_s)))
    return [text[start : start + count] for start in range(0, len(text), count)]


def _joined(pieces: Sequence[str], max_s: float) -> list[str]:
    """Neighbours together as long as they fit, in about equal parts; what cannot be spoken goes with its neighbour."""
    joined: list[str] = []
    lengths_s = [estimate_s(piece) for piece in pieces]
    part_s = sum(lengths_s) / max(1, math.ceil(sum(lengths_s) / max_s))
    length_s = 0.0
    for piece, piece_s in zip(pieces, lengths_s, strict=True):
        fits = length_s + piece_s <= max_s and length_s + piece_s / 2 <= part_s
        if joined and (fits or not has_speech(piece) or not has_speech(joined[-1])):
            joined[-1] += piece
            length_s += piece_s
        else:
            joined.append(piece)
            length_s = piece_s
    return [piece.strip() for piece in joined]


def _last(pieces: Sequence[str]) -> list[bool]:
    return [index == len(pieces) - 1 for index in range(len(pieces))]
