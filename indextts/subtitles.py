"""Subtitles: SubRip files (.srt) in and out, and lyrics files (.lrc) out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from indextts.errors import UnusableText

_TIME = r"(?:(\d{1,3}):)?(\d{1,2}):(\d{1,2})[,.](\d{1,3})"
_TIMING = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?")
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>|\{\\[^{}]*\}")


@dataclass(frozen=True)
class Cue:
    """A text and when it is heard."""

    start_s: float
    end_s: float
    text: str


def read_srt(content: str) -> list[Cue]:
    """The cues of a SubRip file, without numbers and markup; those without a text are left out.

    Raises:
        UnusableText: there is no cue, or a time that is none; its line is named.
    """
    found: list[tuple[float, float, list[str]]] = []
    for number, line in enumerate(content.splitlines(), 1):
        if "-->" in line:
            start_s, end_s = _timing(line, number)
            if found and found[-1][2] and found[-1][2][-1].isdecimal():
                found[-1][2].pop()  # the number of this cue, not the text of the one before
            found.append((start_s, end_s, []))
        elif found and line.strip():
            found[-1][2].append(_TAG.sub("", line).strip())
    cues = [Cue(start_s, end_s, " ".join(filter(None, lines))) for start_s, end_s, lines in found]
    if not any(cue.text for cue in cues):
        raise UnusableText("no_cues", "there are no subtitles in it: lines such as 00:00:01,000 --> 00:00:03,500")
    return [cue for cue in cues if cue.text]


def _timing(line: str, number: int) -> tuple[float, float]:
    match = _TIMING.fullmatch(line)
    values = match.groups() if match else ()
    start_s, end_s = (_seconds(*values[:4]), _seconds(*values[4:])) if match else (0.0, -1.0)
    if end_s < start_s:
        message = "line {line}: {written} is not a time such as 00:00:01,000 --> 00:00:03,500"
        raise UnusableText("bad_timing", message, line=number, written=repr(line.strip()[:80]))
    return start_s, end_s


def _seconds(hours: str | None, minutes: str, seconds: str, fraction: str) -> float:
    return 3600 * int(hours or 0) + 60 * int(minutes) + int(seconds) + int(fraction.ljust(3, "0")) / 1000


def gaps_s(cues: Sequence[Cue]) -> list[float]:
    """The silence in front of each cue."""
    ends_s = [0.0, *(cue.end_s for cue in cues)]
    return [max(0.0, round(cue.start_s - end_s, 3)) for cue, end_s in zip(cues, ends_s, strict=False)]


def write_srt(cues: Iterable[Cue]) -> str:
    """A SubRip file, times in milliseconds."""
    blocks = [
        f"{number}\n{_srt_time(cue.start_s)} --> {_srt_time(cue.end_s)}\n{_one_line(cue.text).replace('-->', '→')}\n"
        for number, cue in enumerate(cues, 1)
    ]
    return "\n".join(blocks)


def write_lrc(cues: Iterable[Cue]) -> str:
    """A lyrics file, times in hundredths of a second; a line without words ends the last cue."""
    cues = list(cues)
    lines = [f"[{_lrc_time(cue.start_s)}]{_one_line(cue.text)}" for cue in cues]
    return "\n".join([*lines, *(f"[{_lrc_time(cue.end_s)}]" for cue in cues[-1:]), ""])


def _srt_time(time_s: float) -> str:
    seconds, milliseconds = divmod(round(1000 * time_s), 1000)
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d},{milliseconds:03d}"


def _lrc_time(time_s: float) -> str:
    seconds, hundredths = divmod(round(100 * time_s), 100)
    return f"{seconds // 60:02d}:{seconds % 60:02d}.{hundredths:02d}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
