"""The glossary of a session: the table's rows, files, requests, and what the tab does with them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from indextts.errors import ConfigError
from indextts.text.glossary import Glossary
from indextts.webui.form import FormValues
from indextts.webui.glossary import MAX_FILE_BYTES, MAX_TERMS, glossary_of, read_file, rows_of, terms_of
from indextts.webui.i18n import PageError
from indextts.webui.i18n import text as words
from indextts.webui.page import Page
from indextts.webui.tabs.glossary import GlossaryHandlers

TERMS: dict[str, Any] = {"M.2": {"zh": "M 二", "en": "M dot two"}, "SQL": {"en": "sequel"}}
ROWS = [["M.2", "M 二", "M dot two"], ["SQL", "", "sequel"]]
HTTP: Any = SimpleNamespace(session_hash="a", cookies={}, headers={})


def test_rows_and_terms_are_the_same() -> None:
    assert terms_of(ROWS) == TERMS and rows_of(TERMS) == ROWS
    assert terms_of([[" M.2 ", None, " M dot two"], ["", None, " "]]) == {"M.2": {"en": "M dot two"}}
    assert terms_of(rows_of({})) == {} and len(rows_of({})) == 1  # a row to type into
    assert rows_of({"API": "A P I"}) == [["API", "A P I", "A P I"]]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([["", "x", ""]], "row 1 has a reading, but no term"),
        ([["SQL", "", "sequel"], ["M.2", "", ""]], "row 2: type how to read M.2"),
        ([["SQL", "", "a"], ["sql", "", "b"]], "row 2: sql stands in the glossary twice"),
        ([["x" * 101, "", "y"]], "at most 100 characters"),
        ([["x", "", "y" * 301]], "at most 300 characters"),
        ([[f"t{number}", "", "y"] for number in range(MAX_TERMS + 1)], "500 terms, not 501"),
    ],
)
def test_rows_that_are_no_glossary(rows: list[list[Any]], says: str) -> None:
    with pytest.raises(PageError, match=says):
        terms_of(rows)


@pytest.mark.parametrize("terms", [[], "x", {"x": 3}, {"x": {"fr": "y"}}, {"": "y"}, {3: "y"}, {"\ud800": "y"}])
def test_data_that_is_no_glossary(terms: Any) -> None:
    with pytest.raises(ConfigError):
        glossary_of(terms)


def test_a_form_brings_its_glossary_along(values: dict[str, Any]) -> None:
    assert FormValues(**values).request().glossary == Glossary()
    assert FormValues(**values, glossary=TERMS).request().glossary == Glossary(TERMS)


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "glossary.yaml"
    Glossary(TERMS).save(path)
    assert read_file(str(path)) == TERMS
    path.write_text(json.dumps(TERMS))  # what the page's download writes
    assert read_file(str(path)) == TERMS
    path.write_text("")
    assert read_file(str(path)) == {}


@pytest.mark.parametrize(
    "content",
    [
        b"- a", b"a: 3", b"a: {fr: b}", b"a: [", b"\xff\xfe\xff", b"RIFF\0\0",
        b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", b"[" * 100_000, b"#" * (MAX_FILE_BYTES + 1),
    ],
)  # fmt: skip
def test_files_that_are_no_glossary(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(PageError, match=r"bad\.yaml is no glossary"):
        read_file(str(path))


def test_files_that_are_too_much(tmp_path: Path) -> None:
    path = tmp_path / "glossary.yaml"
    Glossary({f"t{number}": "x" for number in range(MAX_TERMS + 1)}).save(path)
    with pytest.raises(PageError, match="500 terms, not 501"):
        read_file(str(path))


def test_half_typed_rows_change_no_terms(page: Page) -> None:
    changed = GlossaryHandlers(page).changed
    assert changed(ROWS, True, HTTP) == (TERMS, words("glossary.count", count=2), TERMS)
    terms, said, kept = changed([*ROWS, ["API", "", ""]], True, HTTP)
    assert terms == kept == gr.skip() and "Row 3: type how to read API" in said


def test_an_empty_table_does_not_clear_what_the_browser_keeps_before_it_is_told(page: Page) -> None:
    handlers = GlossaryHandlers(page)
    assert handlers.changed(rows_of({}), False, HTTP) == ({}, "", gr.skip())
    assert handlers.restored(TERMS) == (ROWS, TERMS, True)
    for kept in (None, {}, "broken", {"x": 3}):
        assert handlers.restored(kept) == (rows_of({}), {}, True)  # type: ignore[arg-type]
    assert handlers.changed(rows_of({}), True, HTTP) == ({}, "", {})


def test_adding_a_term(page: Page) -> None:
    added = GlossaryHandlers(page).added
    assert added(rows_of({}), "SQL", "", "sequel", HTTP) == [[["SQL", "", "sequel"]], "", "", ""]
    assert added(ROWS, " sql", "", "S Q L", HTTP)[0] == [ROWS[0], ["sql", "", "S Q L"]]
    for term, reading in (("", "x"), ("x", " ")):
        with pytest.raises(gr.Error, match="how to read it"):
            added(ROWS, term, "", reading, HTTP)


def test_how_it_will_be_read(page: Page) -> None:
    handlers = GlossaryHandlers(page)
    text, tokens = handlers.shown("The m.2 & SQL. End.", TERMS, 120)
    assert text == "The M dot two and sequel. End."
    assert tokens == [[1, "▁The ▁M ▁dot ▁two ▁& ▁sequel", 6], [2, "▁End", 1]]
    assert handlers.shown("", TERMS, 120) == handlers.shown(None, None, None) == ("", [])
    assert handlers.normalize(HTTP, "SQL.", TERMS) == {
        "normalized": "sequel.",
        "segments": [{"index": 0, "text": "sequel", "tokens": ["▁sequel"]}],
    }
    with pytest.raises(gr.Error, match="Type a text first"):
        handlers.normalize(HTTP, " ")
