"""From judgements of single recordings to a table of figures (used by ``training/evaluate.py``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from training.pitch import pitch

SAMPLE_RATE_HZ = 16000
FRAME = 320  # 20 ms
WORDS_PER_S = 2.5
OVERLONG, TOO_SHORT = 3.0, 1 / 3  # times the expected duration
PAUSE_DB, LONG_PAUSE_S = -40.0, 1.5  # against the loudest frame; a longer pause inside a sentence is a fault
LONG_SLIP = 3  # words, or characters, in a row that are missing or too many
SLIPS = frozenset(("skip", "repetition", "long pause"))
SILENT_PEAK = 1e-3
FULL_SCALE, CLIPPED_SHARE = 0.999, 1e-4


@dataclass(frozen=True)
class Sound:
    """What can be measured without knowing what was said."""

    duration_s: float
    peak: float
    clipped_share: float
    longest_pause_s: float
    energy_drift_db: float  # last third against first third of the spoken frames
    spoken_s: float = 0.0  # from the first spoken frame to the last
    level_db: float = 0.0  # of the spoken frames, root mean square against full scale
    f0_octaves: float = 0.0  # median of log2 of F0 in Hz
    f0_range_semitones: float = 0.0  # between the 10th and the 90th percentile


@dataclass(frozen=True)
class Verdict:
    """What the judges say about one recording."""

    file: str
    text: str
    voice: str
    heard: str
    word_errors: int
    words: int
    mos: float
    cosine_own: dict[str, float]
    cosine_others: dict[str, float]
    recognised: dict[str, bool]
    synthesis_s: float
    cut_off: bool  # the engine warned that it stopped at a limit
    sound: Sound
    case: str = ""
    longest_skip: int = 0  # words in a row that are missing
    longest_addition: int = 0  # words in a row that nobody asked for
    repairs: int = 0  # times that a segment was spoken again

    @property
    def word_error_rate(self) -> float:
        return self.word_errors / self.words

    @property
    def faults(self) -> list[str]:
        expected_s = self.words / WORDS_PER_S
        found = {
            "silent": self.sound.peak < SILENT_PEAK,
            "clipped": self.sound.clipped_share > CLIPPED_SHARE,
            "over-long": self.sound.duration_s > OVERLONG * expected_s,
            "too short": self.sound.duration_s < TOO_SHORT * expected_s,
            "long pause": self.sound.longest_pause_s > LONG_PAUSE_S,
            "skip": self.longest_skip >= LONG_SLIP,
            "repetition": self.longest_addition >= LONG_SLIP,
            "cut off": self.cut_off,
        }
        return [name for name, is_found in found.items() if is_found]


def measure(wave: np.ndarray) -> Sound:
    """Measure float32 samples ``[N]`` at 16 kHz."""
    if len(wave) < FRAME:
        return Sound(len(wave) / SAMPLE_RATE_HZ, float(np.abs(wave).max(initial=0)), 0.0, 0.0, 0.0)
    frames = wave[: len(wave) // FRAME * FRAME].reshape(-1, FRAME)
    power = np.square(frames, dtype=np.float64).mean(1)
    spoken = power > max(power.max() * 10 ** (PAUSE_DB / 10), 1e-12)
    at = np.flatnonzero(spoken)
    pauses = np.diff(at) - 1
    thirds = np.array_split(power[at], 3) if len(at) >= 3 else []
    drift_db = float(10 * np.log10(thirds[2].mean() / thirds[0].mean())) if thirds else 0.0
    f0_octaves, f0_range = tune(wave)
    return Sound(
        duration_s=len(wave) / SAMPLE_RATE_HZ,
        peak=float(np.abs(wave).max()),
        clipped_share=float((np.abs(wave) >= FULL_SCALE).mean()),
        longest_pause_s=float(pauses.max(initial=0)) * FRAME / SAMPLE_RATE_HZ,
        energy_drift_db=drift_db,
        spoken_s=float(at[-1] - at[0] + 1) * FRAME / SAMPLE_RATE_HZ if len(at) else 0.0,
        level_db=float(10 * np.log10(power[at].mean())) if len(at) else -100.0,
        f0_octaves=f0_octaves,
        f0_range_semitones=f0_range,
    )


def tune(wave: np.ndarray) -> tuple[float, float]:
    """Median of log2 F0, and how many semitones lie between its 10th and 90th percentile; zeros without a voice."""
    log_f0, voiced = pitch(torch.from_numpy(np.ascontiguousarray(wave))[None], len(wave) // FRAME)
    heard = log_f0[voiced].numpy()
    if not len(heard):
        return 0.0, 0.0
    low, high = np.percentile(heard, (10, 90))
    return float(np.median(heard)), float(12 * (high - low))


def worst(verdicts: Sequence[Verdict], count: int) -> list[Verdict]:
    """The recordings with most wrong words, then the least natural ones."""
    return sorted(verdicts, key=lambda v: (-v.word_error_rate, v.mos))[:count]


def summarise(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """All figures: of the whole, and by voice under ``"voices"``."""
    voices = sorted({v.voice for v in verdicts})
    return {**_figures(verdicts), "voices": {n: _figures([v for v in verdicts if v.voice == n]) for n in voices}}


def _figures(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    mos = np.array([v.mos for v in verdicts])
    audio_s = sum(v.sound.duration_s for v in verdicts)
    synthesis_s = sum(v.synthesis_s for v in verdicts)
    judged = [v for v in verdicts if v.cosine_own]
    faults = [fault for v in verdicts for fault in v.faults]
    figures: dict[str, Any] = {
        "clips": len(verdicts),
        "words": sum(v.words for v in verdicts),
        "word_error_rate": sum(v.word_errors for v in verdicts) / sum(v.words for v in verdicts),
        "clips_without_error": float(np.mean([v.word_errors == 0 for v in verdicts])),
        "mos_mean": float(mos.mean()),
        "mos_percentiles": {str(p): float(np.percentile(mos, p)) for p in (5, 25, 50, 75, 95)},
        "voice": {name: _similarity(judged, name) for name in (judged[0].cosine_own if judged else ())},
        "audio_s": audio_s,
        "real_time_factor": synthesis_s / audio_s if synthesis_s and audio_s else None,
        "words_per_s": sum(v.words for v in verdicts) / max(audio_s, 1e-9),
        "energy_drift_db": float(np.mean([v.sound.energy_drift_db for v in verdicts])),
        "faults": {name: faults.count(name) for name in sorted(set(faults))},
        "repairs": sum(v.repairs for v in verdicts),
        "slips": float(np.mean([not SLIPS.isdisjoint(v.faults) for v in verdicts])),
    }
    return figures


def _similarity(verdicts: Sequence[Verdict], judge: str) -> dict[str, float]:
    own = float(np.mean([v.cosine_own[judge] for v in verdicts]))
    others = float(np.mean([v.cosine_others[judge] for v in verdicts]))
    recognised = float(np.mean([v.recognised[judge] for v in verdicts]))
    return {"own": own, "others": others, "margin": own - others, "recognised": recognised}


COLUMNS: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("clips", lambda f: str(f["clips"])),
    ("WER %", lambda f: f"{100 * f['word_error_rate']:.1f}"),
    ("without error %", lambda f: f"{100 * f['clips_without_error']:.0f}"),
    ("MOS", lambda f: f"{f['mos_mean']:.2f}"),
    ("MOS 5 / 50 / 95 %", lambda f: " / ".join(f"{f['mos_percentiles'][p]:.2f}" for p in ("5", "50", "95"))),
    ("CAM++ own − others", lambda f: _margin(f, "CAM++")),
    ("GE2E own − others", lambda f: _margin(f, "GE2E")),
    ("RTF", lambda f: f"{f['real_time_factor']:.2f}" if f["real_time_factor"] else "–"),
    ("words/s", lambda f: f"{f['words_per_s']:.2f}"),
    ("slips %", lambda f: f"{100 * f['slips']:.1f}"),
    ("faults", lambda f: ", ".join(f"{n} {c}" for n, c in f["faults"].items()) or "none"),
)


def _margin(figures: dict[str, Any], judge: str) -> str:
    cosine = figures["voice"].get(judge)
    if not cosine:
        return "–"
    return f"{cosine['own']:.2f} − {cosine['others']:.2f} = {cosine['margin']:.2f}, {100 * cosine['recognised']:.0f} %"


def markdown(summary: dict[str, Any], verdicts: Sequence[Verdict]) -> str:
    """The report for people."""
    names = [name for name, _ in COLUMNS]
    lines = ["# Evaluation", "", f"| voice | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for voice, figures in {"all": summary, **summary["voices"]}.items():
        lines.append(f"| {voice or '(none)'} | {' | '.join(show(figures) for _, show in COLUMNS)} |")
    lines += [
        "",
        "WER: Whisper base after normalisation, of characters in Mandarin. MOS: predicted by DistillMOS. Own − others:",
        "mean cosine to the own prompt, to the other prompts, and the share of recordings nearest to their own. RTF:",
        "seconds of work for a second of speech. Slips: recordings with three words in a row missing or too many, or",
        "silence of more than 1.5 s.",
        "",
        "## Worst",
        "",
    ]
    for v in worst(verdicts, 8):
        faults = f" ({', '.join(v.faults)})" if v.faults else ""
        lines.append(f"- `{v.file}` WER {100 * v.word_error_rate:.0f} %, MOS {v.mos:.2f}{faults}: {v.text}")
        if v.word_errors:
            lines.append(f"  - heard: {v.heard}")
    return "\n".join(lines) + "\n"
