"""What a session has made: the latest takes, to be heard again."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from indextts.webui.recording import Recording

MAX_TAKES = 20
SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Take:
    """One finished speech. ``voice`` is what its recording is called."""

    number: int
    path: Path
    made_at: datetime
    text: str
    voice: str
    seed: int
    duration_s: float

    def row(self) -> list[Any]:
        """A row of the table of takes."""
        shown = shorten(self.text, SHOWN_CHARACTERS)
        made_at, duration_s = self.made_at.strftime("%H:%M:%S"), f"{self.duration_s:.1f}"
        return [self.number, made_at, shown, self.voice, str(self.seed), duration_s]


class Takes:
    """The last ``MAX_TAKES`` takes of one session, newest first. Their files go with the session."""

    def __init__(self) -> None:
        self.all: list[Take] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None  # made when it is needed
        self._made = 0

    def add(self, recording: Recording, text: str, voice: str, seed: int) -> Take:
        """Keep ``recording``, whose file is moved; the oldest take may have to go for it."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="indextts-takes-")
        self._made += 1
        path = Path(self._folder.name) / f"indextts-{self._made}-seed{seed}.wav"
        shutil.move(recording.path, path)
        self.all.insert(0, Take(self._made, path, datetime.now(), text, voice, seed, recording.duration_s))
        for old in self.all[MAX_TAKES:]:
            old.path.unlink(missing_ok=True)
        del self.all[MAX_TAKES:]
        return self.all[0]

    def get(self, number: int) -> Take | None:
        """The take with this number, if it is still there."""
        return next((take for take in self.all if take.number == number), None)

    def rows(self) -> list[list[Any]]:
        """The table of takes."""
        return [take.row() for take in self.all]

    def close(self) -> None:
        """Remove all files."""
        self.all.clear()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


def shorten(written: str, length: int) -> str:
    """The beginning of a text, on one line of at most ``length`` characters."""
    words = " ".join(written[: 2 * length].split())
    return words if len(words) <= length else f"{words[: length - 1]}…"
