"""Everything that crosses a stage boundary, as frozen dataclasses.

Shape legend: ``B`` batch rows, ``T`` frames of 20 ms (semantic embeddings and speech codes, 50 a second),
``F`` mel frames (22,050 / 256 a second), ``M`` speech codes of one segment, ``N`` samples, ``L`` text tokens.
Words: a *token* is text, a *code* is a semantic id, a *frame* is mel unless said otherwise.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from indextts.config import SamplingParams
from indextts.errors import AudioError, ConfigError, EmotionError
from indextts.text.glossary import NO_TERMS, Glossary

if TYPE_CHECKING:
    import torch


MAX_RECORDING_BYTES = 200 * 2**20
"""A quarter of an hour of the heaviest studio format; of a prompt, only the first seconds are listened to."""

MAX_INTERVAL_SILENCE_MS = 60_000
DURATION_FACTORS = (0.5, 2.0)
MAX_DURATION_S = 36_000


def read_recording(path: str | Path) -> bytes:
    """The content of a file, which is not decoded yet.

    Raises:
        AudioError: it does not exist, cannot be read, or is larger than a recording can be (or has no end).
    """
    try:
        with open(path, "rb") as file:
            known_bytes = os.fstat(file.fileno()).st_size  # 0 of a pipe
            content = b"" if known_bytes > MAX_RECORDING_BYTES else file.read(MAX_RECORDING_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        reason = getattr(error, "strerror", None) or error
        raise AudioError(f"cannot read the recording {str(path)!r}: {reason}") from error
    if max(known_bytes, len(content)) > MAX_RECORDING_BYTES:
        limit = f"{MAX_RECORDING_BYTES // 2**20} MiB"
        raise AudioError(f"the recording {str(path)!r} is larger than {limit}: cut out some seconds of it")
    return content


@dataclass(frozen=True)
class VoicePrompt:
    """A recording of the voice to speak with, known by its content and not by its path."""

    data: bytes = field(repr=False)
    name: str = "voice"
    conditioning_path: Path | None = field(default=None, compare=False)
    """Where what a model hears in it is kept; None: only in memory."""

    @classmethod
    def from_path(cls, path: str | Path, conditioning_path: Path | None = None) -> VoicePrompt:
        """Read a recording of any format the audio library decodes. Raises ``AudioError`` as ``read_recording``."""
        return cls(read_recording(path), Path(path).name, conditioning_path)

    @cached_property
    def key(self) -> str:
        """SHA-256 of the content: what caches are keyed by."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class FromVoice:
    """The emotion of the voice prompt itself."""


@dataclass(frozen=True)
class FromAudio:
    """The emotion of another recording; ``alpha`` 0 is the prompt's emotion, 1 the recording's. Not clamped."""

    prompt: VoicePrompt
    alpha: float = 1.0


@dataclass(frozen=True)
class FromVector:
    """Eight weights in the order of ``indextts.emotion.EMOTIONS``; ``alpha`` in 0..1 scales them."""

    values: tuple[float, ...]
    alpha: float = 1.0
    random: bool = False

    def __post_init__(self) -> None:
        if len(self.values) != 8:
            raise EmotionError(f"an emotion vector has 8 values, not {len(self.values)}")
        if not all(np.isfinite(v) and v >= 0 for v in self.values):
            raise EmotionError(f"emotion values must be finite and not negative: {list(self.values)}")


@dataclass(frozen=True)
class FromText:
    """The emotion that a description expresses; None means: that of the text to be spoken."""

    text: str | None = None
    alpha: float = 1.0
    random: bool = False


Emotion = FromVoice | FromAudio | FromVector | FromText


@dataclass(frozen=True)
class ChunkSchedule:
    """How a segment is cut into chunks that sound while the rest of it is still being spoken (docs/streaming.md).

    Attributes:
        first_codes: The first chunk is made of so many codes, 20 ms each: few sound soon.
        growth: Each chunk has so many times the codes of the one before: more are more efficient.
        max_codes: The most codes of a chunk.
        lookahead_frames: So many mel frames at the end of a chunk only show the frames before them what may follow.
            They are computed again, for good, with the next chunk.
        stand_in_frames: So many frames of the voice prompt stand behind a chunk in place of the speech to come. Without
            them, the flow takes the end of a chunk for the end of all speech.
        context_frames: So many frames of speech before a chunk are shown to it, besides the voice prompt.
        fade_frames: Over so many frames the sound goes over from one chunk to the next.
    """

    first_codes: int = 32
    growth: float = 2.0
    max_codes: int = 256
    lookahead_frames: int = 16
    stand_in_frames: int = 64
    context_frames: int = 172
    fade_frames: int = 4

    def __post_init__(self) -> None:
        limits = {
            "first_codes": 1, "growth": 1, "max_codes": self.first_codes, "stand_in_frames": 0, "context_frames": 0,
        }  # fmt: skip
        for name, least in limits.items():
            if not getattr(self, name) >= least:
                raise ConfigError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if not 0 <= self.fade_frames <= self.lookahead_frames:
            raise ConfigError(
                f"fade_frames must be from 0 to lookahead_frames, {self.lookahead_frames}, not {self.fade_frames}"
            )

    def code_counts(self) -> Iterator[int]:
        """How many codes of a segment there are when each of its chunks is made. Has no end."""
        count, size = 0, float(self.first_codes)
        while True:
            count += round(size)
            yield count
            size = min(size * self.growth, self.max_codes)


@dataclass(frozen=True)
class SynthesisRequest:
    """What to say, in which voice and how.

    Attributes:
        text: U+2029 in it ends a segment; what stands between two of them is read as a text of its own.
        sampling: None means the model's own defaults.
        chunks: How a segment sounds while it is still being spoken; segments are then spoken one by one. None: a
            segment sounds when it is finished.
        glossary: Readings for this request; they go before those of the model folder's own glossary.
        repair: Speak a segment again, with the next seed and at most twice, if its speech has a fault (docs/repair.md).
        numbers_language: zh or en: by whose rules a text is read that holds no letter, such as a number.
        duration_factor: How many times as long as the model would take, 0.5 (fast) to 2 (slow). Not with ``chunks``.
        duration_s: How long all of it shall last, silences included; None leaves that to the model. Not with
            ``duration_factor`` or ``chunks``.
    """

    text: str
    voice: VoicePrompt
    emotion: Emotion = field(default_factory=FromVoice)
    sampling: SamplingParams | None = None
    max_text_tokens_per_segment: int = 120
    quick_streaming_tokens: int = 0
    interval_silence_ms: int = 200
    batch_size: int | None = None
    chunks: ChunkSchedule | None = None
    seed: int | None = None
    glossary: Glossary = NO_TERMS
    numbers_language: str = "zh"
    duration_factor: float = 1.0
    duration_s: float | None = None
    repair: bool = True

    def __post_init__(self) -> None:
        low, high = DURATION_FACTORS
        if not low <= self.duration_factor <= high:
            raise ConfigError(f"duration_factor must be from {low} to {high}, not {self.duration_factor}")
        if self.duration_s is not None and not 0 < self.duration_s <= MAX_DURATION_S:
            raise ConfigError(f"duration_s must be above 0 and at most {MAX_DURATION_S:,}, not {self.duration_s}")
        if self.duration_s is not None and self.duration_factor != 1.0:
            raise ConfigError("give duration_s or duration_factor, not both")
        if self.chunks is not None and self.has_duration:
            raise ConfigError("a wanted duration needs whole segments: give duration_s, duration_factor or chunks")
        if self.batch_size is not None and self.batch_size < 1:
            raise ConfigError(f"the batch size must be at least 1, not {self.batch_size}")
        if self.chunks is not None and (self.batch_size or 1) > 1:
            raise ConfigError(f"chunks are of one segment at a time: the batch size must be 1, not {self.batch_size}")
        if self.interval_silence_ms > MAX_INTERVAL_SILENCE_MS:
            limit = f"{MAX_INTERVAL_SILENCE_MS:,}"
            raise ConfigError(f"interval_silence_ms must be at most {limit}, not {self.interval_silence_ms}")
        if self.numbers_language not in ("zh", "en"):
            raise ConfigError(f"numbers_language must be zh or en, not {self.numbers_language!r}")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise ConfigError(f"the seed must be from 0 to 2^63 - 1, not {self.seed}")

    @property
    def has_duration(self) -> bool:
        """Whether it says how long the speech shall last."""
        return self.duration_s is not None or self.duration_factor != 1.0

    def in_chunks(self, chunks: ChunkSchedule) -> SynthesisRequest:
        """For somebody who listens already: in ``chunks``, where it says nothing of the duration."""
        return self if self.has_duration else replace(self, chunks=chunks)


@dataclass(frozen=True)
class Segment:
    """A stretch of text that is spoken in one go. ``words`` is how it is written, where the tokens are sounds."""

    index: int
    tokens: tuple[str, ...]
    token_ids: tuple[int, ...]
    words: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The words if they are known, else the pieces joined, with the word marker shown as a space."""
        return " ".join(self.words) or "".join(self.tokens).replace("▁", " ").strip()

    @property
    def token_count(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Voice:
    """What the model knows of a recorded voice (spec 13, step 2)."""

    semantic_embedding: torch.Tensor  # [1, T, D], normalised
    prompt_condition: torch.Tensor  # [1, F, C]
    prompt_mel: torch.Tensor  # [1, n_mels, F]
    style: torch.Tensor  # [1, S]
    speaker_latents: torch.Tensor  # [1, latents, model_dim]
    emotion_vector: torch.Tensor  # [1, model_dim], of the recording itself


@dataclass(frozen=True)
class ReadEmotion:
    """What was read out of a text, and which model did: ``qwen`` or ``bundled`` (see ``indextts.text_emotion``)."""

    model: str
    values: tuple[float, ...]  # in the order of indextts.emotion.EMOTIONS


@dataclass(frozen=True)
class Conditioning:
    """A voice together with the emotion to speak in; ``read_emotion`` if that was read out of a text."""

    voice: Voice
    emotion_vector: torch.Tensor  # [1, model_dim]
    read_emotion: ReadEmotion | None = None


@dataclass(frozen=True)
class SpeechCodes:
    """The speech of one segment before it has a sound; as far as there is, if it is not ``complete``."""

    segment: Segment
    codes: torch.Tensor  # [M] int64
    latent: torch.Tensor  # [M, model_dim]
    reached_limit: bool  # stopped by max_mel_tokens and not by itself
    complete: bool = True
    frames: int | None = None  # mel frames that it becomes; None: those of its codes
    alignment: torch.Tensor | None = None  # [M, L + 2] on the CPU, how codes look at start, tokens, stop, if known


@dataclass(frozen=True)
class AudioChunk:
    """A piece of the result; the whole result is the concatenation of its chunks.

    ``ends_segment``: after it, its segment has no more speech.
    """

    samples: np.ndarray  # [N] int16
    sample_rate_hz: int
    segment: int
    segments: int
    is_silence: bool = False
    ends_segment: bool = True


@dataclass(frozen=True)
class Progress:
    """How far a run is: ``fraction`` in 0..1 and a word for people."""

    fraction: float
    message: str
    segment: int = 0
    segments: int = 0


@dataclass(frozen=True)
class Queued(Progress):
    """The run waits for its turn. ``place`` 1 is next; others may still come in between, for clients take turns."""

    place: int = 1
    wait_s: float = 0.0


ProgressCallback = Callable[[Progress], None]
StopCallback = Callable[[], bool]


@dataclass(frozen=True)
class StageTimings:
    """Wall-clock seconds by stage."""

    conditioning_s: float = 0.0
    speech_s: float = 0.0
    s2mel_s: float = 0.0
    vocoder_s: float = 0.0
    total_s: float = 0.0


@dataclass(frozen=True)
class SynthesisResult:
    """The whole audio and how it came about.

    ``duration_by`` says by what means it has the duration that was wanted, see ``indextts.stages.duration``.
    """

    samples: np.ndarray  # [N] int16
    sample_rate_hz: int
    seed: int
    segments: int
    timings: StageTimings
    warnings: tuple[str, ...] = ()
    duration_by: str | None = None
    read_emotion: ReadEmotion | None = None

    @property
    def duration_s(self) -> float:
        return len(self.samples) / self.sample_rate_hz

    @property
    def real_time_factor(self) -> float:
        return self.timings.total_s / self.duration_s if len(self.samples) else float("inf")


@dataclass(frozen=True)
class AccelerationEntry:
    """One option: what was asked, what runs, and why if that differs."""

    option: str
    asked: str
    running: str
    reason: str = ""

    @property
    def honoured(self) -> bool:
        return not self.reason

    def __str__(self) -> str:
        return f"{self.option}: {self.running}" + (f" ({self.reason})" if self.reason else "")


@dataclass(frozen=True)
class AccelerationReport:
    """What was asked for, what runs, and why: shown at start, in the page's footer and by the benchmark."""

    device: str
    entries: tuple[AccelerationEntry, ...] = ()

    def lines(self) -> list[str]:
        return [f"device: {self.device}", *map(str, self.entries)]
