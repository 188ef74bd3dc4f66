"""The catalogues against each other and against the page, and whose language is whose."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from string import Formatter
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

import indextts.webui
from indextts import errors
from indextts.errors import AudioError, IndexTTSError, QueueFull, UndefinedValues
from indextts.service import Service
from indextts.voices import VoiceLibrary
from indextts.webui import build_app
from indextts.webui.form import FormValues
from indextts.webui.i18n import LANGUAGES, PageError, catalogue, language_of
from indextts.webui.page import message_of

PACKAGE = Path(indextts.webui.__file__).parent
KEYED = ("text", "make", "PageError")
"""What is called with a key."""

SHOWN = ("label", "info", "placeholder", "value", "headers", "choices")


@pytest.mark.parametrize("language", LANGUAGES)
def test_all_catalogues_have_the_same_texts_with_the_same_blanks(language: str) -> None:
    english, other = catalogue("en"), catalogue(language)
    assert set(other) == set(english)
    for key in english:
        assert blanks(other[key]) == blanks(english[key]), key
        assert other[key].count("|") == english[key].count("|"), key


def blanks(written: str) -> set[str]:
    return {f"{name}:{form}" for _, name, form, _ in Formatter().parse(written) if name is not None}


def test_no_words_stand_outside_the_catalogues(service: Service, library: VoiceLibrary, tmp_path: Path) -> None:
    """What the page shows when it opens is in the catalogues, but for names, numbers, and HTML around them."""
    texts = set(catalogue("en").values())
    known = texts | {part for written in texts for part in written.split("|")} | {""}
    for block in build_app(service, library, tmp_path).blocks.values():
        if not getattr(block, "visible", True) or isinstance(block, gr.HTML) or block.elem_id == "live":
            continue
        for written in shown_by(block):
            assert written in known or not re.search(r"[a-z]{2,} [a-z]{2,}", written), (block, written)


def shown_by(block: Any) -> list[str]:
    """All texts of a widget."""
    found: list[str] = []
    for name in SHOWN:
        value = getattr(block, name, None)
        for item in value if isinstance(value, list) else [value]:
            found += [part for part in (item if isinstance(item, (list, tuple)) else [item]) if isinstance(part, str)]
    return found


def test_every_text_is_used_and_every_used_text_is_there() -> None:
    """A text is used where its key, or that of the widget which it belongs to, stands in the code."""
    nodes = [node for path in PACKAGE.rglob("*.py") for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    literals = {node.value for node in nodes if isinstance(node, ast.Constant)} | {*FormValues.__dataclass_fields__}
    for key in catalogue("en"):
        parts = key.split(".")
        assert {".".join(parts[:count]) for count in range(1, len(parts) + 1)} & literals or parts[0] == "progress", key
    for node in nodes:
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in KEYED:
            for argument in node.args[:2]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    assert argument.value in catalogue("en"), ast.unparse(node)


@pytest.mark.parametrize(
    ("cookies", "headers", "language"),
    [
        ({}, {}, "en"),
        ({}, {"accept-language": "fr-FR,fr;q=0.9,es;q=0.8,en;q=0.7"}, "es"),
        ({}, {"accept-language": "zh-TW"}, "zh"),
        ({}, {"accept-language": "en;q=0.5,ja;q=0.9"}, "ja"),
        ({"indextts_language": "ar"}, {"accept-language": "ja"}, "ar"),
        ({"indextts_language": "tlh"}, {"accept-language": "; ;q=x,,ja"}, "ja"),
    ],
)
def test_language_of_the_asking_browser(cookies: dict[str, str], headers: dict[str, str], language: str) -> None:
    http: Any = SimpleNamespace(cookies=cookies, headers=headers)
    assert language_of(http) == language


def test_an_error_of_the_page_speaks_every_language() -> None:
    error = PageError("error.range", name="seed", low=0, high=9, value=12.0)
    assert "12" in str(error)
    for language in LANGUAGES:
        assert "seed" in error.in_language(language) and "12" in error.in_language(language)


def test_errors_of_the_engine_say_in_every_language_what_kind_they_are() -> None:
    detail = "the recording 'a.wav' is silent"
    for language in LANGUAGES:
        said = message_of(AudioError(detail), language)
        assert said == (detail if language == "en" else f"{catalogue(language)['refusal.AudioError']} ({detail})")
        assert message_of(UndefinedValues("x"), language).startswith(
            "x" if language == "en" else catalogue(language)["refusal.SynthesisError"]  # as its parent
        )
        assert "7" in message_of(QueueFull("full; try again in 7 s", 7.0), language)
        assert message_of(IndexTTSError("of no known kind"), language) == "of no known kind"
    kinds = {key.partition(".")[2] for key in catalogue("en") if key.startswith("refusal.")}
    assert all(issubclass(getattr(errors, kind), IndexTTSError) for kind in kinds)
