"""Subtitle files in and out."""

from __future__ import annotations

import re

import pytest

from indextts.errors import UnusableText
from indextts.subtitles import Cue, gaps_s, read_srt, write_lrc, write_srt

CUES = [Cue(0.5, 2.25, "Hello there."), Cue(2.25, 3.0005, "How are you?"), Cue(3723.9999, 7384.5, "你好 → 再见")]


def test_what_is_written_is_read_again() -> None:
    again = read_srt(write_srt(CUES))
    assert [cue.text for cue in again] == [cue.text for cue in CUES]
    for cue, expected in zip(again, CUES, strict=True):
        assert cue.start_s == pytest.approx(expected.start_s, abs=6e-4)
        assert cue.end_s == pytest.approx(expected.end_s, abs=6e-4)


def test_srt_as_players_want_it() -> None:
    assert write_srt([Cue(0, 1.5, "One\n\ntwo --> three"), Cue(61.25, 3601, "Four")]) == (
        "1\n00:00:00,000 --> 00:00:01,500\nOne two → three\n\n2\n00:01:01,250 --> 01:00:01,000\nFour\n"
    )
    assert write_srt([]) == ""


def test_lrc_as_players_want_it() -> None:
    assert write_lrc([Cue(0, 1.5, "One\ntwo"), Cue(59.999, 6001.234, "Three")]) == (
        "[00:00.00]One two\n[01:00.00]Three\n[100:01.23]\n"
    )
    assert re.fullmatch(r"\n?", write_lrc([]))


def test_srt_as_it_comes() -> None:
    content = (
        "\n1\n00:00:01,000 --> 00:00:02,500 X1:40 X2:600\n<i>Hello</i> there.\n{\\an8}You!\n\n"
        "00:03.5-->00:04.75\n1984\n\nand on\n"
        "7\n0:00:05.000 --> 0:00:06.000\n\n"
        "8\n00:00:07,000 --> 00:00:08,000\n2 < 3"
    )
    assert read_srt(content) == [
        Cue(1.0, 2.5, "Hello there. You!"),
        Cue(3.5, 4.75, "1984 and on"),
        Cue(7.0, 8.0, "2 < 3"),
    ]


def test_gaps() -> None:
    assert gaps_s([Cue(1.5, 2, "a"), Cue(2, 4, "b"), Cue(3, 5, "c"), Cue(6.25, 7, "d")]) == [1.5, 0, 0, 1.25]


@pytest.mark.parametrize(
    ("content", "problem", "says"),
    [
        ("", "no_cues", "no subtitles"),
        ("Just a text.\n\nAnother.", "no_cues", "no subtitles"),
        ("1\n00:00:01,000 --> 00:00:02,000\n\n", "no_cues", "no subtitles"),
        ("1\n00:00:01,000 --> soon\nHello", "bad_timing", "line 2: '00:00:01,000 --> soon' is not a time"),
        ("1\n00:00:03,000 --> 00:00:02,000\nHello", "bad_timing", "line 2"),
    ],
)
def test_what_is_no_subtitle(content: str, problem: str, says: str) -> None:
    with pytest.raises(UnusableText, match=re.escape(says)) as caught:
        read_srt(content)
    assert caught.value.problem == problem
