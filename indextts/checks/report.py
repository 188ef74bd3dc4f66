"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass

OK, NOTE, FAILED = "ok", "note", "failed"
"""A note is what one should know and can live with."""


@dataclass(frozen=True)
class Check:
    """One line of the checklist; a failed one says what to do."""

    name: str
    state: str
    found: str
    advice: str = ""

    def __post_init__(self) -> None:
        if self.state not in (OK, NOTE, FAILED) or (self.state == FAILED and not self.advice):
            raise ValueError(f"{self.name}: {self.state} without advice, or no such state")
