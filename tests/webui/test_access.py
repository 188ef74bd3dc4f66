"""Who reaches the page: logins, proxies, and how much may be uploaded."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from gradio_client import Client, handle_file

from indextts.service import Service
from indextts.voices import VoiceLibrary
from indextts.webui import Access, build_app, launch, mount
from indextts.webui.i18n import text as words

USERS = (("ann", "one:1"), ("bob", "two"))


@pytest.fixture
def serve(service: Service, library: VoiceLibrary, tmp_path: Path) -> Iterator[Callable[[Access], str]]:
    apps = []

    def start(access: Access) -> str:
        apps.append(build_app(service, library, tmp_path))
        return launch(apps[-1], port=0, block=False, access=access)

    yield start
    for app in apps:
        app.close()


def test_a_login_is_asked_for(serve: Callable[[Access], str]) -> None:
    address = serve(Access(USERS))
    for path in ("config", "gradio_api/info"):
        assert httpx.get(f"{address}{path}").status_code == 401, path
    assert words("subtitle") not in httpx.get(address).text
    assert httpx.post(f"{address}login", data={"username": "ann", "password": "two"}).status_code == 400
    for user in USERS:
        client = Client(address, auth=user, verbose=False)
        assert client.predict(api_name="/info")["model"] == "humming <voice>"


def test_without_users_everybody_may_come(serve: Callable[[Access], str]) -> None:
    assert words("title") in urllib.request.urlopen(serve(Access()), timeout=10).read().decode()


def test_large_files_are_refused(serve: Callable[[Access], str], prompt: Path, tmp_path: Path) -> None:
    address = serve(Access(max_upload_bytes=200_000))
    assert httpx.get(f"{address}config").json()["max_file_size"] == 200_000
    client = Client(address, verbose=False)
    client.predict(voice=handle_file(prompt), text="One.", api_name="/synthesize")
    large = tmp_path / "large.wav"
    large.write_bytes(prompt.read_bytes() + b"\0" * 200_000)
    answer = httpx.post(f"{address}gradio_api/upload", files={"files": ("large.wav", large.read_bytes())})
    assert answer.status_code == 413


def test_behind_a_proxy_addresses_lead_back_to_it(serve: Callable[[Access], str]) -> None:
    assert httpx.get(f"{serve(Access(root_path='/tts'))}config").json()["root"].endswith("/tts")
    outside = "https://example.org/tts"
    assert httpx.get(f"{serve(Access(root_path=outside))}config").json()["root"] == outside


def test_mounted_pages_ask_as_well(service: Service, library: VoiceLibrary, tmp_path: Path) -> None:
    server = FastAPI()

    @server.get("/health")
    def health() -> str:
        return "ok"

    mount(build_app(service, library, tmp_path), server, access=Access(USERS))
    with TestClient(server) as http:
        assert http.get("/health").status_code == 200
        assert http.get("/config").status_code == 401
        assert http.post("/login", data={"username": "bob", "password": "two"}).status_code == 200
        assert http.get("/config").status_code == 200
