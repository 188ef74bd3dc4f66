"""Written text to speakable text (spec 4.1): numbers and symbols become words, punctuation a small set.

Two finite-state engines do the reading, one for Chinese and one for English. Around them stand rules that
shield what an engine would break (typed pinyin, hyphenated terms, foreign names, pronunciation annotations) and
map the many punctuation marks to the few that the vocabulary has.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from indextts.errors import TextError
from indextts.text.glossary import Glossary
from indextts.text.pinyin import CHINESE, PINYIN, correct_pinyin

if TYPE_CHECKING:
    from wetext import Normalizer

Engine = Callable[[str], str]
"""Reads numbers and symbols out as words."""

_CHARACTER_MAP = {
    "：": ",", "；": ",", ";": ",", "，": ",", "。": ".", "！": "!", "？": "?", "\n": " ", "·": "-",
    "、": ",",
    "...": "…", ",,,": "…", "，，，": "…", "……": "…", "“": "'", "”": "'", '"': "'", "‘": "'", "’": "'",
    "（": "'", "）": "'", "(": "'", ")": "'", "《": "'", "》": "'", "【": "'", "】": "'", "[": "'", "]": "'",
    "—": "-", "～": "-", "~": "-", "「": "'", "」": "'", ":": ",",
}  # fmt: skip
_CHINESE_CHARACTER_MAP = {"$": ".", **_CHARACTER_MAP}

_EMAIL = re.compile(r"[A-Za-z0-9]+@[A-Za-z0-9]+\.[A-Za-z]+")
_TECHNICAL_TERM = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:-[A-Za-z0-9]+)+")
_NAME = re.compile(f"[{CHINESE}]+(?:[-·—][{CHINESE}]+){{1,2}}")
_ANNOTATION = re.compile(r"<[^|>\n]+\|[^>\n]+>")
_CONTRACTION = re.compile(r"(what|where|who|which|how|there|here|it|she|he|that|this)'s", re.IGNORECASE)

MAX_STRETCH = 1000
"""Characters that are read at once: the memory of the grammars, and on odd texts their time, grow with the square."""

_STRETCH_END = re.compile(r"[.!?…]['\"’”）)]*\s+|[。！？]['\"’”）)]*|\n")

_ESCAPED = re.compile(r'\\(["\\])')

_log = logging.getLogger(__name__)


class TextNormalizer:
    """Makes a text speakable, choosing the Chinese or the English rules by itself.

    A long text is read in stretches of whole sentences, all by the rules that the whole of it asks for.

    Args:
        glossary: readings applied before anything else; may be replaced at any time.
        chinese_engine: reads Chinese text; None loads the grammar of wetext at first use.
        english_engine: the same for English.
    """

    def __init__(
        self,
        glossary: Glossary | None = None,
        chinese_engine: Engine | None = None,
        english_engine: Engine | None = None,
    ) -> None:
        self.glossary = glossary or Glossary()
        self._read_chinese = chinese_engine or _LazyEngine(lang="zh", remove_erhua=False)
        self._read_english = english_engine or _LazyEngine(lang="en")

    def __call__(self, text: str, numbers_language: str = "zh") -> str:
        """Normalise ``text``; punctuation comes out as the marks ``, . ! ? … ' -``.

        Args:
            numbers_language: See ``is_chinese``.

        Raises:
            TextError: the Chinese grammar cannot read the text. One the English grammar cannot read stays as
                it is written, with a warning.
        """
        chinese = is_chinese(text, numbers_language)
        shield = _Shield()
        text = shield.hide(_ANNOTATION, text, lambda i: f"PRONPLACEHOLDER{_letters(i)}PRONPLACEHOLDER")
        read = self._chinese if chinese else self._english
        if len(text) <= MAX_STRETCH:
            return shield.restore(read(text))
        parts = [(read(stretch.strip()), stretch) for stretch in stretches(text)]
        return shield.restore("".join(part + " " * stretch[-1].isspace() for part, stretch in parts).rstrip())

    def _chinese(self, text: str) -> str:
        text = self.glossary.apply(_CONTRACTION.sub(r"\1 is", text), "zh").rstrip()
        text, has_terms = _hide_hyphens(text)
        pinyin, names = _Shield(correct_pinyin), _Shield()
        text = pinyin.hide(PINYIN, text, lambda i: f"<pinyin_{_letters(i)}>")
        text = names.hide(_NAME, text, lambda i: f"<n_{_letters(i)}>")
        text = self._read_chinese(text)
        text = pinyin.restore(names.restore(text))
        return _replace(_CHINESE_CHARACTER_MAP, _restore_hyphens(text) if has_terms else text)

    def _english(self, written: str) -> str:
        text = self.glossary.apply(_CONTRACTION.sub(r"\1 is", written), "en")
        text, has_terms = _hide_hyphens(text)
        try:
            text = self._read_english(text)
            text = _restore_hyphens(text) if has_terms else text
        except TextError as error:
            _log.warning("left as it is written: %s", error)
            text = written
        return _replace(_CHARACTER_MAP, text)


def stretches(text: str) -> Iterator[str]:
    """Cut ``text`` into pieces of at most ``MAX_STRETCH``: after sentences, else after words, else anywhere."""
    start = 0
    while len(text) - start > MAX_STRETCH:
        window = text[start : start + MAX_STRETCH]
        ends = [match.end() for match in _STRETCH_END.finditer(window)]
        end = ends[-1] if ends else window.rfind(" ") + 1 or MAX_STRETCH
        yield window[:end]
        start += end
    yield text[start:]


def is_chinese(text: str, numbers_language: str = "zh") -> bool:
    """Whether the Chinese rules apply: for Chinese characters, typed pinyin, e-mail or no Latin letter.

    Args:
        numbers_language: zh or en: by whose rules a text is read that holds no letter of any script.
    """
    if numbers_language == "en" and not any(character.isalpha() for character in text):
        return False
    return (
        re.search(f"[{CHINESE}]", text) is not None
        or re.search("[A-Za-z]", text) is None
        or is_email(text)
        or PINYIN.search(text) is not None
    )


def is_email(text: str) -> bool:
    """Whether the whole text is a plain e-mail address."""
    return _EMAIL.fullmatch(text) is not None


class _LazyEngine:
    """A wetext grammar, loaded at the first call (about a second) and used by one thread at a time."""

    def __init__(self, **options: object) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._normalizer: Normalizer | None = None

    def __call__(self, text: str) -> str:
        with self._lock:
            if self._normalizer is None:
                from wetext import Normalizer

                self._normalizer = Normalizer(operator="tn", **self._options)
            try:
                text = str(self._normalizer.normalize(text))
            except (AssertionError, RuntimeError, ValueError) as error:  # how the grammars refuse odd characters
                raise TextError(f"the normaliser cannot read {text[:80]!r}") from error
        # The English grammar leaves the escapes of its own notation in the text.
        return _ESCAPED.sub(r"\1", text) if self._options["lang"] == "en" else text


class _Shield:
    """Replaces matches by placeholders that the engine leaves alone, and puts them back afterwards."""

    def __init__(self, rewrite: Callable[[str], str] = str) -> None:
        self._rewrite = rewrite
        self._hidden: dict[str, str] = {}

    def hide(self, pattern: re.Pattern[str], text: str, placeholder: Callable[[int], str]) -> str:
        # Longest first: a match may be part of another one.
        for index, match in enumerate(_distinct(pattern, text)):
            self._hidden[placeholder(index)] = match
            text = text.replace(match, placeholder(index))
        return text

    def restore(self, text: str) -> str:
        for placeholder, match in self._hidden.items():
            text = text.replace(placeholder, self._rewrite(match))
        return text


def _distinct(pattern: re.Pattern[str], text: str) -> list[str]:
    return sorted(dict.fromkeys(pattern.findall(text)), key=len, reverse=True)


def _letters(index: int) -> str:
    """0, 1, … as a, b, …, z, aa, ab, …: digits would be read out."""
    head, tail = divmod(index, 26)
    return (_letters(head - 1) if head else "") + chr(ord("a") + tail)


def _hide_hyphens(text: str) -> tuple[str, bool]:
    """Mark the hyphens of terms such as GPT-4o, so that the engine reads the digits but keeps the hyphen."""
    terms = _distinct(_TECHNICAL_TERM, text)
    for term in terms:
        text = text.replace(term, term.replace("-", "<H>"))
    return text, bool(terms)


def _restore_hyphens(text: str) -> str:
    return re.sub(r"\s*<H>\s*", "-", text)


def _replace(characters: dict[str, str], text: str) -> str:
    """One pass from left to right; at every place the first entry that fits wins (spec 4.1.1)."""
    pattern = "|".join(map(re.escape, characters))
    return re.sub(pattern, lambda match: characters[match[0]], text)
