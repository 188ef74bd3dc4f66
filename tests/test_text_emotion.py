"""The bundled text classifier: what it finds in sentences that it was not trained on, and in odd input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from indextts.emotion import EMOTIONS
from indextts.text_emotion import CALM, BundledTextEmotion, features

SENTENCES = Path(__file__).parent / "data" / "text_emotion.tsv"
ROWS = [line.split("\t") for line in SENTENCES.read_text(encoding="utf-8").splitlines()[1:]]
READ = BundledTextEmotion()


def strongest(text: str) -> str:
    return EMOTIONS[int(np.argmax(READ(text)))]


def weight(text: str, emotion: str) -> float:
    return READ(text)[EMOTIONS.index(emotion)]


def test_sentences_that_were_kept_apart() -> None:
    """80 % of 160, ten of each emotion in each language, which ``training/`` never sees (tests/training)."""
    assert sorted({(e, language) for e, language, _ in ROWS}) == sorted((e, n) for e in EMOTIONS for n in ("en", "zh"))
    assert len(ROWS) == len({text for *_, text in ROWS}) == 160
    right = [strongest(text) == emotion for emotion, _, text in ROWS]
    by_language = {n: np.mean([r for r, row in zip(right, ROWS, strict=True) if row[1] == n]) for n in ("en", "zh")}
    assert np.mean(right) >= 0.8, by_language
    assert min(by_language.values()) >= 0.75, by_language


@pytest.mark.parametrize(("emotion", "language", "text"), ROWS)
def test_answers_are_weights(emotion: str, language: str, text: str) -> None:
    values = READ(text)
    assert len(values) == 8 and all(type(value) is float for value in values)
    assert all(value == 0 or 0.05 <= value <= 1 for value in values) and 0.5 < sum(values) <= 1.001


@pytest.mark.parametrize(
    ("text", "emotion"),
    [
        *zip(EMOTIONS, EMOTIONS, strict=True),
        *zip(("高兴", "愤怒", "悲伤", "恐惧", "反感", "低落", "惊讶", "自然"), EMOTIONS, strict=True),
        ("很生气", "angry"),
        ("whisper sadly", "sad"),
        ("cheerful and excited", "happy"),
        ("in a trembling, terrified voice", "afraid"),
        ("gloomy", "melancholic"),
        ("害怕得发抖", "afraid"),
        ("speak like a news reader", "calm"),
    ],
)
def test_descriptions(text: str, emotion: str) -> None:
    assert strongest(text) == emotion
    assert READ(text.upper()) == READ(text.title()) == READ(text)


@pytest.mark.parametrize("text", ["", "   ", "...", "12345", "🙂", "\x00", "ﷺ", "Ω≈ç√", "ありがとう", "'", "¬"])
def test_texts_without_a_known_word_are_calm(text: str) -> None:
    assert READ(text) == CALM


@pytest.mark.parametrize("text", ["The table is made of wood.", "The file has three columns.", "这张表有三列。"])
def test_plain_statements_are_calm(text: str) -> None:
    assert strongest(text) == "calm"


@pytest.mark.parametrize(
    ("traditional", "simplified"),
    [("我很憤怒，你為什麼騙我？", "我很愤怒，你为什么骗我？"), ("他驚訝得說不出話來", "他惊讶得说不出话来")],
)
def test_traditional_characters(traditional: str, simplified: str) -> None:
    assert READ(traditional) == READ(simplified)


def test_mixed_languages() -> None:
    assert strongest("我真的很 angry，这太 unfair 了！") == "angry"
    assert strongest("What a day, 太开心了，哈哈！") == "happy"


def test_a_long_text_is_read_to_its_end() -> None:
    assert strongest("The meeting is on Monday. " + "She sobbed and wept at his grave. " * 20_000) == "sad"


@pytest.mark.parametrize(
    ("text", "emotion"),
    [
        ("not happy", "happy"),
        ("I am not happy.", "happy"),
        ("She isn't angry", "angry"),
        ("I'm not afraid.", "afraid"),
        ("disappointed and tired, but not angry", "angry"),
        ("我不高兴", "happy"),
        ("他没有生气", "angry"),
        ("别害怕", "afraid"),
    ],
)
def test_what_is_negated_is_not_what_is_found(text: str, emotion: str) -> None:
    assert weight(text, emotion) < 0.5


def test_features() -> None:
    assert list(features("Sadly!")) == ["sadly ", "sadl", "sadly", "!"]
    assert list(features("很高興？")) == ["很", "高", "兴", "很高", "高兴", "?"]
    assert list(features("It isn’t so bad")) == ["it ", "¬bad"]
    assert list(features("别怕!好")) == ["¬怕", "!", "好"]


def test_weights_are_small() -> None:
    assert READ.path.stat().st_size < 150_000
