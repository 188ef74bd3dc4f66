"""The lower half of the tab "Presets and glossary": how words are read, and a look at what the model gets to read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr
from gradio.events import api

from indextts.errors import IndexTTSError
from indextts.webui.form import whole
from indextts.webui.glossary import Terms, glossary_of, read_file, rows_of, terms_of
from indextts.webui.i18n import PageError, language_of, text
from indextts.webui.page import ACTION, QUIET, Page, message_of, readable_errors, sentence

PARTS = ("term", "zh", "en")
"""The columns of the table."""

DOWNLOAD = """(terms) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(terms ?? {}, null, 2)], { type: "application/yaml" }));
  link.download = "glossary.yaml";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}"""
"""JSON is YAML, too: the file can be put into a model folder as it is."""


def build(page: Page) -> Callable[[], None]:
    """The widgets; see the package."""
    make, fields = page.make, page.fields
    make(gr.Markdown, "glossary.hint")
    with gr.Row(elem_classes="beside"):
        new = [make(gr.Textbox, f"glossary.{part}", max_lines=1, min_width=140) for part in PARTS]
        add = make(gr.Button, "glossary.add", min_width=90)
    table = fields["glossary.table"] = make(
        gr.Dataframe,
        "glossary.table",
        value=rows_of({}),
        type="array",
        datatype="str",
        column_count=(3, "fixed"),
        column_widths=["30%", "35%", "35%"],
        interactive=True,
        wrap=True,
        max_height=400,
    )
    status = gr.Markdown(elem_id="glossary_status")
    with gr.Row():
        upload = make(gr.UploadButton, "glossary.open", file_types=[".yaml", ".yml"], size="sm", min_width=120)
        download = make(gr.Button, "glossary.download", size="sm", min_width=120)
        clear = make(gr.Button, "glossary.clear", size="sm", min_width=120)
    make(gr.Markdown, "reading.hint")
    with gr.Row():
        written = make(gr.Textbox, "reading.text", lines=3, max_lines=8, scale=1, min_width=280)
        spoken = make(gr.Textbox, "reading.normalized", lines=3, max_lines=8, interactive=False, scale=1, min_width=280)
    tokens = make(
        gr.Dataframe,
        "reading.tokens",
        datatype=["number", "str", "number"],
        column_widths=["10%", "75%", "15%"],
        type="array",
        interactive=False,
        wrap=True,
        max_height=300,
    )

    def connect() -> None:
        handlers = GlossaryHandlers(page)
        terms, kept, is_restored = fields["glossary"], fields["glossary.kept"], gr.State(False)
        page.opened(handlers.restored, [kept], [table, terms, is_restored])
        table.change(handlers.changed, [table, is_restored], [terms, status, kept], **QUIET)
        gr.on([add.click, new[-1].submit], handlers.added, [table, *new], [table, *new], **ACTION)
        upload.upload(handlers.opened_file, [upload], [table], **ACTION)
        download.click(fn=None, inputs=[terms], js=DOWNLOAD, api_visibility="private")
        clear.click(lambda: rows_of({}), outputs=[table], **QUIET)
        limit = fields["max_text_tokens_per_segment"]
        gr.on(
            [written.change, terms.change, limit.change],
            handlers.shown,
            inputs=[written, terms, limit],
            outputs=[spoken, tokens],
            trigger_mode="always_last",
            **QUIET,
        )
        api(handlers.normalize, api_name="normalize", api_description=text("api.normalize"))

    return connect


class GlossaryHandlers:
    """What happens when the table or the text is changed, and the endpoint."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def restored(self, kept: Terms | None) -> tuple[list[list[str]], Terms, bool]:
        """The table and the terms of a browser that comes back; what it kept may be anything."""
        try:
            terms = dict(glossary_of(kept).terms)
        except IndexTTSError:
            terms = {}
        return rows_of(terms), terms, True

    def changed(self, rows: list[list[Any]], is_restored: bool, http: gr.Request) -> tuple[Any, str, Any]:
        """The table's terms, what to say of them, and what the browser keeps. Half-typed rows change no terms.

        Until the browser has told what it kept, the empty table is not what it is to keep.
        """
        language = language_of(http)
        try:
            terms = terms_of(rows)
        except IndexTTSError as error:
            said = text("glossary.wrong", language, reason=sentence(message_of(error, language)))
            return gr.skip(), said, gr.skip()
        said = text("glossary.count", language, count=len(terms)) if terms else ""
        return terms, said, terms if is_restored else gr.skip()

    def added(self, rows: list[list[Any]], term: str, zh: str, en: str, http: gr.Request) -> list[Any]:
        """The table with a term added or changed, and empty boxes for the next one."""
        with readable_errors(language_of(http)):
            if not term.strip() or not (zh.strip() or en.strip()):
                raise PageError("error.glossary.incomplete")
            others = [
                row for row in rows if any(row) and str(row[0] or "").strip().casefold() != term.strip().casefold()
            ]
            return [[*others, *rows_of(terms_of([[term, zh, en]]))], "", "", ""]

    def opened_file(self, path: str, http: gr.Request) -> list[list[str]]:
        with readable_errors(language_of(http)):
            return rows_of(read_file(path))

    def shown(self, written: str | None, terms: Terms | None, limit: float | None) -> tuple[str, list[list[Any]]]:
        """The normalised text, and what the model reads of it; both empty while there is nothing to read."""
        try:
            read = self.read(written or "", terms, limit or 0)
        except IndexTTSError:
            return "", []
        rows = [[s["index"] + 1, " ".join(s["tokens"]), len(s["tokens"])] for s in read["segments"]]
        return read["normalized"], rows

    def normalize(
        self,
        http: gr.Request,
        text: str,
        glossary: dict[str, Any] | None = None,
        max_text_tokens_per_segment: int = 120,
    ) -> dict[str, Any]:
        """How ``text`` will be read: numbers and symbols as words, and then the pieces that the model reads."""
        with readable_errors(language_of(http)):
            return self.read(text, glossary, max_text_tokens_per_segment)

    def read(self, written: str, terms: Terms | None, max_tokens: float) -> dict[str, Any]:
        if not written.strip():
            raise PageError("error.no_text")
        glossary, limit = glossary_of(terms), whole("max_text_tokens_per_segment", max_tokens)
        segments = self.page.service.segment(written, limit, glossary)
        return {
            "normalized": self.page.service.normalize(written, glossary),
            "segments": [{"index": s.index, "text": s.text, "tokens": list(s.tokens)} for s in segments],
        }
