"""The memory that the program takes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from indextts.memory import MemoryInUse, memory_in_use, process_status_bytes
from tests.pages import mapped


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no /proc")
def test_memory_grows_with_what_is_held() -> None:
    before = memory_in_use().resident
    held = mapped(50_000_000)
    after = memory_in_use().resident
    assert before and after and after - before > len(held) / 2
    assert (process_status_bytes("VmHWM") or 0) >= after and process_status_bytes("VmNothing") is None


def test_where_the_system_tells_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("indextts.memory.PROC", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert memory_in_use() == MemoryInUse(None, None)


def test_all_gpus_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 100 + device)
    assert memory_in_use().cuda == 201
