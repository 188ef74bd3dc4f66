"""The last tab: what it shows, and what its buttons do to the model that all share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from gradio_client import Client

from indextts.errors import CheckpointError
from indextts.manifest import record, write_manifest
from indextts.memory import MemoryInUse
from indextts.service import Service
from indextts.types import VoicePrompt
from indextts.voices import VoiceLibrary
from indextts.webui import build_app, launch
from indextts.webui.benchmark import SENTENCES, measure
from indextts.webui.i18n import text as words
from indextts.webui.page import Page
from indextts.webui.tabs.system import System, table
from tests.webui.humming_engine import HummingEngine

HTTP: Any = SimpleNamespace(session_hash="a", cookies={}, headers={})
PROGRESS: Any = lambda *_, **__: None  # noqa: E731  in place of a gr.Progress
ADMIN = {"/check_files", "/unload", "/reload"}


@pytest.fixture
def make_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Page]]:
    """Pages around services of their own, whose model may be unloaded."""
    monkeypatch.setattr("indextts.service.service.release", lambda: None)
    services: list[Service] = []

    def make(load: Callable[[], Any] = HummingEngine) -> Page:
        services.append(Service(load))
        return Page(services[-1], VoiceLibrary(tmp_path / "voices", examples_dir=None), tmp_path)

    yield make
    for service in services:
        service.close(grace_s=0.0)


def test_what_it_shows(make_page: Callable[..., Page], monkeypatch: pytest.MonkeyPatch) -> None:
    page = make_page()
    monkeypatch.setattr("indextts.webui.tabs.system.memory_in_use", lambda: MemoryInUse(3 * 2**20, 5 * 2**20))
    shown = System(page).state("en")
    for part in ("humming &lt;voice&gt;", "there is no CUDA device", "fp32", "3 MiB of main", "5 MiB on GPUs"):
        assert part in shown, part
    assert words("system.yes") in shown
    monkeypatch.setattr("indextts.webui.tabs.system.memory_in_use", lambda: MemoryInUse(None, None))
    page.service.unload()
    shown = System(page).state("es")
    assert words("system.no", "es") in shown and words("system.memory.unknown", "es") in shown
    api = System(page).system()
    assert api["requests"]["loaded"] is False and api["precision"] == "fp32" and api["device"] == "cpu"
    assert api["memory_bytes"] == {"resident": None, "cuda": None}


def test_texts_in_tables_are_no_html() -> None:
    assert "<b>" not in table(["<b>"], [("<b>", "<b>")]) + table([], [("<b>", "<b>")])


def test_unload_and_reload(make_page: Callable[..., Page]) -> None:
    page = make_page()
    system = System(page)
    assert system.unload(HTTP) is False and page.service.stats().loads == 1
    assert system.reload(HTTP) is True and page.service.stats().loads == 2
    assert words("system.unloaded") in system.show_unload(HTTP)
    assert words("system.reloaded") in system.show_reload(HTTP)


def test_a_model_that_does_not_load_any_more(make_page: Callable[..., Page]) -> None:
    engines = iter([HummingEngine(), CheckpointError("missing model files: gpt.pth"), HummingEngine()])

    def load() -> Any:
        engine = next(engines)
        if isinstance(engine, Exception):
            raise engine
        return engine

    system = System(make_page(load))
    with pytest.raises(gr.Error, match=r"Missing model files: gpt\.pth"):
        system.show_reload(HTTP)
    assert system.reload(HTTP) is True


def test_files_are_compared_with_their_manifest(make_page: Callable[..., Page], tmp_path: Path) -> None:
    system = System(make_page())
    with pytest.raises(gr.Error, match="does not come from files"):
        system.show_files(HTTP)
    for name in ("good.bin", "bad.bin", "other.bin"):
        (tmp_path / name).write_bytes(b"x" * 2**20)
    write_manifest(tmp_path, {name: record(tmp_path / name) for name in ("good.bin", "bad.bin")}, "a test")
    (tmp_path / "bad.bin").write_bytes(b"y" * 2**20)
    engine = HummingEngine()
    engine.files = SimpleNamespace(root=tmp_path, paths=lambda: [tmp_path / "good.bin", tmp_path / "other.bin"])
    system = System(make_page(lambda: engine))
    states = {file["file"]: file["state"] for file in system.check_files(HTTP)}
    assert states == {"good.bin": "ok", "bad.bin": "wrong SHA-256", "other.bin": "not listed"}
    app = build_app(system.service, system.page.library, tmp_path)
    address = launch(app, port=0, block=False)
    assert Client(address, verbose=False).predict(api_name="/check_files") == system.check_files(HTTP)
    app.close()
    shown = system.show_files(HTTP)
    assert words("system.files", good=1, count=3) in shown and "1.0 MiB" in shown
    assert words("system.state.wrong SHA-256") in shown


def test_speed_is_measured_through_the_queue(make_page: Callable[..., Page], prompt: Path) -> None:
    page = make_page()
    system = System(page)
    with pytest.raises(gr.Error, match="Choose a voice"):
        system.show_speed(None, HTTP, PROGRESS)
    with pytest.raises(gr.Error, match="nobody"):
        system.benchmark(HTTP, "nobody")
    page.library.save("Anna", prompt.read_bytes())
    figures = system.benchmark(HTTP, "Anna")
    assert figures["characters"] == len(SENTENCES) and figures["audio_s"] == 1.0
    assert 0 < figures["first_sound_s"] <= figures["total_s"]
    assert page.service.stats().served == 1
    for voice in (None, str(prompt)):
        assert words("system.speed.characters") in system.show_speed(voice, HTTP, PROGRESS)


def test_the_figures_belong_together(service: Service) -> None:
    speed = measure(service, VoicePrompt(b"a recording"), "client")
    assert speed.characters_per_s == pytest.approx(speed.characters / speed.total_s)
    assert speed.real_time_factor == pytest.approx(speed.total_s / 1.0)


@pytest.mark.parametrize("admin", [True, False])
def test_who_does_not_look_after_the_server_cannot_unload(
    service: Service, library: VoiceLibrary, tmp_path: Path, admin: bool
) -> None:
    app = build_app(service, library, tmp_path, admin=admin)
    endpoints = app.get_api_info()["named_endpoints"]
    assert ADMIN & set(endpoints) == (ADMIN if admin else set()) and "/benchmark" in endpoints
    shown = {block.value: block.visible for block in app.blocks.values() if isinstance(block, (gr.Button, gr.Markdown))}
    assert shown[words("system.unload")] is shown[words("system.check")] is admin
    assert shown[words("system.no_admin")] is not admin
