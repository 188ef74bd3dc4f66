"""Widgets to request: every emotion mode, every refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from indextts.config import SamplingParams
from indextts.errors import AudioError, ConfigError, IndexTTSError
from indextts.types import FromAudio, FromText, FromVector, FromVoice
from indextts.webui.form import FormValues
from indextts.webui.i18n import PageError


def request(values: dict[str, Any], **changed: Any):
    return FormValues(**{**values, **changed}).request()


def test_plain(values: dict[str, Any], prompt: Path) -> None:
    got = request(values)
    assert got.text == "One. Two."
    assert got.voice.data == prompt.read_bytes()
    assert got.emotion == FromVoice()
    assert got.sampling == SamplingParams() and got.chunks is None
    assert (got.max_text_tokens_per_segment, got.interval_silence_ms) == (120, 200)
    assert got.repair and not request(values, repair=False).repair
    assert (got.duration_factor, got.duration_s) == (1.0, None)
    assert request(values, duration_factor=1.5).duration_factor == 1.5
    assert [request(values, duration_s=s).duration_s for s in ("", " ", None, " 2.5 ", 4)] == [None] * 3 + [2.5, 4.0]
    assert isinstance(got.max_text_tokens_per_segment, int) and got.sampling and isinstance(got.sampling.top_k, int)


def test_a_seed_is_drawn_when_none_is_given(values: dict[str, Any]) -> None:
    seeds = {request(values).seed for _ in range(5)}
    assert len(seeds) > 1 and None not in seeds
    assert request(values, seed=7.0).seed == 7
    assert request(values, seed=0).seed == request(values, seed=" 0 ").seed == 0
    assert request(values, seed="42").seed == 42
    assert request(values, seed=" ").seed != request(values, seed="").seed


def test_other_modes_are_not_looked_at(values: dict[str, Any]) -> None:
    assert request(values, emotion_audio="nowhere.wav", emotion_text="sad", happy=1.0).emotion == FromVoice()


def test_mode_audio(values: dict[str, Any], prompt: Path) -> None:
    emotion = request(values, emotion_mode="audio", emotion_audio=str(prompt), emotion_weight=0.4).emotion
    assert isinstance(emotion, FromAudio)
    assert emotion.prompt.data == prompt.read_bytes() and emotion.alpha == 0.4


def test_mode_vector_is_biased_and_capped(values: dict[str, Any]) -> None:
    emotion = request(values, emotion_mode="vector", happy=0.4, emotion_random=True).emotion
    assert isinstance(emotion, FromVector)
    assert emotion.values == pytest.approx((0.4 * 0.9375, 0, 0, 0, 0, 0, 0, 0))
    assert (emotion.alpha, emotion.random) == (0.65, True)
    capped = request(values, emotion_mode="vector", sad=1.0, afraid=1.0).emotion
    assert isinstance(capped, FromVector)
    assert capped.values == pytest.approx((0, 0, 0.4, 0.4, 0, 0, 0, 0))


@pytest.mark.parametrize(("typed", "expected"), [(" gloomy ", "gloomy"), ("", None), (None, None)])
def test_mode_text(values: dict[str, Any], typed: str | None, expected: str | None) -> None:
    emotion = request(values, emotion_mode="text", emotion_text=typed).emotion
    assert emotion == FromText(expected, 0.65, False)


@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        ({"voice": None}, PageError, "choose a voice"),
        ({"voice": "nowhere.wav"}, AudioError, "nowhere.wav"),
        ({"text": None}, PageError, "nothing to speak"),
        ({"text": " \n"}, PageError, "nothing to speak"),
        ({"emotion_mode": "audio"}, PageError, "recording"),
        ({"emotion_mode": "audio", "emotion_audio": "nowhere.wav"}, AudioError, "nowhere.wav"),
        ({"emotion_mode": "vector"}, PageError, "at 0"),
        ({"emotion_mode": "vector", "happy": 1.5}, PageError, "happy"),
        ({"emotion_mode": "vector", "happy": None}, PageError, "happy"),
        ({"emotion_mode": "shout"}, PageError, "shout"),
        ({"emotion_mode": "text", "emotion_weight": float("nan")}, PageError, "emotion_weight"),
        ({"emotion_mode": "text", "emotion_weight": 1.2}, PageError, "emotion_weight"),
        ({"seed": -1}, PageError, "seed"),
        ({"seed": 1.5}, PageError, "seed"),
        ({"seed": "-1"}, PageError, "seed"),
        ({"seed": "lucky"}, PageError, "lucky"),
        ({"seed": str(2**32)}, PageError, "seed"),
        ({"interval_silence_ms": -5}, PageError, "interval_silence_ms"),
        ({"duration_factor": 3}, PageError, "duration_factor"),
        ({"duration_s": "long"}, PageError, "long"),
        ({"duration_s": "nan"}, PageError, "duration_s"),
        ({"duration_s": -1}, ConfigError, "duration_s"),
        ({"duration_s": "3", "duration_factor": 1.5}, ConfigError, "not both"),
        ({"max_text_tokens_per_segment": "many"}, PageError, "max_text_tokens_per_segment"),
        ({"temperature": 0}, ConfigError, "temperature"),
        ({"temperature": None}, PageError, "temperature"),
        ({"num_beams": 2.5}, PageError, "num_beams"),
        ({"top_k": float("inf")}, PageError, "top_k"),
    ],
)
def test_refusals(values: dict[str, Any], changed: dict[str, Any], error: type[IndexTTSError], says: str) -> None:
    with pytest.raises(error, match=says):
        request(values, **changed)
