"""English words as phonemes, for models whose vocabulary has sounds instead of letters.

The alphabet is misaki's: IPA with capital letters for diphthongs ("A" as in "day") and marks for stress. A lexicon
with rules reads the words, and a small network those that are in no lexicon (package hibari-tts).
"""

from __future__ import annotations

import re
import threading
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING

from indextts.errors import TextError
from indextts.text.pinyin import PINYIN

if TYPE_CHECKING:
    from hibari.g2p import G2P

PAUSES = str.maketrans({"…": "...", "—": ",", ";": ",", ":": ",", "“": "", "”": ""})
"""What stands in a vocabulary for the punctuation of the phonemes."""

MAX_WORD = 40
"""Characters of a word; a longer one is read in parts. The reader's time grows with the cube of a word's hyphens."""

_LONG_NUMBER = re.compile(r"\d{37,}")  # beyond what the lexicon has names for: digit by digit
_LONG_WORD = re.compile(rf"(\S{{{MAX_WORD}}})(?=\S)")
_PUNCTUATION = ",.!?'-"
_loading = threading.Lock()


def to_phonemes(text: str) -> str:
    """Replace words by phonemes; pinyin syllables in capitals and punctuation stay.

    Raises ``TextError`` for what the lexicon cannot read.

    >>> to_phonemes("Hello there, DA4 JIA1.")
    'həlˈO ðˈɛɹ, DA4 JIA1.'
    """
    parts = []
    text = _LONG_NUMBER.sub(lambda number: " ".join(number[0]), text)
    for is_pinyin, words in groupby(_LONG_WORD.sub(r"\1 ", text).split(), _is_pinyin):
        stretch = " ".join(words)
        parts.append(stretch if is_pinyin else clean(_read(stretch)))
    return " ".join(filter(None, parts))


def _read(words: str) -> str:
    try:
        return _g2p()(words)
    except (ArithmeticError, LookupError, ValueError) as error:  # how the lexicon fails on odd numerals
        raise TextError(f"cannot read {words[:80]!r} aloud: write it in words") from error


def clean(phonemes: str) -> str:
    """Phonemes with no other punctuation than a vocabulary has."""
    return re.sub(r"\s+", " ", phonemes.translate(PAUSES)).strip()


def _is_pinyin(word: str) -> bool:
    return word.isupper() and PINYIN.fullmatch(word.strip(_PUNCTUATION)) is not None


def _g2p() -> G2P:
    with _loading:
        return _load()


@lru_cache(maxsize=1)
def _load() -> G2P:
    from hibari.g2p import G2P  # its lexicon loads only for models that need it

    return G2P()
