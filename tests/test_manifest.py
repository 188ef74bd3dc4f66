"""Manifests: what is recorded is found again, and every kind of damage is told apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from indextts.checkpoints import BUNDLED_DIR, locate
from indextts.errors import CheckpointError
from indextts.manifest import MANIFEST, FileState, compare, read_manifest, record, write_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    for name in ("a.pth", "sub/b.pth", "c.pth"):
        (tmp_path / name).write_bytes(name.encode() * 50)
    write_manifest(tmp_path, {name: record(tmp_path / name) for name in ("a.pth", "sub/b.pth", "c.pth")}, "here")
    return tmp_path


def states(folder: Path, *paths: Path) -> dict[str, str]:
    return {file.path: file.state for file in compare(folder, paths)}


def test_damage(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert states(folder) == {"a.pth": "ok", "sub/b.pth": "ok", "c.pth": "ok"}
    (folder / "a.pth").write_bytes(b"a.ptH" * 50)
    (folder / "sub" / "b.pth").write_bytes(b"short")
    (folder / "c.pth").unlink()
    (folder / "d.pth").write_bytes(b"new")
    elsewhere = tmp_path_factory.mktemp("cache") / "e.pth"
    elsewhere.write_bytes(b"cached")
    assert states(folder, folder / "d.pth", elsewhere) == {
        "a.pth": "wrong SHA-256", "sub/b.pth": "wrong size", "c.pth": "missing", "d.pth": "not listed",
        str(elsewhere): "not listed",
    }  # fmt: skip


def test_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"12")
    assert read_manifest(tmp_path) == {}
    assert compare(tmp_path, [tmp_path / "a.pth"]) == [FileState("a.pth", 2, "not listed")]


SUM = "0" * 64


@pytest.mark.parametrize(
    "content",
    [
        "", "{}", "[]", '{"files": 3}', '{"files": {"a": 3}}', "[" * 100_000, b"\xff\xfe",
        json.dumps({"files": {"a": {"size_bytes": "1", "sha256": SUM}}}),
        json.dumps({"files": {"a": {"size_bytes": 1, "sha256": SUM[1:]}}}),
        json.dumps({"files": {"a": {"size_bytes": -1, "sha256": SUM}}}),
        json.dumps({"files": {"../a": {"size_bytes": 1, "sha256": SUM}}}),
        json.dumps({"files": {"/etc/passwd": {"size_bytes": 1, "sha256": SUM}}}),
    ],
)  # fmt: skip
def test_malformed_manifests(tmp_path: Path, content: str | bytes) -> None:
    (tmp_path / MANIFEST).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CheckpointError, match=r"manifest\.json is not a manifest"):
        read_manifest(tmp_path)


def test_the_bundled_manifest_is_up_to_date() -> None:
    _, files = locate(BUNDLED_DIR)
    found = compare(BUNDLED_DIR, files.paths())
    stale = [f"{file.path}: {file.state}" for file in found if file.state != "ok"]
    assert not stale, "after changing the model, run: uv run indextts manifest --model-dir checkpoints/nano"
    assert len(found) == 11
