"""Voices, models, health and metrics over HTTP."""

from __future__ import annotations

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.api.conftest import Running, error_of, wav
from tests.webui.humming_engine import hum


def upload(api: Running, name: str, data: bytes) -> httpx.Response:
    return api.http.post("/v1/audio/voices", data={"name": name}, files={"file": ("mine.wav", data)})


def test_voices_come_and_go(api: Running) -> None:
    assert api.http.get("/v1/audio/voices").json()["data"] == [
        {"id": "hum", "object": "voice", "name": "hum", "read_only": False}
    ]
    saved = upload(api, " Zoë 小明 ", wav(hum(0.8)))
    assert saved.status_code == 201 and saved.json()["name"] == "Zoë 小明"
    assert api.http.get("/v1/audio/voices/Zoë 小明").json() == saved.json()
    assert [v["name"] for v in api.http.get("/v1/audio/voices", params={"search": "ZO"}).json()["data"]] == ["Zoë 小明"]
    assert api.speak(voice="Zoë 小明").status_code == 200
    assert api.engine.requests[-1].voice.data == wav(hum(0.8))
    assert error_of(upload(api, "Zoë 小明", wav(hum(0.8))))["code"] == "voice_exists"
    assert api.http.delete("/v1/audio/voices/Zoë 小明").status_code == 204
    gone = api.http.delete("/v1/audio/voices/Zoë 小明")
    assert (gone.status_code, error_of(gone)["code"]) == (404, "voice_not_found")


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("../evil", wav(hum(1.0)), "invalid_voice"),
        ("  ", wav(hum(1.0)), "invalid_voice"),
        ("text", b"not a recording", "invalid_audio"),
        ("empty", b"", "invalid_audio"),
        ("short", wav(hum(0.1)), "invalid_audio"),
        ("long", wav(hum(121.0)), "invalid_audio"),
    ],
)
def test_voices_that_are_refused(api: Running, name: str, data: bytes, code: str) -> None:
    answer = upload(api, name, data)
    assert (answer.status_code, error_of(answer)["code"]) == (400, code)
    assert [voice.name for voice in api.library.voices()] == ["hum"]


def test_an_upload_without_its_parts(api: Running) -> None:
    answer = api.http.post("/v1/audio/voices", data={"name": "a"})
    assert (answer.status_code, error_of(answer)["param"]) == (400, "file")


def test_models(api: Running) -> None:
    (model,) = api.http.get("/v1/models").json()["data"]
    assert (model["id"], model["owned_by"]) == ("indextts2", "humming <voice>")
    assert api.http.get("/v1/models/indextts2").json() == model
    assert error_of(api.http.get("/v1/models/gpt-4"))["code"] == "model_not_found"


def test_metrics_count(api: Running) -> None:
    def read() -> dict[str, float]:
        text = api.http.get("/metrics").text
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return {sample.name + sample.labels.get("outcome", ""): sample.value for sample in samples}

    before = read()
    api.speak("One. Two.")
    api.speak("This will fail.")
    after = read()
    grown = {name: after[name] - before[name] for name in after if name != "indextts_mean_request_seconds"}
    assert {name: value for name, value in grown.items() if value} == {
        "indextts_requests_totalserved": 1, "indextts_requests_totalfailed": 1, "indextts_audio_seconds_total": 1.0,
    }  # fmt: skip
    assert after["indextts_queue_length"] == 0 and after["indextts_model_loaded"] == 1


def test_health(api: Running) -> None:
    assert api.http.get("/health").json() == {"status": "ok"}
    ready = api.http.get("/ready")
    assert ready.status_code == 200 and ready.json()["status"] == "ready" and ready.json()["loaded"]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/nothing", 404), ("GET", "/v1/audio/speech", 405)])
def test_what_is_not_there(api: Running, method: str, path: str, status: int) -> None:
    answer = api.http.request(method, path)
    assert answer.status_code == status and error_of(answer)["code"] in ("not_found", "method_not_allowed")
