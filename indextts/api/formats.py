"""Speech as HTTP clients get it: as files, and as streams that begin before the end of the speech is known."""

from __future__ import annotations

import struct
from typing import Protocol

import numpy as np
import soxr

from indextts import encoding
from indextts.errors import ConfigError

PCM_RATE_HZ = 24000
"""What clients of OpenAI's interface take headerless samples for."""

UNKNOWN_LENGTH = 0xFFFFFFFF
"""What stands in the header of a WAV stream in place of its length."""

MEDIA_TYPES = {
    "wav": "audio/wav",
    "flac": "audio/flac",
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "pcm": f"audio/pcm;rate={PCM_RATE_HZ}",
}
"""The formats, and what they are called in HTTP. ``pcm`` is 16-bit little-endian mono without a header."""


def encode(samples: np.ndarray, sample_rate_hz: int, audio_format: str) -> bytes:
    """Samples, int16 ``[N]``, as a file of one of ``MEDIA_TYPES``.

    Raises:
        ConfigError: the format is not one of them.
    """
    if audio_format not in MEDIA_TYPES:
        raise ConfigError(f"the audio format must be one of {', '.join(MEDIA_TYPES)}, not {audio_format!r}")
    if audio_format == "pcm" and sample_rate_hz != PCM_RATE_HZ:
        samples, sample_rate_hz = soxr.resample(samples, sample_rate_hz, PCM_RATE_HZ), PCM_RATE_HZ
    return encoding.encode(samples, sample_rate_hz, audio_format)


class StreamEncoder(Protocol):
    """Turns samples into bytes as they come."""

    def add(self, samples: np.ndarray) -> bytes:
        """The bytes that ``samples``, int16 ``[N]``, add to the stream; there may be none yet."""
        ...

    def end(self) -> bytes:
        """What is left."""
        ...


class PcmStream:
    """Headerless samples at ``PCM_RATE_HZ``."""

    def __init__(self, sample_rate_hz: int) -> None:
        self._resampler = soxr.ResampleStream(sample_rate_hz, PCM_RATE_HZ, 1, dtype="int16")

    def add(self, samples: np.ndarray) -> bytes:
        return little_endian(self._resampler.resample_chunk(samples))

    def end(self) -> bytes:
        return little_endian(self._resampler.resample_chunk(np.zeros(0, np.int16), last=True))


class WavStream:
    """A WAV file whose header leaves its length open; players read it to its end."""

    def __init__(self, sample_rate_hz: int) -> None:
        self._header = struct.pack(
            "<4sI4s4sIHHIIHH4sI",
            *(b"RIFF", UNKNOWN_LENGTH, b"WAVE", b"fmt ", 16),
            *(1, 1, sample_rate_hz, 2 * sample_rate_hz, 2, 16),  # PCM, mono, bytes a second and a sample, bits
            *(b"data", UNKNOWN_LENGTH),
        )

    def add(self, samples: np.ndarray) -> bytes:
        header, self._header = self._header, b""
        return header + little_endian(samples)

    def end(self) -> bytes:
        return b""


STREAM_ENCODERS = {"pcm": PcmStream, "wav": WavStream}
"""The formats that can be streamed."""


def little_endian(samples: np.ndarray) -> bytes:
    """The bytes of 16-bit samples, on any machine in the same order."""
    return samples.astype("<i2").tobytes()
