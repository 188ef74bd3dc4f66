"""A running ``indextts serve``, asked over HTTP: speech in the form in which an engine gives it."""

from __future__ import annotations

import io
import json
import logging
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from time import sleep
from typing import Any

import httpx
import numpy as np
import soundfile

from indextts.errors import ConfigError, QueueFull, ServerError, SynthesisError
from indextts.types import AudioChunk, ReadEmotion, StageTimings, SynthesisResult

logger = logging.getLogger(__name__)

MODEL_ID = "indextts2"
CONNECT_S = 10.0
SILENCE_S = 3600.0
"""How long a server may say nothing: a long text is answered when all of it is spoken."""

TRIES = 10
MAX_WAIT_S = 300.0
"""Longest wait between two tries, whatever the server says."""

WAV_HEADER = struct.Struct("<4s4x4s4s4xHHIIHH4s4x")
"""RIFF, WAVE, fmt, coding, channels, rate, bytes a second and a frame, bits, data."""

PCM = 1


class Client:
    """A server at ``address``. Every method raises

    ``ServerError`` if it cannot be reached, or does not do what an IndexTTS2 server does;
    ``ConfigError`` if it refuses the request for what is in it;
    ``QueueFull`` if it is too busy, ``TRIES`` times in a row;
    ``SynthesisError`` if it fails to speak.
    """

    def __init__(self, address: str, api_key: str | None = None) -> None:
        """Nothing is asked yet.

        Args:
            address: As in ``http://127.0.0.1:8000``; a path of ``/v1`` at its end may be there or not.
            api_key: What the server wants as bearer token, if it wants any.
        """
        self.address = address.rstrip("/").removesuffix("/v1")
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        # A connection that is kept may be closed by the server just as the next request is sent.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._http = httpx.Client(
            base_url=self.address, headers=headers, timeout=httpx.Timeout(SILENCE_S, connect=CONNECT_S), limits=limits
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def check(self) -> None:
        """Ask whether there is a server that speaks, and takes our key."""
        with self._answer("GET", f"/v1/models/{MODEL_ID}") as answer:
            answer.read()

    def synthesize(self, body: Mapping[str, Any]) -> SynthesisResult:
        """Speak to the end.

        Args:
            body: Parameters of ``POST /v1/audio/speech`` but for the model and the form of the answer.
        """
        with self._answer("POST", "/v1/audio/speech", speech(body, stream=False)) as answer:
            content = answer.read()
        try:
            samples, sample_rate_hz = soundfile.read(io.BytesIO(content), dtype="int16")
            warnings = tuple(map(str, json.loads(answer.headers["X-Warnings"])))
            seed, segments = int(answer.headers["X-Seed"]), int(answer.headers["X-Segments"])
            timings = StageTimings(total_s=float(answer.headers["X-Synthesis-Seconds"]))
            read = read_emotion(answer.headers.get("X-Read-Emotion"))
        except (soundfile.LibsndfileError, KeyError, TypeError, ValueError) as error:
            raise self._stranger(f"its answer is no speech ({error!r})") from error
        for warning in warnings:
            logger.warning("%s", warning)
        duration_by = answer.headers.get("X-Duration-By")
        return SynthesisResult(samples, sample_rate_hz, seed, segments, timings, warnings, duration_by, read)

    def stream(self, body: Mapping[str, Any]) -> Iterator[AudioChunk]:
        """Speak, and yield the sound as it comes. Whoever stops reading stops the server's work."""
        with self._answer("POST", "/v1/audio/speech", speech(body, stream=True)) as answer:
            pieces = answer.iter_bytes()
            held = b""
            while len(held) < WAV_HEADER.size:
                held += next(pieces, b"") or self._broken_off()
            riff, wave, _, coding, channels, sample_rate_hz, _, _, bits, data = WAV_HEADER.unpack_from(held)
            if (riff, wave, coding, channels, bits, data) != (b"RIFF", b"WAVE", PCM, 1, 16, b"data"):
                raise self._stranger("its answer is no speech")
            held, pieces = b"", chain([held[WAV_HEADER.size :]], pieces)
            for piece in pieces:
                held += piece
                samples = np.frombuffer(held, "<i2", count=len(held) // 2).astype(np.int16)
                held = held[2 * len(samples) :]
                if len(samples):
                    yield AudioChunk(samples, sample_rate_hz, 0, 1)

    @contextmanager
    def _answer(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Iterator[httpx.Response]:
        """The server's answer once it has one, not yet read to its end."""
        answered = False
        try:
            for attempt in range(1, TRIES + 1):
                with self._http.stream(method, path, json=body) as answer:
                    if answered := answer.status_code == 200:
                        yield answer
                        return
                    answer.read()
                error = self._error(answer)
                if not isinstance(error, QueueFull) or attempt == TRIES:
                    raise error
                wait_s = min(error.retry_after_s, MAX_WAIT_S)
                logger.warning("%s: waiting %.0f s, then try %d of %d", error, wait_s, attempt + 1, TRIES)
                sleep(wait_s)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            if answered:
                raise SynthesisError(f"the server at {self.address} broke off in the middle: {error}") from error
            reason = str(error) or type(error).__name__
            raise ServerError(f"no answer from a server at {self.address}: {reason}") from error

    def _error(self, answer: httpx.Response) -> Exception:
        """What an answer other than 200 means."""
        status = answer.status_code
        try:
            message = f"the server says: {answer.json()['error']['message']}"
        except (ValueError, TypeError, LookupError):
            return self._stranger(f"it answers with status {status}")
        if status == 429:
            return QueueFull(message, retry_after_s(answer))
        if status in (401, 403, 405, 503) or answer.json()["error"].get("code") in ("not_found", "model_not_found"):
            return ServerError(message)
        return ConfigError(message) if status < 500 else SynthesisError(message)

    def _stranger(self, why: str) -> ServerError:
        return ServerError(f"the server at {self.address} is not an `indextts serve` of this version: {why}")

    def _broken_off(self) -> bytes:
        raise SynthesisError(f"the server at {self.address} broke off before there was any sound")


def speech(body: Mapping[str, Any], stream: bool) -> dict[str, Any]:
    """``body`` as a whole request for samples as they are."""
    return {"model": MODEL_ID, **body, "response_format": "wav", "stream": stream}


def retry_after_s(answer: httpx.Response) -> float:
    """When to come again; a second where the server does not say."""
    text = answer.headers.get("Retry-After", "")
    return float(text) if text.isdigit() else 1.0


def read_emotion(header: str | None) -> ReadEmotion | None:
    """What the server says that it read out of a text. Raises ``ValueError``, ``KeyError`` or ``TypeError``."""
    if header is None:
        return None
    told = json.loads(header)
    return ReadEmotion(str(told["model"]), tuple(map(float, told["values"])))
