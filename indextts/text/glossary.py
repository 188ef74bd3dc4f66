"""Readings for terms that would be spoken wrongly: ``M.2: {en: M dot two, zh: M 二}`` (spec 4.1.6)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from indextts.errors import ConfigError, TextError
from indextts.text.limits import MAX_TEXT_CHARACTERS, SURROGATE

LANGUAGES = ("zh", "en")

Reading = str | Mapping[str, str]
"""How to read a term: one text for both languages, or a text by language (``zh``, ``en``)."""


@dataclass(frozen=True)
class Glossary:
    """An immutable mapping from terms to readings; a change makes a new glossary.

    Raises:
        ConfigError: an empty term, a reading that is no text, or a language other than zh and en.
    """

    terms: Mapping[str, Reading] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for term, reading in self.terms.items():
            _check(term, reading)

    @classmethod
    def load(cls, path: str | Path) -> Glossary:
        """Read a YAML mapping; a file that does not exist or is empty is an empty glossary.

        Raises:
            ConfigError: the file is unreadable or holds something else than readings by term.
        """
        path = Path(path)
        if not path.exists():
            return cls()
        try:
            terms = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"cannot read the glossary {path}: {error}") from error
        if terms is None:
            return cls()
        if not isinstance(terms, dict):
            raise ConfigError(f"the glossary {path} must be a mapping from terms to readings")
        return cls(terms)

    def save(self, path: str | Path) -> None:
        """Write the glossary as YAML, readable and in the order of its terms."""
        plain = {term: r if isinstance(r, str) else dict(r) for term, r in self.terms.items()}
        text = yaml.safe_dump(plain, allow_unicode=True, default_flow_style=False, sort_keys=False)
        Path(path).write_text(text, encoding="utf-8")

    def with_term(self, term: str, reading: Reading) -> Glossary:
        """The glossary with one term added or changed."""
        return Glossary({**self.terms, term: reading})

    def without_term(self, term: str) -> Glossary:
        """The glossary with one term taken out; a term that is not there changes nothing."""
        return Glossary({t: reading for t, reading in self.terms.items() if t != term})

    def apply(self, text: str, language: str) -> str:
        """Replace every term in ``text``, whatever its case, by its reading in ``language``: longest first.

        A term without a reading in this language is written as in the glossary. A reading may contain a
        shorter term, which is then replaced in turn.

        Raises:
            TextError: the text becomes too long, as it does where readings hold terms whose readings hold terms.
        """
        for term in sorted(self.terms, key=len, reverse=True):
            reading = self.terms[term]
            replacement = reading if isinstance(reading, str) else reading.get(language, term)
            pattern = re.compile(re.escape(term), re.IGNORECASE)
            growth = sum(1 for _ in pattern.finditer(text)) * (len(replacement) - len(term))
            if growth > 0 and len(text) + growth > MAX_TEXT_CHARACTERS:
                raise TextError(
                    f"with the reading of {term!r} the text becomes longer than {MAX_TEXT_CHARACTERS:,} characters: "
                    "speak it in parts, or shorten the readings of the glossary"
                )
            text = pattern.sub(lambda _, new=replacement: new, text)
        return text


NO_TERMS = Glossary()


def _check(term: object, reading: object) -> None:
    if not isinstance(term, str) or not term.strip():
        raise ConfigError(f"a glossary term must be a text, not {term!r}")
    readings = dict.fromkeys(LANGUAGES, reading) if isinstance(reading, str) else reading
    if not isinstance(readings, Mapping) or not all(isinstance(r, str) for r in readings.values()):
        raise ConfigError(f"the reading of {term!r} must be a text, or texts by language, not {reading!r}")
    if any(SURROGATE.search(written) for written in (term, *readings.values())):
        raise ConfigError(f"the glossary term {term!r} or its reading holds half a character")
    for language in readings:
        if language not in LANGUAGES:
            raise ConfigError(f"the reading of {term!r} is for {language!r}, not for one of {LANGUAGES}")
