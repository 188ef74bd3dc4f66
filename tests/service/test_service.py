"""The shared service on engines without a model: turns, cancelling, unloading, the end; and on the tiny model."""

from __future__ import annotations

import gc
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indextts.config import EngineConfig, SamplingParams
from indextts.errors import (
    Cancelled,
    CheckpointError,
    EmotionError,
    QueueFull,
    ServiceBusy,
    ServiceClosed,
    SynthesisError,
    TextError,
)
from indextts.service import Finished, Job, Service, ServiceConfig
from indextts.service.service import FIRST_GUESS_S
from indextts.types import AudioChunk, Progress, Queued, SynthesisRequest, VoicePrompt
from tests.webui.humming_engine import RATE_HZ, HummingEngine

WAIT_S = 10.0
VOICE = VoicePrompt(b"a recording")


def ask(text: str = "One. Two.") -> SynthesisRequest:
    return SynthesisRequest(text, VOICE)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.002)


@pytest.fixture
def make() -> Iterator[Callable[..., Service]]:
    """Makes services that are closed after the test."""
    services: list[Service] = []

    def make_service(load: Callable[[], Any] = HummingEngine, **config: Any) -> Service:
        services.append(Service(load, ServiceConfig(**config)))
        return services[-1]

    yield make_service
    for service in services:
        service.close(grace_s=0.0)


class Gate:
    """Jobs that run until they are let through, and note in which order they started and ended."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.started: list[str] = []
        self.ended: list[tuple[str, Finished]] = []
        self.open = {"": threading.Event()}

    def submit(self, name: str) -> Job:
        """A job of the client that the first letter of ``name`` stands for."""
        self.open[name] = threading.Event()

        def work(engine: Any, tell: Any, stop: Callable[[], bool]) -> Iterator[object]:
            self.started.append(name)
            until(lambda: self.open[name].is_set() or stop())
            if stop():
                raise Cancelled("stopped")
            yield name

        def deliver(item: object) -> None:
            if isinstance(item, Finished):
                self.ended.append((name, item))

        return self.service.submit(work, name[0], deliver)

    def let_through(self, name: str) -> None:
        count = len(self.ended)
        self.open[name].set()
        until(lambda: len(self.ended) > count)


def test_results_come_as_from_the_engine(make: Callable[..., Service]) -> None:
    service, engine = make(), HummingEngine()
    steps: list[Progress] = []
    chunks = list(service.stream(ask(), "a", steps.append))
    assert [chunk.segment for chunk in chunks] == [0, 1] and len(steps) == 2
    result = service.synthesize(ask(), "a")
    assert np.array_equal(result.samples, np.concatenate([chunk.samples for chunk in chunks]))
    assert [s.text for s in service.segment("One. Two.")] == ["One", "Two"]
    assert service.facts.model_name == engine.model_name and service.facts.sampling_defaults == engine.sampling_defaults
    stats = service.stats()
    assert (stats.served, stats.failed, stats.cancelled, stats.refused, stats.running) == (2, 0, 0, 0, 0)
    assert stats.audio_s == pytest.approx(2.0)


def test_errors_are_told_and_counted(make: Callable[..., Service]) -> None:
    service = make()
    for text, error in (("This will fail.", SynthesisError), ("A bug.", ZeroDivisionError), ("...", TextError)):
        with pytest.raises(error):
            service.synthesize(ask(text))
    assert service.synthesize(ask()).duration_s == 1.0  # none the worse for it
    stats = service.stats()
    assert (stats.served, stats.failed, stats.refused) == (1, 2, 1)


def test_clients_take_turns(make: Callable[..., Service]) -> None:
    service = make(simultaneous=1)
    gate = Gate(service)
    for name in ("a1", "a2", "a3", "b1", "c1", "c2"):
        gate.submit(name)
    order = ["a1", "b1", "c1", "a2", "c2", "a3"]
    for count, name in enumerate(order, 1):
        until(lambda count=count: len(gate.started) == count)
        gate.let_through(name)
    assert gate.started == order


def test_one_client_does_not_get_all_places(make: Callable[..., Service]) -> None:
    gate = Gate(make(simultaneous=3))
    for name in ("a1", "a2", "a3"):
        gate.submit(name)
    until(lambda: gate.started == ["a1", "a2"])
    gate.submit("b1")
    until(lambda: gate.started == ["a1", "a2", "b1"])  # though a3 was there before
    gate.submit("b2")
    gate.let_through("a1")
    until(lambda: len(gate.started) == 4)
    assert gate.started[-1] == "a3"  # each has one running: whose turn was longer ago
    gate.let_through("b1")
    until(lambda: gate.started[-1] == "b2")


def test_a_full_queue_refuses_with_an_estimate(make: Callable[..., Service]) -> None:
    service = make(simultaneous=1, max_queue=3)
    gate = Gate(service)
    for name in ("a1", "b1", "c1", "d1"):
        gate.submit(name)
    until(lambda: gate.started == ["a1"])
    with pytest.raises(QueueFull, match="3 requests are waiting; try again in") as caught:
        gate.submit("e1")
    assert caught.value.retry_after_s == pytest.approx(4 * FIRST_GUESS_S, abs=1)
    assert service.stats().refused == 1
    gate.let_through("a1")
    until(lambda: service.stats().waiting == 2)
    gate.submit("e1")


def test_one_client_cannot_fill_the_queue(make: Callable[..., Service]) -> None:
    gate = Gate(make(simultaneous=1, max_queue=4))
    for name in ("a1", "a2", "a3"):
        gate.submit(name)
    with pytest.raises(QueueFull, match="3 of your requests"):
        gate.submit("a4")
    gate.submit("b1")


def test_the_estimate_follows_what_requests_take(make: Callable[..., Service]) -> None:
    service = make()
    for _ in range(30):
        service.synthesize(ask())
    assert service.stats().mean_request_s < FIRST_GUESS_S / 100


def test_cancelling_a_job_that_waits(make: Callable[..., Service]) -> None:
    service = make(simultaneous=1)
    gate = Gate(service)
    gate.submit("a1")
    waiting = gate.submit("b1")
    until(lambda: gate.started == ["a1"])
    place = waiting.waiting()
    assert place and (place.place, place.wait_s) == (1, FIRST_GUESS_S)
    waiting.cancel()
    waiting.cancel()
    assert [name for name, _ in gate.ended] == ["b1"] and isinstance(gate.ended[0][1].error, Cancelled)
    gate.let_through("a1")
    assert gate.started == ["a1"]
    stats = service.stats()
    assert (stats.served, stats.cancelled, stats.waiting) == (1, 1, 0)


def test_cancelling_a_job_that_runs(make: Callable[..., Service]) -> None:
    service = make()
    gate = Gate(service)
    job = gate.submit("a1")
    until(lambda: gate.started == ["a1"])
    assert job.waiting() is None
    job.cancel()
    until(lambda: len(gate.ended) == 1)
    assert isinstance(gate.ended[0][1].error, Cancelled) and service.stats().cancelled == 1


def test_a_reader_that_wants_to_stop_or_goes_away_stops_the_work(make: Callable[..., Service]) -> None:
    engine = HummingEngine()
    service = make(lambda: engine)
    with pytest.raises(Cancelled):
        service.synthesize(ask("slow."), should_stop=lambda: service.stats().running == 1)
    until(lambda: engine.cancelled == 1)
    steps: list[Progress] = []

    def leave(step: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(service.stream(ask("slow."), on_progress=leave))
    until(lambda: engine.cancelled == 2)
    assert steps == []


def test_a_waiting_reader_is_told_so(make: Callable[..., Service]) -> None:
    service = make(simultaneous=1)
    gate = Gate(service)
    gate.submit("a1")
    steps: list[Progress] = []
    reader = threading.Thread(target=lambda: service.synthesize(ask(), "b", steps.append))
    reader.start()
    until(lambda: bool(steps))
    gate.let_through("a1")
    reader.join(WAIT_S)
    assert isinstance(steps[0], Queued) and steps[0].message == "waiting in place 1, about 10 s"
    assert steps[-1].message == "speaking"


def test_sound_and_progress_in_one(make: Callable[..., Service]) -> None:
    items = list(make().follow(ask("One. Two.")))
    assert [type(item) for item in items] == [Progress, AudioChunk, Progress, AudioChunk]
    assert [item.segment for item in items] == [0, 0, 1, 1]


def test_emotions_of_a_text(make: Callable[..., Service]) -> None:
    service = make()
    assert service.emotion_from_text("How happy I am!") == (1.0, *[0.0] * 7)
    with pytest.raises(EmotionError, match="switched off"):
        make(lambda: HummingEngine(text_emotion_model=None)).emotion_from_text("Hello.")
    assert service.stats().served == 1


def test_a_listener_that_fails_does_no_harm(make: Callable[..., Service], caplog: pytest.LogCaptureFixture) -> None:
    service = make(simultaneous=1)

    def work(*_: Any) -> Iterator[int]:
        yield 1

    def deliver(item: object) -> None:
        raise OSError("nobody listens")

    with caplog.at_level(logging.ERROR):
        service.submit(work, "a", deliver)
        assert len(service.synthesize(ask()).samples)
    assert "could not be delivered" in caplog.text


def test_closing_finishes_what_was_accepted(make: Callable[..., Service]) -> None:
    service = make(simultaneous=1)
    gate = Gate(service)
    for name in ("a1", "a2", "b1"):
        gate.submit(name)
        gate.open[name] = threading.Event()
    closer = threading.Thread(target=service.close)
    closer.start()
    until(lambda: not service.accepting)
    with pytest.raises(ServiceClosed):
        service.synthesize(ask())
    for name in ("a1", "b1", "a2"):
        until(lambda name=name: name in gate.started)
        gate.let_through(name)
    closer.join(WAIT_S)
    assert not closer.is_alive() and [end.error for _, end in gate.ended] == [None] * 3
    assert not any(worker.is_alive() for worker in service._workers)


def test_closing_cancels_what_takes_too_long(make: Callable[..., Service], caplog: pytest.LogCaptureFixture) -> None:
    service = make(simultaneous=1)
    gate = Gate(service)
    for name in ("a1", "b1"):
        gate.submit(name)
    until(lambda: gate.started == ["a1"])
    with caplog.at_level(logging.WARNING):
        service.close(grace_s=0.05)
    assert all(isinstance(end.error, Cancelled) for _, end in gate.ended) and len(gate.ended) == 2
    assert "cancelling 2 requests" in caplog.text


def test_an_idle_model_is_unloaded_and_loaded_again(make: Callable[..., Service]) -> None:
    engines: list[weakref.ref[HummingEngine]] = []

    def load() -> HummingEngine:
        engine = HummingEngine()
        engines.append(weakref.ref(engine))
        return engine

    service = make(load, idle_unload_s=0.05)
    until(lambda: not service.stats().loaded)
    until(lambda: (gc.collect(), engines[0]() is None)[1])
    assert service.facts.model_name == HummingEngine.model_name
    assert service.synthesize(ask()).duration_s == 1.0
    assert len(engines) == 2 and service.stats().loads == 2
    until(lambda: engines[1]() is None)


def test_a_model_in_use_is_not_idle(make: Callable[..., Service]) -> None:
    service = make(idle_unload_s=0.05)
    gate = Gate(service)
    gate.submit("a1")
    until(lambda: gate.started == ["a1"])
    loads = service.stats().loads
    time.sleep(0.2)
    assert service.stats().loaded and service.stats().loads == loads
    gate.let_through("a1")
    until(lambda: not service.stats().loaded)


def test_freed_memory_is_returned_now_and_then(
    make: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    returned: list[bool] = []
    monkeypatch.setattr("indextts.service.service.return_freed_memory", lambda: returned.append(True))
    monkeypatch.setattr("indextts.service.service.TRIM_EVERY_S", 0.0)
    service = make()
    for count in (1, 2):
        service.synthesize(ask())
        until(lambda count=count: len(returned) == count)
    monkeypatch.setattr("indextts.service.service.TRIM_EVERY_S", 3600.0)
    service.synthesize(ask())
    service.close()  # the workers are through with it
    assert len(returned) == 2


def test_memory_is_limited_before_the_model_is_loaded(
    make: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def load() -> HummingEngine:
        done.append("loaded")
        return HummingEngine()

    monkeypatch.setattr("indextts.service.service.limit_arenas", lambda: done.append("arenas"))
    monkeypatch.setattr("indextts.service.service.limit_kernel_cache", lambda: done.append("kernels"))
    make(load)
    assert done == ["arenas", "kernels", "loaded"]


def test_the_model_is_unloaded_and_reloaded_when_told_to(
    make: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Renamed(HummingEngine):
        model_name = "another voice"

    released: list[bool] = []
    monkeypatch.setattr("indextts.service.service.release", lambda: released.append(True))
    engines = iter([HummingEngine(), HummingEngine(), Renamed()])
    service = make(lambda: next(engines))
    service.unload()
    assert not service.stats().loaded and released == [True]
    service.unload()  # once more changes nothing
    assert service.synthesize(ask()).duration_s == 1.0 and service.stats().loads == 2
    until(lambda: service.stats().running == 0)
    service.reload()
    assert service.stats().loaded and service.facts.model_name == "another voice"


def test_a_model_in_use_is_not_unloaded(make: Callable[..., Service]) -> None:
    gate = Gate(service := make(simultaneous=1))
    for name in ("a1", "b1"):
        gate.submit(name)
    until(lambda: gate.started == ["a1"])
    for act in (service.unload, service.reload):
        with pytest.raises(ServiceBusy, match="by 2 requests"):
            act()
    gate.let_through("a1")
    until(lambda: gate.started == ["a1", "b1"])
    gate.let_through("b1")
    assert service.stats().loads == 1 and service.stats().loaded


def test_a_reload_that_fails_is_told_and_tried_again(make: Callable[..., Service]) -> None:
    engines = iter([HummingEngine(), CheckpointError("missing model files: gpt.pth"), HummingEngine()])

    def load() -> Any:
        engine = next(engines)
        if isinstance(engine, Exception):
            raise engine
        return engine

    service = make(load, idle_unload_s=0.05)
    until(lambda: not service.stats().loaded)
    with pytest.raises(CheckpointError):
        service.synthesize(ask())
    assert service.stats().failed == 1
    assert service.synthesize(ask()).duration_s == 1.0


def test_a_start_that_fails_is_told_at_once() -> None:
    def load() -> Any:
        raise CheckpointError("missing model files: gpt.pth")

    threads = threading.active_count()
    with pytest.raises(CheckpointError):
        Service(load)
    assert threading.active_count() == threads


def test_the_tiny_model_serves_several_clients(
    tiny_model_dir: Path, recordings: tuple[Path, Path], make: Callable[..., Service]
) -> None:
    """Side by side, through unloading, everybody gets what the engine alone gives."""
    from indextts.engine import Engine

    sampling = SamplingParams(max_mel_tokens=10, num_beams=1)
    requests = [
        SynthesisRequest(text, VoicePrompt.from_path(path), sampling=sampling, seed=7, repair=False)
        for path in recordings
        for text in ("Hello there. Goodbye.", "It is raining again.")
    ]
    config = EngineConfig(model_dir=tiny_model_dir, device="cpu")
    alone = Engine.load(config)
    expected = [alone.synthesize(request).samples for request in requests]
    service = make(lambda: Engine.load(config), idle_unload_s=0.3)
    until(lambda: not service.stats().loaded)
    results: dict[int, list[AudioChunk]] = {}

    def read(index: int) -> None:
        results[index] = list(service.stream(requests[index], str(index % 2)))

    readers = [threading.Thread(target=read, args=(index,)) for index in range(len(requests))]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(60)
    for index, samples in enumerate(expected):
        served = np.concatenate([chunk.samples for chunk in results[index]])
        # Another thread may add up in another order, which can move a sample by one step.
        assert len(served) == len(samples) and np.abs(served.astype(int) - samples).max() <= 1
    stats = service.stats()
    assert (stats.served, stats.loads) == (4, 2)
    assert stats.audio_s == pytest.approx(sum(map(len, expected)) / RATE_HZ)


def test_an_unloaded_model_is_really_gone(tiny_model_dir: Path, make: Callable[..., Service]) -> None:
    from indextts.engine import Engine

    engines: list[weakref.ref[Engine]] = []

    def load() -> Engine:
        engine = Engine.load(EngineConfig(model_dir=tiny_model_dir, device="cpu"))
        engines.append(weakref.ref(engine))
        return engine

    service = make(load, idle_unload_s=0.2)
    prompt = VoicePrompt(b"no sound", "mine.wav")
    try:
        service.synthesize(SynthesisRequest("Hello.", prompt))
    except Exception:  # an error remembers where it happened; that must not keep the model
        logging.getLogger(__name__).debug("as expected", exc_info=True)
    until(lambda: not service.stats().loaded)
    until(lambda: engines[0]() is None)


def test_closing_is_a_context() -> None:
    with closing(Service(HummingEngine)) as service:  # type: ignore[arg-type]
        assert service.accepting
    assert not service.accepting
