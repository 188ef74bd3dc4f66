"""A server on a free port around an engine without a model, and clients of it."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

from indextts.api import ApiSettings, create_app
from indextts.api.server import Server
from indextts.service import Service, ServiceConfig
from indextts.voices import VoiceLibrary
from tests.webui.humming_engine import RATE_HZ, HummingEngine, hum

WAIT_S = 10.0


def wav(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE_HZ, format="WAV")
    return file.getvalue()


def until(condition: Callable[[], bool], wait_s: float = WAIT_S) -> None:
    deadline = time.monotonic() + wait_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.002)


class Running:
    """A server that runs, and what it is made of."""

    def __init__(self, engine: Any, service: Service, library: VoiceLibrary, server: Server) -> None:
        self.engine = engine
        self.service = service
        self.library = library
        self.server = server
        self.http = httpx.Client(base_url=server.address, timeout=WAIT_S)

    def speak(self, text: str = "One. Two.", **body: Any) -> httpx.Response:
        body = {"model": "indextts2", "input": text, "voice": "hum", "response_format": "wav", **body}
        return self.http.post("/v1/audio/speech", json=body)


@contextmanager
def serving(engine: Any, folder: Path, settings: ApiSettings | None = None, **config: Any) -> Iterator[Running]:
    """Serve ``engine`` with a library in ``folder`` that has the voice ``hum``."""
    service = Service(lambda: engine, ServiceConfig(**config))
    library = VoiceLibrary(folder, examples_dir=None)
    if not library.voices():
        library.save("hum", wav(hum(1.0)))
    server = Server(create_app(service, library, settings), "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_until_stopped)
    thread.start()
    running = Running(engine, service, library, server)
    try:
        until(lambda: server.started)
        yield running
    finally:
        running.http.close()
        server.should_exit = True
        thread.join(WAIT_S)
        service.close(grace_s=0.0)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(HummingEngine(), tmp_path_factory.mktemp("voices")) as running:
        yield running


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error object of an answer, which must be of OpenAI's form."""
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    return error
