"""Glossary files and replacement."""

from __future__ import annotations

from pathlib import Path

import pytest

from indextts.errors import ConfigError, TextError
from indextts.text.glossary import Glossary


def test_round_trip_keeps_terms_order_and_characters(tmp_path: Path) -> None:
    glossary = Glossary({"Z": "zed", "M.2": {"en": "M dot two", "zh": "M 二"}, "A": {"zh": "诶"}})
    glossary.save(tmp_path / "glossary.yaml")
    assert "二" in (tmp_path / "glossary.yaml").read_text(encoding="utf-8")
    loaded = Glossary.load(tmp_path / "glossary.yaml")
    assert loaded == glossary
    assert list(loaded.terms) == ["Z", "M.2", "A"]


def test_missing_and_empty_files_are_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    assert not Glossary.load(tmp_path / "empty.yaml").terms
    assert not Glossary.load(tmp_path / "none.yaml").terms


@pytest.mark.parametrize(
    "content, named",
    [
        ("- a\n- b\n", "mapping"),
        ("a: [1\n", "cannot read"),
        ("a: 3\n", "'a'"),
        ("a: {fr: b}\n", "'fr'"),
        ("2: b\n", "2"),
    ],
)
def test_malformed_files_are_errors(tmp_path: Path, content: str, named: str) -> None:
    (tmp_path / "glossary.yaml").write_text(content)
    with pytest.raises(ConfigError, match=named):
        Glossary.load(tmp_path / "glossary.yaml")


def test_adding_and_removing_make_new_glossaries() -> None:
    empty = Glossary()
    one = empty.with_term("API", "A P I")
    assert not empty.terms
    assert one.apply("an api", "en") == "an A P I"
    assert one.without_term("API") == empty
    assert one.without_term("other") == one


def test_backslashes_in_readings_are_literal() -> None:
    assert Glossary({"x": r"\1\n"}).apply("axb", "en") == r"a\1\nb"


def test_readings_in_readings_cannot_fill_the_memory() -> None:
    terms = {"a" * length: " ".join(["a" * (length - 1)] * 100) for length in range(30, 1, -1)}
    with pytest.raises(TextError, match=r"longer than 200,000 characters.*shorten the readings"):
        Glossary(terms).apply("a" * 30, "en")
    assert Glossary({"aa": "a"}).apply("aa" * 100_000, "en") == "a" * 100_000


def test_half_a_character_is_refused() -> None:
    for terms in ({"\ud800": "x"}, {"x": "\udfff"}, {"x": {"zh": "\ud83d"}}):
        with pytest.raises(ConfigError, match="half a character"):
            Glossary(terms)
