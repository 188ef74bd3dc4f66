"""A text that a session has read to it: passages, what has been spoken of each, and the sound of them all.

What was spoken is on the disk, in a folder that goes when the session ends.
"""

from __future__ import annotations

import secrets
import shutil
import threading
import wave
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from indextts.errors import IndexTTSError
from indextts.subtitles import Cue
from indextts.text.passages import estimate_s, has_speech
from indextts.webui.recording import open_wav

BLOCK_FRAMES = 2**18


@dataclass(frozen=True)
class Take:
    """What was spoken of a text, in a file of its own."""

    path: Path
    text: str
    frames: int
    sample_rate_hz: int
    seed: int

    @property
    def duration_s(self) -> float:
        return self.frames / self.sample_rate_hz

    def blocks(self) -> Iterator[np.ndarray]:
        """Its samples, int16, piece by piece."""
        with wave.open(str(self.path), "rb") as file:
            while data := file.readframes(BLOCK_FRAMES):
                yield np.frombuffer(data, "<i2").astype(np.int16)


@dataclass
class Row:
    """One passage.

    Attributes:
        source: As it stands in the text.
        text: What is spoken: the source, or what a user has made of it.
        ends_paragraph: Whether a longer pause is natural behind it.
        asked_pause_ms: The pause that the text asks for behind it.
        speaker, emotion, line: Who says it, how, and where it stands; of dialogues.
        own_pause_ms: The pause that a user has set for it.
        take: The last that was spoken of it, perhaps of an earlier text.
        outdated: Whether it shall be spoken in another way than the take was.
        speaking: Whether it is being spoken now.
        error: Why it could not be spoken.
    """

    source: str
    text: str
    ends_paragraph: bool = True
    asked_pause_ms: int | None = None
    speaker: str = ""
    emotion: tuple[tuple[str, float], ...] = ()
    line: int | None = None
    own_pause_ms: int | None = None
    take: Take | None = None
    outdated: bool = False
    speaking: bool = False
    error: IndexTTSError | None = None

    @classmethod
    def of(cls, source: str, **known: Any) -> Row:
        """A row that nobody has changed."""
        return cls(source, source, **known)

    @property
    def state(self) -> str:
        """One of silent (nothing to speak), waiting, speaking, ready, changed (since it was spoken), failed."""
        if self.speaking:
            return "speaking"
        if not has_speech(self.text):
            return "silent"
        if self.error is not None:
            return "failed"
        if self.take is None:
            return "waiting"
        return "changed" if self.outdated or self.take.text != self.text else "ready"

    @property
    def duration_s(self) -> float:
        """How long it is, or will be by an estimate."""
        return self.take.duration_s if self.take and self.state == "ready" else estimate_s(self.text)

    def is_as(self, other: Row) -> bool:
        """Whether it is the same passage of a text."""
        return (self.source, self.speaker, self.emotion) == (other.source, other.speaker, other.emotion)


class Narration:
    """The rows of one session, with their takes on the disk. Threads may read while one changes it."""

    def __init__(self, folder: Path) -> None:
        """Args: folder: Where the takes go; it is made with the first, and removed by ``close``."""
        self.folder = folder
        self.rows: list[Row] = []
        self.lead_ms = 0
        self.between_ms = 0
        self.paragraph_ms = 0
        self.tokens_a_second: float | None = None  # of this text, for as long as it has takes
        self.cast: dict[str, str] = {}  # names of voices by speakers
        self.part = 1  # of its table that is shown
        self.busy = threading.Lock()  # held by whoever speaks
        self.stop = threading.Event()
        self.closed = False

    def recut(self, rows: Sequence[Row], lead_ms: int = 0) -> None:
        """Take ``rows`` over; those that are as before, from the start and from the end, keep what they had."""
        old, new = self.rows, list(rows)
        shortest = min(len(old), len(new))
        head = next((i for i in range(shortest) if not old[i].is_as(new[i])), shortest)
        tail = next((i for i in range(shortest - head) if not old[-1 - i].is_as(new[-1 - i])), shortest - head)
        before, after = old[:head], old[len(old) - tail :]
        for row, fresh in zip([*before, *after], [*new[:head], *new[len(new) - tail :]], strict=True):
            row.line, row.ends_paragraph, row.asked_pause_ms = fresh.line, fresh.ends_paragraph, fresh.asked_pause_ms
        for row in old[head : len(old) - tail]:
            self.drop(row)
        self.rows = [*before, *new[head : len(new) - tail], *after]
        self.lead_ms = lead_ms

    def pause_ms(self, index: int) -> int:
        """The silence behind a row; behind the last, only what was asked for."""
        row = self.rows[index]
        for asked in (row.own_pause_ms, row.asked_pause_ms):
            if asked is not None:
                return asked
        if index + 1 == len(self.rows):
            return 0
        return self.paragraph_ms if row.ends_paragraph else self.between_ms

    def keep(self, row: Row, pieces: Sequence[np.ndarray], sample_rate_hz: int, seed: int, text: str) -> None:
        """Write what was spoken of ``text`` to the disk; it replaces what the row had."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{secrets.token_hex(8)}.wav"
        with open_wav(path, sample_rate_hz) as file:
            for piece in pieces:
                file.writeframes(piece.astype("<i2").tobytes())
        former, row.take = row.take, Take(path, text, sum(map(len, pieces)), sample_rate_hz, seed)
        row.error, row.outdated = None, False
        if former is not None:
            former.path.unlink(missing_ok=True)
        if self.closed:  # meanwhile: nobody else will remove it
            self.drop(row)

    def drop(self, row: Row) -> None:
        """Forget what was spoken of a row, and why it failed."""
        if row.take is not None:
            row.take.path.unlink(missing_ok=True)
        row.take = row.error = None
        row.outdated = False

    @property
    def spoken(self) -> list[tuple[int, Row, Take]]:
        """The rows that can be heard, each with its index."""
        rows = enumerate(self.rows)  # of which another thread may be making takes
        return [(i, row, take) for i, row in rows if (take := row.take) and row.state in ("ready", "changed")]

    @property
    def sample_rate_hz(self) -> int:
        """Of the takes. There must be one."""
        return self.spoken[0][2].sample_rate_hz

    def blocks(self) -> Iterator[np.ndarray]:
        """The sound of all rows that can be heard with their pauses, int16, piece by piece."""
        rate_hz = self.sample_rate_hz
        yield from silence(self.lead_ms, rate_hz)
        for index, _, take in self.spoken:
            yield from take.blocks()
            yield from silence(self.pause_ms(index), rate_hz)

    def cues(self) -> list[Cue]:
        """What is heard when in ``blocks``."""
        cues, rate_hz = [], self.sample_rate_hz
        position = frames_of(self.lead_ms, rate_hz)
        for index, row, take in self.spoken:
            start, position = position, position + take.frames
            words = f"{row.speaker}: {take.text}" if row.speaker else take.text
            cues.append(Cue(start / rate_hz, position / rate_hz, words))
            position += frames_of(self.pause_ms(index), rate_hz)
        return cues

    def duration_s(self) -> float:
        """How long all of it is, pauses included; of what is not spoken yet by an estimate."""
        pauses_ms = self.lead_ms + sum(map(self.pause_ms, range(len(self.rows))))
        return pauses_ms / 1000 + sum(row.duration_s for row in self.rows)

    def close(self) -> None:
        """Stop whoever speaks, and remove what was spoken."""
        self.closed = True
        self.stop.set()
        shutil.rmtree(self.folder, ignore_errors=True)


def frames_of(duration_ms: float, sample_rate_hz: int) -> int:
    """How many samples a silence has."""
    return max(0, int(sample_rate_hz * duration_ms / 1000))


def silence(duration_ms: float, sample_rate_hz: int) -> Iterator[np.ndarray]:
    """Zeros, int16, piece by piece."""
    frames = frames_of(duration_ms, sample_rate_hz)
    for start in range(0, frames, BLOCK_FRAMES):
        yield np.zeros(min(BLOCK_FRAMES, frames - start), np.int16)


State = TypeVar("State")


@dataclass
class Sessions(Generic[State]):
    """Something for each browser session, made when it is first asked for."""

    make: Callable[[], State]
    end: Callable[[State], None]
    _states: dict[str, State] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, session: str | None) -> State:
        """What belongs to a session."""
        with self._lock:
            if (key := session or "") not in self._states:
                self._states[key] = self.make()
            return self._states[key]

    def forget(self, session: str | None) -> None:
        """End what belongs to a session: its page was closed."""
        with self._lock:
            state = self._states.pop(session or "", None)
        if state is not None:
            self.end(state)
