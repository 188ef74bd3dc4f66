"""Texts of several passages, and texts of numbers alone."""

from __future__ import annotations

import pytest

from indextts.errors import ConfigError, TextError
from indextts.random_weights import CharacterTokenizer
from indextts.stages.text import PASSAGE_END, TextStage
from indextts.text.normalizer import TextNormalizer, is_chinese
from indextts.types import SynthesisRequest, VoicePrompt


@pytest.fixture
def stage() -> TextStage:
    return TextStage(CharacterTokenizer(TextNormalizer(None, lambda t: f"中{t}", lambda t: f"E{t}"), 100), 200)


def letters(stage: TextStage, text: str, **options: int | str) -> list[str]:
    return ["".join(segment.tokens) for segment in stage(text, **options)]  # type: ignore[arg-type]


def test_no_segment_goes_beyond_a_passage(stage: TextStage) -> None:
    passages = ["One. Two.", "三。", "Four, five, six."]
    together = letters(stage, PASSAGE_END.join(passages), max_tokens=8)
    assert together == [piece for passage in passages for piece in letters(stage, passage, max_tokens=8)]
    assert [s.index for s in stage(PASSAGE_END.join(passages), 8)] == list(range(len(together)))


def test_each_passage_is_read_by_its_own_rules(stage: TextStage) -> None:
    text = PASSAGE_END.join(("Hi", " ", "", "你好", "77"))
    assert letters(stage, text) == ["EHI", "中你好", "中77"]
    assert letters(stage, text, numbers_language="en") == ["EHI", "中你好", "E77"]


def test_a_quick_start_is_for_the_first_passage(stage: TextStage) -> None:
    text = PASSAGE_END.join(("One. Two. Ten.",) * 2)
    quick = letters(stage, text, max_tokens=10, quick_streaming_tokens=13)
    assert quick == ["EONE.", "TWO.", "TEN.", "EONE.TWO.", "TEN."]


def test_passages_without_speech(stage: TextStage) -> None:
    with pytest.raises(TextError, match="nothing to speak"):
        TextStage(CharacterTokenizer(str, 100), 200)(f"...{PASSAGE_END}!")


@pytest.mark.parametrize("text", ["42", "42!", "1 + 1", "3.14"])
def test_whose_numbers(text: str) -> None:
    assert is_chinese(text) and not is_chinese(text, "en")


def test_letters_decide_whatever_the_numbers_are() -> None:
    assert not is_chinese("42 a", "zh") and is_chinese("42 年", "en") and is_chinese("да 42", "en")


def test_another_language() -> None:
    with pytest.raises(ConfigError, match="numbers_language must be zh or en, not 'fr'"):
        SynthesisRequest("42", VoicePrompt(b""), numbers_language="fr")
