"""The emotion tab: the picture of what becomes of the sliders, moods, and emotions read from a text."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from indextts.emotion import EMOTIONS
from indextts.errors import EmotionError
from indextts.service import Service
from indextts.types import FromVector
from indextts.voices import VoiceLibrary
from indextts.webui.emotion_picture import Mood
from indextts.webui.endpoints import Endpoints
from indextts.webui.form import MODES, FormValues
from indextts.webui.i18n import LANGUAGES, catalogue, text
from indextts.webui.page import Page
from indextts.webui.tabs.emotion import PRESETS, Detector, preset, show_mode, show_mood
from tests.webui.humming_engine import HummingEngine

HTTP: Any = SimpleNamespace(session_hash="a", cookies={}, headers={})
JA: Any = SimpleNamespace(session_hash="a", cookies={"indextts_language": "ja"}, headers={})
ZERO = (0.0,) * 8


def weights(**named: float) -> list[float]:
    return [named.get(name, 0.0) for name in EMOTIONS]


def shown(picture: str) -> dict[str, str]:
    """The numbers at each bar, by its name."""
    return dict(re.findall(r"<span>([^<]+)</span>.*?<span dir=\"ltr\">([^<]+)</span>", picture))


def test_the_picture_shows_what_the_model_gets(values: dict[str, Any]) -> None:
    """The same numbers as in the request, times the weight, which the engine applies."""
    set_to = weights(happy=1.0, calm=0.8)
    request = FormValues(**{**values, "emotion_mode": "vector", **dict(zip(EMOTIONS, set_to, strict=True))}).request()
    assert isinstance(request.emotion, FromVector)
    mood = Mood("vector", "", values["emotion_weight"], set_to)
    assert mood.effective == pytest.approx([value * 0.65 for value in request.emotion.values], abs=1e-4)
    bars = shown(mood.picture("en"))
    assert bars["Happy"] == "1.00 → 0.35" and bars["Calm"] == "0.80 → 0.17" and bars["Sad"] == "0.00 → 0.00"
    assert bars["Together"] == "1.80 → 0.52"
    assert "capped at 80%" in mood.picture("en") and "the other 48%" in mood.picture("en")


def test_the_picture_of_other_ways() -> None:
    assert shown(Mood("audio", "", 0.65, ZERO).picture("en")) == {"Voice&#x27;s own": "0.35", "Other recording": "0.65"}
    assert "own recording" in Mood("voice", "", 0.65, ZERO).picture("en")
    assert "Press the button" in Mood("text", "", 0.65, ZERO).picture("en")


@pytest.mark.parametrize(
    ("mood", "line"),
    [
        (Mood("voice", "sad", 0.5, weights(sad=1)), "Emotion: as in the voice recording"),
        (Mood("audio", "", 0.65, ZERO), "Emotion: 65% from another recording"),
        (Mood("vector", "", 1.0, weights(happy=0.4, sad=0.2)), "Emotion: Happy 38%, Sad 20%"),
        (Mood("vector", "", 1.0, ZERO), "Emotion: all sliders are at 0"),
        (Mood("text", " <b>tired</b> ", 0.5, ZERO), "Emotion: “<b>tired</b>” (50%)"),
        (Mood("text", " ", 0.5, ZERO), "Emotion: read from the text (50%)"),
    ],
)
def test_the_line_in_the_first_tab(mood: Mood, line: str) -> None:
    assert mood.line("en") == line


def test_the_page_is_told_in_its_language_and_nothing_is_taken_for_html() -> None:
    picture, line = show_mood(JA, "vector", None, 1.0, *weights(happy=0.4))
    assert "喜び" in picture and "感情：喜び 38%" in line
    _, line = show_mood(HTTP, "text", "<img src=x onerror=alert(1)>", None, *ZERO)
    assert "<img" not in line and "&lt;img" in line
    picture, _ = show_mood(HTTP, "vector", "", None, *[None] * 8)
    assert shown(picture)["Together"] == "0.00 → 0.00"


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("mode", MODES)
def test_every_way_has_words(language: str, mode: str) -> None:
    mood = Mood(mode, "", 0.5, weights(happy=0.5))
    assert mood.line(language) and mood.picture(language)


@pytest.mark.parametrize("name", PRESETS)
def test_moods_are_within_what_the_model_takes(name: str) -> None:
    assert f"mood.preset.{name}" in catalogue("en")
    mode, said, *sliders = preset(name)()
    assert mode == "vector" and said == ""
    assert set(PRESETS[name]) <= set(EMOTIONS) and all(0 <= value <= 1 for value in sliders)
    assert 0.4 < sum(Mood("vector", "", 1.0, sliders).effective) <= 0.8 + 1e-9


def test_only_what_belongs_to_the_way_is_shown() -> None:
    assert [group.visible for group in show_mode("voice")] == [False] * 5
    assert [group.visible for group in show_mode("audio")] == [True, False, False, True, False]
    assert [group.visible for group in show_mode("vector")] == [False, True, False, True, True]
    assert [group.visible for group in show_mode("text")] == [False, False, True, True, True]


def test_what_a_text_expresses_goes_into_the_sliders(page: Page) -> None:
    mode, said, *sliders = Detector(page).detect(" so happy, so calm ", "sad", HTTP)
    assert mode == "vector" and sliders == weights(happy=1.0, calm=1.0)
    assert "Happy 1.00, Calm 1.00" in said
    assert Detector(page).detect("", "a sad story", HTTP)[2:] == weights(sad=1.0)


def test_more_than_a_slider_takes_is_cut(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page.service, "emotion_from_text", lambda *_: (1.2, *ZERO[1:]))
    assert Detector(page).detect("x", "", HTTP)[2:] == weights(happy=1.0)


def test_nothing_to_read(page: Page) -> None:
    mode, said, *sliders = Detector(page).detect(" ", None, HTTP)
    assert mode == gr.skip() and 'class="error"' in said and "Describe the emotion" in said
    assert sliders == [gr.skip()] * 8


def test_where_reading_emotions_is_switched_off(tmp_path: Path) -> None:
    with closing(Service(lambda: HummingEngine(text_emotion_model=None))) as service:  # type: ignore[arg-type,return-value]
        page = Page(service, VoiceLibrary(tmp_path, None), tmp_path)
        said = Detector(page).detect("happy", "", HTTP)[1]
        assert "switched off" in said
        with pytest.raises(gr.Error, match="switched off"):
            Endpoints(page).emotion_from_text(HTTP, "happy")


@pytest.mark.parametrize(("model", "says"), [("qwen", "Qwen emotion model"), ("bundled", "bundled classifier")])
def test_who_read_is_said(tmp_path: Path, model: str, says: str) -> None:
    with closing(Service(lambda: HummingEngine(model))) as service:  # type: ignore[arg-type,return-value]
        page = Page(service, VoiceLibrary(tmp_path, None), tmp_path)
        assert f"Found ({says}): Happy 1.00" in Detector(page).detect("happy", "", HTTP)[1]
        assert Endpoints(page).info()["text_emotion_model"] == model


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_model_has_a_name_and_a_line(language: str) -> None:
    keys = [f"{key}.{model}" for key in ("emotion_model", "emotion_text.by") for model in ("qwen", "bundled", "none")]
    assert len({text(key, language) for key in keys}) == len(keys)


def test_for_programs(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Endpoints(page).emotion_from_text(HTTP, "afraid") == dict.fromkeys(EMOTIONS, 0.0) | {"afraid": 1.0}

    def broken(*_: object) -> None:
        raise EmotionError("the emotion model answered 'x' for 高兴; a number was expected")

    monkeypatch.setattr(page.service, "emotion_from_text", broken)
    with pytest.raises(gr.Error, match="a number was expected"):
        Endpoints(page).emotion_from_text(HTTP, "happy")
