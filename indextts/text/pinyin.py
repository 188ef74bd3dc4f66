"""Tone-marked pinyin: finding it in text, spelling it as the vocabularies do, reading characters as it."""

from __future__ import annotations

import re
import unicodedata

_INITIAL = "(?:zh|ch|sh|[bpmfdtnlgkhjqxzcsryw])"
_FINAL = (
    "(?:iang|iong|uang|vang|üang|ang|eng|ing|ong|ian|iao|uan|van|üan|uai|ai|ei|ua|ui|uo|ao|ou|ia|iu|ie|ue|üe|ve"
    "|an|en|in|un|vn|[aeiouüv])"
)
PINYIN = re.compile(f"(?<![a-z])(?:ng|er|{_INITIAL}?{_FINAL})[1-5]", re.IGNORECASE)
"""A syllable with its tone digit that does not begin inside a Latin word (spec 4.1.4)."""

CHINESE = "\u4e00-\u9fff"
"""The characters that make a text Chinese, as a range for a regular expression."""

_AFTER_JQX = re.compile(r"([jqx])[uü]((?:n|e|an)*\d)", re.IGNORECASE)
_HAN = re.compile(f"[{CHINESE}\u3400-\u4dbf\u3007]+")
_GLUED_SYLLABLE = re.compile(rf"({PINYIN.pattern})(?=\w)", re.IGNORECASE)


def correct_pinyin(syllable: str) -> str:
    """Spell a syllable as the vocabulary does: after j, q and x the vowel is V, and these are upper-case.

    >>> correct_pinyin("que1"), correct_pinyin("zhong4")
    ('QVE1', 'zhong4')
    """
    if syllable[0] not in "jqxJQX":
        return syllable
    return _AFTER_JQX.sub(r"\1v\2", syllable).upper()


def to_pinyin(text: str) -> str:
    """Replace Chinese characters by tone-marked syllables, for models whose vocabulary has no characters.

    Every syllable is a word of its own, punctuation stays with the word before it, typed pinyin is kept, and
    accents on Latin letters are dropped. Characters without a reading are left as they are.

    >>> to_pinyin("大家说: 'OK'!")
    "DA4 JIA1 SHUO1: 'OK'!"
    """
    text = PINYIN.sub(lambda match: f" {_spell(match[0])}", text)
    text = _HAN.sub(lambda match: f" {_read(match[0])}", text)
    text = _GLUED_SYLLABLE.sub(r"\1 ", text)
    text = re.sub(r"([,!?])(?=\w)", r"\1 ", text)
    return re.sub(r"\s+", " ", _without_accents(text)).strip()


def _read(characters: str) -> str:
    from pypinyin import Style, lazy_pinyin  # its dictionaries load only for models that need them

    syllables = lazy_pinyin(characters, style=Style.TONE3, neutral_tone_with_five=True)
    return " ".join(map(_spell, syllables))


def _spell(syllable: str) -> str:
    return correct_pinyin(syllable).upper().replace("Ü", "V")


def _without_accents(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
