"""What the files of a model folder should be: their sizes and SHA-256 sums, in ``manifest.json`` beside them.

`indextts download` writes one from what the hub says, `indextts manifest` from files that are there, and
`indextts check` compares. The form is ``{"source": ..., "files": {"gpt.pth": {"size_bytes": ..., "sha256": ...}}}``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from indextts.errors import CheckpointError
from indextts.files import write_at_once

MANIFEST = "manifest.json"
CHUNK_BYTES = 1 << 20
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FileRecord:
    """What a file should be."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class FileState:
    """What a file is, compared with its record.

    ``state`` is "ok", "missing", "wrong size", "wrong SHA-256", or "not listed" (there is no record to compare with).
    """

    path: str  # from the model folder, or a whole path outside it
    size_bytes: int | None
    state: str


def sha256_of(path: Path) -> str:
    """The SHA-256 sum of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def record(path: Path) -> FileRecord:
    """The record of a file as it is now."""
    return FileRecord(path.stat().st_size, sha256_of(path))


def write_manifest(folder: Path, records: Mapping[str, FileRecord], source: str) -> Path:
    """Write ``manifest.json`` into ``folder``, whole or not at all.

    Args:
        records: By path from ``folder``, with forward slashes.
        source: Where the files are from, for people.
    """
    content = {"source": source, "files": {path: asdict(records[path]) for path in sorted(records)}}
    path = folder / MANIFEST
    write_at_once(path, f"{json.dumps(content, indent=2)}\n".encode())
    return path


def read_manifest(folder: Path) -> dict[str, FileRecord]:
    """The records in ``folder``; none if it has no manifest.

    Raises:
        CheckpointError: the manifest cannot be read, or names something outside the folder.
    """
    path = folder / MANIFEST
    if not path.exists():
        return {}
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        return {name: _as_record(name, entry) for name, entry in files.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a manifest of model files: {error!r}; write it anew") from error


def _as_record(name: str, entry: Any) -> FileRecord:
    if not is_inside(name):
        raise ValueError(f"{name!r} is not a path inside the folder")
    size_bytes, sha256 = entry["size_bytes"], entry["sha256"]
    if type(size_bytes) is not int or size_bytes < 0 or not SHA256.fullmatch(sha256):
        raise ValueError(f"{name!r} has no size and SHA-256 sum")
    return FileRecord(size_bytes, sha256)


def is_inside(path: str) -> bool:
    """Whether a relative path with forward slashes stays below the folder that it starts from."""
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and ".." not in parts and not re.search(r"[\\:\x00]", path)


def compare(folder: Path, paths: Iterable[Path]) -> list[FileState]:
    """The state of every file in the manifest of ``folder`` and of ``paths``; reads them whole.

    Raises:
        CheckpointError: the manifest or a file cannot be read.
    """
    records = read_manifest(folder)
    names = {_name(folder, path): path for path in paths}
    return [
        _state(name, names.get(name, folder / name), records.get(name))
        for name in dict.fromkeys((*sorted(records), *sorted(names)))
    ]


def _name(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _state(name: str, path: Path, expected: FileRecord | None) -> FileState:
    if not path.is_file():
        return FileState(name, None, "missing")
    size_bytes = path.stat().st_size
    if expected is None:
        return FileState(name, size_bytes, "not listed")
    if size_bytes != expected.size_bytes:
        return FileState(name, size_bytes, "wrong size")
    try:
        is_same = sha256_of(path) == expected.sha256
    except OSError as error:
        raise CheckpointError(f"cannot read the model file {path}: {error}") from error
    return FileState(name, size_bytes, "ok" if is_same else "wrong SHA-256")
