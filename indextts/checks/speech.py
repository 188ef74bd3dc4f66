"""A sentence in the bundled voice, and whether what comes out can be speech."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from indextts.checks.report import FAILED, OK, Check
from indextts.config import EngineConfig
from indextts.engine import Engine
from indextts.errors import IndexTTSError
from indextts.resources import EXAMPLES_DIR
from indextts.types import SynthesisRequest, SynthesisResult, VoicePrompt

VOICE = EXAMPLES_DIR / "voice_01.wav"
SENTENCE = "Hello there, this is a test of the voice."
SHORTEST_S, LONGEST_S = 1.0, 15.0
"""Read aloud, ``SENTENCE`` takes two to four seconds; outside of this, words are missing or it does not end."""

QUIETEST_DBFS = -50.0
"""Root mean square of all samples. Speech has -30 to -15."""

MOST_CLIPPED = 0.001
"""Share of samples at the end of the scale. Speech has next to none."""

FULL_SCALE = 32767


@dataclass(frozen=True)
class AudioFacts:
    """The sound, by its numbers."""

    duration_s: float
    rms_dbfs: float
    clipped_share: float
    real_time_factor: float
    device: str
    refused_options: tuple[str, ...] = ()


def measure(samples: np.ndarray, sample_rate_hz: int) -> tuple[float, float, float]:
    """Duration in seconds, level in dBFS and clipped share of 16-bit samples."""
    scaled = samples.astype(np.float64)
    rms = float(np.sqrt(np.mean(scaled**2))) if len(samples) else 0.0
    clipped = float(np.mean(np.abs(scaled) >= FULL_SCALE)) if len(samples) else 0.0
    return len(samples) / sample_rate_hz, 20 * np.log10(max(rms, 1e-3) / FULL_SCALE), clipped


def speak(config: EngineConfig) -> tuple[AudioFacts, SynthesisResult]:
    """Load the model and say ``SENTENCE``.

    Raises:
        IndexTTSError: as loading and speaking do.
    """
    engine = Engine.load(config)
    result = engine.synthesize(SynthesisRequest(SENTENCE, VoicePrompt.from_path(VOICE), seed=0, repair=False))
    duration_s, rms_dbfs, clipped_share = measure(result.samples, result.sample_rate_hz)
    refused = tuple(f"{entry.option}: {entry.reason}" for entry in engine.report.entries if not entry.honoured)
    device = engine.report.device
    return AudioFacts(duration_s, rms_dbfs, clipped_share, result.real_time_factor, device, refused), result


def check_speech(config: EngineConfig) -> Check:
    """Whether the model speaks here."""
    try:
        return judge(speak(config)[0])
    except IndexTTSError as error:
        return Check("synthesis", FAILED, str(error), "mend what failed above first; --verbose shows where it stopped")
    except (RuntimeError, ImportError) as error:  # of a driver, a kernel, a library: what this check is there to find
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:1000]
        advice = "try --device cpu: if that speaks, it is the GPU or its driver"
        if isinstance(error, ImportError):
            advice = "a package is missing or broken: uv sync, or install indextts again"
        return Check("synthesis", FAILED, reason, advice)


def judge(audio: AudioFacts) -> Check:
    """Whether the sound is neither silent nor clipped, and as long as the sentence."""
    found = (
        f"{audio.duration_s:.1f} s, {audio.rms_dbfs:.0f} dBFS, {100 * audio.clipped_share:.2f} % clipped, "
        f"real-time factor {audio.real_time_factor:.2f} on {audio.device}"
    )
    wrong = []
    if audio.rms_dbfs < QUIETEST_DBFS:
        wrong.append(f"it is silent (below {QUIETEST_DBFS:g} dBFS)")
    if audio.clipped_share > MOST_CLIPPED:
        wrong.append(f"it is clipped (more than {100 * MOST_CLIPPED:g} %)")
    if not SHORTEST_S <= audio.duration_s <= LONGEST_S:
        wrong.append(f"it should last {SHORTEST_S:g} to {LONGEST_S:g} s")
    wrong += [f"asked for, but not done: {option}" for option in audio.refused_options]
    if not wrong:
        return Check("synthesis", OK, found)
    advice = "see that the model files are those of the manifest, and try without accelerations, or with --device cpu"
    return Check("synthesis", FAILED, f"{found}: {'; '.join(wrong)}", advice)
