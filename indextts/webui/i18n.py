"""The page's words in five languages: a folder of ``locales`` each, all with the same keys.

A widget ``seed`` takes its label from the text ``seed``, and what else it shows from ``seed.info``,
``seed.placeholder``, ``seed.headers`` (separated by ``|``) and, for each choice, ``seed.<choice>``, where there are
such texts. The page is built in English; every browser that opens it is sent the texts of its own language, and those
of another one when its user chooses it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import gradio as gr

from indextts.errors import IndexTTSError

logger = logging.getLogger(__name__)

LANGUAGES = ("en", "zh", "ja", "es", "ar")
DEFAULT_LANGUAGE = "en"
COOKIE = "indextts_language"
SHOWN_AS_VALUE = (gr.Button, gr.Markdown, gr.HTML)


@cache
def catalogue(language: str) -> dict[str, str]:
    """All texts of one of ``LANGUAGES``."""
    texts: dict[str, str] = {}
    for path in sorted((Path(__file__).parent / "locales" / language).glob("*.json")):
        texts |= json.loads(path.read_text(encoding="utf-8"))
    return texts


def text(key: str, language: str = DEFAULT_LANGUAGE, **values: Any) -> str:
    """The text ``key`` with ``values`` filled in. Raises ``KeyError`` if there is none."""
    return catalogue(language)[key].format(**values)


def choice_text(key: str, choice: str, language: str = DEFAULT_LANGUAGE, **values: Any) -> str:
    """The text of one choice of the widget ``key``, or of one of several messages of a kind."""
    return text(f"{key}.{choice}", language, **values)


def language_of(http: gr.Request | None) -> str:
    """The language of whoever asks: the one chosen on the page, else the browser's, else English."""
    if http is None:
        return DEFAULT_LANGUAGE
    chosen = dict(http.cookies or {}).get(COOKIE, "")
    if chosen in LANGUAGES:
        return chosen
    wishes = []
    for wish in str(http.headers.get("accept-language") or "").split(","):
        tag, _, quality = wish.strip().partition(";q=")
        try:
            wishes.append((float(quality or 1), tag.split("-")[0].lower()))
        except ValueError:
            continue
    for _, language in sorted(wishes, key=lambda wish: -wish[0]):
        if language in LANGUAGES:
            return language
    return DEFAULT_LANGUAGE


class PageError(IndexTTSError):
    """A request that the page refuses, in words of the catalogues."""

    def __init__(self, key: str, **values: Any) -> None:
        super().__init__(text(key, **values))
        self.key, self.values = key, values

    def in_language(self, language: str) -> str:
        return text(self.key, language, **self.values)


class Texts:
    """Makes widgets, and remembers how each of them reads in every language."""

    def __init__(self) -> None:
        self._widgets: list[tuple[Any, Callable[[str], dict[str, Any]]]] = []
        self._drawings: list[tuple[Callable[..., Any], list[Any], list[Any]]] = []

    def make(
        self, kind: Callable[..., Any], key: str, *args: Any, choices: Sequence[str] = (), **properties: Any
    ) -> Any:
        """A widget of ``kind`` with the texts of ``key``, see the module; ``choices`` are the values of its choices."""

        return self.show(kind, lambda language: texts_of(kind, key, choices, language), *args, **properties)

    def html(self, written: Callable[[str], str], **properties: Any) -> gr.HTML:
        """A piece of HTML that ``written`` writes in a language."""
        return self.show(gr.HTML, lambda language: {"value": written(language)}, **properties)

    def show(
        self, kind: Callable[..., Any], texts: Callable[[str], dict[str, Any]], *args: Any, **properties: Any
    ) -> Any:
        """A widget of ``kind`` with the properties that ``texts`` gives for a language."""
        widget = kind(*args, **texts(DEFAULT_LANGUAGE), **properties)
        self._widgets.append((widget, texts))
        return widget

    def redraw(self, draw: Callable[..., Any], inputs: list[Any], outputs: list[Any]) -> None:
        """Call ``draw``, which asks for the language itself, when the page opens and when the language changes."""
        self._drawings.append((draw, inputs, outputs))

    def connect(self, app: gr.Blocks, switch: gr.Dropdown) -> None:
        """Let the browser's language, and then ``switch``, choose the texts."""
        widgets = [widget for widget, _ in self._widgets]
        quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

        def opened(http: gr.Request) -> list[Any]:
            language = language_of(http)
            return [gr.update(value=language), *self.updates(language, opening=True)]

        remember = "(language) => window.indexttsLanguage(language)"
        app.load(opened, outputs=[switch, *widgets], **quiet).then(fn=None, inputs=[switch], js=remember, **quiet)
        switch.input(fn=None, inputs=[switch], js=remember, **quiet)  # first: the drawings ask for it
        switch.input(self.updates, [switch], widgets, **quiet)
        for draw, inputs, outputs in self._drawings:
            gr.on([app.load, switch.input], draw, inputs, outputs, **quiet)

    def updates(self, language: str, opening: bool = False) -> list[Any]:
        """What makes every widget read in ``language``.

        An empty table shows its new headers only together with a value, which it may be given while the page opens.
        """
        updates = [texts(language) for _, texts in self._widgets]
        for (widget, _), update in zip(self._widgets, updates, strict=True):
            if opening and is_output_table(widget):
                update["value"] = []
        return [gr.update(**update) for update in updates]


def is_output_table(widget: Any) -> bool:
    return isinstance(widget, gr.Dataframe) and widget.interactive is False


def texts_of(kind: Any, key: str, choices: Sequence[str], language: str) -> dict[str, Any]:
    """The properties of a widget of ``kind`` that are texts."""
    written = catalogue(language)
    properties: dict[str, Any] = {"value" if kind in SHOWN_AS_VALUE else "label": written[key]}
    properties |= {name: written[f"{key}.{name}"] for name in ("info", "placeholder") if f"{key}.{name}" in written}
    if f"{key}.headers" in written:
        properties["headers"] = written[f"{key}.headers"].split("|")
    if choices:
        properties["choices"] = [(written[f"{key}.{choice}"], choice) for choice in choices]
    return properties
