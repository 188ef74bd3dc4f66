"""Somebody who uses the page: what the server sees of a session, and what the session sees of the server."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from indextts.webui.studio import Studio


def session(name: str = "a", language: str = "en") -> Any:
    return SimpleNamespace(session_hash=name, cookies={"indextts_language": language}, headers={})


def last(changes: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """All that has changed at the end."""
    found: dict[str, Any] = {}
    for change in changes:
        found |= change
    return found


def states(studio: Studio, name: str = "a") -> list[str]:
    return [row.state for row in studio.sessions.of(name).rows]
