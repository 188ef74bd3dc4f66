"""The ready-made cases of ``examples/cases.jsonl`` as rows for the page."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indextts.emotion import EMOTIONS
from indextts.webui.form import DEFAULT_EMOTION_WEIGHT, MODES

if TYPE_CHECKING:
    from indextts.service import ModelFacts

logger = logging.getLogger(__name__)

# In the order of a row; keys of a line of cases.jsonl as well, "voice" and "emotion_audio" being file names.
COLUMNS = ["voice", "text", "emotion_mode", "emotion_audio", "emotion_text", "emotion_weight", *EMOTIONS]


@dataclass
class Examples:
    """Cases for the form.

    Attributes:
        columns: What the values of a row are, by the form's names; recordings are paths.
        left_out: How many cases the loaded model is not able to speak.
    """

    columns: list[str] = field(default_factory=lambda: COLUMNS)
    rows: list[list[Any]] = field(default_factory=list)
    left_out: int = 0


def load_examples(folder: Path, facts: ModelFacts) -> Examples:
    """The cases in ``folder`` whose recordings are there and which the model described by ``facts`` can speak.

    A line that is not a usable case is left out with a warning: examples must not keep the page from starting.
    """
    found, path = Examples(), folder / "cases.jsonl"
    if not path.is_file():
        return found
    for line_number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            case = json.loads(line)
            row = example_row(case, folder)
        except (ValueError, KeyError, TypeError) as error:
            logger.warning("%s line %d is not a usable case: %s", path, line_number, error)
            continue
        recordings = [value for value in row if isinstance(value, Path)]
        if missing := [str(recording) for recording in recordings if not recording.is_file()]:
            logger.warning("%s line %d: there is no %s", path, line_number, ", ".join(missing))
        elif language_of(row[1]) in facts.languages and (row[2] != "text" or facts.text_emotion_model):
            found.rows.append(row)
        else:
            found.left_out += 1
    return found


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
        folder / case["voice"],
        case["text"],
        mode,
        folder / emotion_audio if emotion_audio else None,
        case.get("emotion_text", ""),
        case.get("emotion_weight", DEFAULT_EMOTION_WEIGHT),
        *vector,
    ]


def language_of(text: str) -> str:
    """The language of a case: Chinese if it holds a Chinese character, else English."""
    return "zh" if any("\u4e00" <= character <= "\u9fff" for character in text) else "en"
