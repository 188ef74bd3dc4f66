"""What happens when somebody works with a script of several speakers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from indextts.types import FromVector, FromVoice
from indextts.voices import VoiceLibrary
from indextts.webui.i18n import LANGUAGES
from indextts.webui.page import Page
from indextts.webui.tabs.dialogue import MAX_SPEAKERS, CastWidgets, Dialogue
from tests.webui.humming_engine import HummingEngine
from tests.webui.somebody import last, session, states

SCRIPT = "[pause:1s]\n[Anna] Good morning.\n[Ben|happy 0.6] Morning!\nIt is hot.\n[anna] Gladly."


@pytest.fixture
def dialogue(page: Page, tmp_path: Path, prompt: Path) -> Dialogue:
    page.library = VoiceLibrary(tmp_path / "voices", examples_dir=None)
    page.library.folder.mkdir()
    for name in ("high", "low", "middle"):
        (page.library.folder / f"{name}.wav").write_bytes(prompt.read_bytes() + name.encode())
    return Dialogue(page, tmp_path / "cache")


def test_who_says_what(engine: HummingEngine, dialogue: Dialogue, asked: Callable[..., dict[str, Any]]) -> None:
    studio = dialogue.studio
    shown = studio.refresh(session(), text=SCRIPT, interval_silence_ms=200)
    assert [row[:6] for row in shown["table"]["data"]] == [
        [1, "waiting", 2, "Anna", "", "Good morning."],
        [2, "waiting", 3, "Ben", "Happy 0.6", "Morning!"],
        [3, "waiting", 4, "Ben", "Happy 0.6", "It is hot."],
        [4, "waiting", 5, "Anna", "", "Gladly."],
    ]
    assert studio.sessions.of("a").cast == {"Anna": "high", "Ben": "low"}
    engine.requests.clear()
    end = last(studio.speak(session(), **asked(SCRIPT)))
    assert "**4 of 4**" in end["status"]
    spoken = [(request.text, request.voice.data[-3:].decode()) for request in engine.requests]
    assert spoken == [("Good morning.", "igh"), ("Morning!\u2029It is hot.", "low"), ("Gladly.", "igh")]
    assert isinstance(engine.requests[0].emotion, FromVoice)
    emotion = engine.requests[1].emotion
    assert isinstance(emotion, FromVector) and emotion.values[0] == pytest.approx(0.6 * 0.9375) and emotion.alpha == 1
    narration = studio.sessions.of("a")
    assert [cue.text for cue in narration.cues()][1] == "Ben: Morning!" and narration.cues()[0].start_s == 1


def test_another_voice_is_for_that_speaker_only(dialogue: Dialogue, asked: Callable[..., dict[str, Any]]) -> None:
    studio = dialogue.studio
    last(studio.speak(session(), **asked(SCRIPT)))
    with gr.Blocks():
        cast = CastWidgets(dialogue.page, studio)
    shown = cast.shown(session())
    assert len(shown) == MAX_SPEAKERS and [w["visible"] for w in shown] == [True] * 2 + [False] * 6
    assert (shown[1]["label"], shown[1]["value"], shown[1]["choices"]) == ("Ben", "low", ["high", "low", "middle"])
    cast.choosing(1)(session(), "middle")
    assert states(studio) == ["ready", "changed", "changed", "ready"]
    last(studio.speak(session(), **asked(SCRIPT)))
    assert states(studio) == ["ready"] * 4
    # Voices stay with their names when the script changes.
    studio.refresh(session(), text="[Ben] First.\n[Carl] Second.\n[Anna] Third.", interval_silence_ms=200)
    assert studio.sessions.of("a").cast == {"Anna": "high", "Ben": "middle", "Carl": "low"}


def test_a_voice_that_is_gone_is_named(dialogue: Dialogue, asked: Callable[..., dict[str, Any]]) -> None:
    dialogue.studio.refresh(session(), text=SCRIPT, interval_silence_ms=200)
    dialogue.page.library.delete("low")
    with pytest.raises(gr.Error, match="Line 3: the voice low of Ben is not in the library any more"):
        last(dialogue.studio.speak(session(), **asked(SCRIPT)))


def test_an_empty_library(dialogue: Dialogue, asked: Callable[..., dict[str, Any]]) -> None:
    for name in ("high", "low", "middle"):
        dialogue.page.library.delete(name)
    with pytest.raises(gr.Error, match="Line 2: Anna has no voice yet"):
        last(dialogue.studio.speak(session(), **asked(SCRIPT)))


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("Hello.", "Line 1: who says this"),
        ("[Anna] a.\n[pause:z]", "Line 2"),
        ("[Anna|merry] a.", "Line 1: 'merry' is not an emotion"),
        ("", "Type a text first"),
        ("[Anna]", "Nobody says anything"),
        ("\n".join(f"[Speaker {i}] Hi." for i in range(9)), "Line 9: Speaker 8 is one speaker too many"),
    ],
)
def test_errors_of_scripts(dialogue: Dialogue, asked: Callable[..., dict[str, Any]], script: str, says: str) -> None:
    with pytest.raises(gr.Error, match=says):
        last(dialogue.studio.speak(session(), **asked(script)))
    for language in LANGUAGES:
        dialogue.studio.refresh(session(language=language), text=script, interval_silence_ms=200)


def test_voices_go_round_when_there_are_few(dialogue: Dialogue) -> None:
    speakers = [f"S{i}" for i in range(7)]
    cast = dialogue.cast(speakers, {"S1": "high"})
    assert cast["S1"] == "high" and sorted(cast) == sorted(speakers)
    counts = [list(cast.values()).count(voice) for voice in ("high", "low", "middle")]
    assert max(counts) - min(counts) <= 1
