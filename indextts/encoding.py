"""Finished speech, int16 samples, as files of the usual formats. Needs no torch."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import soundfile
import soxr

from indextts.errors import AudioError
from indextts.files import write_at_once

OPUS_SAMPLE_RATE_HZ = 24000  # of those that Opus has, the next above ours
OPUS_FRAME_SAMPLES = OPUS_SAMPLE_RATE_HZ // 50
FORMATS = {
    "wav": ("WAV", "PCM_16"), "flac": ("FLAC", "PCM_16"), "mp3": ("MP3", "MPEG_LAYER_III"),
    "ogg": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS"), "pcm": ("RAW", "PCM_16"),
}  # fmt: skip
"""What can be written, by the ending of the file: container and coding, as libsndfile calls them."""


def encode(samples: np.ndarray, sample_rate_hz: int, format: str) -> bytes:
    """Int16 samples ``[N]`` as the content of a mono file.

    Args:
        format: A key of ``FORMATS``. "wav" and "flac" keep every sample, "pcm" is the samples alone (little-endian);
            "opus" is at 24 kHz, for it knows no 22.05 kHz.

    Raises:
        AudioError: another format, or one that this machine's libsndfile cannot write.
    """
    if samples.dtype != np.int16 or samples.ndim != 1:
        raise TypeError(f"samples must be int16 [N], not {samples.dtype} {list(samples.shape)}")
    if format not in FORMATS:
        raise AudioError(f"unknown audio format {format!r}: known are {', '.join(FORMATS)}")
    if format == "pcm":
        return samples.astype("<i2").tobytes()
    container, subtype = FORMATS[format]
    if format == "opus":
        # As floats: whole numbers are dithered.
        resampled = soxr.resample(samples.astype(np.float32), sample_rate_hz, OPUS_SAMPLE_RATE_HZ)
        samples, sample_rate_hz = resampled.round().clip(-(2**15), 2**15 - 1).astype(np.int16), OPUS_SAMPLE_RATE_HZ
        # A frame of silence behind it, or a sound that goes on to the end may end in a click.
        samples = np.pad(samples, (0, OPUS_FRAME_SAMPLES))
    content = io.BytesIO()
    try:
        with soundfile.SoundFile(content, "w", sample_rate_hz, 1, subtype, format=container) as file:
            # In pieces: libsndfile's Vorbis coder keeps a whole piece on the stack, and crashes on minutes of sound.
            for start in range(0, len(samples), sample_rate_hz):
                file.write(samples[start : start + sample_rate_hz])
    except (ValueError, soundfile.LibsndfileError) as error:  # ValueError: not in this build of the library
        raise AudioError(f"cannot write {format} on this machine: {error}") from error
    return content.getvalue()


def audio_format(path: str | Path) -> str:
    """The format that a file's name asks for. Raises ``AudioError`` for an ending that is not one of ``FORMATS``."""
    format = Path(path).suffix.lower().removeprefix(".")
    if format not in FORMATS:
        endings = ", ".join(f".{known}" for known in FORMATS)
        raise AudioError(f"the name {str(path)!r} tells no audio format: it must end in one of {endings}")
    return format


def write_audio(path: str | Path, samples: np.ndarray, sample_rate_hz: int) -> Path:
    """Write int16 samples ``[N]`` in the format that the name asks for; an existing file is replaced in one step.

    Raises:
        AudioError: unknown format, or the file cannot be written; nothing is left behind.
    """
    return _replace_file(Path(path), encode(samples, sample_rate_hz, audio_format(path)))


def write_wav(path: str | Path, samples: np.ndarray, sample_rate_hz: int) -> Path:
    """Write int16 samples ``[N]`` as a mono 16-bit WAV file, whatever its name; otherwise as ``write_audio``."""
    return _replace_file(Path(path), encode(samples, sample_rate_hz, "wav"))


def _replace_file(path: Path, content: bytes) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_at_once(path, content)
    except OSError as error:
        raise AudioError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
    return path
