"""The second tab: how the voice shall feel, in four ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from indextts.emotion import EMOTIONS
from indextts.webui.emotion_picture import Mood
from indextts.webui.endpoints import emotion_of
from indextts.webui.form import DEFAULT_EMOTION_WEIGHT, MODES
from indextts.webui.i18n import choice_text, language_of, text
from indextts.webui.page import QUIET, Page, readable_errors
from indextts.webui.progress import line
from indextts.webui.prompts import connect_prompt, prompt_field

PRESETS: dict[str, dict[str, float]] = {
    "cheerful": {"happy": 0.8, "surprised": 0.1},
    "gentle_sadness": {"sad": 0.5, "melancholic": 0.3},
    "furious": {"angry": 0.9, "disgusted": 0.1},
    "frightened": {"afraid": 0.8, "surprised": 0.1},
    "astonished": {"surprised": 0.9, "happy": 0.1},
    "serene": {"calm": 0.9},
}
"""Moods that are one click away; what is not named is at 0."""


def build(page: Page) -> Callable[[], None]:
    """The tab's widgets; see the package."""
    make, fields = page.make, page.fields
    with make(gr.Tab, "tab.emotion", id="emotion"), gr.Row():
        with gr.Column(scale=6, min_width=320):
            mode = fields["emotion_mode"] = make(
                gr.Radio, "emotion_mode", choices=MODES, value="voice", elem_id="emotion-mode"
            )
            make(gr.Markdown, "moods")
            with gr.Row(elem_id="moods"):
                moods = {name: make(gr.Button, f"mood.preset.{name}", size="sm", min_width=120) for name in PRESETS}
            with gr.Group(visible=False) as by_audio:
                fields["emotion_audio"], report = prompt_field(page, "emotion_audio")
            with gr.Group(visible=False) as by_vector:
                for left, right in zip(EMOTIONS[::2], EMOTIONS[1::2], strict=True):
                    with gr.Row():
                        for name in (left, right):
                            fields[name] = make(gr.Slider, name, 0, 1, value=0, step=0.05, min_width=140)
            with gr.Group(visible=False) as by_text:
                make(gr.Markdown, f"emotion_text.by.{page.facts.text_emotion_model or 'none'}")
                fields["emotion_text"] = make(gr.Textbox, "emotion_text")
                detect = make(gr.Button, "detect", size="sm")
            detected = gr.HTML(elem_classes=["announced"], padding=False)
            with gr.Group(visible=False) as weighted:
                fields["emotion_weight"] = make(
                    gr.Slider, "emotion_weight", 0, 1, value=DEFAULT_EMOTION_WEIGHT, step=0.01
                )
            with gr.Group(visible=False) as drawn:
                fields["emotion_random"] = make(gr.Checkbox, "emotion_random")
        with gr.Column(scale=5, min_width=320):
            picture = gr.HTML(elem_id="mood-picture", padding=False)
            with gr.Row():
                page.parts["try"] = make(
                    gr.Button, "try", variant="primary", elem_classes=["speak"], scale=3, min_width=120
                )
                page.parts["try.cancel"] = make(gr.Button, "cancel", variant="stop", scale=1, min_width=80)
            page.parts["try.panel"] = gr.HTML(elem_classes=["announced"], padding=False)
            page.parts["try.audio"] = make(gr.Audio, "result", interactive=False, buttons=[])

    def connect() -> None:
        mode.change(show_mode, mode, [by_audio, by_vector, by_text, weighted, drawn], **QUIET)
        connect_prompt(fields["emotion_audio"], report)
        sliders = [fields[name] for name in EMOTIONS]
        for name, button in moods.items():
            button.click(preset(name), None, [mode, detected, *sliders], **QUIET)
        detector = Detector(page)
        detect.click(
            detector.detect, [fields["emotion_text"], fields["text"]], [mode, detected, *sliders],
            api_visibility="private", **page.speaking,
        )  # fmt: skip
        watched = [mode, fields["emotion_text"], fields["emotion_weight"], *sliders]
        shown = [picture, page.parts["mood"]]
        gr.on([widget.change for widget in watched], show_mood, watched, shown, trigger_mode="always_last", **QUIET)
        page.texts.redraw(show_mood, watched, shown)

    return connect


def show_mode(chosen: str) -> list[gr.Group]:
    """Only what belongs to the chosen way: recording, sliders, description, weight, random."""
    shown = (chosen == "audio", chosen == "vector", chosen == "text", chosen != "voice", chosen in ("vector", "text"))
    return [gr.Group(visible=value) for value in shown]


def show_mood(
    http: gr.Request, mode: str, description: str | None, weight: float | None, *values: float | None
) -> tuple[str, str]:
    """The picture of the emotion, and the line about it in the first tab."""
    mood = Mood(mode, description or "", weight or 0.0, [value or 0.0 for value in values])
    language = language_of(http)
    return mood.picture(language), line("status", mood.line(language))


def preset(name: str) -> Callable[[], list[Any]]:
    """What sets the sliders to one of ``PRESETS``: the mode, no word of a detection, the eight weights."""
    return lambda: ["vector", "", *(PRESETS[name].get(emotion, 0.0) for emotion in EMOTIONS)]


class Detector:
    """Reads the emotion of a description, or of the text to speak, into the sliders."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def detect(self, description: str | None, spoken: str | None, http: gr.Request) -> list[Any]:
        """The mode, what was found in words, and the eight weights, for the sliders to change."""
        language = language_of(http)
        read = (description or "").strip() or (spoken or "").strip()
        try:
            with readable_errors(language):
                found = emotion_of(self.page, read, http.session_hash or "")
        except gr.Error as error:  # told where it happened, and nowhere else
            return [gr.skip(), line("error", error.message), *[gr.skip()] * len(EMOTIONS)]
        named = [f"{text(name, language)} {value:.2f}" for name, value in found.items() if value]
        model = choice_text("emotion_model", self.page.facts.text_emotion_model or "none", language)
        message = text("detected", language, emotions=", ".join(named), model=model)
        return ["vector", line("status", message), *(min(value, 1.0) for value in found.values())]
