"""Prosodic styles that stand for the eight emotions.

The teacher has no emotions. What can be steered is the mean and range of F0, the energy and the speed; each emotion
is given the directions that the literature on emotional speech reports for it (Murray and Arnott, JASA 93, 1993: anger,
happiness, sadness, fear, disgust), exaggerated so that they can be heard, as factors against neutral at full
intensity; in all of them the others differ from calm. Lower intensities interpolate
(geometrically for factors). Style ids are 0 for neutral and 1 to 8 for the emotions in the order of the emotion vector
of IndexTTS2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Prosody:
    """How an utterance is read, relative to the voice's own neutral reading.

    Attributes:
        f0_scale: Factor on F0.
        f0_range: Factor on the deviation of log F0 from its mean.
        energy: Added to the log energy of the teacher, which colours the voice from soft to pressed.
        speed: Factor on the speaking rate.
        level_db: Added to the level of the recording.
    """

    f0_scale: float = 1.0
    f0_range: float = 1.0
    energy: float = 0.0
    speed: float = 1.0
    level_db: float = 0.0

    def at(self, intensity: float) -> Prosody:
        """The style at an intensity between 0 (neutral) and 1."""
        return Prosody(
            self.f0_scale**intensity,
            self.f0_range**intensity,
            self.energy * intensity,
            self.speed**intensity,
            self.level_db * intensity,
        )


STYLES: dict[str, Prosody] = {
    "neutral": Prosody(),
    "happy": Prosody(f0_scale=1.19, f0_range=1.45, energy=0.20, speed=1.10, level_db=2.0),
    "angry": Prosody(f0_scale=1.12, f0_range=1.45, energy=0.45, speed=1.20, level_db=4.0),
    "sad": Prosody(f0_scale=0.85, f0_range=0.50, energy=-0.40, speed=0.80, level_db=-4.0),
    "afraid": Prosody(f0_scale=1.25, f0_range=1.15, energy=-0.05, speed=1.18, level_db=0.5),
    "disgusted": Prosody(f0_scale=0.78, f0_range=1.30, energy=-0.10, speed=0.78, level_db=-4.0),
    "melancholic": Prosody(f0_scale=0.91, f0_range=0.40, energy=-0.25, speed=0.74, level_db=-3.0),
    "surprised": Prosody(f0_scale=1.26, f0_range=1.70, energy=0.20, speed=1.04, level_db=2.5),
    "calm": Prosody(f0_scale=0.97, f0_range=0.72, energy=-0.12, speed=0.92, level_db=-1.5),
}
STYLE_NAMES = tuple(STYLES)
TOLD_EMOTIONS = "told_emotions"
"""The module of the language model that has a vector for each style; only its training knows it."""
NEUTRAL_SHARE = 0.4


def draw_style(generator: np.random.Generator) -> tuple[int, float]:
    """Draws a style id and its intensity: some of them neutral (intensity 0), the rest even over the emotions."""
    if generator.random() < NEUTRAL_SHARE:
        return 0, 0.0
    return int(generator.integers(1, len(STYLES))), float(generator.uniform(0.4, 1.0))


def draw_prosody(style: int, intensity: float, generator: np.random.Generator) -> Prosody:
    """The style with the small variation that any two readings have."""
    base = STYLES[STYLE_NAMES[style]].at(intensity)
    wobble = np.clip(generator.standard_normal(4), -2, 2)
    return Prosody(
        base.f0_scale * float(np.exp(0.02 * wobble[0])),
        base.f0_range * float(np.exp(0.10 * wobble[1])),
        base.energy,
        base.speed * float(np.exp(0.06 * wobble[2])),
        base.level_db + float(wobble[3]),
    )
