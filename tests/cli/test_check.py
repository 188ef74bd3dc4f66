"""``indextts check``: one list, two forms, and an exit code that tells whether anything failed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from indextts import cli
from indextts.checks import speech
from indextts.checks.report import FAILED, OK, Check

ROOT = Path(__file__).parents[2]
CHECK = ["check", "--model-dir", str(ROOT / "checkpoints" / "nano")]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Nothing is spoken, but the configuration to speak with is remembered."""
    seen: list[object] = []

    def spoken(config: object) -> Check:
        seen.append(config)
        return Check("synthesis", OK, "as it should")

    monkeypatch.setattr(speech, "check_speech", spoken)
    return seen


def test_for_people(asked: list[object], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*CHECK, "--deepspeed", "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in ("Python", "PyTorch", "CUDA", "DeepSpeed", "C++ compiler", "disk", "model files", "synthesis"):
        assert any(line.startswith(("[ ok ]", "[note]")) and f" {name} " in line for line in lines), name
    assert any(line.split() == ["cpu_adam", "no", "yes"] for line in lines)
    assert any(line.split() == ["gpt.safetensors", f"{size('gpt.safetensors'):,}", "ok"] for line in lines)
    assert lines[-1] == "all is well" and lines[-3].startswith("total")
    assert (asked[0].deepspeed, asked[0].device) == (True, "cpu")  # type: ignore[attr-defined]


def size(name: str) -> int:
    return (ROOT / "checkpoints" / "nano" / name).stat().st_size


def test_for_programs(asked: list[object], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*CHECK, "--json", "--no-synthesis"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] and not asked
    assert all(set(check) == {"name", "state", "found", "advice"} for check in found["checks"])
    assert "synthesis" not in {check["name"] for check in found["checks"]}
    assert {file["state"] for file in found["model_files"]} == {"ok"} and len(found["model_files"]) == 11
    assert {"name", "is_installed", "can_be_built"} == set(found["deepspeed_ops"][0])


def test_a_failed_line_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], asked: list[object]
) -> None:
    monkeypatch.setattr(speech, "check_speech", lambda _: Check("synthesis", FAILED, "silence", "sing louder"))
    assert cli.main(CHECK) == 1
    lines = capsys.readouterr().out.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("[FAIL]"))
    assert "silence" in lines[place] and lines[place + 1].strip() == "-> sing louder"
    assert lines[-1] == "failed: synthesis"


def test_without_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: list[object]) -> None:
    assert cli.main(["check", "--model-dir", str(tmp_path / "nowhere"), "--json"]) == 1
    found = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert found["model"]["state"] == "failed" and "does not exist" in found["model"]["found"]
    assert not asked


def test_a_damaged_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: list[object]) -> None:
    folder = Path(shutil.copytree(ROOT / "checkpoints" / "nano", tmp_path / "model"))
    (folder / "feat1.safetensors").write_bytes(bytes(size("feat1.safetensors")))
    assert cli.main(["check", "--model-dir", str(folder), "--json"]) == 1
    found = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert "feat1.safetensors: wrong SHA-256" in found["model files"]["found"]


def test_without_torch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert cli.main([*CHECK, "--json"]) == 1
    found = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert found["PyTorch"]["state"] == "failed" and "uv sync" in found["PyTorch"]["advice"]
    assert "model" not in found


def test_the_tool_is_the_command() -> None:
    tool = [sys.executable, "tools/gpu_check.py", "--json", "--no-synthesis", "--deepspeed"]
    run = subprocess.run(tool, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0 and json.loads(run.stdout)["deepspeed_ops"]
