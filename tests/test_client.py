"""The client of a running server: what it gets is what the engine gives, and whatever goes wrong has a name."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indextts.api import ApiSettings
from indextts.client import TRIES, Client
from indextts.encoding import encode
from indextts.errors import ConfigError, QueueFull, ServerError, SynthesisError
from indextts.types import ReadEmotion
from tests.api.conftest import Running, serving, until, wav
from tests.webui.humming_engine import RATE_HZ, HummingEngine, hum

BODY = {"input": "One. Two.", "voice": "hum"}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(HummingEngine(), tmp_path_factory.mktemp("voices")) as running:
        yield running


@pytest.fixture(scope="module")
def client(api: Running) -> Iterator[Client]:
    with Client(api.server.address) as client:
        yield client


def test_the_whole_and_the_stream_are_what_the_engine_gives(api: Running, client: Client) -> None:
    client.check()
    spoken = np.concatenate([hum(0.5), hum(0.5)])
    result = client.synthesize({**BODY, "seed": 5})
    assert np.array_equal(result.samples, spoken) and result.sample_rate_hz == RATE_HZ
    assert (result.seed, result.segments, result.warnings) == (5, 2, ())
    chunks = list(client.stream(BODY))
    assert np.array_equal(np.concatenate([chunk.samples for chunk in chunks]), spoken)
    assert {(chunk.samples.dtype, chunk.sample_rate_hz) for chunk in chunks} == {(np.dtype(np.int16), RATE_HZ)}


def test_an_address_that_ends_in_the_version(api: Running) -> None:
    with Client(f"{api.server.address}/v1/") as client:
        assert client.synthesize(BODY).duration_s == 1.0


def test_a_recording_travels_with_the_request(api: Running, client: Client) -> None:
    recording = wav(hum(0.8))
    inline = {"recording": base64.b64encode(recording).decode()}
    client.synthesize({**BODY, "voice": inline, "emotion": {"voice": inline, "weight": 0.5}})
    request = api.engine.requests[-1]
    assert request.voice.data == request.emotion.prompt.data == recording


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"voice": "nobody"}, ConfigError, "there is no voice 'nobody'"),
        ({"voice": {"recording": "bm8gc291bmQ="}}, ConfigError, "cannot decode"),
        ({"input": "..."}, ConfigError, "nothing to speak"),
        ({"input": "This will fail."}, SynthesisError, "no speech for segment 1"),
        ({"input": "A bug."}, SynthesisError, "ZeroDivisionError"),
    ],
)
def test_errors_of_the_server(
    client: Client, stream: bool, change: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=f"the server says: .*{says}"):
        list(client.stream(BODY | change)) if stream else client.synthesize(BODY | change)


def test_leaving_a_stream_stops_the_work(api: Running, client: Client) -> None:
    engine, before = api.engine, api.engine.cancelled
    engine.slow_from = 1
    try:
        chunks = client.stream({**BODY, "input": "One. slow."})
        assert len(next(chunks).samples)
        assert engine.cancelled == before
        chunks.close()  # type: ignore[attr-defined]
        until(lambda: engine.cancelled == before + 1)
    finally:
        engine.slow_from = 0


def test_a_stream_that_breaks_off_is_an_error(tmp_path: Path) -> None:
    class Breaking(HummingEngine):
        def stream(self, request: Any, *more: Any) -> Any:
            yield next(iter(super().stream(request)))
            raise ZeroDivisionError

    broken_off = pytest.raises(SynthesisError, match="broke off in the middle")
    with serving(Breaking(), tmp_path) as api, Client(api.server.address) as client, broken_off:
        list(client.stream(BODY))


def test_the_key(tmp_path: Path) -> None:
    with serving(HummingEngine(), tmp_path, ApiSettings(api_key="sesame")) as api:
        with Client(api.server.address, "sesame") as client:
            client.check()
            assert client.synthesize(BODY).duration_s == 1.0
        for key in (None, "wrong"):
            with Client(api.server.address, key) as client, pytest.raises(ServerError, match="API key"):
                client.check()


Answer = tuple[int, dict[str, str], bytes]
BUSY: Answer = (429, {"Retry-After": "7"}, json.dumps({"error": {"message": "the queue is full"}}).encode())
HEADERS = {"X-Seed": "1", "X-Segments": "1", "X-Synthesis-Seconds": "0.5", "X-Warnings": '["cut off"]'}
SPOKEN: Answer = (200, HEADERS, encode(hum(0.5), RATE_HZ, "wav"))


@contextmanager
def answering(*answers: Answer) -> Iterator[str]:
    """A server that gives these answers in turn, the last one for ever; its address."""
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, content = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client would have waited."""
    waited: list[float] = []
    monkeypatch.setattr("indextts.client.sleep", waited.append)
    return waited


@pytest.mark.parametrize("stream", [False, True])
def test_a_busy_server_is_asked_again(stream: bool, waits: list[float], caplog: pytest.LogCaptureFixture) -> None:
    with answering(BUSY, BUSY, SPOKEN) as address, Client(address) as client:
        result = next(client.stream(BODY)) if stream else client.synthesize(BODY)
    assert np.array_equal(result.samples, hum(0.5)) and waits == [7.0, 7.0]
    assert f"the queue is full: waiting 7 s, then try 2 of {TRIES}" in caplog.text
    assert stream or "cut off" in caplog.text


def test_a_server_that_stays_busy_is_given_up(waits: list[float]) -> None:
    for_ever = (429, {"Retry-After": "9" * 30}, BUSY[2])
    given_up = pytest.raises(QueueFull, match="the queue is full")
    with answering(for_ever) as address, Client(address) as client, given_up:
        client.synthesize(BODY)
    assert waits == [300.0] * (TRIES - 1)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((200, {}, b""), (ServerError, SynthesisError)),
        ((200, HEADERS, b"<html>" * 20), ServerError),
        ((200, {**HEADERS, "Content-Length": "9000"}, SPOKEN[2][:100]), SynthesisError),
        ((404, {}, b"<html>"), ServerError),
        ((404, {}, b'{"error": "no"}'), ServerError),
        ((503, {}, b'{"error": {"message": "shutting down"}}'), ServerError),
        ((302, {"Location": "http://127.0.0.1:9/"}, b""), ServerError),
    ],
)
def test_answers_that_are_none(stream: bool, answer: Answer, error: Any) -> None:
    with answering(answer) as address, Client(address) as client, pytest.raises(error):
        list(client.stream(BODY)) if stream else client.synthesize(BODY)


def test_who_read_the_emotion(client: Client) -> None:
    read = client.synthesize(BODY | {"emotion": {"text": "sad"}}).read_emotion
    assert read == ReadEmotion("qwen", (0, 0, 1, 0, 0, 0, 0, 0))
    assert client.synthesize(BODY).read_emotion is None


@pytest.mark.parametrize("told", ["sad", "[]", "{}", '{"model": "", "values": 1}', '{"model": "", "values": ["x"]}'])
def test_an_emotion_that_is_none(told: str) -> None:
    answer = (200, {**HEADERS, "X-Read-Emotion": told}, SPOKEN[2])
    with answering(answer) as address, Client(address) as client, pytest.raises(ServerError, match="no speech"):
        client.synthesize(BODY)


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
    with Client(address) as client, pytest.raises(ServerError, match=f"no answer from a server at {address}"):
        client.check()


def test_no_connection_is_kept_for_the_server_to_close(api: Running, client: Client) -> None:
    for _ in range(2):
        client.synthesize(BODY)
        assert not client._http._transport._pool.connections  # type: ignore[attr-defined]
