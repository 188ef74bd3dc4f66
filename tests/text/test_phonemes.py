"""Words become phonemes where a vocabulary wants sounds, and stay readable for display."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from indextts.errors import ConfigError
from indextts.stages.text import TextStage, words_of
from indextts.text.phonemes import clean, to_phonemes
from indextts.text.tokenizer import TextTokenizer
from training.train_tokenizer import train_vocabulary

TEXTS = ("The old dog sleeps in the sun.", "My train leaves at seven, does it?", "Hello there! DA4 JIA1 HAO3.")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    path = tmp_path_factory.mktemp("vocabulary") / "bpe.model"
    path.write_bytes(train_vocabulary([to_phonemes(text) for text in TEXTS] * 20, 330, "phonemes"))
    return TextTokenizer(path, str, chinese="pinyin", english="phonemes")


@pytest.mark.parametrize(
    ("text", "phonemes"),
    [
        ("Hello there.", "həlˈO ðˈɛɹ."),
        ("I read, I have read", "ˌI ɹˈɛd, ˌI hæv ɹˈɛd"),
        ("DA4 JIA1 HAO3, hello!", "DA4 JIA1 HAO3, həlˈO!"),
        ("wait - what... yes", "wˈAt , wˌʌt... jˈɛs"),
        ("", ""),
    ],
)
def test_words_become_phonemes_and_pinyin_stays(text: str, phonemes: str) -> None:
    assert to_phonemes(text) == phonemes


def test_a_word_of_no_lexicon_is_read_too() -> None:
    assert re.fullmatch(r"\S+", to_phonemes("Zorblaxing"))


def test_punctuation_is_what_a_vocabulary_has() -> None:
    assert clean("“wˈAt…”  nˈO— jˈɛs; ˈO: ") == "wˈAt... nˈO, jˈɛs, ˈO,"


def test_pieces_are_short_and_all_known(tokenizer: TextTokenizer) -> None:
    pieces = tokenizer.tokenize("The old dog, 大家好!")
    assert "".join(pieces).replace("▁", " ").strip() == "ði ˈOld dˈɔɡ, DA4 JIA1 HAO3!"
    assert max(map(len, pieces)) <= 3
    assert tokenizer.unknown_id not in tokenizer.ids(pieces)


def test_segments_show_the_written_words(tokenizer: TextTokenizer) -> None:
    stage = TextStage(tokenizer, max_text_tokens=200)
    segments = stage("The old dog sleeps. My train, does it leave?", max_tokens=20)
    assert len(segments) > 1
    assert " ".join(segment.text for segment in segments) == "The old dog sleeps. My train, does it leave?"
    assert all("ˈ" in "".join(segment.tokens) for segment in segments)


def test_words_that_do_not_match_the_tokens_are_not_shown() -> None:
    assert words_of([["▁a", "b"], ["▁c"]], ["AB", "C"]) == [["AB"], ["C"]]
    assert words_of([["▁a", "b"], ["▁c"]], ["AB"]) == [(), ()]


@pytest.mark.parametrize("english", ["sounds", "phonemes"])
def test_a_wrong_configuration_is_named(tmp_path: Path, english: str) -> None:
    with pytest.raises(ConfigError, match=r"text\.english"):
        TextTokenizer(tmp_path / "bpe.model", str, english=english)
