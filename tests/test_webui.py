"""The start of ``webui.py``: flags to configuration, and one clear line when it cannot start."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

import webui
from indextts.config import EngineConfig
from indextts.errors import CheckpointError
from indextts.service import ServiceConfig
from indextts.webui import Access


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What an engine is loaded with and a page served with; ``error`` makes loading fail."""
    seen: dict[str, Any] = {"error": None}

    class Engine:
        @classmethod
        def load(cls, config: EngineConfig) -> str:
            seen["config"] = config
            if seen["error"]:
                raise seen["error"]
            return "an engine"

    class Service:
        def __init__(self, load: Callable[[], str], config: ServiceConfig) -> None:
            self.engine, seen["service_config"] = load(), config

        def close(self) -> None:
            seen["closed"] = True

    engine, page = ModuleType("indextts.engine"), ModuleType("indextts.webui")
    engine.Engine = Engine  # type: ignore[attr-defined]
    page.Access = Access  # type: ignore[attr-defined]
    page.build_app = lambda service, admin: f"a page around {service.engine}" + " for all" * (not admin)  # type: ignore[attr-defined]
    page.launch = lambda *args, access: seen.update(launched=args, access=access)  # type: ignore[attr-defined]
    monkeypatch.delenv("INDEXTTS_AUTH", raising=False)
    monkeypatch.setattr("indextts.service.Service", Service)
    monkeypatch.setitem(sys.modules, "indextts.engine", engine)
    monkeypatch.setitem(sys.modules, "indextts.webui", page)
    return seen


def test_the_command_of_the_guide(started: dict[str, Any]) -> None:
    assert webui.main(["--deepspeed", "--fp16", "--port", "8001"]) == 0
    assert started["config"] == EngineConfig(deepspeed=True, fp16=True)
    assert started["service_config"] == ServiceConfig() and started["closed"]
    assert started["launched"] == ("a page around an engine", "127.0.0.1", 8001, False)
    assert started["access"] == Access(auth=(), root_path=None, max_upload_bytes=200 * 2**20)


@pytest.mark.parametrize("error", [CheckpointError("missing model files: a, b"), OSError("port 7860 is in use")])
def test_a_start_that_fails_is_one_line(
    started: dict[str, Any], error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    started["error"] = error
    assert webui.main([]) == 1
    assert capsys.readouterr().err == f"ERROR: {error}\n"
    assert webui.main(["--verbose"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_flags_of_the_service(started: dict[str, Any]) -> None:
    assert webui.main(["--max-queue", "5", "--simultaneous", "2", "--idle-unload", "1.5"]) == 0
    assert started["service_config"] == ServiceConfig(simultaneous=2, max_queue=5, idle_unload_s=90.0)


def test_a_wrong_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        webui.main(["--fast"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_who_reaches_the_page(started: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INDEXTTS_AUTH", "bob:two")
    assert webui.main(["--root-path", "/tts/", "--max-upload", "5"]) == 0
    assert started["access"] == Access((("bob", "two"),), "/tts", 5 * 2**20)
    assert webui.main(["--auth", "ann:one"]) == 0
    assert started["access"].auth == (("ann", "one"),)


@pytest.mark.parametrize(
    ("words", "admin"),
    [
        ([], True),
        (["--host", "localhost"], True),
        (["--host", "0.0.0.0"], False),
        (["--share"], False),
        (["--root-path", "/tts"], False),
        (["--host", "0.0.0.0", "--admin"], True),
    ],
)
def test_only_a_page_of_this_machine_lets_everybody_unload_the_model(
    started: dict[str, Any], words: list[str], admin: bool
) -> None:
    assert webui.main(words) == 0
    assert started["launched"][0].endswith(" for all") is not admin


def test_a_wrong_variable(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("INDEXTTS_AUTH", "secret")
    with pytest.raises(SystemExit) as stopped:
        webui.main([])
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and said.count("\n") == 1
    assert "INDEXTTS_AUTH must be user:password" in said and "secret" not in said
