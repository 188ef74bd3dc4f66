"""Keys, rates and sizes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from indextts.api import ApiSettings
from indextts.api.limits import MAX_REMEMBERED_CLIENTS, RateLimit
from indextts.api.server import Server
from indextts.errors import ConfigError
from tests.api.conftest import Running, error_of, serving
from tests.webui.humming_engine import HummingEngine


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    settings = ApiSettings(api_key="open sesame", max_body_bytes=50_000)
    with serving(HummingEngine(), tmp_path_factory.mktemp("voices"), settings) as running:
        yield running


@pytest.mark.parametrize("path", ["/v1/models", "/v1/audio/voices", "/metrics"])
@pytest.mark.parametrize("header", [None, "open sesame", "Bearer open", "Basic open sesame", "Bearer öpen"])
def test_without_the_key(guarded: Running, path: str, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header.encode()}
    answer = guarded.http.get(path, headers=headers)  # type: ignore[arg-type]
    error = error_of(answer)
    assert (answer.status_code, error["type"], error["code"]) == (401, "authentication_error", "invalid_api_key")


def test_with_the_key(guarded: Running) -> None:
    for path in ("/v1/models", "/v1/audio/voices", "/metrics"):
        assert guarded.http.get(path, headers={"Authorization": "Bearer open sesame"}).status_code == 200
    assert guarded.http.get("/health").status_code == guarded.http.get("/ready").status_code == 200
    assert guarded.speak().status_code == 401 and guarded.engine.requests == []


@pytest.mark.parametrize("announced", [True, False])
def test_large_bodies(guarded: Running, announced: bool) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(60):
            yield b"x" * 100_000

    content = b"x" * 6_000_000 if announced else pieces()
    headers = {"Authorization": "Bearer open sesame", "Content-Type": "application/json"}
    answer = guarded.http.post("/v1/audio/speech", content=content, headers=headers)
    assert (answer.status_code, error_of(answer)["code"]) == (413, "request_too_large")
    upload = {"file": ("a.wav", b"x" * 6_000_000)}
    answer = guarded.http.post(
        "/v1/audio/voices", data={"name": "a"}, files=upload, headers={"Authorization": headers["Authorization"]}
    )
    assert (answer.status_code, error_of(answer)["code"]) == (413, "request_too_large")


def test_uploads_of_the_page_have_a_limit_of_their_own(tmp_path: Path) -> None:
    settings = ApiSettings(max_body_bytes=1_000, max_upload_bytes=200_000)
    with serving(HummingEngine(), tmp_path, settings) as api:
        for size, status in ((199_000, 404), (300_000, 413)):  # there is no page here
            files = {"files": ("a.wav", b"x" * size)}
            assert api.http.post("/gradio_api/upload", files=files).status_code == status
            assert api.http.post("/v1/audio/voices", files=files).status_code == 413


def test_a_bucket_refills_steadily() -> None:
    now_s = [0.0]
    limit = RateLimit(6, lambda: now_s[0])
    assert [limit.ask("a") for _ in range(6)] == [0.0] * 6
    assert limit.ask("a") == pytest.approx(10.0)
    assert limit.ask("b") == 0.0
    now_s[0] = 10.0
    assert limit.ask("a") == 0.0 and limit.ask("a") == pytest.approx(10.0)
    now_s[0] = 1000.0
    assert [limit.ask("a") for _ in range(7)][5:] == [0.0, pytest.approx(10.0)]


def test_buckets_are_bounded() -> None:
    limit = RateLimit(1, lambda: 0.0)
    for number in range(MAX_REMEMBERED_CLIENTS + 10):
        limit.ask(str(number))
    assert len(limit._buckets) == MAX_REMEMBERED_CLIENTS


@pytest.mark.parametrize(
    "settings",
    [
        {"max_body_bytes": 0},
        {"max_text_characters": 0},
        {"max_requests_per_minute": 0},
        {"max_upload_bytes": 0},
        {"api_key": ""},
    ],
)
def test_wrong_settings(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        ApiSettings(**settings)  # type: ignore[arg-type]


def test_a_port_in_use_is_told(guarded: Running, tmp_path: Path) -> None:
    port = guarded.server.socket.getsockname()[1]
    with pytest.raises(ConfigError, match=f"port {port}"):
        Server(guarded.server.config.app, "127.0.0.1", port)  # type: ignore[arg-type]
