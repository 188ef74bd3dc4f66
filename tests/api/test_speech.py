"""Speech over HTTP: formats, streaming, refusals, and clients that go away."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

from indextts.api import ApiSettings
from indextts.errors import InferenceTimeout
from indextts.types import (
    ChunkSchedule,
    FromAudio,
    FromText,
    FromVector,
    FromVoice,
    SynthesisRequest,
    SynthesisResult,
    VoicePrompt,
)
from tests.api.conftest import Running, error_of, serving, until, wav
from tests.webui.humming_engine import RATE_HZ, HummingEngine, hum


@pytest.mark.parametrize(
    ("audio_format", "media_type", "rate_hz"),
    [
        ("wav", "audio/wav", RATE_HZ),
        ("flac", "audio/flac", RATE_HZ),
        ("mp3", "audio/mpeg", RATE_HZ),
        ("opus", "audio/ogg", 24000),
    ],
)
def test_formats(api: Running, audio_format: str, media_type: str, rate_hz: int) -> None:
    answer = api.speak("One. Two. Three.", response_format=audio_format)
    assert answer.status_code == 200 and answer.headers["content-type"] == media_type
    samples, rate = soundfile.read(io.BytesIO(answer.content))
    assert rate == rate_hz and len(samples) / rate == pytest.approx(1.5, abs=0.1)
    assert np.abs(samples).max() == pytest.approx(3000 / 2**15, rel=0.4)
    spectrum = np.abs(np.fft.rfft(samples))
    assert spectrum.argmax() * rate / len(samples) == pytest.approx(220, abs=2)


@pytest.mark.parametrize("stream", [False, True])
def test_pcm_is_at_the_rate_that_clients_take_it_for(api: Running, stream: bool) -> None:
    answer = api.speak(response_format="pcm", stream=stream)
    samples = np.frombuffer(answer.content, "<i2")
    assert len(samples) == 24000 and answer.headers["content-type"] == "audio/pcm;rate=24000"
    assert np.abs(np.fft.rfft(samples)).argmax() == pytest.approx(220, abs=2)


def test_mp3_is_the_default(api: Running) -> None:
    body = {"model": "indextts2", "input": "One.", "voice": "hum"}
    answer = api.http.post("/v1/audio/speech", json=body)
    assert answer.headers["content-type"] == "audio/mpeg"


def test_sound_starts_before_the_end(api: Running) -> None:
    body = {"model": "indextts2", "input": "One. slow.", "voice": "hum", "response_format": "wav", "stream": True}
    engine, before = api.engine, api.engine.cancelled
    engine.slow_from = 1  # the second sentence waits until somebody cancels
    try:
        with api.http.stream("POST", "/v1/audio/speech", json=body) as answer:
            assert answer.status_code == 200
            received = b""
            for piece in answer.iter_bytes():
                received += piece
                if len(received) >= 44 + RATE_HZ:
                    break
            assert received[:4] == b"RIFF" and np.array_equal(np.frombuffer(received[44:], "<i2"), hum(0.5))
            assert engine.cancelled == before
        until(lambda: engine.cancelled == before + 1)  # leaving the stream has stopped the work
    finally:
        engine.slow_from = 0


def test_a_streamed_wav_is_a_wav(api: Running) -> None:
    answer = api.speak("One. Two.", stream=True)
    samples, rate = soundfile.read(io.BytesIO(answer.content), dtype="int16")
    assert rate == RATE_HZ and np.array_equal(samples, np.concatenate([hum(0.5), hum(0.5)]))
    assert "content-length" not in answer.headers


def test_what_is_asked_is_what_the_engine_gets(api: Running) -> None:
    def asked(**body: Any) -> SynthesisRequest:
        assert api.speak(**body).status_code == 200
        return api.engine.requests[-1]

    plain = asked(seed=5)
    assert (plain.text, plain.seed, plain.emotion, plain.sampling) == ("One. Two.", 5, FromVoice(), None)
    assert plain.voice.data == api.library.get("hum").path.read_bytes()
    assert plain.chunks is None and plain.repair and not asked(repair=False).repair
    assert (plain.duration_factor, plain.duration_s) == (1.0, None)
    assert asked(duration_factor=1.5).duration_factor == 1.5 and asked(duration_s=3).duration_s == 3
    assert asked(speed=0.8).duration_factor == 1.25 and asked(speed=2).duration_factor == 0.5
    streamed = {"stream": True, "response_format": "wav"}
    assert asked(duration_s=3, **streamed).chunks is asked(speed=1.5, **streamed).chunks is None
    assert asked(stream=True, response_format="wav").chunks == ChunkSchedule()
    assert asked(stream=True, response_format="wav", chunks=False).chunks is None
    sampled = asked(sampling={"top_k": 7, "do_sample": False, "temperature": 1}).sampling
    assert sampled and (sampled.top_k, sampled.do_sample, sampled.temperature) == (7, False, 1.0)
    assert sampled.max_mel_tokens == HummingEngine.sampling_defaults.max_mel_tokens  # the rest is the model's
    by_voice = asked(emotion={"voice": "hum", "weight": 0.5}).emotion
    assert isinstance(by_voice, FromAudio) and by_voice.alpha == 0.5
    by_vector = asked(emotion={"vector": [0.4, 0, 0, 0, 0, 0, 0, 0], "random": True}).emotion
    assert isinstance(by_vector, FromVector) and by_vector.random
    assert by_vector.values == pytest.approx((0.4 * 0.9375, *[0] * 7))
    untamed = asked(emotion={"vector": [0.4, 0, 0, 0, 0, 0, 0, 0.4], "raw": True}).emotion
    assert untamed == FromVector((0.4, *[0] * 6, 0.4))
    cut = asked(max_text_tokens_per_segment=60, quick_streaming_tokens=20, interval_silence_ms=0)
    assert (cut.max_text_tokens_per_segment, cut.quick_streaming_tokens, cut.interval_silence_ms) == (60, 20, 0)
    assert asked(emotion={"text": " gloomy "}).emotion == FromText("gloomy", 1.0)


def inline(data: bytes) -> dict[str, str]:
    return {"recording": base64.b64encode(data).decode()}


def test_a_voice_may_come_with_the_request(api: Running) -> None:
    mine, angry = wav(hum(0.7)), wav(hum(0.9))
    assert api.speak(voice=inline(mine), emotion={"voice": inline(angry), "weight": 0.5}).status_code == 200
    request = api.engine.requests[-1]
    assert request.voice.data == mine and isinstance(request.emotion, FromAudio)
    assert request.emotion.prompt.data == angry
    assert [voice.name for voice in api.library.voices()] == ["hum"]  # it is kept nowhere


def test_what_is_told_of_a_whole_file(tmp_path: Path) -> None:
    class Warning(HummingEngine):
        def synthesize(self, *arguments: Any) -> SynthesisResult:
            result, warnings = super().synthesize(*arguments), ("segment 1 – zu lang",) * 90
            return dataclasses.replace(result, warnings=warnings, duration_by="x")

    with serving(Warning(), tmp_path) as api:
        headers = api.speak(seed=5).headers
    told = [headers[f"X-{name}"] for name in ("Seed", "Segments", "Synthesis-Seconds")]
    assert told == ["5", "2", "0.100"] and headers["X-Duration-By"] == "x"
    assert json.loads(headers["X-Warnings"]) == ["segment 1 – zu lang"] * 20
    assert "X-Read-Emotion" not in headers


def test_who_read_the_emotion_is_told(tmp_path: Path) -> None:
    with serving(HummingEngine("bundled"), tmp_path) as api:
        told = api.speak(emotion={"text": "sad"}).headers["X-Read-Emotion"]
    assert json.loads(told) == {"model": "bundled", "values": [0, 0, 1, 0, 0, 0, 0, 0]}


@pytest.mark.parametrize(
    ("body", "status", "code", "says"),
    [
        ({"voice": 5}, 400, "invalid_value", "voice"),
        ({"voice": {"recording": 5}}, 400, "invalid_value", "voice"),
        ({"voice": {"recordings": "a"}}, 400, "invalid_value", "voice"),
        ({"voice": {"recording": "???"}}, 400, "invalid_audio", "base64"),
        ({"voice": {"recording": ""}}, 400, "invalid_audio", "empty"),
        ({"voice": inline(b"no sound")}, 400, "invalid_audio", "cannot decode"),
        ({"voice": inline(wav(hum(0.2)))}, 400, "invalid_audio", "too short"),
        ({"voice": inline(wav(hum(121)))}, 400, "invalid_audio", "too long: 121 s; at most 120 s"),
        ({"emotion": {"voice": inline(b"no sound")}}, 400, "invalid_audio", "cannot decode"),
        ({"emotion": {"vector": [0.5, 0.5, 0, 0, 0, 0, 0, 0], "raw": True}}, 400, "invalid_emotion", "at most 0.8"),
        ({"interval_silence_ms": 60_001}, 400, "invalid_value", "interval_silence_ms"),
        ({"model": "tts-1"}, 404, "model_not_found", "indextts2"),
        ({"voice": "alloy"}, 404, "voice_not_found", "alloy"),
        ({"voice": "../../etc/passwd"}, 404, "voice_not_found", "etc/passwd"),
        ({"input": " ... "}, 400, "invalid_text", "nothing to speak"),
        ({"input": "x" * 10_001}, 400, "text_too_long", "10001 characters"),
        ({"input": 5}, 400, "invalid_value", "input"),
        ({"input": None}, 400, "invalid_value", "input"),
        ({"speed": 4}, 400, "unsupported_value", "speed 4 is not supported, only 0.5 to 2"),
        ({"speed": 0.8, "duration_factor": 1.25}, 400, "invalid_value", "speed or duration_factor, not both"),
        ({"duration_factor": 2.1}, 400, "invalid_value", "duration_factor"),
        ({"duration_s": 0}, 400, "invalid_value", "duration_s"),
        ({"duration_s": 3, "speed": 2}, 400, "invalid_value", "not both"),
        ({"response_format": "aac"}, 400, "unsupported_value", "aac"),
        ({"response_format": "mp3", "stream": True}, 400, "unsupported_value", "pcm, wav"),
        ({"stream_format": "sse"}, 400, "unsupported_value", "sse"),
        ({"instructions": "whisper"}, 400, "invalid_value", "instructions"),
        ({"seed": -1}, 400, "invalid_value", "seed"),
        ({"repair": "no"}, 400, "invalid_value", "repair"),
        ({"sampling": {"top_p": 3}}, 400, "invalid_value", "top_p"),
        ({"sampling": {"top_q": 3}}, 400, "invalid_value", "top_q"),
        ({"quick_streaming_tokens": -1}, 400, "invalid_value", "quick_streaming_tokens"),
        ({"max_text_tokens_per_segment": 1}, 400, "invalid_value", "max_text_tokens"),
        ({"emotion": {}}, 400, "invalid_emotion", "exactly one"),
        ({"emotion": {"text": "sad", "voice": "hum"}}, 400, "invalid_emotion", "exactly one"),
        ({"emotion": {"vector": [1, 2]}}, 400, "invalid_value", "vector"),
        ({"emotion": {"vector": [2, 0, 0, 0, 0, 0, 0, 0]}}, 400, "invalid_emotion", "0 to 1"),
        ({"emotion": {"text": "sad", "weight": 2}}, 400, "invalid_value", "weight"),
        ({"input": "This will fail."}, 500, "synthesis_failed", "no speech for segment 1"),
        ({"input": "This will fail.", "stream": True}, 500, "synthesis_failed", "no speech for segment 1"),
    ],
)
def test_refusals(api: Running, body: dict[str, Any], status: int, code: str, says: str) -> None:
    answer = api.speak(**body)
    error = error_of(answer)
    assert (answer.status_code, error["code"]) == (status, code)
    assert says in error["message"]
    assert error["type"] == {404: "not_found_error", 500: "server_error"}.get(status, "invalid_request_error")


def test_a_bug_is_hidden_from_the_client(api: Running, caplog: pytest.LogCaptureFixture) -> None:
    answer = api.speak("A bug.")
    assert answer.status_code == 500 and "ZeroDivisionError" in error_of(answer)["message"]
    assert "secret detail" not in answer.text
    assert any(record.exc_info and "secret detail" in str(record.exc_info[1]) for record in caplog.records)


@pytest.mark.parametrize("content", [b"{", b"", b"[1]", b'"x"', b"\xff\xfe"])
def test_bodies_that_are_no_request(api: Running, content: bytes) -> None:
    answer = api.http.post("/v1/audio/speech", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert error_of(answer)["type"] == "invalid_request_error"


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_stops_the_work(api: Running, stream: bool) -> None:
    before = api.engine.cancelled
    body = {"model": "indextts2", "input": "slow.", "voice": "hum", "response_format": "wav", "stream": stream}
    with httpx.Client(base_url=api.server.address, timeout=0.3) as impatient, pytest.raises(httpx.ReadTimeout):
        impatient.post("/v1/audio/speech", json=body)
    until(lambda: api.engine.cancelled == before + 1)
    until(lambda: api.service.stats().running == 0)
    assert api.speak().status_code == 200


def test_a_client_that_goes_away_while_it_waits_leaves_the_queue(tmp_path: Path) -> None:
    slow = SynthesisRequest("slow.", VoicePrompt(b""))
    with serving(HummingEngine(), tmp_path, simultaneous=1) as api:
        running = api.service.submit(lambda engine, *more: engine.stream(slow, *more), "another", lambda _: None)
        body = {"model": "indextts2", "input": "One.", "voice": "hum"}
        with httpx.Client(base_url=api.server.address, timeout=0.3) as impatient, pytest.raises(httpx.ReadTimeout):
            impatient.post("/v1/audio/speech", json=body)
        until(lambda: api.service.stats().waiting == 0 and api.service.stats().cancelled == 1)
        assert api.service.stats().running == 1
        running.cancel()


def test_a_full_queue_says_when_to_come_again(tmp_path: Path) -> None:
    engine = HummingEngine()
    with serving(engine, tmp_path, simultaneous=1, max_queue=1) as api:
        body = {"model": "indextts2", "input": "slow.", "voice": "hum"}
        clients = [httpx.Client(base_url=api.server.address, timeout=30) for _ in range(2)]
        threads = [threading.Thread(target=lambda c=c: c.post("/v1/audio/speech", json=body)) for c in clients]
        for count, thread in enumerate(threads, 1):
            thread.start()
            until(lambda count=count: api.service.stats().running + api.service.stats().waiting == count)
        answer = api.speak()
        error = error_of(answer)
        assert (answer.status_code, error["type"], error["code"]) == (429, "rate_limit_error", "queue_full")
        assert int(answer.headers["Retry-After"]) >= 1
        assert api.http.get("/ready").status_code == 503 and api.http.get("/health").status_code == 200
        api.service.close(grace_s=0.0)
        for thread, client in zip(threads, clients, strict=True):
            thread.join()
            client.close()
        assert error_of(api.speak())["code"] == "shutting_down"


def test_the_timeout_has_its_own_status(tmp_path: Path) -> None:
    class Slow(HummingEngine):
        def synthesize(self, request, on_progress=None, should_stop=None):
            raise InferenceTimeout("the inference timeout of 30 s has passed")

    with serving(Slow(), tmp_path) as api:
        answer = api.speak()
        assert (answer.status_code, error_of(answer)["code"]) == (504, "inference_timeout")
        assert api.service.stats().failed == 1


def test_what_was_accepted_is_finished_at_the_end(tmp_path: Path) -> None:
    engine, answers = HummingEngine(), []
    gate = threading.Event()

    class Gated(HummingEngine):
        def segment(self, *args, **kwargs):
            assert gate.wait(10)
            return super().segment(*args, **kwargs)

    engine = Gated()
    with serving(engine, tmp_path) as api:
        client = threading.Thread(target=lambda: answers.append(api.speak()))
        client.start()
        until(lambda: api.service.stats().running == 1)
        api.server.should_exit = True
        until(lambda: not api.server.servers or not any(s.is_serving() for s in api.server.servers))
        assert answers == []
        gate.set()
        client.join(10)
    assert [answer.status_code for answer in answers] == [200]


def test_rates_are_limited_for_each_client(tmp_path: Path) -> None:
    with serving(HummingEngine(), tmp_path, ApiSettings(max_requests_per_minute=2)) as api:
        assert [api.speak().status_code for _ in range(2)] == [200, 200]
        answer = api.speak()
        assert (answer.status_code, error_of(answer)["code"]) == (429, "rate_limit_exceeded")
        assert 1 <= int(answer.headers["Retry-After"]) <= 30
        assert api.http.get("/ready").status_code == 200  # is not a request for work


def test_a_recording_that_is_larger_than_a_request_may_be(tmp_path: Path) -> None:
    with serving(HummingEngine(), tmp_path, ApiSettings(max_body_bytes=50_000)) as api:
        assert error_of(api.speak(voice=inline(wav(hum(2.0)))))["code"] == "request_too_large"
        assert api.speak(voice=inline(wav(hum(0.6)))).status_code == 200


@pytest.mark.parametrize(
    ("voice", "param"), [(5, "voice"), ({"recordings": "a"}, "voice.recording"), ({"recording": 5}, "voice.recording")]
)
def test_a_wrong_voice_is_named(api: Running, voice: Any, param: str) -> None:
    assert error_of(api.speak(voice=voice))["param"] == param
