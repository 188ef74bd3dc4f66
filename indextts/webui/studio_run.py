"""One run through the rows of a narration, as the page shows it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from indextts.text.passages import estimate_s
from indextts.types import Progress, Queued
from indextts.webui.i18n import text
from indextts.webui.narration import Narration, Row, Take
from indextts.webui.narrator import Job
from indextts.webui.studio_text import PART_ROWS, clock, standing

LIVE_ROWS = 8
"""How many rows that the player has been told of it is told of again: it may have missed them."""


class StudioRun:
    """What has come so far, and how the page tells it."""

    def __init__(self, narration: Narration, jobs: Sequence[Job], language: str) -> None:
        shutil.rmtree(narration.folder / "live", ignore_errors=True)
        self.narration = narration
        self.language = language
        self.left_s = sum(estimate_s(job.row.text) for job in jobs)
        self.estimated_s = self.left_s
        self.spoken_s = 0.0
        self.started = time.perf_counter()
        self.files: list[str] = []

    def changes(self, events: Sequence[Row | Progress]) -> dict[str, Any]:
        """What changes on the page by all of ``events``."""
        told, last, changes = len(self.files), None, {}
        for event in events:
            if isinstance(event, Queued):
                changes["status"] = text("rows.queued", self.language, place=event.place, wait_s=event.wait_s)
            elif isinstance(event, Row):
                last = self._heard(event) or last
        if last is not None:
            changes = {"status": self.told(last), "live": self.files[max(0, told - LIVE_ROWS) :]}
        return changes

    def _heard(self, row: Row) -> int | None:
        """A row is ready, or has failed. Returns the number of one that can be heard."""
        self.left_s -= estimate_s(row.text)
        index = next((i for i, other in enumerate(self.narration.rows) if other is row), None)
        if row.take is None or row.state == "failed" or index is None:
            return None
        self.spoken_s += row.take.duration_s
        self.files.append(str(self._live(row.take, index)))
        self.follow(index)
        return index + 1

    def follow(self, index: int) -> None:
        """Show the part of the table that is next, if the one with the row before is shown."""
        if self.narration.part == index // PART_ROWS + 1:
            self.narration.part = (index + 1) // PART_ROWS + 1

    def told(self, number: int) -> str:
        """How far it is, when the row with a number is ready."""
        elapsed_s = time.perf_counter() - self.started
        remaining_s = elapsed_s * self.left_s / max(self.estimated_s - self.left_s, 1e-9)
        return text(
            "rows.running",
            self.language,
            segment=number,
            segments=len(self.narration.rows),
            duration=clock(self.spoken_s),
            remaining=clock(max(0.0, remaining_s)),
        )

    def _live(self, take: Take, index: int) -> Path:
        """The file of a row for the player, which reads the pause behind it from its name."""
        folder = self.narration.folder / "live"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{take.path.stem}-pause{self.narration.pause_ms(index)}.wav"
        try:
            os.link(take.path, path)  # no copy: the take may go, the player may be minutes behind
        except OSError:  # a file system without links
            shutil.copyfile(take.path, path)
        return path

    def ended(self) -> str:
        """What came of it."""
        took = text("rows.took", self.language, elapsed=clock(time.perf_counter() - self.started))
        return f"{standing(self.narration, self.language)} {took}"
