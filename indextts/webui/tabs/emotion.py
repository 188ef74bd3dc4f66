"""The second tab: how the voice shall feel, in four ways."""

from __future__ import annotations

from collections.abc import Callable

import gradio as gr

from indextts.emotion import EMOTIONS
from indextts.webui.form import DEFAULT_EMOTION_WEIGHT, MODES
from indextts.webui.page import QUIET, Page


def build(page: Page) -> Callable[[], None]:
    """The tab's widgets; see the package."""
    make, fields = page.make, page.fields
    with make(gr.Tab, "tab.emotion", id="emotion"):
        mode = fields["emotion_mode"] = make(gr.Radio, "emotion_mode", choices=MODES, value="voice")
        with gr.Group(visible=False) as by_audio:
            fields["emotion_audio"] = make(
                gr.Audio, "emotion_audio", type="filepath", sources=["upload", "microphone"], buttons=[]
            )
        with gr.Group(visible=False) as by_vector:
            for left, right in zip(EMOTIONS[::2], EMOTIONS[1::2], strict=True):
                with gr.Row():
                    for name in (left, right):
                        fields[name] = make(gr.Slider, name, 0, 1, value=0, step=0.05, min_width=140)
        with gr.Group(visible=False) as by_text:
            fields["emotion_text"] = make(gr.Textbox, "emotion_text")
        with gr.Group(visible=False) as weighted:
            fields["emotion_weight"] = make(gr.Slider, "emotion_weight", 0, 1, value=DEFAULT_EMOTION_WEIGHT, step=0.01)
        with gr.Group(visible=False) as drawn:
            fields["emotion_random"] = make(gr.Checkbox, "emotion_random")

    def show_mode(chosen: str) -> list[gr.Group]:
        shown = (
            chosen == "audio",
            chosen == "vector",
            chosen == "text",
            chosen != "voice",
            chosen in ("vector", "text"),
        )
        return [gr.Group(visible=value) for value in shown]

    def connect() -> None:
        mode.change(show_mode, mode, [by_audio, by_vector, by_text, weighted, drawn], **QUIET)

    return connect
