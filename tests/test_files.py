"""Names of files, and files that appear at once."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from indextts.errors import VoiceError
from indextts.files import checked_name, write_at_once


def test_names_in_many_scripts() -> None:
    for name in ("Zoë", "小明", "Анна", "مريم", "नेहा", "さくら", "😀", "O'Neil (2nd) #1 & co", "x" * 64):
        assert checked_name(f" {name} ", "voice", VoiceError) == name
    assert checked_name("Zoe\u0308", "voice", VoiceError) == "Zoë"


def test_a_name_that_cannot_be_used_is_the_callers_error() -> None:
    with pytest.raises(VoiceError, match="a voice needs a name"):
        checked_name(" ", "voice", VoiceError)
    with pytest.raises(ValueError, match=r"'\.\./x' must not hold '/'"):
        checked_name("../x", "preset", ValueError)


def test_a_file_is_replaced_at_once_or_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_at_once(path, b"old")
    write_at_once(path, b"new")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("indextts.files.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_at_once(path, b"newest")
    assert [item.name for item in tmp_path.iterdir()] == ["file"] and path.read_bytes() == b"new"
