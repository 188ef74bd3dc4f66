"""Recordings before voices are taken from them: trimmed, levelled, and looked at for what makes a poor voice.

The released model takes a recording as it is. A model whose configuration says ``tidy_prompts`` gets it as ``tidied``
makes it. The rest is what a person wants to be told at once about the recording that was just made.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from indextts.audio import MAX_PROMPT_S, check_prompt, load_audio, recording_length
from indextts.errors import AudioError

MAX_RECORDING_S = 600.0
"""Longer ones are somebody's whole podcast: which of the people in it is meant?"""

LOOKED_AT_S = 60.0
"""Speech has to begin within so many seconds; the rest of a long recording is not decoded."""

SHORT_S = 2.0
FRAME_S = 0.025
CLIPPED_LEVEL, CLIPPED_SHARE = 0.99, 1e-3  # of full scale; of all samples: a clean voice is there rarely
QUIET_DBFS = -40.0
PAUSE_DB = 15.0
SILENCE_DB, SILENCE_DBFS = 35.0, -60.0  # below the loud frames, and below full scale: nobody speaks there
MARGIN_S = 0.2
WORTH_TRIMMING_S = 0.5
LOUD_DBFS = (-24.0, -12.0)
"""The loud frames of a recording at a usual level: those of studio recordings are at -14 to -18."""
LEVELLED_DBFS = -17.0

FLAWS = ("clipped", "quiet", "short", "long", "noisy")
"""What can be wrong with a recording that can still be used."""


@dataclass(frozen=True)
class Prompt:
    """What is left of a recording.

    Attributes:
        samples: Mono, float32 ``[N]``.
        trimmed: Whether anything was cut off.
        recorded_s: How long the whole recording is.
        flaws: Of ``FLAWS``.
    """

    samples: np.ndarray
    sample_rate_hz: int
    trimmed: bool
    recorded_s: float
    flaws: tuple[str, ...]

    @property
    def duration_s(self) -> float:
        return len(self.samples) / self.sample_rate_hz


def examine(path: str | Path) -> Prompt:
    """Read a recording, cut silence off its ends and what is beyond ``MAX_PROMPT_S``, and look at the rest.

    Raises:
        AudioError: it cannot be read, is longer than ``MAX_RECORDING_S``, or cannot be used at all.
    """
    name = Path(path).name
    rate, recorded_s = recording_length(path)
    if recorded_s > MAX_RECORDING_S:
        raise AudioError(
            f"the recording {name!r} is too long: {recorded_s / 60:.0f} minutes; at most {MAX_RECORDING_S / 60:.0f} "
            f"are taken, and {MAX_PROMPT_S:.0f} seconds are used: cut out the voice that you want"
        )
    wave = load_audio(path, rate, LOOKED_AT_S, name)
    check_prompt(wave, rate, name)
    heard = wave[0].numpy()
    spoken = trim(heard, rate)
    kept = spoken[: int(MAX_PROMPT_S * rate)]
    found = flaws(kept, len(spoken) > len(kept), rate)
    return Prompt(kept, rate, len(kept) < len(heard), recorded_s, found)


def load_tidy_prompt(source: str | Path | bytes, sample_rate_hz: int, name: str = "") -> Tensor:
    """As ``indextts.audio.load_prompt``, but ``tidied``: what counts are the first seconds in which somebody speaks."""
    wave = load_audio(source, sample_rate_hz, LOOKED_AT_S, name)
    check_prompt(wave, sample_rate_hz, name or ("recording" if isinstance(source, bytes) else Path(source).name))
    return tidied(wave, sample_rate_hz)[:, : int(MAX_PROMPT_S * sample_rate_hz)]


def tidied(wave: Tensor, sample_rate_hz: int) -> Tensor:
    """A recording ``[1, N]`` without silence at its ends, and as loud as recordings are.

    Where there is little silence and the level is a usual one, nothing is changed.
    """
    spoken = trim(wave[0].numpy(), sample_rate_hz)
    loud_dbfs = float(np.percentile(levels_dbfs(spoken, sample_rate_hz), 95))
    low, high = LOUD_DBFS
    gain = 1.0 if low <= loud_dbfs <= high else 10 ** ((LEVELLED_DBFS - loud_dbfs) / 20)
    return torch.from_numpy(spoken)[None] * gain


def flaws(samples: np.ndarray, cut: bool, sample_rate_hz: int) -> tuple[str, ...]:
    """What is wrong with ``samples``, float32 ``[N]``, of ``FLAWS``; ``cut`` says that speech went on behind them."""
    levels = levels_dbfs(samples, sample_rate_hz)
    loud_dbfs, soft_dbfs = np.percentile(levels, (95, 10))
    found = {
        "clipped": np.mean(np.abs(samples) >= CLIPPED_LEVEL) > CLIPPED_SHARE,
        "quiet": loud_dbfs < QUIET_DBFS,
        "short": len(samples) < SHORT_S * sample_rate_hz,
        "long": cut,
        # Speech stops all the time, between words and before every p, t and k: in two seconds without a pause its
        # softest tenth is still 18 dB below its loudest parts, in a quiet room 40. Music, hum and chatter fill the
        # gaps. It is not told from its sound what fills them, and a tune with silence between its notes is not noticed.
        "noisy": loud_dbfs - soft_dbfs < PAUSE_DB,
    }
    return tuple(flaw for flaw in FLAWS if found[flaw])


def trim(samples: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """``samples`` ``[N]`` without the silence before and after them, if that is worth it."""
    levels = levels_dbfs(samples, sample_rate_hz)
    threshold_dbfs = max(np.percentile(levels, 95) - SILENCE_DB, SILENCE_DBFS)
    spoken = np.flatnonzero(levels > threshold_dbfs)
    if not len(spoken):
        return samples
    frame, margin = int(FRAME_S * sample_rate_hz), int(MARGIN_S * sample_rate_hz)
    start = max(0, spoken[0] * frame - margin)
    end = min(len(samples), (spoken[-1] + 1) * frame + margin)
    worth_it = len(samples) - (end - start) >= WORTH_TRIMMING_S * sample_rate_hz
    return samples[start:end] if worth_it else samples


def levels_dbfs(samples: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """The level of each frame of ``FRAME_S`` in dB of full scale, ``[N // frame]``."""
    frame = int(FRAME_S * sample_rate_hz)
    whole = samples[: len(samples) // frame * frame].reshape(-1, frame)
    return 10 * np.log10(np.square(whole, dtype=np.float64).mean(1) + 1e-12)
