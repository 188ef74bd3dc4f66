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
    page.build_app = lambda service: f"a page around {service.engine}"  # type: ignore[attr-defined]
    page.launch = lambda *args: seen.update(launched=args)  # type: ignore[attr-defined]
    monkeypatch.setattr("indextts.service.Service", Service)
    monkeypatch.setitem(sys.modules, "indextts.engine", engine)
    monkeypatch.setitem(sys.modules, "indextts.webui", page)
    return seen


def test_the_command_of_the_guide(started: dict[str, Any]) -> None:
    assert webui.main(["--deepspeed", "--fp16", "--port", "8001"]) == 0
    assert started["config"] == EngineConfig(deepspeed=True, fp16=True)
    assert started["service_config"] == ServiceConfig() and started["closed"]
    assert started["launched"] == ("a page around an engine", "127.0.0.1", 8001, False)


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
