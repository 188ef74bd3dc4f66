"""An engine that hums instead of speaking, so that the page is tested without a model."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from indextts.config import SamplingParams
from indextts.emotion import EMOTIONS
from indextts.errors import Cancelled, EmotionError, SynthesisError, TextError
from indextts.text.glossary import NO_TERMS, Glossary
from indextts.types import (
    AccelerationEntry,
    AccelerationReport,
    AudioChunk,
    FromText,
    Progress,
    ReadEmotion,
    Segment,
    StageTimings,
    SynthesisRequest,
    SynthesisResult,
)

RATE_HZ = 22050


class HummingEngine:
    """Says every sentence as half a second of sound, or in halves of it; some words make it misbehave."""

    model_name = "humming <voice>"
    sample_rate_hz = RATE_HZ
    max_text_tokens = 400
    max_mel_tokens = 1000
    files: Any = None
    sampling_defaults = SamplingParams(temperature=0.7, num_beams=1, max_mel_tokens=800)
    report = AccelerationReport("cpu", (AccelerationEntry("fp16", "on", "fp32", "there is no CUDA device"),))
    languages = ("zh", "en")

    def __init__(self, text_emotion_model: str | None = "qwen") -> None:
        self.text_emotion_model = text_emotion_model
        self.requests: list[SynthesisRequest] = []
        self.cancelled = 0
        self.slow_from = 0  # the sentence from which on a slow text is slow

    def normalize(self, text: str, glossary: Glossary = NO_TERMS) -> str:
        return glossary.apply(text, "en").replace("&", "and")

    def segment(self, text: str, max_tokens: int = 120, glossary: Glossary = NO_TERMS) -> list[Segment]:
        text = glossary.apply(text, "en")
        if not any(letter.isalnum() for letter in text):
            raise TextError("there is nothing to speak")
        sentences = [s.strip() for s in re.split(r"[.\u2029]", text) if s.strip()]
        return [Segment(i, tuple(f"▁{w}" for w in s.split()), ()) for i, s in enumerate(sentences)]

    def emotion_from_text(self, text: str) -> tuple[float, ...]:
        """Those that the text names, in full."""
        if self.text_emotion_model is None:
            raise EmotionError("emotion from text is switched off")
        return tuple(float(name in text) for name in EMOTIONS)

    def stream(self, request: SynthesisRequest, on_progress=None, should_stop=None) -> Iterator[AudioChunk]:
        self.requests.append(request)
        segments = self.segment(request.text, request.max_text_tokens_per_segment, request.glossary)
        for segment in segments:
            if on_progress:
                on_progress(Progress(segment.index / len(segments), "speaking", segment.index, len(segments)))
            if "fail" in segment.text:
                raise SynthesisError("the model produced no speech for segment 1")
            if "bug" in request.text:
                raise ZeroDivisionError("secret detail")
            if "slow" in request.text and segment.index >= self.slow_from:
                deadline = time.monotonic() + 20
                while not (should_stop and should_stop()):
                    assert time.monotonic() < deadline, "nobody cancelled"
                    time.sleep(0.02)
                self.cancelled += 1
                raise Cancelled("the synthesis was cancelled")
            halves = np.array_split(hum(0.5), 1 if request.chunks is None else 2)
            for number, samples in enumerate(halves, start=1):
                ends = number == len(halves)
                yield AudioChunk(samples, RATE_HZ, segment.index, len(segments), ends_segment=ends)

    def synthesize(self, request: SynthesisRequest, on_progress=None, should_stop=None) -> SynthesisResult:
        chunks = list(self.stream(request, on_progress, should_stop))
        samples = np.concatenate([chunk.samples for chunk in chunks])
        read = None
        if isinstance(request.emotion, FromText) and self.text_emotion_model:
            read = ReadEmotion(self.text_emotion_model, self.emotion_from_text(request.emotion.text or request.text))
        timings = StageTimings(total_s=0.1)
        return SynthesisResult(samples, RATE_HZ, request.seed or 0, len(chunks), timings, read_emotion=read)


def hum(duration_s: float) -> np.ndarray:
    """A quiet tone, int16 ``[N]``."""
    times_s = np.arange(int(duration_s * RATE_HZ)) / RATE_HZ
    return (3000 * np.sin(2 * math.pi * 220 * times_s)).astype(np.int16)
