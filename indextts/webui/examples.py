"""The ready-made cases of ``examples/cases.jsonl`` as rows for the page."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from indextts.emotion import EMOTIONS
from indextts.webui.form import DEFAULT_EMOTION_WEIGHT, MODES

logger = logging.getLogger(__name__)

# In the order of a row; keys of a line of cases.jsonl as well, "voice" and "emotion_audio" being file names.
COLUMNS = ["voice", "text", "emotion_mode", "emotion_audio", "emotion_text", "emotion_weight", *EMOTIONS]


def load_examples(folder: Path) -> tuple[list[str], list[list[Any]]]:
    """Column names and rows of the cases in ``folder`` whose recordings are there.

    A line that is not a usable case is left out with a warning: examples must not keep the page from starting.
    """
    path = folder / "cases.jsonl"
    if not path.is_file():
        return COLUMNS, []
    rows = []
    for line_number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            case = json.loads(line)
            row = example_row(case, folder)
        except (ValueError, KeyError, TypeError) as error:
            logger.warning("%s line %d is not a usable case: %s", path, line_number, error)
            continue
        recordings = [row[0], row[3]]
        if missing := [name for name in recordings if name is not None and not Path(name).is_file()]:
            logger.warning("%s line %d: there is no %s", path, line_number, ", ".join(missing))
            continue
        rows.append(row)
    return COLUMNS, rows


def example_row(case: dict[str, Any], folder: Path) -> list[Any]:
    """One case as the values of ``COLUMNS``. Raises ``KeyError`` or ``ValueError`` on a malformed case."""
    if unknown := set(case) - {*COLUMNS} - {"emotion_vector"}:
        raise ValueError(f"unknown keys {sorted(unknown)}")
    mode = case.get("emotion_mode", "voice")
    if mode not in MODES:
        raise ValueError(f"unknown emotion mode {mode!r}")
    vector = case.get("emotion_vector", [0.0] * len(EMOTIONS))
    if len(vector) != len(EMOTIONS):
        raise ValueError(f"an emotion vector has {len(EMOTIONS)} values, not {len(vector)}")
    emotion_audio = case.get("emotion_audio")
    return [
        str(folder / case["voice"]),
        case["text"],
        mode,
        str(folder / emotion_audio) if emotion_audio else None,
        case.get("emotion_text", ""),
        case.get("emotion_weight", DEFAULT_EMOTION_WEIGHT),
        *vector,
    ]
