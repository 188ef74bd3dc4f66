"""The tab for settings under names, and how words are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr
from gradio.events import api
from gradio.processing_utils import save_file_to_cache

from indextts.errors import AudioError, VoiceError
from indextts.types import read_recording
from indextts.webui.glossary import rows_of
from indextts.webui.i18n import PageError, language_of, text
from indextts.webui.page import ACTION, Page, readable_errors
from indextts.webui.preset_library import SETTINGS, VOICES, Preset
from indextts.webui.tabs import glossary


def build(page: Page) -> Callable[[], None]:
    """The tab's widgets; see the package."""
    make = page.make
    with make(gr.Tab, "tab.presets", id="presets") as tab:
        make(gr.Markdown, "preset.hint")
        with gr.Row(elem_classes="beside"):
            chosen = make(gr.Dropdown, "preset", choices=(), value=None, scale=4, min_width=200)
            load = make(gr.Button, "preset.load", variant="primary", scale=1, min_width=90)
            delete = make(gr.Button, "preset.delete", variant="stop", scale=1, min_width=90)
        with gr.Row(elem_classes="beside"):
            name = make(gr.Textbox, "preset.name", max_lines=1, max_length=64, scale=4, min_width=200)
            save = make(gr.Button, "preset.save", scale=1, min_width=90)
            rename = make(gr.Button, "preset.rename", scale=1, min_width=90)
        replace = make(gr.Checkbox, "preset.replace", container=False)
        status = gr.Markdown(elem_id="preset_status")
        connect_glossary = glossary.build(page)

    def connect() -> None:
        connect_glossary()
        handlers = Presets(page)
        form = {field: page.fields[field] for field in (*SETTINGS, *VOICES, "glossary")}
        tab.select(handlers.listed, outputs=[chosen, status], **ACTION)
        save.click(handlers.save, inputs=[name, replace], inputs_kwargs=form, outputs=[chosen, status], **ACTION)
        rename.click(handlers.rename, [chosen, name], [chosen, status], **ACTION)
        delete.click(handlers.delete, [chosen], [chosen, status], **ACTION)
        targets = [page.fields[field] for field in (*SETTINGS, *VOICES)]
        load.click(handlers.load, [chosen], [*targets, page.fields["glossary.table"], status], **ACTION)
        handlers.connect_api()

    return connect


class Presets:
    """What the tab's buttons and the endpoints do."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.library = page.presets

    # ------------------------------------------------------------------------------------------------- buttons

    def listed(self, http: gr.Request) -> tuple[Any, str]:
        """The choices as they are now; other users may have changed them."""
        with readable_errors(language_of(http)):
            return self.choices(http)

    def save(
        self, name: str, replace: bool, http: gr.Request, *, glossary: Mapping[str, Any], **values: Any
    ) -> tuple[Any, str]:
        """Store what stands in the form."""
        language = language_of(http)
        with readable_errors(language):
            voices = {field: self.voice_name(values.pop(field)) for field in VOICES}
            known = {field: voice for field, voice in voices.items() if voice}
            preset = Preset.checked({"settings": plain(values), "voices": known, "glossary": glossary})
            name = self.library.save(name, preset, replace)
            unknown = text("preset.without_voice", language) if "" in voices.values() else ""
            return self.choices(http, name, f"{text('preset.saved', language, name=name)} {unknown}")

    def rename(self, name: str | None, new_name: str, http: gr.Request) -> tuple[Any, str]:
        language = language_of(http)
        with readable_errors(language):
            new_name = self.library.rename(chosen_name(name), new_name)
            return self.choices(http, new_name, text("preset.renamed", language, name=new_name))

    def delete(self, name: str | None, http: gr.Request) -> tuple[Any, str]:
        language = language_of(http)
        with readable_errors(language):
            self.library.delete(chosen_name(name))
            return self.choices(http, None, text("preset.deleted", language, name=name))

    def load(self, name: str | None, http: gr.Request) -> list[Any]:
        """Updates of all settings, the two recordings, the glossary's table, and the status."""
        language = language_of(http)
        with readable_errors(language):
            preset = self.library.get(chosen_name(name))
            said = [text("preset.loaded", language, name=name)]
            updates = []
            for field in SETTINGS:
                if field not in preset.settings:
                    updates.append(gr.skip())
                    continue
                value = fitting(self.page.fields[field], preset.settings[field])
                updates.append(gr.update(value=value))
                if value != preset.settings[field]:
                    label, wanted = text(field, language), preset.settings[field]
                    said.append(text("preset.adjusted", language, label=label, value=value, wanted=wanted))
            for field in VOICES:
                try:
                    updates.append(self.recording(preset, field))
                except (VoiceError, AudioError):
                    updates.append(gr.skip())
                    said.append(text("preset.voice_gone", language, voice=preset.voices[field]))
            return [*updates, rows_of(preset.glossary), " ".join(said)]

    def choices(self, http: gr.Request, chosen: str | None = None, said: str = "") -> tuple[Any, str]:
        """The dropdown with ``chosen``, and what to say."""
        good, broken = self.library.listed()
        if broken:
            said += " " + text("preset.broken", language_of(http), names=", ".join(broken))
        return gr.update(choices=good, value=chosen if chosen in good else None), said.strip()

    def voice_name(self, path: str | None) -> str | None:
        """The name in the voice library of a recording in the form; "" if it is not there, None for no recording."""
        if not path:
            return None
        known = self.page.library.holding(read_recording(path))
        return known.name if known else ""

    def recording(self, preset: Preset, field: str) -> Any:
        """The update of a field that is a recording."""
        if field not in preset.voices:
            return gr.skip()
        voice = self.page.library.get(preset.voices[field])
        voice.prompt()  # whether it can be read
        return gr.update(value=save_file_to_cache(voice.path, self.page.fields[field].GRADIO_CACHE))

    # ------------------------------------------------------------------------------------------------ endpoints

    def connect_api(self) -> None:
        api(self.all, api_name="presets", api_description=text("api.presets"))
        api(self.get, api_name="preset", api_description=text("api.preset"))
        api(self.put, api_name="save_preset", api_description=text("api.save_preset"))
        api(self.change_name, api_name="rename_preset", api_description=text("api.rename_preset"))
        api(self.remove, api_name="delete_preset", api_description=text("api.delete_preset"))

    def all(self, http: gr.Request) -> dict[str, list[str]]:
        """The names of presets that can be loaded, and of those whose files are broken."""
        with readable_errors(language_of(http)):
            good, broken = self.library.listed()
            return {"presets": good, "broken": broken}

    def get(self, http: gr.Request, name: str) -> dict[str, Any]:
        """Settings, voices and glossary of a preset."""
        with readable_errors(language_of(http)):
            preset = self.library.get(name)
            return {"settings": preset.settings, "voices": preset.voices, "glossary": preset.glossary}

    def put(self, http: gr.Request, name: str, preset: dict[str, Any], replace: bool = False) -> str:
        """Store a preset that looks as ``/preset`` shows it; returns the name as it is stored."""
        with readable_errors(language_of(http)):
            return self.library.save(name, Preset.checked(preset), replace)

    def change_name(self, http: gr.Request, name: str, new_name: str) -> str:
        with readable_errors(language_of(http)):
            return self.library.rename(name, new_name)

    def remove(self, http: gr.Request, name: str) -> str:
        with readable_errors(language_of(http)):
            self.library.delete(name)
            return name


def chosen_name(name: str | None) -> str:
    """Raises ``PageError`` if no preset is chosen."""
    if not name:
        raise PageError("error.preset.choose")
    return name


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a form as a preset stores them: an empty field is an empty text."""
    return {
        name: "" if value is None else str(value) if str in SETTINGS[name] else value for name, value in values.items()
    }


def fitting(widget: Any, value: Any) -> Any:
    """``value``, or the nearest that the widget can show: presets may come from another model."""
    if isinstance(widget, gr.Slider):
        return min(max(value, widget.minimum), widget.maximum)
    if isinstance(widget, gr.Radio) and value not in [choice for _, choice in widget.choices]:
        return widget.value
    return value
