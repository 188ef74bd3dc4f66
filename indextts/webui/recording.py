"""Speech as it grows: a file of everything so far, and one of each chunk for the player."""

from __future__ import annotations

import wave
from pathlib import Path

from indextts.types import AudioChunk


class Recording:
    """Chunks as WAV files of their own, and the same samples growing in one file."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / name
        self.samples = 0
        self.sample_rate_hz = 1
        self.segments = 0
        self._chunks = 0
        self._whole: wave.Wave_write | None = None

    @property
    def duration_s(self) -> float:
        return self.samples / self.sample_rate_hz

    def add(self, chunk: AudioChunk) -> Path:
        """Append ``chunk``; returns the file of it alone."""
        if self._whole is None:
            self._whole = open_wav(self.path, chunk.sample_rate_hz)
        self._whole.writeframes(chunk.samples.tobytes())
        self.samples += len(chunk.samples)
        self.sample_rate_hz, self.segments = chunk.sample_rate_hz, chunk.segments
        alone = self.path.with_name(f"chunk{self._chunks:05d}.wav")
        self._chunks += 1
        with open_wav(alone, chunk.sample_rate_hz) as file:
            file.writeframes(chunk.samples.tobytes())
        return alone

    def close(self) -> None:
        """Finish the whole file."""
        if self._whole is not None:
            self._whole.close()


def open_wav(path: Path, sample_rate_hz: int) -> wave.Wave_write:
    """A mono 16-bit PCM file to write frames to."""
    file = wave.open(str(path), "wb")  # noqa: SIM115  the caller closes it
    file.setnchannels(1)
    file.setsampwidth(2)
    file.setframerate(sample_rate_hz)
    return file
