"""The official client of OpenAI against the real thing: the server as the command starts it, on the tiny model."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openai
import pytest
import soundfile
from gradio_client import Client

from tests.api.conftest import until

ROOT = Path(__file__).parents[2]
KEY = "open sesame"
START_S = 120.0
SHORT = {"sampling": {"max_mel_tokens": 10, "num_beams": 1}, "seed": 7, "repair": False}


@pytest.fixture(scope="module")
def server(
    tiny_model_dir: Path, recordings: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """``indextts serve --page``: the process, and its address."""
    words = ["serve", "--page", "--port", "0", "--device", "cpu", "--model-dir", str(tiny_model_dir)]
    words += ["--voices", str(tmp_path_factory.mktemp("voices"))]
    log = tmp_path_factory.mktemp("log") / "server.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", "import sys; from indextts.cli import main; sys.exit(main())", *words],
            cwd=ROOT,
            env={**os.environ, "INDEXTTS_API_KEY": KEY, "OMP_NUM_THREADS": "1"},
            stderr=stderr,
        )
    try:
        until(lambda: "listening on" in log.read_text() or process.poll() is not None, START_S)
        assert process.poll() is None and "the page asks for no key" in log.read_text(), log.read_text()
        yield process, log.read_text().split()[-1]
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def client(server: tuple[subprocess.Popen[bytes], str], recordings: tuple[Path, Path]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server[1]}/v1", api_key=KEY, max_retries=0, timeout=60) as client:
        upload = {"file": ("spk.wav", recordings[0].read_bytes())}
        client.post("/audio/voices", cast_to=object, body={"name": "Anna"}, files=upload, options={
            "headers": {"Content-Type": "multipart/form-data"}
        })  # fmt: skip
        yield client


def test_speech(client: openai.OpenAI, tmp_path: Path) -> None:
    spoken = client.audio.speech.create(
        model="indextts2", voice="Anna", input="Hello there.", response_format="wav", extra_body=SHORT
    )
    samples, rate = soundfile.read(io.BytesIO(spoken.content), dtype="int16")
    assert rate == 22050 and len(samples) > 100 and samples.any()
    spoken.write_to_file(tmp_path / "speech.wav")
    again = client.audio.speech.create(
        model="indextts2", voice="voice_01", input="Hello there.", response_format="wav", extra_body=SHORT
    )
    assert again.content != spoken.content  # an example voice is another voice


def test_streamed_speech_is_the_same(client: openai.OpenAI) -> None:
    words = {"model": "indextts2", "voice": "Anna", "input": "Hello there. Goodbye."}
    whole = client.audio.speech.create(**words, response_format="wav", extra_body=SHORT).content
    expected, _ = soundfile.read(io.BytesIO(whole), dtype="int16")
    with client.audio.speech.with_streaming_response.create(
        **words, response_format="wav", extra_body={**SHORT, "stream": True}
    ) as answer:
        streamed = b"".join(answer.iter_bytes())
    assert np.array_equal(np.frombuffer(streamed[44:], "<i2"), expected)


def test_errors_are_those_that_the_client_knows(client: openai.OpenAI) -> None:
    words = {"model": "indextts2", "voice": "Anna", "input": "Hello."}
    with pytest.raises(openai.NotFoundError) as unknown:
        client.audio.speech.create(**{**words, "voice": "alloy"})
    assert unknown.value.code == "voice_not_found"
    with pytest.raises(openai.BadRequestError, match=r"speed 4") as refused:
        client.audio.speech.create(**words, speed=4)
    assert (refused.value.param, refused.value.type) == ("speed", "invalid_request_error")
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").models.list()


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["indextts2"]
    assert client.models.retrieve("indextts2").id == "indextts2"


def test_the_page_is_served_by_the_same_process(server: tuple[subprocess.Popen[bytes], str]) -> None:
    page = Client(server[1], verbose=False)
    assert page.predict(api_name="/info")["max_mel_tokens"] > 0
    assert page.predict("One two.", api_name="/segment")[0]["index"] == 0


def test_a_signal_ends_it_when_all_is_answered(
    server: tuple[subprocess.Popen[bytes], str], client: openai.OpenAI
) -> None:
    """The last test: afterwards there is no server. A page that is open in a browser does not keep it."""
    process, address = server
    page = Client(address, verbose=False)
    assert page.predict(api_name="/info")["model"]
    words = {"model": "indextts2", "voice": "Anna", "input": "Hello there, my friend. How are you today? " * 60}
    sampling = {"sampling": {"max_mel_tokens": 60, "num_beams": 1}, "seed": 7, "repair": False}
    whole = client.audio.speech.create(**words, response_format="pcm", extra_body=sampling).content
    with client.audio.speech.with_streaming_response.create(
        **words, response_format="pcm", extra_body={**sampling, "stream": True}
    ) as answer:
        pieces = answer.iter_bytes()
        received = len(next(pieces))
        process.send_signal(signal.SIGTERM)
        received += sum(map(len, pieces))
    assert received == pytest.approx(len(whole), abs=4) and len(whole) > 10_000
    until(lambda: process.poll() is not None)
    assert process.returncode == 0
