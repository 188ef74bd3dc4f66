"""The widgets of a ``Studio``: a table of rows, one of them to be changed, buttons, and what comes of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

import gradio as gr

from indextts.text.pauses import MAX_PAUSE_S
from indextts.webui.downloads import DOWNLOADS
from indextts.webui.page import ACTION, QUIET, Fields, Page
from indextts.webui.studio import MAX_BATCH, Studio

DEFAULT_BATCH = 4
TYPING_MS = 400
"""How long nothing must have been typed before the text is cut anew."""


class Board:
    """Builds the widgets of one tab, and connects them with its studio.

    Args:
        name: Of the tab; the elements of the page are called by it.
        table: The key of the table's texts.
        column_widths: Of the table's columns, in pixels; a narrow screen scrolls.
    """

    def __init__(self, page: Page, studio: Studio, name: str, table: str, column_widths: list[int]) -> None:
        self.page = page
        self.studio = studio
        self.name = name
        self.widgets: Fields = {}
        self.buttons: Fields = {}
        page.closing.append(studio.sessions.forget)
        self._actions()
        self._rows(table, column_widths)
        self._row()
        self._results()

    def _actions(self) -> None:
        make = self.page.make
        self.widgets["summary"] = gr.Markdown(elem_id=f"{self.name}_summary")
        self.batch_size = make(gr.Slider, "batch_size", 1, MAX_BATCH, value=DEFAULT_BATCH, step=1)
        with gr.Row():
            self.buttons["speak"] = make(
                gr.Button, "speak", variant="primary", elem_classes=["speak"], scale=3, min_width=120
            )
            self.buttons["cancel"] = make(gr.Button, "cancel", variant="stop", scale=1, min_width=80)
            self.buttons["start_over"] = make(gr.Button, "rows.start_over", scale=1, min_width=80)
        self.listen = make(gr.Checkbox, "listen", value=True, container=False)
        self.widgets["status"] = make(
            gr.Markdown, "rows.idle", elem_id=f"{self.name}_status", elem_classes=["announced"]
        )

    def _rows(self, table: str, column_widths: list[int]) -> None:
        self.widgets["table"] = self.page.make(
            gr.Dataframe,
            table,
            type="array",
            datatype="str",
            column_widths=[f"{width}px" for width in column_widths],
            interactive=False,
            wrap=True,
            max_height=420,
            show_label=False,
            elem_id=f"{self.name}_table",
            elem_classes="rows",
        )
        self.widgets["part"] = self.page.make(gr.Slider, "rows.part", 1, 2, value=1, step=1, visible=False)

    def _row(self) -> None:
        make = self.page.make
        self.widgets["one"] = make(gr.Accordion, "rows.one", open=False, elem_id=f"{self.name}_row")
        with self.widgets["one"]:
            with gr.Row():
                self.widgets["number"] = make(gr.Number, "rows.number", value=0, precision=0, minimum=0, min_width=100)
                self.widgets["row_pause"] = make(
                    gr.Number, "rows.pause", value=0, precision=0, minimum=0, maximum=1000 * MAX_PAUSE_S, min_width=100
                )
                self.row_seed = make(gr.Textbox, "rows.seed", max_lines=1, min_width=100)
            self.widgets["row_text"] = make(gr.Textbox, "rows.text", lines=3, max_lines=10)
            with gr.Row():
                self.buttons["change_row"] = make(gr.Button, "rows.change", min_width=120)
                self.buttons["speak_row"] = make(gr.Button, "rows.speak", min_width=120)
            self.widgets["heard"] = make(gr.Audio, "rows.heard", interactive=False, buttons=["download"])

    def _results(self) -> None:
        make = self.page.make
        self.widgets["result"] = make(
            gr.Audio,
            "rows.result",
            interactive=False,
            buttons=["download"],
            # The browser's own player, which reads hours of sound as it plays them.
            waveform_options=gr.WaveformOptions(show_recording_waveform=False),
            elem_id=f"{self.name}_result",
        )
        with gr.Row():
            self.audio_format = make(gr.Radio, "rows.format", choices=DOWNLOADS, value="wav", min_width=200)
            self.buttons["export"] = make(gr.Button, "rows.export", min_width=160)
        self.widgets["files"] = make(gr.File, "rows.files", file_count="multiple", interactive=False, visible=False)
        # Seen by the player only.
        self.widgets["live"] = gr.File(file_count="multiple", elem_classes="live", label="live")

    def connect(self, shaping: Fields) -> None:
        """Make it work.

        Args:
            shaping: What the rows are made of, by the names that the studio knows: "text" and others. All that is
                spoken with is the form with these in it.
        """
        studio, w, b, number = self.studio, self.widgets, self.buttons, self.widgets["number"]
        source = {**self.page.form(), **shaping, "batch_size": self.batch_size}
        cut = gr.Button("cut", elem_id=f"{self.name}_cut", elem_classes="live")
        outputs = ["summary", "table", "part"]
        again = {**QUIET, "trigger_mode": "always_last"}
        self.refreshed = self.on(cut.click, studio.refresh, outputs, kwargs=shaping, **again)
        self.page.texts.redraw(self.redrawn, [], [w[name] for name in outputs])
        typed = [widget.change for widget in shaping.values()]
        gr.on(typed, fn=None, js=later(f"{self.name}_cut"), api_visibility="private")

        show_row = (self.answers(studio.show_row), number, [w["row_text"], w["row_pause"], w["heard"]])
        self.on(w["part"].release, studio.show_part, ["table"], [w["part"]])
        w["table"].select(clicked_row, None, [number, w["one"]], **QUIET).then(*show_row, **QUIET)
        number.change(*show_row, **QUIET)
        self.refreshed.then(*show_row, **QUIET)
        row = [number, w["row_text"], w["row_pause"]]
        changed = ["summary", "table", "part", "status", "result"]
        self.on(b["change_row"].click, studio.change_row, changed, row, **ACTION)
        self.on(b["start_over"].click, studio.start_over, changed, **ACTION)
        files = {**ACTION, "show_progress": "full"}
        self.on(b["export"].click, studio.export, ["files", "status"], [self.audio_format], **files)

        # The browser works off the listeners of a click one after the other: the player's have to come first.
        player = {"fn": None, "api_visibility": "private"}
        for name, handler in (("speak", studio.speak), ("speak_row", studio.speak_row)):
            b[name].click(js="() => window.indexttsPlayer.start()", **player)
            shown = ["table", "part", "status", "result", "files", "live"]
            asked = {"number": number, "row_text": row[1], "row_pause": row[2], "row_seed": self.row_seed}
            kwargs = {**source, **(asked if name == "speak_row" else {})}
            speaking = {**ACTION, **self.page.speaking}
            spoken = self.on(b[name].click, handler, shown, kwargs=kwargs, **speaking)
            spoken.then(*show_row, **QUIET)
        w["live"].change(
            inputs=[w["live"], self.listen], js="(files, wanted) => window.indexttsPlayer.play(files, wanted)", **player
        )
        b["cancel"].click(js="() => window.indexttsPlayer.stop()", **player)
        self.on(b["cancel"].click, studio.cancel, ["status"])

    def redrawn(self, http: gr.Request) -> list[Any]:
        """The rows in the language that the page has now."""
        return list(self.studio.refreshed(http).values())

    def on(
        self,
        event: Callable[..., Any],
        handler: Callable[..., Any],
        outputs: list[str],
        inputs: list[Any] | None = None,
        kwargs: Fields | None = None,
        **options: Any,
    ) -> Any:
        """Let ``handler`` answer ``event`` with new values of the widgets ``outputs``. Returns what may follow it."""
        return event(
            self.answers(handler),
            inputs=inputs,
            inputs_kwargs=kwargs,
            outputs=[self.widgets[name] for name in outputs],
            **(options or QUIET),
        )

    def answers(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        """``handler`` with widgets in place of their names."""

        def named(changes: dict[str, Any]) -> dict[Any, Any]:
            return {self.widgets[name]: value for name, value in changes.items()}

        @wraps(handler)
        def once(*args: Any, **kwargs: Any) -> dict[Any, Any]:
            return named(handler(*args, **kwargs))

        @wraps(handler)
        def again_and_again(*args: Any, **kwargs: Any) -> Any:
            for changes in handler(*args, **kwargs):
                yield named(changes)

        return again_and_again if inspect.isgeneratorfunction(handler) else once


def clicked_row(event: gr.SelectData) -> tuple[int, Any]:
    """The number of the row that was clicked on, and the widgets of a row to be seen."""
    return int(event.row_value[0]), gr.update(open=True)


def later(button: str) -> str:
    """JavaScript that presses ``button`` when nothing has been typed for a moment."""
    return (
        f"() => {{ clearTimeout(window.{button}); window.{button} = setTimeout("
        f"() => document.getElementById('{button}')?.click(), {TYPING_MS}) }}"
    )
