"""The first tab: a voice, a text, and the speech."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from indextts.errors import IndexTTSError
from indextts.webui.endpoints import segments_of
from indextts.webui.examples import load_examples
from indextts.webui.page import QUIET, Page
from indextts.webui.speaking import Speaker


def build(page: Page) -> Callable[[], None]:
    """The tab's widgets; see the package."""
    make, fields = page.make, page.fields
    with make(gr.Tab, "tab.cloning", id="cloning"):
        with gr.Row():
            with gr.Column(scale=5, min_width=320):
                fields["voice"] = make(gr.Audio, "voice", type="filepath", sources=["upload", "microphone"], buttons=[])
                make(gr.Markdown, "voice.hint")
            with gr.Column(scale=6, min_width=320):
                fields["text"] = make(gr.Textbox, "text", lines=6, max_lines=20)
                with gr.Row():
                    generate = make(gr.Button, "speak", variant="primary", scale=3, min_width=120)
                    cancel = make(gr.Button, "cancel", variant="stop", scale=1, min_width=80)
                status = make(gr.Markdown, "status.idle", elem_id="status")
                audio = make(gr.Audio, "result", interactive=False, buttons=["download"])
                listen = make(gr.Checkbox, "listen", value=True, container=False)
                preview = preview_table(page)
        examples = gr.Column()
        live = gr.File(file_count="multiple", elem_id="live", label="live")  # seen by the player only
        last_seed = gr.State("")

    def connect() -> None:
        with examples:
            examples_table(page)
        connect_speaking(page, generate, cancel, (live, audio, status, last_seed), listen)
        limit = fields["max_text_tokens_per_segment"]
        gr.on(
            [fields["text"].change, limit.change],
            lambda text, max_tokens: preview_rows(page, text, max_tokens),
            inputs=[fields["text"], limit],
            outputs=[preview],
            trigger_mode="always_last",
            **QUIET,
        )
        fields["seed.keep"].click(str, last_seed, fields["seed"], queue=False, api_visibility="private")

    return connect


def connect_speaking(
    page: Page, generate: gr.Button, cancel: gr.Button, outputs: tuple[Any, ...], listen: gr.Checkbox
) -> None:
    """The two buttons, and the player that sounds while speech is still being made.

    Gradio's own streaming output is not used: it needs ffmpeg on the server, which a bare machine does not have.
    """
    speaker = Speaker(page)
    live, audio, status, _ = outputs
    # The browser works off the listeners of a click one after the other: the player's have to come first.
    generate.click(fn=None, js="() => window.indexttsPlayer.start()", api_visibility="private")
    speaking = generate.click(
        speaker.speak,
        inputs_kwargs=page.form(),
        outputs=list(outputs),
        show_progress_on=[audio],
        api_visibility="private",
        **page.speaking,
    )
    live.change(
        fn=None,
        inputs=[live, listen],
        js="(files, wanted) => window.indexttsPlayer.play(files, wanted)",
        api_visibility="private",
    )
    cancel.click(fn=None, js="() => window.indexttsPlayer.stop()", api_visibility="private")
    cancel.click(speaker.cancel, outputs=[status], cancels=[speaking], queue=False, api_visibility="private")


def preview_table(page: Page) -> gr.Dataframe:
    """How the text will be cut, updated while it is typed."""
    with page.make(gr.Accordion, "preview", open=False):
        return page.make(
            gr.Dataframe,
            "preview.table",
            datatype=["number", "str", "number"],
            column_widths=["10%", "75%", "15%"],
            type="array",
            interactive=False,
            wrap=True,
            max_height=300,
            show_label=False,
        )


def preview_rows(page: Page, text: str | None, max_tokens: float | None) -> list[list[Any]]:
    """The table of segments under the text; empty while there is nothing to cut."""
    try:
        return [[s["index"] + 1, s["text"], s["tokens"]] for s in segments_of(page, text or "", max_tokens or 0)]
    except IndexTTSError:
        return []


def examples_table(page: Page) -> None:
    """Ready-made cases; a click fills the form."""
    names, rows = load_examples(page.examples_dir)
    if rows:
        gr.Examples(
            rows,
            [page.fields[name] for name in names],
            label="",
            elem_id="examples",
            examples_per_page=12,
            cache_examples=False,
            api_visibility="private",
            visible_columns=[names.index("voice"), names.index("text"), names.index("emotion_mode")],
        )
