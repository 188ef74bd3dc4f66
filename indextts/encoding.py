"""Finished speech as files of the usual formats, and as streams that begin before the end of the speech is known."""

from __future__ import annotations

import io
import struct
from typing import Protocol

import numpy as np
import soundfile
import soxr

from indextts.errors import ConfigError

PCM_RATE_HZ = 24000
"""What clients of OpenAI's interface take headerless samples for."""

OPUS_RATE_HZ = 24000
"""The rate next above 22,050 Hz that Opus knows."""

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

FILE_FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "opus": ("OGG", "OPUS"),
}


def encode(samples: np.ndarray, sample_rate_hz: int, audio_format: str) -> bytes:
    """Samples, int16 ``[N]``, as a file of one of ``MEDIA_TYPES``.

    Raises:
        ConfigError: the format is not one of them.
    """
    if audio_format not in MEDIA_TYPES:
        raise ConfigError(f"the audio format must be one of {', '.join(MEDIA_TYPES)}, not {audio_format!r}")
    wanted_hz = {"pcm": PCM_RATE_HZ, "opus": OPUS_RATE_HZ}.get(audio_format, sample_rate_hz)
    if wanted_hz != sample_rate_hz:
        samples = soxr.resample(samples, sample_rate_hz, wanted_hz)
    if audio_format == "pcm":
        return little_endian(samples)
    container, subtype = FILE_FORMATS[audio_format]
    file = io.BytesIO()
    soundfile.write(file, samples, wanted_hz, format=container, subtype=subtype)
    return file.getvalue()


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
