"""How fast the page speaks, measured as a user waits: through the service's queue."""

from __future__ import annotations

import time
from dataclasses import dataclass

from indextts.service import Service
from indextts.types import ProgressCallback, SynthesisRequest, VoicePrompt

SENTENCES = (
    "This sentence is spoken to see how fast this machine is. "
    "A second one follows, so that the first sound comes before the whole is ready."
)
SEED = 0


@dataclass(frozen=True)
class Speed:
    """What one short synthesis took. Seconds; they include the wait for others."""

    characters: int
    audio_s: float
    first_sound_s: float
    total_s: float

    @property
    def characters_per_s(self) -> float:
        return self.characters / self.total_s

    @property
    def real_time_factor(self) -> float:
        return self.total_s / self.audio_s


def measure(service: Service, voice: VoicePrompt, client: str, on_progress: ProgressCallback | None = None) -> Speed:
    """Speak ``SENTENCES`` with ``voice``, always in the same way. Raises as ``Service.stream`` does."""
    request = SynthesisRequest(SENTENCES, voice, max_text_tokens_per_segment=40, seed=SEED, repair=False)
    started, first_sound_s, audio_s = time.perf_counter(), 0.0, 0.0
    for chunk in service.stream(request, client, on_progress):
        first_sound_s = first_sound_s or time.perf_counter() - started
        audio_s += len(chunk.samples) / chunk.sample_rate_hz
    return Speed(len(SENTENCES), audio_s, first_sound_s, time.perf_counter() - started)
