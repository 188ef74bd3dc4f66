"""A recording that was just chosen: cut to what is used of it, and what the page says about it at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.processing_utils import save_bytes_to_cache

from indextts.webui.i18n import choice_text, language_of, text
from indextts.webui.page import QUIET, Page, readable_errors
from indextts.webui.progress import line


def prompt_field(page: Page, key: str) -> tuple[gr.Audio, gr.HTML]:
    """A place to upload or record a prompt, and where it is said what is wrong with the recording."""
    field = page.make(gr.Audio, key, type="filepath", sources=["upload", "microphone"], buttons=[], elem_id=key)
    return field, gr.HTML(elem_id=f"{key}-report", elem_classes=["announced", "report"], padding=False)


def connect_prompt(field: gr.Audio, report: gr.HTML) -> Any:
    """Check what the user puts into ``field``; returns the event, for what else shall follow."""

    def chosen(path: str | None, http: gr.Request) -> tuple[Any, str]:
        return checked(path, language_of(http), field.GRADIO_CACHE)

    return field.input(chosen, field, [field, report], trigger_mode="always_last", **QUIET)


def checked(path: str | None, language: str, cache: str) -> tuple[Any, str]:
    """What the field shall hold after the user put ``path`` there, and what to say about it.

    What cannot be used is taken out again; what is longer than needed is replaced by what is used of it.
    """
    if path is None:
        return gr.skip(), ""
    from indextts.encoding import encode  # these need torch
    from indextts.prompts import examine

    try:
        with readable_errors(language):
            prompt = examine(path)
    except gr.Error as error:
        return None, line("error", error.message)
    said = report(prompt.flaws, prompt.duration_s, prompt.trimmed, language)
    if not prompt.trimmed:
        return gr.skip(), said
    samples = (prompt.samples.clip(-1, 1) * 32767).round().astype("int16")
    content = encode(samples, prompt.sample_rate_hz, "wav")
    return save_bytes_to_cache(content, f"{Path(path).stem}.wav", cache), said


def report_on(path: str | None, language: str) -> str:
    """What to say about a recording that stays as it is."""
    if path is None:
        return ""
    from indextts.prompts import examine

    try:
        with readable_errors(language):
            prompt = examine(path)
    except gr.Error as error:
        return line("error", error.message)
    return report(prompt.flaws, prompt.duration_s, trimmed=False, language=language)


def report(flaws: tuple[str, ...], duration_s: float, trimmed: bool, language: str) -> str:
    """A line for each flaw of a recording, or that it has none."""
    lines = [line("warning", choice_text("flaw", flaw, language)) for flaw in flaws]
    key = "voice.trimmed" if trimmed else "voice.whole"
    return line("note", text(key, language, duration_s=duration_s)) + "".join(lines)
