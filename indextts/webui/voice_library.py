"""The voice library on the page: choose a voice, keep the current one under a name, rename it, delete it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.processing_utils import save_file_to_cache

from indextts.types import read_recording
from indextts.voices import VoiceLibrary
from indextts.webui.i18n import PageError, language_of, text
from indextts.webui.page import QUIET, Page, readable_errors, sentence
from indextts.webui.progress import line
from indextts.webui.prompts import report_on


class VoiceChooser:
    """The widgets around the library. The recording that is spoken with stands in the field ``voice``."""

    def __init__(self, page: Page) -> None:
        self.page = page
        make = page.make
        self.chosen = make(gr.Dropdown, "voice_name", value=None, elem_id="voice-name")
        with make(gr.Accordion, "voice.manage", open=False, elem_id="voice-manage"):
            self.name = make(gr.Textbox, "voice.new_name", max_lines=1, max_length=64)
            with gr.Row():
                self.save = make(gr.Button, "voice.save", size="sm", min_width=80)
                self.rename = make(gr.Button, "voice.rename", size="sm", min_width=80)
                self.delete = make(gr.Button, "voice.delete", size="sm", min_width=80)
            self.said = gr.HTML(elem_classes=["announced"], padding=False)
            with gr.Row(visible=False) as self.asking:
                self.sure = make(gr.Button, "voice.delete.sure", variant="stop", size="sm", min_width=80)
                self.keep = make(gr.Button, "voice.delete.not", size="sm", min_width=80)

    def connect(self, report: gr.HTML) -> None:
        """Let the widgets work; what is said about a recording is shown in ``report``."""
        voice, chosen, said = self.page.fields["voice"], self.chosen, self.said
        chosen.input(self.choose, chosen, [voice, report], **QUIET)
        chosen.focus(self.known, chosen, chosen, **QUIET)
        self.page.texts.redraw(self.known, [chosen], [chosen])
        self.save.click(self.saved, [self.name, voice], [said, chosen, self.name], **QUIET)
        self.rename.click(self.renamed, [chosen, self.name], [said, chosen, self.name], **QUIET)
        self.delete.click(self.ask, chosen, [said, self.asking], **QUIET)
        self.sure.click(self.deleted, chosen, [said, chosen, self.asking], **QUIET)
        self.keep.click(lambda: ("", gr.Row(visible=False)), None, [said, self.asking], **QUIET)

    # Handlers: what they return is for the outputs above. What goes wrong is told there, and nowhere else.

    def choose(self, name: str | None, http: gr.Request) -> tuple[Any, Any]:
        """The recording of the voice that was chosen, and what is to be said about it."""
        if not name:  # the list was left without a choice
            return gr.skip(), gr.skip()
        try:
            with readable_errors(language_of(http)):
                path = self.page.library.get(name).path
                cached = save_file_to_cache(path, self.page.fields["voice"].GRADIO_CACHE)
                return cached, report_on(cached, language_of(http))
        except gr.Error as error:
            return gr.skip(), line("error", error.message)

    def known(self, name: str | None, http: gr.Request) -> Any:
        """The voices that are there by now; ``name`` stays chosen if it is among them."""
        with readable_errors(language_of(http)):
            shown = choices(self.page.library, language_of(http))
            return gr.update(choices=shown, value=name if name in [value for _, value in shown] else None)

    def saved(self, name: str | None, recording: str | None, http: gr.Request) -> tuple[Any, ...]:
        """Keep the current recording under ``name``."""
        return self.changed(lambda: save(self.page.library, name, recording), "voice.saved", http)

    def renamed(self, name: str | None, new_name: str | None, http: gr.Request) -> tuple[Any, ...]:
        """Give the chosen voice another name."""
        return self.changed(lambda: rename(self.page.library, name, new_name), "voice.renamed", http)

    def changed(self, change: Callable[[], str], done: str, http: gr.Request) -> tuple[Any, ...]:
        """Do something with the library that makes a voice of some name, which is then the chosen one."""
        try:
            with readable_errors(language_of(http)):
                name = change()
        except gr.Error as error:
            return line("error", error.message), gr.skip(), gr.skip()
        return line("status", text(done, language_of(http), name=name)), self.known(name, http), ""

    def ask(self, name: str | None, http: gr.Request) -> tuple[str, Any]:
        """Whether the chosen voice shall really go."""
        language = language_of(http)
        if not name:
            return line("error", sentence(text("error.no_voice_chosen", language))), gr.Row(visible=False)
        return line("warning", text("voice.delete.ask", language, name=name)), gr.Row(visible=True)

    def deleted(self, name: str | None, http: gr.Request) -> tuple[Any, ...]:
        """Remove the chosen voice for good. Its recording stays in the form until another one is chosen."""
        try:
            with readable_errors(language_of(http)):
                delete(self.page.library, name)
        except gr.Error as error:
            return line("error", error.message), gr.skip(), gr.Row(visible=False)
        said = text("voice.deleted", language_of(http), name=name)
        return line("status", said), self.known(None, http), gr.Row(visible=False)


def choices(library: VoiceLibrary, language: str = "en") -> list[tuple[str, str]]:
    """The voices for a list to choose from: as they are shown, and their names. Own voices come first."""
    voices = sorted(library.voices(), key=lambda voice: voice.read_only)
    return [
        (text("voice.example", language, name=voice.name) if voice.read_only else voice.name, voice.name)
        for voice in voices
    ]


def listed(library: VoiceLibrary, search: str = "") -> list[dict[str, Any]]:
    """The voices as plain data."""
    return [{"name": voice.name, "read_only": voice.read_only} for voice in library.voices(search)]


def save(library: VoiceLibrary, name: str | None, recording: str | None) -> str:
    """Keep the recording at a path under ``name``. Returns the name as it is kept; raises as the library does."""
    if not recording:
        raise PageError("error.no_voice")
    if not name or not name.strip():
        raise PageError("error.no_name")
    return library.save(name, read_recording(Path(recording))).name


def rename(library: VoiceLibrary, name: str | None, new_name: str | None) -> str:
    """As ``VoiceLibrary.rename``, for names that may not have been given."""
    if not name:
        raise PageError("error.no_voice_chosen")
    if not new_name or not new_name.strip():
        raise PageError("error.no_name")
    return library.rename(name, new_name).name


def delete(library: VoiceLibrary, name: str | None) -> None:
    """As ``VoiceLibrary.delete``, for a name that may not have been given."""
    if not name:
        raise PageError("error.no_voice_chosen")
    library.delete(name)
