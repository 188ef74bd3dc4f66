"""From the values of the page's widgets to a ``SynthesisRequest``. Knows neither gradio nor the model."""

from __future__ import annotations

import dataclasses
import math
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from indextts.config import SamplingParams
from indextts.emotion import EMOTIONS, normalize_emo_vec
from indextts.text.glossary import Reading
from indextts.types import (
    DURATION_FACTORS,
    ChunkSchedule,
    Emotion,
    FromAudio,
    FromText,
    FromVector,
    FromVoice,
    SynthesisRequest,
    VoicePrompt,
)
from indextts.webui.glossary import glossary_of
from indextts.webui.i18n import PageError

MODES = ("voice", "audio", "vector", "text")
DEFAULT_EMOTION_WEIGHT = 0.65
MAX_SEED = 2**32 - 1
MAX_SILENCE_MS = 5000


@dataclass(frozen=True)
class FormValues:
    """The widgets in the order in which they are handed over; the named API has the same parameters."""

    voice: str | None  # path
    text: str | None
    emotion_mode: str  # of MODES
    emotion_audio: str | None  # path
    emotion_text: str | None
    emotion_weight: float
    emotion_random: bool
    happy: float
    angry: float
    sad: float
    afraid: float
    disgusted: float
    melancholic: float
    surprised: float
    calm: float
    max_text_tokens_per_segment: float
    interval_silence_ms: float
    seed: str | float | None  # a text box: gradio's number box turns empty into 0
    do_sample: bool
    temperature: float
    top_p: float
    top_k: float
    num_beams: float
    repetition_penalty: float
    length_penalty: float
    max_mel_tokens: float
    typical_sampling: bool
    typical_mass: float
    repair: bool
    duration_factor: float
    duration_s: str | float | None  # a text box, as the seed
    glossary: Mapping[str, Reading] | None = None

    def request(self, chunks: ChunkSchedule | None = None) -> SynthesisRequest:
        """What the user asks for. The seed is always set, so that the page can show it.

        Args:
            chunks: How segments sound while they are still being spoken, for those who listen; not where a duration is
                wanted.

        Raises:
            IndexTTSError: something is missing, or a value is out of its range.
        """
        if not self.voice:
            raise PageError("error.no_voice")
        if not self.text or not self.text.strip():
            raise PageError("error.no_text")
        request = SynthesisRequest(
            text=self.text,
            voice=VoicePrompt.from_path(self.voice),
            emotion=self.emotion(),
            sampling=self.sampling(),
            max_text_tokens_per_segment=whole("max_text_tokens_per_segment", self.max_text_tokens_per_segment),
            interval_silence_ms=whole("interval_silence_ms", self.interval_silence_ms, 0, MAX_SILENCE_MS),
            seed=self.chosen_seed(),
            repair=bool(self.repair),
            duration_factor=number("duration_factor", self.duration_factor, *DURATION_FACTORS),
            duration_s=self.chosen_duration_s(),
            glossary=glossary_of(self.glossary),
        )
        return request if chunks is None else request.in_chunks(chunks)

    def chosen_duration_s(self) -> float | None:
        """The seconds that were typed, if any were."""
        typed = self.duration_s.strip() if isinstance(self.duration_s, str) else self.duration_s
        if typed is None or typed == "":
            return None
        if isinstance(typed, str):
            with suppress(ValueError):  # what is no number is refused below, by name
                typed = float(typed)
        return number("duration_s", typed)

    def chosen_seed(self) -> int:
        """The seed that was typed, or a new one."""
        typed = self.seed.strip() if isinstance(self.seed, str) else self.seed
        if typed is None or typed == "":
            return secrets.randbelow(2**31)
        if isinstance(typed, str):
            typed = int(typed) if typed.isascii() and typed.isdigit() and len(typed) < 20 else typed
        return whole("seed", typed, 0, MAX_SEED)

    def emotion(self) -> Emotion:
        """The emotion by the chosen mode; what belongs to other modes is not looked at (spec 15.1)."""
        if self.emotion_mode == "voice":
            return FromVoice()
        weight = number("emotion_weight", self.emotion_weight, 0.0, 1.0)
        if self.emotion_mode == "audio":
            if not self.emotion_audio:
                raise PageError("error.no_emotion_audio")
            return FromAudio(VoicePrompt.from_path(self.emotion_audio), weight)
        if self.emotion_mode == "vector":
            values = [number(name, getattr(self, name), 0.0, 1.0) for name in EMOTIONS]
            if not any(values):
                raise PageError("error.no_emotion")
            return FromVector(tuple(normalize_emo_vec(values)), weight, bool(self.emotion_random))
        if self.emotion_mode == "text":
            return FromText((self.emotion_text or "").strip() or None, weight, bool(self.emotion_random))
        raise PageError("error.mode", modes=", ".join(MODES), mode=repr(self.emotion_mode))

    def sampling(self) -> SamplingParams:
        """The sampling widgets; ``SamplingParams`` checks the ranges."""
        values: dict[str, Any] = {}
        for field in dataclasses.fields(SamplingParams):
            value = getattr(self, field.name)
            if isinstance(field.default, bool):
                values[field.name] = bool(value)
            else:
                convert = whole if isinstance(field.default, int) else number
                values[field.name] = convert(field.name, value)
        return SamplingParams(**values)


def number(name: str, value: object, low: float = -math.inf, high: float = math.inf) -> float:
    """``value`` as a finite float within its range, or a ``PageError`` by name."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise PageError("error.number", name=name, value=repr(value))
    if not low <= value <= high:
        raise PageError("error.range", name=name, low=low, high=high, value=value)
    return float(value)


def whole(name: str, value: object, low: float = -math.inf, high: float = math.inf) -> int:
    """As ``number``, for whole numbers; a browser sends them as floats at times."""
    checked = number(name, value, low, high)
    if checked != int(checked):
        raise PageError("error.whole", name=name, value=repr(value))
    return int(checked)
