"""How long speech lasts that is to be longer or shorter than the model would make it.

The model first speaks as it likes. Where its weights have learnt to keep to a number of codes (``gpt.length_hints``)
and the wanted length is far from that, it is told the number and speaks once more. The length regulator then
stretches the codes over exactly the frames that are wanted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from indextts.models.s2mel import S2Mel
from indextts.types import DURATION_FACTORS, Segment, SpeechCodes

STRETCHED_AT_MOST = 1.1
"""Codes that are stretched or squeezed by less than this sound as they should."""

BY_CODES = "speed embeddings and number of codes"
BY_STRETCHING = "length regulator"
"""The two means: the first comes with the second, which makes it exact."""

Speak = Callable[[Sequence[int]], list[SpeechCodes]]
"""Speaks a batch once more, each segment in about so many codes."""


def wanted_factors(
    spoken: Sequence[SpeechCodes], flow: S2Mel, factor: float, wanted_frames: Sequence[float] | None
) -> list[float]:
    """How many times as long as it is each segment should be, within ``DURATION_FACTORS``.

    Args:
        factor: What is wanted of all.
        wanted_frames: Mel frames that are wanted of each, if that is known, instead of the factor.
    """
    low, high = DURATION_FACTORS
    if wanted_frames is None:
        return [factor] * len(spoken)
    natural = [flow.target_frames(len(speech.codes)) for speech in spoken]
    return [min(high, max(low, wanted / max(1, own))) for wanted, own in zip(wanted_frames, natural, strict=True)]


def at_length(
    spoken: list[SpeechCodes], factors: Sequence[float], flow: S2Mel, speak: Speak | None
) -> list[SpeechCodes]:
    """The batch with each segment so many times as long.

    Args:
        speak: None where codes are only stretched: the weights know no lengths, or nothing is ``far``.
    """
    frames = [
        max(1, round(flow.target_frames(len(speech.codes)) * factor))
        for speech, factor in zip(spoken, factors, strict=True)
    ]
    if speak is not None:
        spoken = speak([max(1, round(wanted / flow.frames_per_code)) for wanted in frames])
    return [dataclasses.replace(speech, frames=wanted) for speech, wanted in zip(spoken, frames, strict=True)]


def far(factors: Sequence[float]) -> bool:
    """Whether any of them would be heard if codes were stretched so much."""
    return any(max(factor, 1 / factor) > STRETCHED_AT_MOST for factor in factors)


def share_frames(batch: Sequence[Segment], all_tokens: int, total_frames: float) -> list[float]:
    """Mel frames of each segment where all of a text lasts ``total_frames``: by its share of the tokens."""
    return [total_frames * segment.token_count / max(1, all_tokens) for segment in batch]
