"""What the trials of ``training/evaluate.py`` show: tables from the verdicts on their clips."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from indextts.emotion import EMOTIONS
from training.report import Verdict
from training.styles import STYLES
from training.trials import COMPARED_WITH, PLAIN

SIGNIFICANT = 0.01
INDEPENDENT = "GE2E"  # the judge of voices that is no relative of the model

Table = list[str]
Cases = dict[str, dict[tuple[str, str], Verdict]]


class Measure(NamedTuple):
    """Something that an emotion moves: its name, its value in a verdict, and what the style intends."""

    name: str
    value: Callable[[Verdict], float]
    intended: Callable[[str], float]


# The length of the same sentence is the measure of the rate, and its logarithm makes factors of it.
MEASURES = (
    Measure("F0 mean, semitones", lambda v: 12 * v.sound.f0_octaves, lambda e: math.log(STYLES[e].f0_scale)),
    Measure("F0 range, semitones", lambda v: v.sound.f0_range_semitones, lambda e: math.log(STYLES[e].f0_range)),
    Measure("level, dB", lambda v: v.sound.level_db, lambda e: STYLES[e].level_db),
    Measure("rate, %", lambda v: -100 * math.log(max(v.sound.spoken_s, 0.02)), lambda e: math.log(STYLES[e].speed)),
)


def by_case(verdicts: Sequence[Verdict]) -> Cases:
    """Verdicts by case, and there by text and voice."""
    cases: Cases = defaultdict(dict)
    for verdict in verdicts:
        cases[verdict.case][verdict.text, verdict.voice] = verdict
    return cases


def differences(
    ours: dict[tuple[str, str], Verdict], theirs: dict[tuple[str, str], Verdict], value: Callable[[Verdict], float]
) -> np.ndarray:
    """Ours minus theirs for every text and voice that both have, ``[n]``."""
    return np.array([value(ours[key]) - value(theirs[key]) for key in ours if key in theirs])


def p_value(values: np.ndarray) -> float:
    """How likely a mean this far from zero is by chance, on both sides; the normal approximation of a paired t-test."""
    spread = values.std(ddof=1) if len(values) > 1 else 0.0
    if spread == 0:
        return 1.0
    return math.erfc(abs(values.mean()) * math.sqrt(len(values)) / spread / math.sqrt(2))


def emotions(verdicts: Sequence[Verdict]) -> Table:
    """Whether each emotion moves pitch, its range, level and rate where its style says, against calm."""
    cases = by_case(verdicts)
    calm, plain = cases[COMPARED_WITH], cases[PLAIN]
    names = [f"{measure.name} (p)" for measure in MEASURES]
    lines = [
        f"| against {COMPARED_WITH} | {' | '.join(names)} | as intended | similarity | WER, points |",
        "|---" * (len(names) + 4) + "|",
    ]
    for emotion in EMOTIONS:
        if emotion == COMPARED_WITH or emotion not in cases:
            continue
        cells, right = [], 0
        for measure in MEASURES:
            moved = differences(cases[emotion], calm, measure.value)
            p, wanted = p_value(moved), measure.intended(emotion) - measure.intended(COMPARED_WITH)
            as_wanted = bool(p < SIGNIFICANT and moved.mean() * wanted > 0)
            right += as_wanted
            cells.append(f"{moved.mean():+.2f} ({p:.1g}){'' if as_wanted else ' ✗'}")
        lines.append(
            f"| {emotion} | {' | '.join(cells)} | {right} of {len(MEASURES)} | {costs(cases[emotion], plain)} |"
        )
    return [*lines, "", f"Similarity ({INDEPENDENT}) and WER against no emotion."]


def costs(ours: dict[tuple[str, str], Verdict], plain: dict[tuple[str, str], Verdict]) -> str:
    """Two cells: how much similarity to the prompt and word errors change against plain speech."""
    similarity = differences(ours, plain, lambda v: v.cosine_own.get(INDEPENDENT, 0.0)).mean()
    return f"{similarity:+.3f} | {100 * (error_rate(ours.values()) - error_rate(plain.values())):+.1f}"


def error_rate(verdicts) -> float:
    verdicts = list(verdicts)
    return sum(v.word_errors for v in verdicts) / max(1, sum(v.words for v in verdicts))


def intensity(verdicts: Sequence[Verdict]) -> Table:
    """Whether more weight moves more: each measure against no emotion, by weight.

    The trend is the slope of a line through all weights, by 0.1 of weight. A step back, from one weight to the next,
    stands with how likely it is by chance.
    """
    cases = by_case(verdicts)
    plain = cases[PLAIN]
    weights = sorted({case.split("-")[1] for case in cases if case != PLAIN}, key=float)
    lines = [f"| | | {' | '.join(weights)} | trend (p) | steps back (p) |", "|---" * (len(weights) + 4) + "|"]
    places = np.array([0.0, *map(float, weights)])
    centred = (places - places.mean())[:, None]
    for emotion in EMOTIONS:
        for measure in MEASURES:
            moved = [differences(cases[f"{emotion}-{w}"], plain, measure.value) for w in weights]
            moved = np.stack([np.zeros_like(moved[0]), *moved])  # [weights, clips]
            slopes = (centred * moved).sum(0) / (centred**2).sum()
            steps = np.diff(moved, axis=0) * np.sign(moved[-1].mean())
            back = [f"{step.mean():+.2f} ({p_value(step):.1g})" for step in steps if step.mean() < 0]
            cells = " | ".join(f"{value:+.2f}" for value in moved[1:].mean(1))
            trend = f"{slopes.mean() / 10:+.2f} ({p_value(slopes):.1g})"
            lines.append(f"| {emotion} | {measure.name} | {cells} | {trend} | {', '.join(back) or 'none'} |")
    return lines


def long(verdicts: Sequence[Verdict]) -> Table:
    """One text of about a minute: errors, and how the level drifts."""
    lines = ["| voice | seconds | WER % | drift of the level, dB |", "|---|---|---|---|"]
    for v in verdicts:
        cells = f"{v.sound.duration_s:.0f} | {100 * v.word_error_rate:.1f} | {v.sound.energy_drift_db:+.1f}"
        lines.append(f"| {v.voice} | {cells} |")
    drift = np.mean([abs(v.sound.energy_drift_db) for v in verdicts])
    return [*lines, f"| all | | {100 * error_rate(verdicts):.1f} | {drift:.1f} on average |"]


def rough(verdicts: Sequence[Verdict]) -> Table:
    """What bad recordings of a prompt cost."""
    lines = [f"| prompt | WER % | {INDEPENDENT} to the clean prompt | MOS |", "|---|---|---|---|"]
    for case, clips in by_case(verdicts).items():
        own = np.mean([v.cosine_own.get(INDEPENDENT, 0.0) for v in clips.values()])
        mos = np.mean([v.mos for v in clips.values()])
        lines.append(f"| {case} | {100 * error_rate(clips.values()):.1f} | {own:.2f} | {mos:.2f} |")
    return lines


def duration(verdicts: Sequence[Verdict]) -> Table:
    """How well a wanted length is met."""
    cases = by_case(verdicts)
    free = cases["x1.0"]
    lines = ["| factor | measured | error %, mean / 95 % | WER % |", "|---|---|---|---|"]
    for case, clips in sorted(cases.items(), key=lambda item: float(item[0][1:])):
        factor = float(case[1:])
        ratio = np.array([clips[k].sound.duration_s / free[k].sound.duration_s for k in clips if k in free])
        error = 100 * np.abs(ratio / factor - 1)
        cells = f"{ratio.mean():.3f} | {error.mean():.1f} / {np.percentile(error, 95):.1f}"
        lines.append(f"| {factor:g} | {cells} | {100 * error_rate(clips.values()):.1f} |")
    return lines


FINDINGS: dict[str, Callable[[Sequence[Verdict]], Table]] = {
    "emotions": emotions,
    "intensity": intensity,
    "transfer": emotions,
    "long": long,
    "rough": rough,
    "duration": duration,
}
