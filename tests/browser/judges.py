"""Who decides whether the sound is right: models that nobody here made."""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import soundfile
import soxr

from tests.recogniser import transcribe, word_error_rate

MAX_WORD_ERROR_RATE = 0.34
"""The small recogniser mishears a word or two of a short sentence by itself."""

JUDGE_RATE_HZ = 16000


def says(words: str, samples: np.ndarray, rate_hz: int) -> bool:
    """Whether a recogniser hears ``words``."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "said.wav"
        soundfile.write(path, samples, rate_hz)
        heard = transcribe(path)
    rate = word_error_rate(words, heard)
    print(f"{rate:.2f} {words!r} heard as {heard!r}")  # noqa: T201  shown when the test fails
    return rate <= MAX_WORD_ERROR_RATE


def likeness(samples: np.ndarray, rate_hz: int, prompt: Path) -> float:
    """Cosine of the voices of some sound and of a recording, by the GE2E speaker encoder."""
    reference, reference_hz = soundfile.read(prompt, dtype="float32")
    return float(voice_of(samples, rate_hz) @ voice_of(reference, reference_hz))


def voice_of(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    preprocess, encoder = speaker_encoder()
    return encoder.embed_utterance(preprocess(soxr.resample(samples, rate_hz, JUDGE_RATE_HZ)))


@lru_cache(maxsize=1)
def speaker_encoder() -> tuple[Any, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports from a deprecated place of scipy
        from resemblyzer import VoiceEncoder, preprocess_wav
    return preprocess_wav, VoiceEncoder("cpu", verbose=False)
