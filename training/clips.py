"""Recordings that are to be made and judged, and the file that lists them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

CLIPS = "clips.json"


@dataclass(frozen=True)
class Clip:
    """A recording to be judged.

    Attributes:
        file: In the folder of the list.
        text: What it says.
        voice: The prompt it should sound like, or empty.
        language: ``en`` or ``zh``.
        prompt: Another recording to speak with, in the folder of the prompts; empty for that of the voice.
        emotion: Its name, or a recording in the folder of the styles; empty for none.
        weight: Of the emotion.
        duration_factor: Times as long as the model would take.
        case: What it is counted under in figures that compare cases.
    """

    file: str
    text: str
    voice: str = ""
    synthesis_s: float = 0.0
    seed: int = 0
    warnings: tuple[str, ...] = field(default_factory=tuple)
    language: str = "en"
    prompt: str = ""
    emotion: str = ""
    weight: float = 0.0
    duration_factor: float = 1.0
    case: str = ""


def read_clips(folder: Path) -> list[Clip]:
    return [Clip(**row) for row in json.loads((folder / CLIPS).read_text(encoding="utf-8"))]


def write_clips(folder: Path, clips: list[Clip]) -> None:
    rows = [asdict(clip) for clip in clips]
    (folder / CLIPS).write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
