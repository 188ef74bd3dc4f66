"""Long texts in passages."""

from __future__ import annotations

import random
import re
import time

import pytest

from indextts.errors import UnusableText
from indextts.text.passages import Passage, estimate_s, has_speech, split_passages


def texts(text: str, max_s: float = 8.0) -> list[str]:
    return [passage.text for passage in split_passages(text, max_s).passages]


def test_paragraphs_sentences_and_pauses() -> None:
    cut = split_passages(
        "[pause:1s]\nChapter One\n\n"
        "Dr. Smith came in at 8.30. He said “Go!” and left. It was a dark and stormy night, as they say here.\n"
        "* * *\n"
        "The end. [pause:300ms] Or [pause:1s][pause:1s]\n",
        6.0,
    )
    assert cut.lead_ms == 1000
    assert cut.passages == (
        Passage("Chapter One", None, True),
        Passage("Dr. Smith came in at 8.30. He said “Go!” and left.", None, False),
        Passage("It was a dark and stormy night, as they say here.", None, True),
        Passage("The end.", 300, True),
        Passage("Or", 2000, True),
    )


def test_lines_that_an_editor_has_broken_are_one_paragraph() -> None:
    broken = (
        "It was the best of times, it was the worst of times,\nit was the age of wisdom, it was the age of\n"
        "foolishness, it was the epoch of belief.\nA new line."
    )
    assert texts(broken, 60) == [broken.replace("\n", " ").replace(" A new line.", ""), "A new line."]
    poem = "Shall I compare thee to a summer’s day?\nThou art more lovely and more temperate:\nRough winds"
    assert texts(poem, 60) == poem.splitlines()


def test_chinese_needs_no_spaces() -> None:
    assert texts("天气很好。“我们走吧！”她说。他们走了，一直走到河边，然后坐下来休息。", 3.0) == [
        "天气很好。“我们走吧！”",
        "她说。他们走了，",
        "一直走到河边，",
        "然后坐下来休息。",
    ]


def test_initials_titles_and_numbers_end_no_sentence() -> None:
    assert texts("J. R. R. Tolkien met Mrs. Gray. 1. Item one is here.", 2.5) == [
        "J. R. R. Tolkien met Mrs. Gray.",
        "1. Item one is here.",
    ]


@pytest.mark.parametrize("seed", range(30))
def test_nothing_is_lost_and_nothing_is_too_long(seed: int) -> None:
    draw = random.Random(seed)
    words = ["word", "1984", "a", "你好", "字", "。", ",", "…", "-", "x" * 60, "Mr.", "end.", "\n", "\n\n", "“", "!”"]
    text = " ".join(draw.choices(words, k=draw.randint(0, 400)))
    max_s = draw.choice([1.0, 3.0, 20.0])
    cut = split_passages(text, max_s)
    spoken = re.sub(r"[\W_]", "", text)
    assert re.sub(r"[\W_]", "", "".join(passage.text for passage in cut.passages)) == spoken
    assert all(has_speech(passage.text) for passage in cut.passages)
    letters_s = [estimate_s(re.sub(r"[\W_]", "", passage.text)) for passage in cut.passages]
    assert max(letters_s, default=0) <= 1.05 * max_s
    assert not cut.passages or cut.passages[-1].ends_paragraph


@pytest.mark.parametrize(
    "part", ["a", ".", "[", "[pause:", "a\n", "你。", '."', "[pause:1s]", "a, ", "Mr. ", " ", "\n"]
)
def test_the_longest_text_takes_little_time_whatever_it_is(part: str) -> None:
    text = part * (200_000 // len(part))
    started_s = time.process_time()
    split_passages(text, 8.0)
    assert time.process_time() - started_s < 10


def test_a_wrong_pause_is_named_with_its_line() -> None:
    with pytest.raises(UnusableText, match=r"line 3: '\[pause:x\]' is no pause"):
        split_passages("One.\n\nTwo [pause:x]", 8.0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [  # read at a usual pace
        ("The old lighthouse keeper climbed the stairs every evening, lit the lamp, and watched the boats.", 7.0),
        ("老灯塔管理员每天晚上爬上楼梯，点亮灯，看着船只在暴风雨前回家。", 7.0),
    ],
)
def test_estimates(text: str, seconds: float) -> None:
    assert estimate_s(text) == pytest.approx(seconds, rel=0.25)
    assert estimate_s("") == estimate_s("  \n") == 0
