"""Finished speech as a file to take away, in the format of one's choice."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
from gradio.processing_utils import save_bytes_to_cache

from indextts.errors import ConfigError

DOWNLOADS = ("wav", "flac", "mp3")


def check_format(audio_format: str) -> None:
    """Raise ``ConfigError`` if the format is not one of ``DOWNLOADS``."""
    if audio_format not in DOWNLOADS:
        raise ConfigError(f"audio_format must be one of {', '.join(DOWNLOADS)}, not {audio_format!r}")


def save_speech(samples: np.ndarray, sample_rate_hz: int, audio_format: str, name: str, cache: str) -> str:
    """Samples, int16 ``[N]``, as the file ``name`` of one of ``DOWNLOADS`` in ``cache``."""
    from indextts.encoding import encode  # needs torch

    return save_bytes_to_cache(encode(samples, sample_rate_hz, audio_format), f"{name}.{audio_format}", cache)


def converted(path: str, audio_format: str, cache: str) -> str:
    """The WAV file at ``path`` in one of ``DOWNLOADS``."""
    if audio_format == "wav":
        return path
    with wave.open(path, "rb") as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.int16)
        return save_speech(samples, file.getframerate(), audio_format, Path(path).stem, cache)
