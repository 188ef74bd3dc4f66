"""Presets: their files, what the tab's buttons do, and the endpoints."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import unicodedata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from indextts.errors import PresetError
from indextts.service import Service
from indextts.voices import VoiceLibrary
from indextts.webui import build_app
from indextts.webui.form import FormValues
from indextts.webui.glossary import rows_of
from indextts.webui.i18n import PageError
from indextts.webui.i18n import text as words
from indextts.webui.page import Page
from indextts.webui.preset_library import MAX_PRESETS, SETTINGS, VOICES, Preset, PresetLibrary
from indextts.webui.tabs.presets import Presets

GLOSSARY: dict[str, Any] = {"M.2": {"en": "M dot two"}}
HTTP: Any = SimpleNamespace(session_hash="a", cookies={}, headers={})
PRESET = Preset({"temperature": 0.5, "do_sample": False, "seed": "7"}, {"voice": "Anna"}, GLOSSARY)


@pytest.fixture
def presets(tmp_path: Path) -> PresetLibrary:
    return PresetLibrary(tmp_path / "presets")


@pytest.fixture
def built(service: Service, prompt: Path, tmp_path: Path) -> Page:
    """A page with all its widgets, and the voice Anna in its library."""
    library = VoiceLibrary(tmp_path / "voices", examples_dir=None)
    library.save("Anna", prompt.read_bytes())
    pages: list[Page] = []

    class Watched(Page):
        def __post_init__(self) -> None:
            super().__post_init__()
            pages.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("indextts.webui.app.Page", Watched)
        build_app(service, library, tmp_path)
    return pages[0]


def test_a_preset_has_every_setting_but_text_and_recordings() -> None:
    assert {*SETTINGS, *VOICES, "text", "glossary"} == set(FormValues.__dataclass_fields__)


def test_what_is_saved_comes_back(presets: PresetLibrary) -> None:
    assert presets.save(" Zoe\u0308 ", PRESET) == "Zoë"
    assert presets.get("Zoë") == presets.get("Zoe\u0308") == PRESET
    assert presets.save("b", Preset()) == "b" and presets.get("b") == Preset()
    assert presets.names() == ["b", "Zoë"] and presets.listed() == (["b", "Zoë"], [])
    assert presets.rename("b", "B") == "B" and presets.names() == ["B", "Zoë"]
    presets.delete("Zoë")
    assert presets.names() == ["B"]
    assert json.loads((presets.folder / "B.json").read_text())["version"] == 1


def test_a_name_is_replaced_only_if_told_so(presets: PresetLibrary) -> None:
    presets.save("Night", PRESET)
    with pytest.raises(PageError, match="a preset Night already"):
        presets.save("night", Preset())
    assert presets.get("Night") == PRESET
    assert presets.save("night", Preset(), replace=True) == "Night"  # one file where case means nothing
    assert presets.names() == ["Night"] and presets.get("Night") == Preset()
    presets.save("Day", PRESET)
    with pytest.raises(PageError, match="a preset night already"):
        presets.rename("Day", "night")


def test_a_file_with_a_decomposed_name_is_found(presets: PresetLibrary) -> None:
    presets.save("x", PRESET)
    shutil.move(presets.folder / "x.json", presets.folder / (unicodedata.normalize("NFD", "Zoë") + ".json"))
    assert presets.get("Zoë") == PRESET
    presets.save("Zoë", Preset(), replace=True)
    assert presets.get("Zoë") == Preset() and presets.names() == ["Zoë"]


@pytest.mark.parametrize("name", ["", " ", ".", "..", "../x", "a/b", "a\\b", "C:x", "a\0", ".x", "nul", "x" * 65])
def test_names_that_lead_elsewhere(presets: PresetLibrary, tmp_path: Path, name: str) -> None:
    presets.save("Night", PRESET)
    (tmp_path / "x.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    for act in (lambda: presets.save(name, PRESET), lambda: presets.rename("Night", name)):
        with pytest.raises(PresetError, match="name"):
            act()
    for act in (presets.get, presets.delete, lambda name: presets.rename(name, "new")):
        with pytest.raises(PageError, match="there is no preset"):
            act(name)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", "null", '"x"', '{"setting": {}}', '{"version": 2}', '{"settings": []}',
        '{"settings": {"text": "x"}}', '{"settings": {"voice": "/etc/passwd"}}', '{"settings": {"temperature": "x"}}',
        '{"settings": {"temperature": true}}', '{"settings": {"temperature": NaN}}', '{"settings": {"do_sample": 1}}',
        '{"settings": {"emotion_text": 3}}', '{"voices": {"voice": 3}}', '{"voices": {"text": "x"}}',
        '{"glossary": {"x": 3}}', "[" * 100_000, '{"settings": {"emotion_text": "' + "x" * 2001 + '"}}',
    ],
)  # fmt: skip
def test_a_broken_file_is_named_and_skipped(presets: PresetLibrary, content: str) -> None:
    presets.save("Night", PRESET)
    (presets.folder / "bad.json").write_text(content)
    assert presets.listed() == (["Night"], ["bad"])
    with pytest.raises(PresetError, match=r"bad\.json"):
        presets.get("bad")
    presets.delete("bad")
    assert presets.listed() == (["Night"], [])


def test_other_files_are_no_presets(presets: PresetLibrary) -> None:
    presets.save("Night", PRESET)
    for name in (".hidden.json", "notes.txt", "x.json.bak"):
        (presets.folder / name).write_text("{}")
    assert presets.names() == ["Night"]


def test_there_is_an_end_to_them(presets: PresetLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_PRESETS >= 100
    monkeypatch.setattr("indextts.webui.preset_library.MAX_PRESETS", 2)
    for name in ("a", "b"):
        presets.save(name, PRESET)
    with pytest.raises(PageError, match="2 presets already"):
        presets.save("c", PRESET)
    presets.save("b", Preset(), replace=True)


def test_killed_in_the_middle_of_saving(presets: PresetLibrary) -> None:
    """A process that dies with half of a file written leaves the preset that was there, whole."""
    presets.save("Night", PRESET)
    program = (
        "import os, sys, signal, pathlib\n"
        "from indextts.webui.preset_library import Preset, PresetLibrary\n"
        "os.fsync = lambda descriptor: (os.ftruncate(descriptor, 10), os.kill(os.getpid(), signal.SIGKILL))\n"
        "PresetLibrary(pathlib.Path(sys.argv[1])).save('Night', Preset(), replace=True)\n"
    )
    words = [sys.executable, "-c", program, str(presets.folder)]
    killed = subprocess.run(words, cwd=Path(__file__).parents[2], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(list(presets.folder.iterdir())) == 2  # with what it left behind
    assert presets.listed() == (["Night"], []) and presets.get("Night") == PRESET


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    presets = PresetLibrary(tmp_path / "file")
    for act in (presets.names, lambda: presets.save("Night", PRESET)):
        with pytest.raises(PresetError, match="file"):
            act()


def form(values: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**{name: value for name, value in values.items() if name != "text"}, "glossary": GLOSSARY, **changes}


def test_the_form_is_saved_and_loaded(built: Page, values: dict[str, Any]) -> None:
    handlers = Presets(built)
    choices, said = handlers.save("Night", False, HTTP, **form(values, temperature=1.5, seed=None))
    assert (choices["choices"], choices["value"]) == (["Night"], "Night")
    assert said == words("preset.saved", name="Night")
    assert built.presets.get("Night").voices == {"voice": "Anna"}

    *updates, rows, said = handlers.load("Night", HTTP)
    loaded = {name: update.get("value") for name, update in zip((*SETTINGS, *VOICES), updates, strict=True)}
    assert loaded["temperature"] == 1.5 and loaded["seed"] == "" and loaded["do_sample"] is True
    assert loaded["num_beams"] == values["num_beams"] and loaded["emotion_audio"] is None
    assert Path(loaded["voice"]).read_bytes() == Path(values["voice"]).read_bytes()
    assert rows == rows_of(GLOSSARY)
    longest = built.fields["max_mel_tokens"].maximum
    assert loaded["max_mel_tokens"] == longest < values["max_mel_tokens"]  # from a model that may speak longer
    adjusted = words("preset.adjusted", label=words("max_mel_tokens"), value=longest, wanted=values["max_mel_tokens"])
    assert said == f"{words('preset.loaded', name='Night')} {adjusted}"


def test_a_recording_that_is_in_no_library_is_told(built: Page, values: dict[str, Any], tmp_path: Path) -> None:
    other = tmp_path / "other.wav"
    other.write_bytes(Path(values["voice"]).read_bytes() + b"\0")
    _, said = Presets(built).save("Night", False, HTTP, **form(values, voice=str(other)))
    assert words("preset.without_voice") in said and built.presets.get("Night").voices == {}


def test_a_voice_that_is_gone_and_a_mode_that_is_not_known(built: Page) -> None:
    built.presets.save("Night", Preset({"emotion_mode": "shout"}, {"voice": "Bob", "emotion_audio": "Anna"}))
    *updates, _, said = Presets(built).load("Night", HTTP)
    loaded = dict(zip((*SETTINGS, *VOICES), updates, strict=True))
    assert words("preset.voice_gone", voice="Bob") in said and loaded["voice"] == gr.skip()
    assert loaded["emotion_mode"]["value"] == "voice" and loaded["emotion_audio"]["value"]


def test_buttons_without_a_choice_and_lists_with_a_broken_file(built: Page) -> None:
    handlers = Presets(built)
    for act in (handlers.load, handlers.delete, lambda name, http: handlers.rename(name, "x", http)):
        with pytest.raises(gr.Error, match="Choose a preset"):
            act(None, HTTP)
    built.presets.save("Night", PRESET)
    (built.presets.folder / "bad.json").write_text("")
    choices, said = handlers.listed(HTTP)
    assert choices["choices"] == ["Night"] and said == words("preset.broken", names="bad")
    choices, said = handlers.rename("Night", "Day", HTTP)
    assert choices["value"] == "Day" and words("preset.renamed", name="Day") in said
    choices, said = handlers.delete("Day", HTTP)
    assert choices["choices"] == [] and words("preset.deleted", name="Day") in said


def test_the_endpoints_by_themselves(built: Page) -> None:
    handlers = Presets(built)
    assert handlers.put(HTTP, "Night", {"settings": {"temperature": 0.5}, "glossary": GLOSSARY}) == "Night"
    assert handlers.all(HTTP) == {"presets": ["Night"], "broken": []}
    assert handlers.get(HTTP, "Night") == {"settings": {"temperature": 0.5}, "voices": {}, "glossary": GLOSSARY}
    assert handlers.change_name(HTTP, "Night", "Day") == "Day" and handlers.remove(HTTP, "Day") == "Day"
    for wrong in ({"settings": {"speed": 2}}, {"text": "x"}, {"settings": {"temperature": "hot"}}):
        with pytest.raises(gr.Error, match="setting"):
            handlers.put(HTTP, "Night", wrong)
