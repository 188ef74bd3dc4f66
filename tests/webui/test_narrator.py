"""Speaking rows: batches, failures, seeds, full queues."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indextts.errors import AudioError, Cancelled, QueueFull
from indextts.service import Service, ServiceConfig
from indextts.text.glossary import NO_TERMS
from indextts.types import AudioChunk, FromText, FromVoice, Progress, SynthesisRequest, VoicePrompt
from indextts.webui.narration import Narration, Row
from indextts.webui.narrator import Job, Narrator
from tests.webui.humming_engine import HummingEngine, hum

VOICE = VoicePrompt(b"a voice")
REQUEST = SynthesisRequest("", VOICE, interval_silence_ms=100)


class Reader(HummingEngine):
    """Hums for a tenth of a second a word, and keeps silent between segments."""

    def stream(
        self, request: SynthesisRequest, on_progress: Any = None, should_stop: Any = None
    ) -> Iterator[AudioChunk]:
        for chunk in super().stream(request, on_progress, should_stop):
            words = self.segment(request.text)[chunk.segment].token_count
            yield dataclasses.replace(chunk, samples=hum(0.1 * words))
            if chunk.segment + 1 < chunk.segments:
                yield dataclasses.replace(chunk, samples=np.zeros(2205, np.int16), is_silence=True)


@pytest.fixture
def engine() -> Reader:
    return Reader()


@pytest.fixture
def service(engine: Reader) -> Iterator[Service]:
    with closing(Service(lambda: engine, ServiceConfig(simultaneous=1, max_queue=1))) as service:  # type: ignore[arg-type]
        yield service


@pytest.fixture
def speak(service: Service, tmp_path: Path) -> Callable[..., Narration]:
    """Speaks rows to the end."""

    def run(
        *texts: str, batch_size: int = 3, ask: Callable[[Row], SynthesisRequest] = lambda row: REQUEST
    ) -> Narration:
        narration = Narration(tmp_path / "takes")
        narration.recut([Row.of(text) for text in texts])
        narrator = Narrator(service, "a", narration, ask, batch_size)
        list(narrator.speak([Job(row, 10 + i) for i, row in enumerate(narration.rows)]))
        return narration

    return run


def test_rows_are_spoken_in_batches_the_first_alone(engine: Reader, speak: Callable[..., Narration]) -> None:
    narration = speak("One.", "Two two.", "Three. Three three.", "Four.", "Five.")
    assert [request.text for request in engine.requests] == [
        "One.",
        "Two two.\u2029Three. Three three.\u2029Four.",
        "Five.",
    ]
    assert [request.seed for request in engine.requests] == [10, 11, 14]
    assert [request.batch_size for request in engine.requests] == [3, 3, 3]
    assert [row.state for row in narration.rows] == ["ready"] * 5
    takes = [row.take for row in narration.rows if row.take]
    assert [take.seed for take in takes] == [10, 11, 11, 11, 14]
    # The pause within a row is in its take, that behind it is not.
    seconds = [0.1, 0.2, 0.1 + 0.1 + 0.2, 0.1, 0.1]
    assert [take.duration_s for take in takes] == pytest.approx(seconds, abs=1e-3)


def test_one_row_is_as_one_request(engine: Reader, speak: Callable[..., Narration]) -> None:
    narration = speak("One. Two.")
    sound = np.concatenate(list(narration.blocks()))
    whole = engine.synthesize(dataclasses.replace(REQUEST, text="One. Two.", seed=10))
    assert np.array_equal(sound, whole.samples)


def test_a_failure_loses_no_other_row(engine: Reader, speak: Callable[..., Narration]) -> None:
    narration = speak("One.", "Two.", "This will fail.", "...", "Five.", batch_size=10)
    assert [row.state for row in narration.rows] == ["ready", "ready", "failed", "silent", "ready"]
    assert "no speech" in str(narration.rows[2].error)
    assert [row.text for _, row, _ in narration.spoken] == ["One.", "Two.", "Five."]


def test_rows_of_another_manner_are_another_request(engine: Reader, speak: Callable[..., Narration]) -> None:
    other = dataclasses.replace(REQUEST, voice=VoicePrompt(b"another voice"))
    speak("a1.", "a2.", "a3.", "b1.", "b2.", "a4.", ask=lambda row: other if row.text[0] == "b" else REQUEST)
    assert [request.text for request in engine.requests] == ["a1.", "a2.\u2029a3.", "b1.\u2029b2.", "a4."]
    assert [request.voice for request in engine.requests] == [VOICE, VOICE, other.voice, VOICE]


def test_the_emotion_of_the_text_is_that_of_each_row(engine: Reader, speak: Callable[..., Narration]) -> None:
    by_text = dataclasses.replace(REQUEST, emotion=FromText())
    speak("One.", "Two.", "Three.", ask=lambda row: by_text)
    assert [request.text for request in engine.requests] == ["One.", "Two.", "Three."]
    engine.requests.clear()
    described = dataclasses.replace(REQUEST, emotion=FromText("glad"))
    speak("One.", "Two.", "Three.", ask=lambda row: described)
    assert len(engine.requests) == 2


@pytest.mark.parametrize(("texts", "language"), [(["Chapter", "12"], "en"), (["第一章", "12"], "zh"), (["12"], "zh")])
def test_numbers_are_read_in_the_language_of_the_text(
    engine: Reader, speak: Callable[..., Narration], texts: list[str], language: str
) -> None:
    speak(*texts)
    assert {request.numbers_language for request in engine.requests} == {language}


def test_what_concerns_all_rows_ends_the_run(engine: Reader, speak: Callable[..., Narration], tmp_path: Path) -> None:
    def ask(row: Row) -> SynthesisRequest:
        return dataclasses.replace(REQUEST, emotion=FromVoice())

    def broken(*_: Any) -> Iterator[AudioChunk]:
        raise AudioError("the recording is empty")
        yield

    engine.stream = broken  # type: ignore[method-assign]
    with pytest.raises(AudioError, match="empty"):
        speak("One.", "Two.", ask=ask)


def test_a_miscount_is_noticed(engine: Reader, speak: Callable[..., Narration]) -> None:
    """Where the engine cuts otherwise than it has announced, each row is a request of its own."""
    cut = engine.segment
    engine.segment = lambda text, max_tokens=120, glossary=NO_TERMS: (
        cut(text.replace("Two", "Two. two"), max_tokens) if "\u2029" in text else cut(text)
    )  # type: ignore[method-assign]
    narration = speak("One.", "Two.", "Three three.")
    assert [request.text for request in engine.requests] == ["One.", "Two.\u2029Three three.", "Two.", "Three three."]
    durations = [row.take.duration_s for row in narration.rows if row.take]
    assert durations == pytest.approx([0.1, 0.1, 0.2], abs=1e-3)


def test_cancelling_keeps_what_is_ready(engine: Reader, service: Service, tmp_path: Path) -> None:
    narration = Narration(tmp_path / "takes")
    narration.recut([Row.of("One."), Row.of("slow."), Row.of("Three.")])
    narrator = Narrator(service, "a", narration, lambda row: REQUEST, 2)
    threading.Timer(0.5, narration.stop.set).start()
    with pytest.raises(Cancelled):
        list(narrator.speak([Job(row, 1) for row in narration.rows]))
    assert [row.state for row in narration.rows] == ["ready", "waiting", "waiting"]
    deadline = time.monotonic() + 10
    while not engine.cancelled and time.monotonic() < deadline:
        time.sleep(0.01)
    assert engine.cancelled == 1


def test_a_queue_that_fills_up_meanwhile_is_waited_for(engine: Reader, service: Service, tmp_path: Path) -> None:
    narration = Narration(tmp_path / "takes")
    narration.recut([Row.of("One."), Row.of("Two.")])
    narrator = Narrator(service, "a", narration, lambda row: REQUEST, 1)
    events = narrator.speak([Job(row, 1) for row in narration.rows])
    assert next(event for event in events if isinstance(event, Row)).text == "One."
    stop = threading.Event()
    others = [threading.Thread(target=occupy, args=(service, name, stop), daemon=True) for name in "bc"]
    for thread in others:
        thread.start()
        time.sleep(0.3)
    told = next(events)
    assert isinstance(told, Progress) and "the queue is full" in told.message
    stop.set()
    for thread in others:
        thread.join(10)
    list(events)
    assert narration.rows[1].state == "ready"


def test_a_queue_that_is_full_at_once_is_told_at_once(engine: Reader, service: Service, tmp_path: Path) -> None:
    stop = threading.Event()
    others = [threading.Thread(target=occupy, args=(service, name, stop), daemon=True) for name in "bc"]
    for thread in others:
        thread.start()
        time.sleep(0.3)
    narration = Narration(tmp_path / "takes")
    narration.recut([Row.of("One.")])
    with pytest.raises(QueueFull):
        list(Narrator(service, "a", narration, lambda row: REQUEST, 1).speak([Job(narration.rows[0], 1)]))
    assert narration.rows[0].state == "waiting"
    stop.set()
    for thread in others:
        thread.join(10)


def occupy(service: Service, client: str, stop: threading.Event) -> None:
    """Be spoken to, slowly, until ``stop``."""
    request = dataclasses.replace(REQUEST, text="slow.")
    with pytest.raises(Cancelled):
        service.synthesize(request, client, should_stop=stop.is_set)
