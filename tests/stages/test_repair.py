"""Faults of speech, on codes and alignments that are made up; and which of several attempts is kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from indextts.errors import SynthesisError
from indextts.stages.repair import FaultKind, examined, repaired
from indextts.types import Segment, SpeechCodes

WORDS = ("Three", "grey", "geese", "graze", "here", "again.")
TOKENS = ("▁th", "r", "ee", "▁g", "r", "ey", "▁g", "ee", "se", "▁g", "r", "aze", "▁h", "er", "e", "▁a", "g", "ain", ".")
SEGMENT = Segment(2, TOKENS, tuple(range(len(TOKENS))), WORDS)
CODES_A_TOKEN = 5
CHOOSE = np.random.default_rng(0)


def path_of(*stretches: tuple[int, int]) -> np.ndarray:
    """The token of each code of speech that reads the tokens ``first`` to ``end`` of each stretch."""
    return np.concatenate([np.repeat(np.arange(first, end), CODES_A_TOKEN) for first, end in stretches])


def spoken(
    path: np.ndarray | None = None, codes: Sequence[int] | np.ndarray | None = None, *,
    segment: Segment = SEGMENT, limit: bool = False, complete: bool = True,
) -> SpeechCodes:  # fmt: skip
    """Speech along ``path``, sharply but not quite; with codes of no pattern if none are given."""
    alignment = None
    if path is not None:
        alignment = torch.full((len(path), segment.token_count + 2), 0.05 / segment.token_count)
        alignment[torch.arange(len(path)), torch.from_numpy(path) + 1] = 0.95
    if codes is None:
        codes = CHOOSE.integers(2000, size=95 if path is None else len(path))
    rows = torch.as_tensor(np.asarray(codes))
    return SpeechCodes(segment, rows, torch.zeros(len(rows), 4), limit, complete, alignment=alignment)


def faults(speech: SpeechCodes, **how: bool) -> list[tuple[FaultKind, str]]:
    return [(fault.kind, fault.reason) for fault in examined(speech, **how).faults]


ALL = path_of((0, 19))


def test_good_speech_has_no_faults() -> None:
    assert faults(spoken(ALL)) == faults(spoken()) == []
    waits = np.insert(ALL, [40] * 60, ALL[40])  # a pause of 1.2 s
    assert faults(spoken(waits)) == []
    looks_back = ALL.copy()
    looks_back[50:60] -= 6  # for 0.2 s
    assert faults(spoken(looks_back)) == []
    unsaid = path_of((0, 5), (7, 19))  # two tokens, and the full stop
    assert faults(spoken(unsaid[:-CODES_A_TOKEN])) == []


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (path_of((0, 6), (12, 19)), "“geese graze” is left out"),
        (path_of((6, 19)), "“Three grey” is left out"),
        (path_of((0, 12)), "“here again.” is left out"),
    ],
)
def test_text_that_is_left_out(path: np.ndarray, reason: str) -> None:
    assert faults(spoken(path)) == [(FaultKind.SKIPPED, reason)]


def test_the_tokens_themselves_are_quoted_where_words_are_not_known() -> None:
    segment = Segment(0, ("你", "好", "，", "今", "天", "天", "气", "很", "好"), tuple(range(9)))
    path = np.repeat([0, 1, 5, 6, 7, 8], 10)
    assert faults(spoken(path, segment=segment)) == []  # two characters
    path = np.repeat([0, 1, 6, 7, 8], 10)
    assert faults(spoken(path, segment=segment)) == [(FaultKind.SKIPPED, "“，今天天” is left out")]


def test_attention_that_leaves_out_a_bit_everywhere_is_not_believed() -> None:
    path = np.repeat([0, 2, 4, 5, 7, 9, 13, 14, 16, 18], 10)
    assert faults(spoken(path)) == []


def test_text_that_is_said_twice() -> None:
    assert faults(spoken(path_of((0, 9), (3, 19)))) == [(FaultKind.REPEATED, "“grey geese” is said again")]
    assert [kind for kind, _ in faults(spoken(path_of((0, 9), (3, 9), (3, 19))))] == [FaultKind.REPEATED] * 2


def test_speech_that_stays_where_it_is() -> None:
    stays = np.insert(ALL, [40] * 75, ALL[40])
    assert faults(spoken(stays)) == [(FaultKind.SILENCE, "it stays for 1.5 s at “geese”")]
    at_the_end = np.append(ALL, [18] * 100)
    assert faults(spoken(at_the_end)) == [(FaultKind.SILENCE, "it stays for 2.0 s at “again.”")]


def test_codes_that_stay_the_same() -> None:
    codes = CHOOSE.integers(2000, size=150)
    codes[20:75] = 52
    assert faults(spoken(codes=codes)) == []
    codes[20:110] = 52
    codes[40:100:10] = 53  # a little noise
    assert faults(spoken(codes=codes)) == [(FaultKind.SILENCE, "a silence or a held sound of 1.7 s")]


def test_codes_that_go_round() -> None:
    codes, phrase = CHOOSE.integers(2000, size=60), CHOOSE.integers(2000, size=20)
    twice, thrice = (np.concatenate((codes, np.tile(phrase, times), codes[:10])) for times in (2, 3))
    assert faults(spoken(codes=twice)) == []
    assert faults(spoken(codes=thrice)) == [(FaultKind.LOOP, "the same 0.4 s come 3 times in a row")]
    held = np.concatenate((codes, np.tile([7, 8], 30)))  # as short as two codes may well be for 1.2 s
    assert faults(spoken(codes=held)) == []
    assert [kind for kind, _ in faults(spoken(codes=np.concatenate((codes, np.tile([7, 8], 40)))))] == [FaultKind.LOOP]


def test_speech_without_an_end() -> None:
    assert faults(spoken(ALL, limit=True)) == []  # 1.9 s are less than its text takes: it was not let speak
    longer = np.concatenate((ALL, ALL[-1:].repeat(30)))
    assert faults(spoken(longer, limit=True)) == [(FaultKind.CUT_OFF, "it has no end after 2.5 s")]


def test_speech_of_a_strange_length() -> None:
    def of(codes: int) -> SpeechCodes:
        return spoken(codes=CHOOSE.integers(2000, size=codes))

    assert faults(of(41)) == faults(of(455)) == []
    assert faults(of(30)) == [(FaultKind.TOO_SHORT, "0.6 s are too short for its text")]
    assert faults(of(500)) == [(FaultKind.TOO_LONG, "10.0 s are too long for its text")]
    assert faults(of(30), free_length=False) == []


def test_of_speech_that_goes_on_only_what_is_certain() -> None:
    assert faults(spoken(path_of((0, 6)), complete=False)) == []
    assert faults(spoken(path_of((0, 4), (10, 14)), complete=False)) == [
        (FaultKind.SKIPPED, "“grey geese graze” is left out")
    ]


GOOD, SHORT_SKIP, LONG_SKIP = ALL, path_of((0, 6), (9, 19)), path_of((0, 3), (12, 19))


class Speaker:
    """Says what it is told to, attempt by attempt."""

    def __init__(self, *attempts: list[SpeechCodes] | Exception) -> None:
        self.attempts = list(attempts)
        self.asked: list[tuple[list[int], int]] = []
        self.told: list[str] = []

    def __call__(self, segments: Sequence[Segment], seed: int) -> list[SpeechCodes]:
        self.asked.append(([segment.index for segment in segments], seed))
        attempt = self.attempts.pop(0)
        if isinstance(attempt, Exception):
            raise attempt
        return attempt


def test_only_what_is_faulty_is_spoken_again() -> None:
    first, other = spoken(LONG_SKIP), spoken(GOOD)
    speaker = Speaker([spoken(GOOD)])
    kept = repaired([other, first], 7, speaker, speaker.told.append)
    assert speaker.asked == [([2], 8)] and kept[0] is other and kept[1] is not first
    assert speaker.told == ["segment 3 is spoken again with seed 8: “grey geese graze” is left out"]


def test_the_best_attempt_is_kept() -> None:
    worst, best = spoken(LONG_SKIP), spoken(SHORT_SKIP)
    speaker = Speaker([best], [spoken(LONG_SKIP)])
    assert repaired([worst], 7, speaker, speaker.told.append)[0] is best
    assert [seed for _, seed in speaker.asked] == [8, 9]
    assert speaker.told[-1] == "segment 3 is not as it should be after three attempts: “geese” is left out"
    equal = Speaker([spoken(LONG_SKIP)], [spoken(LONG_SKIP)])
    assert repaired([worst], 7, equal, equal.told.append)[0] is worst


def test_an_attempt_that_fails_does_no_harm() -> None:
    first, good = spoken(LONG_SKIP), spoken(GOOD)
    speaker = Speaker(SynthesisError("nothing"), [good])
    assert repaired([first], 7, speaker, speaker.told.append)[0] is good
    assert speaker.told[1] == "there is no speech with seed 8: nothing"
    speaker = Speaker(SynthesisError("nothing"), SynthesisError("nothing"))
    assert repaired([first], 7, speaker, speaker.told.append)[0] is first


def test_faults_of_unfinished_speech_are_not_final() -> None:
    speaker = Speaker([spoken(SHORT_SKIP, complete=False)], [spoken(SHORT_SKIP, complete=False)])
    repaired([spoken(SHORT_SKIP, complete=False)], 7, speaker, speaker.told.append)
    assert len(speaker.told) == 2 and not any("not as it should be" in line for line in speaker.told)
