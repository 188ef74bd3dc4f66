"""What the tests of the page share: an engine without a model, a recording, a filled form."""

from __future__ import annotations

import wave
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from indextts.service import Service
from indextts.voices import VoiceLibrary
from indextts.webui.page import Page
from tests.webui.humming_engine import RATE_HZ, HummingEngine, hum

LONG_TEXT = "Chapter One.\n\nIt was a dark night. [pause:1.2s] Then it rained.\n\nThe end."


@pytest.fixture(scope="session")
def engine() -> HummingEngine:
    return HummingEngine()


@pytest.fixture(scope="session")
def service(engine: HummingEngine) -> Iterator[Service]:
    with closing(Service(lambda: engine)) as service:  # type: ignore[arg-type,return-value]
        yield service


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> VoiceLibrary:
    return VoiceLibrary(tmp_path_factory.mktemp("voices"), examples_dir=None)


@pytest.fixture
def page(service: Service, library: VoiceLibrary, tmp_path: Path) -> Page:
    """What handlers stand on, without widgets."""
    return Page(service, library, tmp_path)


@pytest.fixture(scope="session")
def prompt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of two seconds."""
    path = tmp_path_factory.mktemp("prompts") / "prompt.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(hum(2.0).tobytes())
    return path


@pytest.fixture(scope="session")
def values(prompt: Path) -> dict[str, Any]:
    """A filled form."""
    return {
        "voice": str(prompt),
        "text": "One. Two.",
        "emotion_mode": "voice",
        "emotion_audio": None,
        "emotion_text": "",
        "emotion_weight": 0.65,
        "emotion_random": False,
        **dict.fromkeys(("happy", "angry", "sad", "afraid", "disgusted", "melancholic", "surprised", "calm"), 0.0),
        "max_text_tokens_per_segment": 120.0,
        "interval_silence_ms": 200,
        "seed": None,
        "do_sample": True,
        "temperature": 0.8,
        "top_p": 0.8,
        "top_k": 30.0,
        "num_beams": 3,
        "repetition_penalty": 10,
        "length_penalty": 0,
        "max_mel_tokens": 1500,
        "typical_sampling": False,
        "typical_mass": 0.9,
        "repair": True,
        "duration_factor": 1.0,
        "duration_s": "",
    }


@pytest.fixture
def asked(values: dict[str, Any]) -> Callable[..., dict[str, Any]]:
    """The values of the widgets; arguments replace some."""

    def make(text: str = LONG_TEXT, **changes: Any) -> dict[str, Any]:
        return {**values, "text": text, "paragraph_pause_ms": 600, "batch_size": 4, "seed": "7", **changes}

    return make
