"""What a studio shows of a narration in words: its table, its length, how far it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from indextts.errors import UnusableText
from indextts.text.passages import estimate_s
from indextts.webui.i18n import PageError, catalogue, choice_text, text
from indextts.webui.narration import Narration, Row
from indextts.webui.page import message_of, sentence

PART_ROWS = 100
"""Rows that the table shows at a time: a browser would labour on thousands."""

MISSING = ("waiting", "changed", "failed")
"""The states of rows that are still to be spoken."""


@contextmanager
def texts_by_name() -> Iterator[None]:
    """What is wrong with a text or a script is said in the language of the page."""
    try:
        yield
    except UnusableText as error:
        raise PageError(".".join(("unusable", error.problem)), **error.values) from error


def parts(narration: Narration) -> int:
    """How many parts the table has."""
    return max(1, -(-len(narration.rows) // PART_ROWS))


def table_value(narration: Narration, language: str, with_speakers: bool) -> dict[str, Any]:
    """The shown part of the table, with its headers."""
    start = (narration.part - 1) * PART_ROWS
    found = []
    for index, row in enumerate(narration.rows[start : start + PART_ROWS], start):
        who = [row.line, row.speaker, shown_emotion(row, language)] if with_speakers else []
        tokens = [] if with_speakers else [shown_tokens(narration, row)]
        seconds = f"{'' if row.state == 'ready' else '≈ '}{row.duration_s:.1f}"
        state = shown_state(row, language)
        found.append([index + 1, state, *who, row.text, *tokens, seconds, narration.pause_ms(index)])
    headers = catalogue(language)["dialogue.table.headers" if with_speakers else "rows.table.headers"]
    return {"headers": headers.split("|"), "data": found}


def shown_state(row: Row, language: str) -> str:
    """What becomes of a row."""
    state = choice_text("rows.state", row.state, language)
    return f"{state}: {sentence(message_of(row.error, language))}" if row.state == "failed" and row.error else state


def shown_tokens(narration: Narration, row: Row) -> str:
    """About how many tokens a row has."""
    rate = narration.tokens_a_second
    return "" if rate is None else f"≈ {max(1, round(estimate_s(row.text) * rate))}"


def shown_emotion(row: Row, language: str) -> str:
    """The emotions that a line asks for."""
    return ", ".join(f"{text(name, language)} {weight:g}" for name, weight in row.emotion)


def summary(narration: Narration, language: str) -> str:
    """How long the text is."""
    if not narration.rows:
        return ""
    characters = sum(len(row.text) for row in narration.rows)
    duration = clock(narration.duration_s())
    return text("rows.summary", language, segments=len(narration.rows), characters=characters, duration=duration)


def standing(narration: Narration, language: str) -> str:
    """How many rows are ready, and what keeps the others."""
    states = Counter(row.state for row in narration.rows)
    ready, total = states["ready"] + states["silent"], len(narration.rows)
    lines = [text("rows.standing", language, ready=ready, total=total, duration=clock(ready_s(narration)))]
    if states["failed"]:
        lines.append(text("rows.standing_failed", language, failed=states["failed"]))
    if states["changed"]:
        lines.append(text("rows.standing_changed", language, changed=states["changed"]))
    return " ".join(lines)


def ready_s(narration: Narration) -> float:
    """How much of it can be heard."""
    return sum(take.duration_s for _, _, take in narration.spoken)


def clock(duration_s: float) -> str:
    """Minutes and seconds, or hours as well."""
    minutes, seconds = divmod(round(duration_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
