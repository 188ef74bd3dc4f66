"""The first tab: a voice, a text, and the speech."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.processing_utils import save_file_to_cache

from indextts.errors import IndexTTSError
from indextts.webui.downloads import DOWNLOADS, converted
from indextts.webui.endpoints import segments_of
from indextts.webui.examples import load_examples
from indextts.webui.glossary import Terms, glossary_of
from indextts.webui.i18n import PageError, choice_text, language_of, text
from indextts.webui.page import ACTION, QUIET, Page, readable_errors
from indextts.webui.progress import status_panel
from indextts.webui.prompts import connect_prompt, prompt_field, report_on
from indextts.webui.speaking import Speaker
from indextts.webui.takes import Takes, shorten
from indextts.webui.voice_library import VoiceChooser

SHOWN_CHARACTERS = 100


def build(page: Page) -> Callable[[], None]:
    """The tab's widgets; see the package."""
    make, fields = page.make, page.fields
    with make(gr.Tab, "tab.cloning", id="cloning"):
        with gr.Row():
            with gr.Column(scale=5, min_width=320):
                fields["voice"], report = prompt_field(page, "voice")
                library = VoiceChooser(page)
                make(gr.Markdown, "voice.hint")
            with gr.Column(scale=6, min_width=320):
                fields["text"] = make(gr.Textbox, "text", lines=6, max_lines=20, elem_id="text")
                page.parts["mood"] = gr.HTML(elem_id="mood-line", padding=False)
                result = Result(page)
                preview = preview_table(page)
        result.build_takes()
        examples = gr.Column()

    def connect() -> None:
        chosen = connect_prompt(fields["voice"], report)
        chosen.then(lambda: None, None, library.chosen, **QUIET)
        library.connect(report)
        with examples:
            examples_table(page, report, library.chosen)
        result.connect()
        read = [fields["text"], fields["max_text_tokens_per_segment"], fields["glossary"]]
        gr.on(
            [field.change for field in read],
            lambda text, max_tokens, terms: preview_rows(page, text, max_tokens, terms),
            inputs=read,
            outputs=[preview],
            trigger_mode="always_last",
            **QUIET,
        )

    return connect


class Result:
    """The buttons, and what comes of them: the speech, its file to take away, and those made before.

    Gradio's own streaming output is not used: it needs ffmpeg on the server, which a bare machine does not have.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        make = page.make
        with gr.Row():
            self.speak = make(
                gr.Button, "speak", variant="primary", elem_id="speak", elem_classes=["speak"], scale=3, min_width=120
            )
            self.cancel = make(gr.Button, "cancel", variant="stop", elem_id="cancel", scale=1, min_width=80)
        self.panel = page.texts.html(
            lambda language: status_panel(text("status.idle", language)),
            elem_id="status", elem_classes=["announced"], padding=False,
        )  # fmt: skip
        self.audio = make(gr.Audio, "result", type="filepath", interactive=False, buttons=[], elem_id="result")
        with gr.Row():
            self.download = make(
                gr.DownloadButton, "download", interactive=False, size="md", scale=2, min_width=140, elem_id="download"
            )
            self.format = make(
                gr.Dropdown, "download.format", choices=DOWNLOADS, value="wav", filterable=False, container=False,
                scale=1, min_width=90, elem_id="format",
            )  # fmt: skip
        self.listen = make(gr.Checkbox, "listen", value=True, container=False)
        self.live = gr.File(file_count="multiple", elem_id="live", label="live")  # seen by the player only
        self.seed = gr.State("")
        self.takes = gr.State(Takes(), delete_callback=Takes.close)

    def build_takes(self) -> None:
        """The table of what the session has made."""
        make = self.page.make
        with make(gr.Accordion, "takes", open=False):
            self.table = make(
                gr.Dataframe, "takes.table", datatype=["number", *["str"] * 5], type="array", interactive=False,
                wrap=True, max_height=300, show_label=False, buttons=[], elem_id="takes",
                column_widths=["6%", "12%", "44%", "16%", "14%", "8%"],
            )  # fmt: skip

    def connect(self) -> None:
        """Both tabs that speak do it by one event: a session speaks once at a time."""
        speaker, parts = Speaker(self.page), self.page.parts
        panels, players = [self.panel, parts["try.panel"]], [self.audio, parts["try.audio"]]

        def speak(http: gr.Request, takes: Takes, download: str, **values: Any) -> Iterator[tuple[Any, ...]]:
            for step in speaker.speak(http, takes, **values):
                # Not played by itself: it has been heard while it was made. A take that was chosen is.
                audio, file = step.audio, gr.skip()
                if audio != gr.skip():
                    audio, file = gr.Audio(value=audio, autoplay=False), self.offer(audio, download, http)
                yield step.live, *[audio] * 2, file, *[step.panel] * 2, step.seed, step.takes

        def cancel(http: gr.Request) -> list[str]:
            return [speaker.cancel(http)] * len(panels)

        clicks = [self.speak.click, parts["try"].click]
        # The browser works off the listeners of a click one after the other: the player's have to come first.
        gr.on(clicks, fn=None, js="() => window.indexttsPlayer.start()", api_visibility="private")
        speaking = gr.on(
            clicks,
            speak,
            inputs_kwargs={"takes": self.takes, "download": self.format, **self.page.form()},
            outputs=[self.live, *players, self.download, *panels, self.seed, self.table],
            show_progress="hidden",
            api_visibility="private",
            **self.page.speaking,
        )
        self.live.change(
            fn=None, inputs=[self.live, self.listen], api_visibility="private",
            js="(files, wanted) => window.indexttsPlayer.play(files, wanted)",
        )  # fmt: skip
        stops = [self.cancel.click, parts["try.cancel"].click]
        gr.on(stops, fn=None, js="() => window.indexttsPlayer.stop()", api_visibility="private")
        gr.on(stops, cancel, outputs=panels, cancels=[speaking], queue=False, api_visibility="private")
        # What is offered changes with what is shown, in the same answer: one of its own would come later, and what
        # it takes back could be what has just been made.
        self.table.select(self.replay, [self.takes, self.format], [self.audio, self.download, self.seed], **ACTION)
        self.format.change(self.offer, [self.audio, self.format], self.download, **ACTION)
        self.page.fields["seed.keep"].click(
            str, self.seed, self.page.fields["seed"], queue=False, api_visibility="private"
        )

    def replay(self, takes: Takes, audio_format: str, event: gr.SelectData, http: gr.Request) -> tuple[Any, Any, Any]:
        """Play the take that was chosen, and offer it; its seed is the one to be used again."""
        with readable_errors(language_of(http)):
            take = takes.get(int(event.row_value[0]))
            if take is None:
                raise PageError("error.no_take")
            path = str(take.path)
            return gr.Audio(value=path, autoplay=True), self.offer(path, audio_format, http), take.seed

    def offer(self, path: str | None, audio_format: str, http: gr.Request) -> Any:
        """The speech that is shown, in the chosen format, behind the button."""
        with readable_errors(language_of(http)):
            file = converted(path, audio_format, self.audio.GRADIO_CACHE) if path else None
            return gr.update(value=file, interactive=file is not None)


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


def preview_rows(page: Page, text: str | None, max_tokens: float | None, terms: Terms | None = None) -> list[list[Any]]:
    """The table of segments under the text; empty while there is nothing to cut."""
    try:
        segments = segments_of(page, text or "", max_tokens or 0, glossary_of(terms))
        return [[s["index"] + 1, s["text"], s["tokens"]] for s in segments]
    except IndexTTSError:
        return []


def examples_table(page: Page, report: gr.HTML, chosen: gr.Dropdown) -> None:
    """Ready-made cases; a click fills the form. Those that the model cannot speak are only counted."""
    examples = load_examples(page.examples_dir, page.facts)
    cache = page.fields["voice"].GRADIO_CACHE
    if examples.rows:
        table = page.texts.show(
            gr.Dataset,
            lambda language: {
                "label": text("examples", language),
                "headers": text("examples.headers", language).split("|"),
                "samples": [shown_case(row, language) for row in examples.rows],
            },
            components=[gr.Textbox(render=False) for _ in range(3)],
            type="index",
            samples_per_page=len(examples.rows),
            elem_id="examples",
        )

        def fill(index: int) -> list[Any]:
            values = examples.rows[index]
            row = [save_file_to_cache(value, cache) if isinstance(value, Path) else value for value in values]
            return [*row, None]

        filled = [*(page.fields[name] for name in examples.columns), chosen]

        def described(voice: str | None, http: gr.Request) -> str:
            return report_on(voice, language_of(http))

        # Whoever presses the button at once shall not find the form empty still. The browser goes first.
        table.click(fn=None, js="() => window.indexttsPage.filling(true)", api_visibility="private")
        filling = table.click(fill, table, filled, **QUIET)
        filling.then(fn=None, js="() => window.indexttsPage.filling(false)", api_visibility="private")
        filling.then(described, page.fields["voice"], report, **QUIET)
    if count := examples.left_out:
        page.texts.html(
            lambda language: f'<p class="note">{text("examples.left_out", language, count=count)}</p>', padding=False
        )


def shown_case(row: list[Any], language: str) -> list[str]:
    """What the table shows of a case: voice, beginning of the text, way of the emotion."""
    voice, written, mode = row[:3]
    return [voice.stem, shorten(written, SHOWN_CHARACTERS), choice_text("emotion_mode", mode, language)]
