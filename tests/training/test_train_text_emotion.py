"""The data of the text classifier are apart from the test sentences, and give the bundled file."""

from __future__ import annotations

import re

import numpy as np
import pytest

from indextts.emotion import EMOTIONS
from indextts.text_emotion import BundledTextEmotion
from training.train_text_emotion import Example, accuracy, classifier, kept_apart, train, training_examples, validate


def runs(example: Example) -> set[str]:
    """Every stretch of six words or eight Chinese characters."""
    if example.language == "en":
        words = re.findall(r"[\w']+", example.text.lower())
        return {" ".join(words[i : i + 6]) for i in range(len(words) - 5)}
    characters = re.sub(r"\W", "", example.text)
    return {characters[i : i + 8] for i in range(len(characters) - 7)}


def test_no_test_sentence_was_trained_on() -> None:
    trained = training_examples()
    apart = kept_apart()
    assert not {example.text for example in trained} & {example.text for example in apart}
    assert not set().union(*map(runs, trained)) & set().union(*map(runs, apart))


def test_the_data_are_tidy() -> None:
    sentences = [example for example in training_examples() if not example.phrase]
    assert len(sentences) == len({example.text for example in sentences}) > 2000
    for language in ("en", "zh"):
        for emotion in EMOTIONS:
            assert sum((e.emotion, e.language) == (emotion, language) for e in sentences) > 100


def test_training_learns_what_it_is_told_and_always_the_same() -> None:
    few = [e for e in training_examples() if e.phrase][::20]
    weights = train(few)
    assert accuracy(classifier(weights), few)["all"] > 0.95
    assert all(np.array_equal(a, b) for a, b in zip(weights, train(few), strict=True))
    assert np.all(np.diff(weights.keys.astype(np.int64)) > 0) and weights.weights.dtype == np.int8


def test_validation_is_of_sentences_only() -> None:
    few = [e for e in training_examples() if not e.phrase][::25] + [e for e in training_examples() if e.phrase][::20]
    found = validate(few)
    assert set(found) == {"all", "en", "zh"} and 0.2 < found["all"] < 0.95


@pytest.mark.slow
def test_the_bundled_file_is_what_the_script_makes() -> None:
    """To the rounding of the last bit, as sums in another order differ."""
    made, bundled = train(training_examples()), BundledTextEmotion().weights
    both, here, there = np.intersect1d(made.keys, bundled.keys, return_indices=True)
    assert len(both) > 0.99 * len(bundled.keys)
    assert np.abs(made.weights[here].astype(int) - bundled.weights[there].astype(int)).max() <= 2
    assert made.bias == pytest.approx(bundled.bias, abs=0.02)
