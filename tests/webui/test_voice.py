"""The voice of the form: what is said about a recording at once, and the voice library on the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
import soundfile
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from indextts.prompts import FLAWS
from indextts.service import Service
from indextts.voices import EXAMPLES_DIR, VoiceLibrary
from indextts.webui import build_app, launch
from indextts.webui import voice_library as voices
from indextts.webui.i18n import LANGUAGES, catalogue
from indextts.webui.page import Page
from indextts.webui.prompts import checked, report_on
from indextts.webui.voice_library import VoiceChooser
from tests.webui.humming_engine import HummingEngine

HTTP: Any = SimpleNamespace(session_hash="a", cookies={}, headers={})
SPEECH = EXAMPLES_DIR / "voice_02.flac"


@pytest.fixture
def own(tmp_path: Path) -> VoiceLibrary:
    """A library of this test alone, with one example voice."""
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "Example.wav").write_bytes(SPEECH.read_bytes())
    return VoiceLibrary(tmp_path / "voices", tmp_path / "examples")


@pytest.fixture
def chooser(service: Service, own: VoiceLibrary, tmp_path: Path) -> VoiceChooser:
    page = Page(service, own, tmp_path)
    with gr.Blocks():
        page.fields["voice"] = gr.Audio()
        page.fields["voice"].GRADIO_CACHE = str(tmp_path / "cache")
        return VoiceChooser(page)


def test_a_good_recording_stays_as_it_is(tmp_path: Path) -> None:
    samples, rate_hz = soundfile.read(SPEECH)
    path = tmp_path / "take.wav"
    soundfile.write(path, samples[:4 * rate_hz], rate_hz)  # fmt: skip
    kept, said = checked(str(path), "en", str(tmp_path))
    assert kept == gr.skip() and said == '<p class="note">4.0 s are used.</p>'


def test_what_is_too_long_is_cut_and_told(tmp_path: Path) -> None:
    samples, rate_hz = soundfile.read(SPEECH)
    path = tmp_path / "take <b>.wav"
    soundfile.write(path, np.tile(samples, 3), rate_hz)
    kept, said = checked(str(path), "en", str(tmp_path / "cache"))
    assert soundfile.info(kept).duration == 15.0 and Path(kept).stem == path.stem
    assert "Cut to 15.0 s" in said and "only the first 15 s" in said
    assert "Cut" not in report_on(str(path), "en")  # there, nothing is cut


@pytest.mark.parametrize(("content", "says"), [(b"", "0 bytes"), (b"<script>alert(1)</script>" * 9, "Cannot decode")])
def test_what_is_no_recording_is_taken_out_again(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "notes.wav"
    path.write_bytes(content)
    kept, said = checked(str(path), "en", str(tmp_path))
    assert kept is None and says in said and said.startswith('<p class="error">') and "<script" not in said
    assert says in report_on(str(path), "en")


def test_nothing_chosen() -> None:
    assert checked(None, "en", "") == (gr.skip(), "") and report_on(None, "en") == ""


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_flaw_has_words(language: str) -> None:
    assert {f"flaw.{flaw}" for flaw in FLAWS} <= set(catalogue(language))


def test_saving_choosing_renaming_deleting(chooser: VoiceChooser, own: VoiceLibrary) -> None:
    said, chosen, name = chooser.saved(" Anna ", str(SPEECH), HTTP)
    assert "Anna" in said and name == "" and chosen["value"] == "Anna"
    assert chosen["choices"] == [("Anna", "Anna"), ("Example (example)", "Example")]
    path, report = chooser.choose("Anna", HTTP)
    assert Path(path).read_bytes() == SPEECH.read_bytes() and Path(path).stem == "Anna" and "s are used" in report
    assert chooser.choose(None, HTTP) == (gr.skip(), gr.skip())
    said, chosen, _ = chooser.renamed("Anna", "Ännchen", HTTP)
    assert "Ännchen" in said and chosen["value"] == "Ännchen"
    said, row = chooser.ask("Ännchen", HTTP)
    assert "for good" in said and row.visible and own.get("Ännchen")
    said, chosen, row = chooser.deleted("Ännchen", HTTP)
    assert "deleted" in said and chosen["value"] is None and not row.visible
    assert [voice.name for voice in own.voices()] == ["Example"]


def test_others_see_what_was_saved(chooser: VoiceChooser, own: VoiceLibrary) -> None:
    own.save("Bob", SPEECH.read_bytes())
    assert ("Bob", "Bob") in chooser.known(None, HTTP)["choices"]
    assert chooser.known("Bob", HTTP)["value"] == "Bob" and chooser.known("Gone", HTTP)["value"] is None


def test_what_cannot_be_done_is_told_where_it_happens(chooser: VoiceChooser, own: VoiceLibrary) -> None:
    own.save("Anna", SPEECH.read_bytes())
    cases = [
        (chooser.saved("", str(SPEECH), HTTP), "Type a name"),
        (chooser.saved("New", None, HTTP), "Choose a voice first"),
        (chooser.saved("Anna", str(SPEECH), HTTP), "there is a voice &#x27;Anna&#x27; already"),
        (chooser.saved("a/b", str(SPEECH), HTTP), "must not hold"),
        (chooser.renamed(None, "New", HTTP), "from the library first"),
        (chooser.renamed("Anna", " ", HTTP), "Type a name"),
        (chooser.renamed("Example", "Mine", HTTP), "is an example and cannot be changed"),
        (chooser.ask(None, HTTP), "from the library first"),
        (chooser.deleted("Example", HTTP), "is an example and cannot be changed"),
        (chooser.choose("Gone", HTTP)[::-1], "there is no voice"),
    ]
    for outputs, says in cases:
        assert 'class="error"' in outputs[0] and says.casefold() in outputs[0].casefold()
    assert [voice.name for voice in own.voices()] == ["Anna", "Example"]


def test_own_voices_come_first(own: VoiceLibrary) -> None:
    own.save("Zoë", SPEECH.read_bytes())
    assert [value for _, value in voices.choices(own)] == ["Zoë", "Example"]


@pytest.fixture(scope="module")
def client(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("library")
    app = build_app(service, VoiceLibrary(folder, EXAMPLES_DIR), folder)
    yield Client(launch(app, port=0, block=False), verbose=False)
    app.close()


def test_the_library_for_programs(client: Client, engine: HummingEngine) -> None:
    examples = client.predict(api_name="/voices")
    assert {"name": "voice_02", "read_only": True} in examples
    saved = client.predict(name="Anna", recording=handle_file(SPEECH), api_name="/save_voice")
    assert saved == {"name": "Anna"}
    assert client.predict(name="Anna", new_name="Anne", api_name="/rename_voice") == {"name": "Anne"}
    assert client.predict(search="ann", api_name="/voices") == [{"name": "Anne", "read_only": False}]
    path, info = client.predict(text="One.", voice_name="Anne", audio_format="flac", api_name="/synthesize")
    assert engine.requests[-1].voice.data == SPEECH.read_bytes()
    assert Path(path).name == f"indextts-seed{info['seed']}.flac" and soundfile.info(path).format == "FLAC"
    assert client.predict(name="Anne", api_name="/delete_voice") == {"deleted": "Anne"}
    assert client.predict(search="ann", api_name="/voices") == []


@pytest.mark.parametrize(
    ("endpoint", "arguments", "says"),
    [
        ("/synthesize", {"text": "One."}, "Choose a voice first"),
        ("/synthesize", {"text": "One.", "voice_name": "Gone"}, "There is no voice 'Gone'"),
        ("/synthesize", {"text": "One.", "voice_name": "a", "voice": handle_file(SPEECH)}, "not both"),
        ("/synthesize", {"text": "One.", "voice_name": "voice_01", "audio_format": "aiff"}, "wav, flac, mp3"),
        ("/save_voice", {"name": "", "recording": handle_file(SPEECH)}, "Type a name"),
        ("/rename_voice", {"name": "voice_01", "new_name": "x"}, "cannot be changed"),
        ("/delete_voice", {"name": "Gone"}, "There is no voice 'Gone'"),
    ],
)
def test_refusals_for_programs(client: Client, endpoint: str, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(AppError, match=says):
        client.predict(**arguments, api_name=endpoint)


def test_examining_a_recording(client: Client) -> None:
    looked = client.predict(recording=handle_file(SPEECH), api_name="/examine")
    assert looked["flaws"] == [] and 7 < looked["used_s"] < looked["recorded_s"] < 9


def test_a_saved_voice_brings_along_what_was_heard_in_it(
    service: Service, own: VoiceLibrary, values: dict[str, Any], tmp_path: Path
) -> None:
    """However the recording came into the form: the page's copies of it have other names."""
    page = Page(service, own, tmp_path)
    saved = own.save("Anna", Path(values["voice"]).read_bytes())
    assert page.request(values).voice.conditioning_path == saved.conditioning_path is not None
    assert page.request({**values, "voice": str(SPEECH)}).voice.conditioning_path is None  # an example: read-only
    own.delete("Anna")
    assert page.request(values).voice.conditioning_path is None
