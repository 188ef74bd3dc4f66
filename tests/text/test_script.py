"""Scripts of several speakers, and pauses in texts."""

from __future__ import annotations

import re

import pytest

from indextts.emotion import EMOTIONS
from indextts.errors import TextError, UnusableText
from indextts.text.pauses import split_pauses, written_pause
from indextts.text.script import DEFAULT_WEIGHT, Utterance, read_script


def test_who_says_what() -> None:
    script = read_script(
        "[pause:500ms]\n"
        "\n"
        "[Anna] Good morning.\n"
        "[ben | Happy 0.6，surprised] Morning! [pause:.8s] Coffee? [pause:1] [pause: 250 MS]\n"
        "It is still hot.\n"
        "【安娜】 你好。［pause：1.5s］\n"
        "[Ben]\n"
        "Sure [1] thing.\n",
        EMOTIONS,
    )
    glad = (("happy", 0.6), ("surprised", DEFAULT_WEIGHT))
    assert script.lead_ms == 500
    assert script.speakers == ("Anna", "ben", "安娜")
    assert script.utterances == (
        Utterance(3, "Anna", "Good morning."),
        Utterance(4, "ben", "Morning!", glad, 800),
        Utterance(4, "ben", "Coffee?", glad, 1250),
        Utterance(5, "ben", "It is still hot.", glad),
        Utterance(6, "安娜", "你好。", (), 1500),
        Utterance(8, "ben", "Sure [1] thing."),
    )


@pytest.mark.parametrize(
    ("script", "problem", "says"),
    [
        ("Hello.\n[Anna] Hi.", "no_speaker", "line 1: who says this?"),
        ("[Anna] Hi.\n[pause:soon] What?", "bad_pause", "line 2: '[pause:soon]' is no pause"),
        ("[Anna] Hi.\n\n[pause]", "bad_pause", "line 3: '[pause]' is no pause"),
        ("[pause:-1s]", "bad_pause", "line 1"),
        ("[pause:601s]", "long_pause", "line 1: the pause '[pause:601s]' is too long: 600 s at most"),
        ("[] Hello.", "bad_name", "line 1: '' is not a name"),
        (f"[{'x' * 41}] Hello.", "bad_name", "line 1"),
        ("[A\x00] Hello.", "bad_name", "line 1"),
        ("[Anna|merry 0.5] Hello.", "bad_emotion", "line 1: 'merry 0.5' is not an emotion: one of happy, angry"),
        ("[Anna|happy 1.5] Hello.", "bad_emotion", "line 1"),
        ("[Anna|0.5] Hello.", "bad_emotion", "line 1"),
        ("[Anna]\n[pause:1s]\n[Ben]", "nobody_speaks", "nobody says anything"),
    ],
)
def test_what_is_no_script(script: str, problem: str, says: str) -> None:
    with pytest.raises(UnusableText, match=re.escape(says)) as caught:
        read_script(script, EMOTIONS)
    assert caught.value.problem == problem
    assert isinstance(caught.value, TextError)


def test_an_empty_script() -> None:
    with pytest.raises(TextError, match="empty"):
        read_script(" \n ", EMOTIONS)


@pytest.mark.parametrize("duration_s", [0, 0.001, 0.3, 1, 1.25, 10, 100, 599.999])
def test_a_pause_is_read_as_it_is_written(duration_s: float) -> None:
    assert split_pauses(f"a {written_pause(duration_s)} b", 1) == ["a", round(1000 * duration_s), "b"]


def test_what_is_near_a_pause_is_text() -> None:
    assert split_pauses("a [pauses: 1s] (pause:1s) [pause:1s", 1) == ["a [pauses: 1s] (pause:1s) [pause:1s"]
    assert split_pauses("", 1) == []
