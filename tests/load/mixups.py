"""Did everybody get their own recording?

The exact answer: a request has a seed, so that made again with nobody else there it must give the same samples; a
recording that is somebody else's does not. That takes as long as speaking does, so it is asked of a few: of all whose
voice sounds more like another one (to a speaker encoder that nobody here trained, GE2E), and of some others at random.
"""

from __future__ import annotations

import io
import random
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import soundfile
import soxr

from training.judges import SAMPLE_RATE_HZ, VoiceGE2E

JUDGED_S = 2.0  # a shorter recording has too little voice to be told apart
LSB = 1  # of 16 bits; threads may add up in another order


@dataclass(frozen=True)
class Recording:
    """What a request got."""

    body: dict[str, Any]
    samples: np.ndarray  # [N] int16
    sample_rate_hz: int

    @property
    def duration_s(self) -> float:
        return len(self.samples) / self.sample_rate_hz

    def is_the_same_as(self, other: Recording, tolerance: int = LSB) -> bool:
        """Whether the samples are equal, but for ``tolerance``."""
        if len(self.samples) != len(other.samples):
            return False
        return not np.any(np.abs(self.samples.astype(int) - other.samples) > tolerance)


class Judge:
    """Tells voices apart by what each of them sounded like before the load."""

    def __init__(self, references: dict[str, list[Recording]]) -> None:
        self._encoder = VoiceGE2E()
        self._centres = {
            voice: np.mean([self._vector(recording) for recording in recordings], axis=0)
            for voice, recordings in references.items()
        }

    def can_tell(self, recording: Recording) -> bool:
        """Whether there is enough of the voice, and no emotion that may change it."""
        return recording.duration_s >= JUDGED_S and "emotion" not in recording.body

    def nearest(self, recording: Recording) -> str:
        """The name of the voice that it sounds most like."""
        vector = self._vector(recording)
        return max(self._centres, key=lambda name: float(vector @ self._centres[name]))

    def _vector(self, recording: Recording) -> np.ndarray:
        samples = recording.samples.astype(np.float32) / 2**15
        return self._encoder.embed(soxr.resample(samples, recording.sample_rate_hz, SAMPLE_RATE_HZ))


def suspicious(recordings: list[Recording], judge: Judge) -> tuple[list[Recording], int]:
    """Those that are nearer to another voice than to their own, and how many were compared."""
    compared = [recording for recording in recordings if judge.can_tell(recording)]
    return [recording for recording in compared if judge.nearest(recording) != recording.body["voice"]], len(compared)


def repeat_alone(
    http: httpx.Client, recordings: list[Recording], suspects: list[Recording], others: int
) -> list[tuple[Recording, Recording]]:
    """Make the requests of ``suspects`` and of so many ``others`` again, in turn: what each got first, and now."""
    known = {id(recording) for recording in suspects}
    rest = [recording for recording in recordings if id(recording) not in known]
    chosen = suspects + random.Random(0).sample(rest, min(others, len(rest)))
    return [(one, recording_of(http.post("/v1/audio/speech", json=one.body), one.body)) for one in chosen]


def mixed_up(repeated: list[tuple[Recording, Recording]], tolerance: int = LSB) -> list[Recording]:
    """Those that got something else the second time."""
    return [first for first, second in repeated if not first.is_the_same_as(second, tolerance)]


def recording_of(response: httpx.Response, body: dict[str, Any]) -> Recording:
    """The samples of an answer, which must be of 200: a lossless file, or a stream that leaves its length open."""
    samples, sample_rate_hz = soundfile.read(io.BytesIO(response.raise_for_status().content), dtype="int16")
    return Recording(body, samples, sample_rate_hz)
