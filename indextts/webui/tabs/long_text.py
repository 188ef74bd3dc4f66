"""The tab for a long text, segment by segment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr

from indextts.text.documents import SUFFIXES, read_document
from indextts.text.passages import split_passages
from indextts.text.pauses import MAX_PAUSE_S
from indextts.webui.board import Board
from indextts.webui.form import whole
from indextts.webui.i18n import language_of
from indextts.webui.narration import Narration, Row
from indextts.webui.narrator import Ask
from indextts.webui.page import ACTION, Page, readable_errors
from indextts.webui.studio import Studio, Values, form_values
from indextts.webui.studio_api import Answer, answers, connect_endpoint
from indextts.webui.studio_text import texts_by_name
from indextts.webui.tokens import token_rate

FILLED = 0.9
"""How much of the longest segment a passage may fill: its tokens are estimated."""

UNKNOWN_S = 10.0
"""How long passages are while nothing can be counted."""

DEFAULT_PARAGRAPH_PAUSE_MS = 600


class LongText:
    """How a text becomes rows, and how they are spoken."""

    def __init__(self, page: Page, folder: Path) -> None:
        """Args: folder: See ``Studio``."""
        self.page = page
        self.studio = Studio(page, folder, self.read, self.ask)
        self.count = lru_cache(maxsize=10_000)(self._count)

    def _count(self, text: str) -> int:
        return sum(segment.token_count for segment in self.page.service.segment(text))

    def read(self, narration: Narration, values: Values) -> None:
        """See ``Studio``."""
        text = values["text"] or ""
        narration.paragraph_ms = whole("paragraph_pause_ms", values["paragraph_pause_ms"], 0, 1000 * int(MAX_PAUSE_S))
        longest = whole("max_text_tokens_per_segment", values["max_text_tokens_per_segment"], 2)
        if narration.tokens_a_second is None or not narration.spoken:  # else what is spoken would be cut elsewhere
            narration.tokens_a_second = token_rate(text, self.count)
        rate = narration.tokens_a_second
        cut = split_passages(text, FILLED * min(longest, self.page.facts.max_text_tokens) / rate if rate else UNKNOWN_S)
        rows = [
            Row.of(passage.text, ends_paragraph=passage.ends_paragraph, asked_pause_ms=passage.pause_ms)
            for passage in cut.passages
        ]
        narration.recut(rows, cut.lead_ms)

    def ask(self, narration: Narration, values: Values) -> Ask:
        """See ``Studio``: all rows in the voice of the form."""
        form, name = form_values(values), values.get("voice_name")
        voice = self.page.library.get(name) if name else None
        request = self.page.request({**form, **({"voice": str(voice.path)} if voice else {})})
        return lambda row: request

    def endpoint(
        self,
        http: gr.Request,
        *,
        text: str | None = None,
        document: str | None = None,
        keep_timing: bool = False,
        voice: str | None = None,
        voice_name: str | None = None,
        emotion_audio: str | None = None,
        emotion_text: str | None = None,
        seed: str | float | None = None,
        duration_s: str | float | None = None,
        audio_format: str = "wav",
        **values: Any,
    ) -> Iterator[Answer]:
        """``/long_text``: see its description. Parameters are spelled out as in ``Endpoints.synthesize``."""
        if document:
            text = self.open_file(http, document, keep_timing)
        values |= {"text": text, "voice": voice, "voice_name": voice_name, "seed": seed, "duration_s": duration_s}
        values |= {"emotion_audio": emotion_audio, "emotion_text": emotion_text}
        yield from answers(self.studio, http, values, audio_format)

    def open_file(self, http: gr.Request, path: str | None, timing: bool) -> Any:
        """The text of a file for the text box."""
        if path is None:
            return gr.skip()
        with readable_errors(language_of(http)), texts_by_name():
            return read_document(Path(path).read_bytes(), Path(path).name, timing)


def build(page: Page) -> Callable[[], None]:
    """The tab's widgets; see the package."""
    make = page.make
    with make(gr.Tab, "tab.long_text", id="long_text"):
        text = make(gr.Textbox, "long_text.text", lines=10, max_lines=20, elem_id="long_text_text")
        long_text = LongText(page, Path(text.GRADIO_CACHE))
        with gr.Row():
            file = make(
                gr.File,
                "long_text.file",
                file_types=list(SUFFIXES),
                type="filepath",
                height=120,
                min_width=220,
                scale=2,
            )
            with gr.Column(scale=3, min_width=220):
                timing = make(gr.Checkbox, "long_text.timing", value=False)
                pause = make(
                    gr.Slider, "paragraph_pause_ms", 0, 5000, value=DEFAULT_PARAGRAPH_PAUSE_MS, step=100, min_width=200
                )
        board = Board(page, long_text.studio, "long_text", "rows.table", [48, 130, 480, 90, 100, 110])

    def connect() -> None:
        settings = ("max_text_tokens_per_segment", "interval_silence_ms")
        board.connect({"text": text, "paragraph_pause_ms": pause, **{name: page.fields[name] for name in settings}})
        gr.on([file.upload, timing.input], long_text.open_file, [file, timing], text, **ACTION)
        own = {
            "text": text,
            "document": gr.File(visible=False, type="filepath", label="document"),
            "keep_timing": gr.Checkbox(visible=False, label="keep_timing"),
            "voice_name": gr.Textbox(visible=False, label="voice_name"),
            "paragraph_pause_ms": pause,
            "batch_size": board.batch_size,
            "audio_format": gr.Textbox("wav", visible=False, label="audio_format"),
        }
        connect_endpoint(page, "long_text", long_text.endpoint, {**page.form(), **own})

    return connect
