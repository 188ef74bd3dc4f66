"""Pauses that are written into a text: ``[pause:1.2s]``, ``[pause:300ms]``."""

from __future__ import annotations

import re

from indextts.errors import UnusableText

MAX_PAUSE_S = 600.0
"""Ten minutes of silence; whoever asks for more has mistyped."""

_PAUSE = re.compile(r"[\[［【]\s{0,9}pause\b([^\[\]［］【】\n]{0,40})[\]］】]", re.IGNORECASE)
_DURATION = re.compile(r"\s*[:：]\s*(\d{1,9}(?:\.\d{1,9})?|\.\d{1,9})\s*(s|ms)?\s*", re.IGNORECASE)


def split_pauses(line: str, number: int) -> list[str | int]:
    """``line`` cut at its pauses: texts, and milliseconds in between, in their order; empty texts are left out.

    Args:
        number: What the line is called in error messages.

    Raises:
        UnusableText: a pause without a duration, or a longer one than ``MAX_PAUSE_S``.
    """
    parts: list[str | int] = []
    start = 0
    for match in _PAUSE.finditer(line):
        parts += [line[start : match.start()], _duration_ms(match, number)]
        start = match.end()
    parts.append(line[start:])
    stripped = (part.strip() if isinstance(part, str) else part for part in parts)
    return [part for part in stripped if part != ""]


def written_pause(duration_s: float) -> str:
    """A pause as it is written into a text."""
    return f"[pause:{duration_s:.3f}".rstrip("0").rstrip(".") + "s]"


def _duration_ms(match: re.Match[str], number: int) -> int:
    duration = _DURATION.fullmatch(match[1])
    if duration is None:
        message = "line {line}: {written} is no pause: write it as [pause:1.2s] or [pause:300ms]"
        raise UnusableText("bad_pause", message, line=number, written=repr(match[0][:40]))
    milliseconds = float(duration[1]) * (1 if (duration[2] or "s").lower() == "ms" else 1000)
    if milliseconds > 1000 * MAX_PAUSE_S:
        message = "line {line}: the pause {written} is too long: {limit:g} s at most"
        raise UnusableText("long_pause", message, line=number, written=repr(match[0][:40]), limit=MAX_PAUSE_S)
    return round(milliseconds)
