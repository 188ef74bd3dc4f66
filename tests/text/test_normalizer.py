"""The normaliser's own rules: shields, fallbacks, glossary, laziness."""

from __future__ import annotations

import logging
import sys

import pytest

from indextts.errors import TextError
from indextts.text.glossary import Glossary
from indextts.text.normalizer import TextNormalizer


def identity(text: str) -> str:
    return text


def digits_to_x(text: str) -> str:
    return "".join("x" if c.isdigit() else c for c in text)


def refuse(text: str) -> str:
    raise TextError(f"cannot read {text!r}")


def test_the_engine_never_sees_what_is_shielded() -> None:
    seen: list[str] = []

    def spy(text: str) -> str:
        seen.append(text)
        return text

    out = TextNormalizer(None, spy, spy)("ni3 说<行|XING2>让-雅克GPT-4")
    assert out == "ni3 说<行|XING2>让-雅克GPT-4"
    assert seen == ["<pinyin_a> 说PRONPLACEHOLDERaPRONPLACEHOLDER<n_a>GPT<H>4"]


def test_digits_in_terms_are_read_and_the_hyphen_comes_back_without_spaces() -> None:
    engine = lambda text: text.replace("<H>4", " <H> four")  # noqa: E731
    assert TextNormalizer(None, identity, engine)("use GPT-4 now") == "use GPT-four now"


def test_longer_pinyin_is_replaced_before_a_part_of_it() -> None:
    # "ao1" is a match by itself and a part of "gao1"; were it replaced first, "gao1" would be torn apart.
    assert TextNormalizer(None, digits_to_x, identity)("ao1 高gao1 9") == "ao1 高gao1 x"


def test_more_annotations_than_letters() -> None:
    text = " ".join(f"<w{i}|R{i}>" for i in range(60))
    assert TextNormalizer(None, digits_to_x, digits_to_x)(text) == text


def test_text_the_english_engine_refuses_stays_as_written(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert TextNormalizer(None, identity, refuse)("it's (A-1);") == "it's 'A-1',"
    assert "left as it is written" in caplog.text


def test_text_the_chinese_engine_refuses_is_an_error() -> None:
    with pytest.raises(TextError, match="你好"):
        TextNormalizer(None, refuse, identity)("你好")


def test_characters_the_real_engine_refuses_do_not_stop_the_run() -> None:
    assert TextNormalizer()("[9Z") == "'9Z"


def test_quotes_and_backslashes_are_not_escaped() -> None:
    assert TextNormalizer()('Say "hi" to C:\\ now.') == "Say 'hi' to C,\\ now."


def test_glossary_can_be_replaced_later() -> None:
    normalizer = TextNormalizer(None, identity, identity)
    assert normalizer("the SQL") == "the SQL"
    normalizer.glossary = Glossary({"sql": {"en": "sequel"}})
    assert normalizer("the SQL") == "the sequel"


def test_making_a_normalizer_loads_no_grammar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wetext", None)  # importing it now fails
    normalizer = TextNormalizer()
    with pytest.raises(ImportError):
        normalizer("text")


def test_contractions_are_found_inside_words() -> None:
    """Spec quirk 37."""
    assert TextNormalizer(None, identity, identity)("This's a rabbit's ear.") == "This is a rabbit is ear."
