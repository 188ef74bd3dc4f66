"""What the page says about what goes on, as HTML: lines of words, and a bar with a mark for every segment."""

from __future__ import annotations

import html

MAX_MARKS = 60  # more would run into each other


def line(kind: str, message: str) -> str:
    """A line of words that may come from anywhere: a "note", a "status", a "warning" or an "error"."""
    return f'<p class="{kind}">{html.escape(message)}</p>'


def status_panel(message: str, bar: str = "") -> str:
    """How things stand, in words and with a bar."""
    return line("status", message) + bar


def segment_bar(done: int, segments: int, busy: bool = True) -> str:
    """A bar of ``segments`` parts of which ``done`` are filled; the next one glows while it is ``busy``."""
    marks = f" --parts: {segments}" if segments <= MAX_MARKS else ""
    part = 100 / segments
    glow = f'<i class="part busy" style="width: {part:.4g}%"></i>' if busy and done < segments else ""
    return (
        f'<div class="segments" role="progressbar" aria-valuemin="0" aria-valuenow="{done}" aria-valuemax="{segments}" '
        f'style="{marks.strip()}"><i class="part" style="width: {done * part:.4g}%"></i>{glow}</div>'
    )
