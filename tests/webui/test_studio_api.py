"""Long texts and dialogues as programs ask for them, on a free port."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from indextts.service import Service
from indextts.subtitles import read_srt
from indextts.voices import VoiceLibrary
from indextts.webui import build_app, launch
from tests.webui.humming_engine import RATE_HZ, HummingEngine


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory, prompt: Path) -> VoiceLibrary:
    folder = tmp_path_factory.mktemp("cast")
    for name in ("high", "low"):
        (folder / f"{name}.wav").write_bytes(prompt.read_bytes() + name.encode())
    return VoiceLibrary(folder, examples_dir=None)


@pytest.fixture(scope="module")
def client(service: Service, voices: VoiceLibrary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    app = build_app(service, voices, examples_dir=tmp_path_factory.mktemp("examples"))
    yield Client(launch(app, port=0, block=False), verbose=False)
    app.close()


def long_text(client: Client, **values: Any) -> tuple[Any, ...]:
    return client.predict(**values, api_name="/long_text")


def test_a_long_text(client: Client, engine: HummingEngine, prompt: Path) -> None:
    text = "Chapter One.\n\nIt rained. [pause:1.2s] Then it stopped."
    sound, info, srt, lrc, zipped = long_text(client, text=text, voice=handle_file(prompt), seed=5, audio_format="flac")
    samples, rate = soundfile.read(sound)
    assert rate == RATE_HZ == info["sample_rate_hz"] and len(samples) / rate == pytest.approx(3 * 0.5 + 0.6 + 1.2)
    assert info["duration_s"] == pytest.approx(3.3) and info["failed"] == 0 and info["seed"] == 5
    segments = info["segments"]
    assert [segment["text"] for segment in segments] == ["Chapter One.", "It rained.", "Then it stopped."]
    assert [segment["start_s"] for segment in segments] == pytest.approx([0, 1.1, 2.8])
    assert [segment["pause_ms"] for segment in segments] == [600, 1200, 0]
    assert engine.requests[-1].text == "It rained.\u2029Then it stopped."
    cues = read_srt(Path(srt).read_text(encoding="utf-8"))
    assert [cue.start_s for cue in cues] == pytest.approx([segment["start_s"] for segment in segments])
    assert Path(lrc).read_text(encoding="utf-8").startswith("[00:00.00]Chapter One.\n[00:01.10]It rained.\n")
    with zipfile.ZipFile(zipped) as file:
        assert file.namelist() == ["001.flac", "002.flac", "003.flac"]


def test_a_document_in_a_voice_of_the_library(client: Client, engine: HummingEngine, tmp_path: Path) -> None:
    srt = tmp_path / "film.srt"
    srt.write_text("1\n00:00:01,000 --> 00:00:02,000\nHi.\n\n2\n00:00:04,500 --> 00:00:05,000\nHo.\n", "utf-8-sig")
    _, info, *_ = long_text(client, document=handle_file(srt), keep_timing=True, voice_name="low")
    assert [segment["start_s"] for segment in info["segments"]] == pytest.approx([1.0, 4.0])
    assert engine.requests[-1].voice.data.endswith(b"low")


def test_a_segment_that_fails(client: Client, prompt: Path) -> None:
    _, info, srt, *_ = long_text(client, text="One.\n\nThis will fail.\n\nThree.", voice=handle_file(prompt))
    assert info["failed"] == 1 and "no speech" in info["segments"][1]["error"]
    assert "start_s" not in info["segments"][1]
    assert [cue.text for cue in read_srt(Path(srt).read_text(encoding="utf-8"))] == ["One.", "Three."]
    with pytest.raises(AppError, match="no speech"):
        long_text(client, text="This will fail.", voice=handle_file(prompt))


def test_a_dialogue(client: Client, engine: HummingEngine) -> None:
    script = "[Anna] Good morning.\n[Ben|sad 0.5] Morning.\n[Anna] Gladly."
    engine.requests.clear()
    sound, info, *_ = client.predict(script=script, voices={"ben": "high"}, api_name="/dialogue")
    assert soundfile.info(sound).duration == pytest.approx(3 * 0.5 + 2 * 0.2)
    assert [(s["line"], s["speaker"], s["voice"]) for s in info["segments"]] == [
        (1, "Anna", "low"),
        (2, "Ben", "high"),
        (3, "Anna", "low"),
    ]
    assert [request.voice.data[-3:] for request in engine.requests] == [b"low", b"igh", b"low"]


@pytest.mark.parametrize(
    ("endpoint", "values", "says"),
    [
        ("/long_text", {"text": "One."}, "Choose a voice"),
        ("/long_text", {"text": "One.", "voice_name": "nobody"}, "no voice 'nobody'"),
        ("/long_text", {"voice_name": "low"}, "Type a text first"),
        ("/long_text", {"text": "[pause:x]", "voice_name": "low"}, "Line 1"),
        ("/long_text", {"text": "One.", "voice_name": "low", "audio_format": "exe"}, "udio_format must be one of"),
        ("/dialogue", {"script": "Hello."}, "Line 1: who says this"),
        ("/dialogue", {}, "Type a text first"),
        ("/dialogue", {"script": "[Anna] Hi.", "voices": {"Ben": "low"}}, "name Ben, who says nothing"),
        ("/dialogue", {"script": "[Anna] Hi.", "voices": {"Anna": "gone"}}, "Line 1: the voice gone of Anna"),
        ("/dialogue", {"script": "[Anna] Hi.", "voices": ["Anna"]}, "oices must be an object"),
        ("/dialogue", {"script": "[Anna] Hi.", "voices": {"Anna": 3}}, "oices must be an object"),
    ],
)
def test_errors(client: Client, endpoint: str, values: dict[str, Any], says: str) -> None:
    with pytest.raises(AppError, match=says):
        client.predict(**values, api_name=endpoint)


def test_cancelling_stops_the_engine(client: Client, engine: HummingEngine) -> None:
    before = engine.cancelled
    job = client.submit(text="One.\n\nslow.\n\nThree.", voice_name="low", api_name="/long_text")
    deadline = time.monotonic() + 10
    while {"ready": 1, "segments": 3} not in [answer[1] for answer in job.outputs()]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    job.cancel()
    while engine.cancelled == before and time.monotonic() < deadline + 10:
        time.sleep(0.02)
    assert engine.cancelled == before + 1
