"""The glossary of a session: rows of the page's table, terms as plain data, and files. Knows no gradio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from indextts.errors import ConfigError
from indextts.text.glossary import Glossary, Reading
from indextts.webui.i18n import PageError

MAX_TERMS = 500
MAX_TERM_LENGTH = 100
MAX_READING_LENGTH = 300
MAX_FILE_BYTES = 2**18
MAX_YAML_DEPTH = 3

Terms = dict[str, Reading]


def glossary_of(terms: Mapping[str, Any] | None) -> Glossary:
    """A checked glossary of terms as the page and its clients send them.

    Raises:
        PageError: there are too many, or one is too long.
        ConfigError: they are not readings by term.
    """
    if terms is None:
        return Glossary()
    if not isinstance(terms, Mapping):
        raise ConfigError(f"a glossary is a mapping from terms to readings, not {repr(terms)[:80]}")
    if len(terms) > MAX_TERMS:
        raise PageError("error.glossary.many", count=len(terms), limit=MAX_TERMS)
    for term, reading in terms.items():
        readings = reading.values() if isinstance(reading, Mapping) else [reading]
        if len(str(term)) > MAX_TERM_LENGTH:
            raise PageError("error.glossary.long", written=shortened(term), limit=MAX_TERM_LENGTH)
        for written in readings:
            if len(str(written)) > MAX_READING_LENGTH:
                raise PageError("error.glossary.long", written=shortened(written), limit=MAX_READING_LENGTH)
    return Glossary(terms)


def shortened(written: object) -> str:
    return str(written)[:30] + " …"


def terms_of(rows: Sequence[Sequence[Any]]) -> Terms:
    """The terms of the table's rows: term, Chinese reading, English reading. Rows without any are left out.

    Raises:
        PageError: a row has no term or no reading, a term stands there twice, or as ``glossary_of``.
        ConfigError: as ``glossary_of``.
    """
    terms: Terms = {}
    seen: set[str] = set()
    for number, row in enumerate(rows, 1):
        term, chinese, english = (str(cell if cell is not None else "").strip() for cell in row)
        if not (term or chinese or english):
            continue
        if not term:
            raise PageError("error.glossary.no_term", row=number)
        if not (chinese or english):
            raise PageError("error.glossary.no_reading", row=number, term=term)
        if term.casefold() in seen:
            raise PageError("error.glossary.twice", row=number, term=term)
        seen.add(term.casefold())
        terms[term] = {language: reading for language, reading in (("zh", chinese), ("en", english)) if reading}
    glossary_of(terms)
    return terms


def rows_of(terms: Mapping[str, Reading]) -> list[list[str]]:
    """The table's rows of ``terms``; one empty row if there are none, to type into."""
    rows = []
    for term, reading in terms.items():
        by_language = {"zh": reading, "en": reading} if isinstance(reading, str) else reading
        rows.append([term, by_language.get("zh", ""), by_language.get("en", "")])
    return rows or [["", "", ""]]


def read_file(path: str) -> Terms:
    """The terms of an uploaded ``glossary.yaml``.

    Raises:
        PageError: it is none.
    """
    file = Path(path)
    try:
        content = file.read_bytes()[: MAX_FILE_BYTES + 1]
        check_yaml(content)
        return dict(glossary_of(Glossary.load(file).terms).terms)
    except (OSError, ValueError, RecursionError, yaml.YAMLError, ConfigError) as error:
        raise PageError("error.glossary.file", name=file.name) from error


def check_yaml(content: bytes) -> None:
    """Raise ``ValueError`` if it would take long to read, or stand for more than it is."""
    depth = 0
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"larger than {MAX_FILE_BYTES} bytes")
    for event in yaml.parse(content):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_YAML_DEPTH or isinstance(event, yaml.AliasEvent):
            raise ValueError("nested too deep, or with aliases")
