"""One run through the rows of a narration, as the page shows it."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from indextts.text.passages import estimate_s
from indextts.types import Progress, Queued
from indextts.webui.i18n import text
from indextts.webui.narration import Narration, Row, silence
from indextts.webui.narrator import Job
from indextts.webui.recording import open_wav
from indextts.webui.studio_text import PART_ROWS, clock, standing

LIVE_CHUNKS = 8
"""How many recent rows the player is told of at a time; it plays each of them once."""

KEPT_CHUNKS = 32
"""How many of their files are kept for it to fetch."""


class StudioRun:
    """What has come so far, and how the page tells it."""

    def __init__(self, narration: Narration, jobs: Sequence[Job], language: str) -> None:
        self.narration = narration
        self.language = language
        self.left_s = sum(estimate_s(job.row.text) for job in jobs)
        self.estimated_s = self.left_s
        self.spoken_s = 0.0
        self.started = time.perf_counter()
        self.files: deque[Path] = deque()

    def changes(self, event: Row | Progress) -> dict[str, Any]:
        """What changes on the page."""
        if isinstance(event, Queued):
            return {"status": text("rows.queued", self.language, place=event.place, wait_s=event.wait_s)}
        if isinstance(event, Progress):
            return {}
        self.left_s -= estimate_s(event.text)
        index = next((i for i, row in enumerate(self.narration.rows) if row is event), None)
        if event.take is None or event.state == "failed" or index is None:
            return {}
        self.spoken_s += event.take.duration_s
        self.follow(index)
        return {"status": self.told(index), "live": self.live(event, self.narration.pause_ms(index))}

    def follow(self, index: int) -> None:
        """Show the part of the table that is next, if the one with the row before is shown."""
        if self.narration.part == index // PART_ROWS + 1:
            self.narration.part = (index + 1) // PART_ROWS + 1

    def told(self, index: int) -> str:
        """How far it is."""
        elapsed_s = time.perf_counter() - self.started
        remaining_s = elapsed_s * self.left_s / max(self.estimated_s - self.left_s, 1e-9)
        return text(
            "rows.running",
            self.language,
            segment=index + 1,
            segments=len(self.narration.rows),
            duration=clock(self.spoken_s),
            remaining=clock(max(0.0, remaining_s)),
        )

    def live(self, row: Row, pause_ms: int) -> list[str]:
        """The files of the latest rows for the player: each with its pause, for it plays them without a gap."""
        assert row.take is not None
        folder = self.narration.folder / "live"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{secrets.token_hex(8)}.wav"
        with open_wav(path, row.take.sample_rate_hz) as file:
            for blocks in (row.take.blocks(), silence(pause_ms, row.take.sample_rate_hz)):
                for block in blocks:
                    file.writeframes(block.astype("<i2").tobytes())
        self.files.append(path)
        if len(self.files) > KEPT_CHUNKS:
            self.files.popleft().unlink(missing_ok=True)
        return [str(path) for path in list(self.files)[-LIVE_CHUNKS:]]

    def ended(self) -> str:
        """What came of it."""
        took = text("rows.took", self.language, elapsed=clock(time.perf_counter() - self.started))
        return f"{standing(self.narration, self.language)} {took}"
