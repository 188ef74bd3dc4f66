"""The Dockerfile against hadolint, and against what is promised of every image."""

from __future__ import annotations

import re
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAGES = {
    re.search(r"\bAS (\w+)", stage)[1]: stage  # type: ignore[index]
    for stage in re.split(r"^(?=FROM )", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
}


def with_base(name: str) -> str:
    """The instructions of a stage and of the stages that it is built on."""
    parent = STAGES[name].split()[1]
    return (with_base(parent) if parent in STAGES else "") + STAGES[name]


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    run = subprocess.run(
        [hadolint, "--failure-threshold", "style", ROOT / "Dockerfile"], capture_output=True, text=True
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_every_image(name: str) -> None:
    instructions = with_base(name)
    assert re.findall(r"^USER (.+)", instructions, re.MULTILINE)[-1] == "1000"
    assert "HEALTHCHECK" in instructions and "VOLUME /models" in instructions
    assert re.search(r'^CMD \[.*"--model-dir", "/models"', instructions, re.MULTILINE)


def test_every_base_image_is_pinned() -> None:
    parents = [stage.split()[1] for stage in STAGES.values()]
    outside = [parent for parent in parents if parent not in STAGES]
    assert outside and all(re.search(r":\d+\.\d+", parent) for parent in outside)


def test_the_lock_decides_what_is_installed() -> None:
    syncs = re.findall(r"uv sync.*", STAGES["environment"])
    assert syncs and all("--locked" in sync and "--no-dev" in sync for sync in syncs)


def test_what_is_copied_is_there_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in lines
    copied = [line[1:] for line in lines if line.startswith("!")]
    assert {"indextts/", "webui.py", "uv.lock", "checkpoints/nano/", "ds_config.json"} <= set(copied)
    assert all((ROOT / path).exists() for path in copied)
