"""Speech that went wrong: found in its codes and in how they follow the text, and tried again.

A language model that speaks may lose its place: it repeats itself, leaves words out, falls silent, or does not come to
an end. All of this shows before any sound is made. A segment in which it shows is spoken again with the next seed, at
most ``RETRIES`` times, and the best of these attempts is kept.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import numpy as np

from indextts.errors import SynthesisError
from indextts.text.passages import estimate_s
from indextts.types import Segment, SpeechCodes

CODES_PER_S = 50
MAX_QUOTED = 60
RETRIES = 2

LONG_SILENCE_S = 1.5
"""Speech that stays where it is for longer is a fault, be it silent or not."""

HELD_SHARE = 0.8
"""One code in so many of ``LONG_SILENCE_S`` is a silence or a held sound."""

LOOP_PERIODS = 3
LOOP_CODES = 10
"""Codes repeat within a held sound. A sequence of fewer different ones is a loop if it lasts ``LONG_SILENCE_S``."""

MIN_READ = 0.5
"""A token at which less than so many codes look in all is not spoken."""

SKIPPED_TOKENS = 3
"""So many tokens in a row that are not spoken are a fault: there are words among them."""

MAX_UNREAD = 0.2
"""If a larger share of the tokens is not looked at besides, the attention does not go from token to token."""

REPEATED_TOKENS = 3
REPEATED_S = 0.3
"""Text that is spoken again is at least so many tokens that take so long; less is a look back."""

SLOW_FAST = 3.0
PAUSE_S = 2.0
"""Speech may be so many times as long as its text usually takes, and ``PAUSE_S`` more, or so many times shorter."""

CUT_OFF_S = 5.0
"""A missing end weighs as much as so many seconds of other faults."""


class FaultKind(Enum):
    """What can go wrong."""

    CUT_OFF = "no end"
    LOOP = "loop"
    SILENCE = "silence"
    SKIPPED = "skipped text"
    REPEATED = "repeated text"
    TOO_SHORT = "too short"
    TOO_LONG = "too long"


@dataclass(frozen=True)
class Fault:
    """Something wrong with the speech of a segment.

    Attributes:
        reason: In words, to be put behind the name of the segment and a colon.
        weight_s: Seconds of speech that it spoils.
    """

    kind: FaultKind
    reason: str
    weight_s: float


class Attempt(NamedTuple):
    """One way to speak a segment."""

    speech: SpeechCodes
    faults: list[Fault]

    @property
    def weight_s(self) -> float:
        return sum(fault.weight_s for fault in self.faults)

    @property
    def reasons(self) -> str:
        return "; ".join(fault.reason for fault in self.faults)


SpeakAgain = Callable[[Sequence[Segment], int], list[SpeechCodes]]
"""Speaks some segments of a batch once more, with another seed."""

Tell = Callable[[str], None]


def examined(speech: SpeechCodes, free_length: bool = True) -> Attempt:
    """``speech`` with what is wrong with it.

    Of speech that is not complete, only what cannot get better is said.

    Args:
        free_length: The model was not told how long to speak.
    """
    codes = speech.codes.cpu().numpy()
    faults = in_codes(codes)
    if speech.alignment is not None:
        faults += in_alignment(speech.alignment.numpy(), speech.segment, speech.complete)
    if speech.complete and free_length:
        faults += in_length(len(codes), speech.segment.text, speech.reached_limit)
    return Attempt(speech, faults)


def repaired(
    spoken: Sequence[SpeechCodes], seed: int, speak: SpeakAgain, tell: Tell, free_length: bool = True
) -> list[SpeechCodes]:
    """``spoken``, and in place of each segment with a fault the best of up to ``RETRIES`` more attempts.

    Args:
        seed: What ``spoken`` was drawn with; further attempts have those that follow.
        tell: Is told of each attempt, and of the faults that stay in complete speech.
    """
    best = [examined(speech, free_length) for speech in spoken]
    for retry in range(1, RETRIES + 1):
        faulty = [place for place, attempt in enumerate(best) if attempt.faults]
        if not faulty:
            break
        for place in faulty:
            tell(spoken_again(best[place], seed + retry))
        try:
            again = speak([best[place].speech.segment for place in faulty], seed + retry)
        except SynthesisError as error:  # what there is already is better than nothing
            tell(f"there is no speech with seed {seed + retry}: {error}")
            continue
        for place, speech in zip(faulty, again, strict=True):
            best[place] = better(best[place], examined(speech, free_length))
    for attempt in best:
        if attempt.faults and attempt.speech.complete:
            tell(still_faulty(attempt))
    return [attempt.speech for attempt in best]


def better(old: Attempt, new: Attempt) -> Attempt:
    """The one of less weight; the old one if they are equally bad."""
    return new if new.weight_s < old.weight_s else old


def spoken_again(attempt: Attempt, seed: int) -> str:
    return f"segment {attempt.speech.segment.index + 1} is spoken again with seed {seed}: {attempt.reasons}"


def still_faulty(attempt: Attempt, why: str = "after three attempts") -> str:
    return f"segment {attempt.speech.segment.index + 1} is not as it should be {why}: {attempt.reasons}"


# ------------------------------------------------------------------------------------------------- evidence


def in_codes(codes: np.ndarray) -> list[Fault]:
    """What shows in ``codes [M]`` alone: one of them for too long, or the same sequence again and again."""
    return held(codes) or loops(codes)


def held(codes: np.ndarray) -> list[Fault]:
    """The longest time in which nearly all codes are the same one, be it of silence or of a sound."""
    window = round(LONG_SILENCE_S * CODES_PER_S)
    longest = 0
    for code, count in zip(*np.unique(codes, return_counts=True), strict=True):
        if count >= HELD_SHARE * window:
            sums = np.concatenate(([0], np.cumsum(codes == code)))
            full = sums[window:] - sums[:-window] >= HELD_SHARE * window
            longest = max([longest, *(sums[first + length + window - 1] - sums[first] for length, first in runs(full))])
    held_s = longest / CODES_PER_S
    return [Fault(FaultKind.SILENCE, f"a silence or a held sound of {held_s:.1f} s", held_s)] if longest else []


def loops(codes: np.ndarray) -> list[Fault]:
    """The longest stretch in which a sequence of codes comes at least ``LOOP_PERIODS`` times in a row."""
    length, longest_period = 0, 1
    for period in range(2, len(codes) // LOOP_PERIODS + 1):
        same, first = max(runs(codes[period:] == codes[:-period]), default=(0, 0))
        few = len(np.unique(codes[first : first + period])) < LOOP_CODES
        at_least = LONG_SILENCE_S * CODES_PER_S if few else 0
        if same + period >= max(at_least, LOOP_PERIODS * period, length + 1):
            length, longest_period = same + period, period
    if not length:
        return []
    times, period_s, length_s = length / longest_period, longest_period / CODES_PER_S, length / CODES_PER_S
    return [Fault(FaultKind.LOOP, f"the same {period_s:.2g} s come {times:.0f} times in a row", length_s)]


def in_alignment(alignment: np.ndarray, segment: Segment, complete: bool = True) -> list[Fault]:
    """Silences, and text that is left out or said twice.

    Args:
        alignment: ``[M, L + 2]``: how each code looks at start, tokens and stop.
        complete: The speech has come to its end.
    """
    path = np.clip(alignment.argmax(1) - 1, 0, segment.token_count - 1)
    looked = alignment.sum(0)
    reached = segment.token_count if complete else max(0, int(path.max()) - 1)
    faults = stays(looked, segment)
    faults += skips(looked[1 : 1 + reached], segment, len(alignment))
    return faults + repetitions(path, segment)


def stays(looked: np.ndarray, segment: Segment) -> list[Fault]:
    """The place where speech stays too long, of so many codes that have ``looked [L + 2]`` at each."""
    longest_s = float(looked.max()) / CODES_PER_S
    if longest_s <= LONG_SILENCE_S:
        return []
    where = quoted(segment, int(np.clip(looked.argmax() - 1, 0, segment.token_count - 1)))
    return [Fault(FaultKind.SILENCE, f"it stays for {longest_s:.1f} s at {where}", longest_s)]


def skips(looked: np.ndarray, segment: Segment, codes: int) -> list[Fault]:
    """Stretches of tokens that none of the ``codes`` has ``looked [n]`` at; n of the tokens have been reached."""
    silent = ~np.array([any(map(str.isalnum, token)) for token in segment.tokens[: len(looked)]], dtype=bool)
    unread = looked < MIN_READ
    found = [
        (length, first)
        for length, first in runs(unread | silent)
        if (unread & ~silent)[first : first + length].sum() >= SKIPPED_TOKENS
    ]
    in_stretches = sum(length for length, _ in found)
    elsewhere = sum(length for length, _ in runs(unread & ~silent)) - in_stretches
    if elsewhere > MAX_UNREAD * (len(looked) - in_stretches):
        return []
    usual_s = codes / CODES_PER_S / max(1, len(looked) - in_stretches)
    return [
        Fault(FaultKind.SKIPPED, f"{quoted(segment, first, length)} is left out", usual_s * length)
        for length, first in found
    ]


def repetitions(path: np.ndarray, segment: Segment) -> list[Fault]:
    """Stretches of ``path [M]``, the token that each code speaks, that lie behind what has been spoken before."""
    faults = []
    behind = np.maximum.accumulate(path) - path
    for length, first in runs(behind > 0):
        tokens = np.unique(path[first : first + length])
        far = behind[first : first + length].max() >= REPEATED_TOKENS <= len(tokens)
        if far and length >= REPEATED_S * CODES_PER_S:
            what = quoted(segment, int(tokens[0]), int(tokens[-1] - tokens[0]) + 1)
            faults.append(Fault(FaultKind.REPEATED, f"{what} is said again", length / CODES_PER_S))
    return faults


def in_length(codes: int, text: str, reached_limit: bool) -> list[Fault]:
    """Speech of so many ``codes`` that has no end, or is much too short or too long for its ``text``."""
    usual_s = estimate_s(text)
    length_s = codes / CODES_PER_S
    if reached_limit:
        if length_s < usual_s:
            return []  # the limit has no room for the text, so another attempt would end there, too
        return [Fault(FaultKind.CUT_OFF, f"it has no end after {length_s:.1f} s", CUT_OFF_S)]
    if length_s < usual_s / SLOW_FAST:
        return [Fault(FaultKind.TOO_SHORT, f"{length_s:.1f} s are too short for its text", usual_s - length_s)]
    if length_s > usual_s * SLOW_FAST + PAUSE_S:
        return [Fault(FaultKind.TOO_LONG, f"{length_s:.1f} s are too long for its text", length_s - usual_s)]
    return []


def quoted(segment: Segment, first: int, count: int = 1) -> str:
    """The written words of ``count`` tokens, in quotation marks and not too long."""
    if segment.words:
        number = np.cumsum([token.startswith("▁") for token in segment.tokens]) - 1  # of the word of each token
        text = " ".join(segment.words[max(0, number[first]) : number[first + count - 1] + 1])
    else:
        text = "".join(segment.tokens[first : first + count]).replace("▁", " ").strip()
    return f"“{textwrap.shorten(text, MAX_QUOTED, placeholder=' …')}”"


def runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Length and first index of each stretch of true values in ``mask [n]``."""
    edges = np.diff(np.concatenate(([0], mask.astype(np.int8), [0])))
    firsts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return [(int(end - first), int(first)) for first, end in zip(firsts, ends, strict=True)]
