"""The recogniser of the end-to-end tests must itself hear well, and count errors rightly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.recogniser import transcribe, word_error_rate

PROMPTS = Path(__file__).resolve().parents[1] / "training" / "prompts"


def test_word_error_rate_ignores_spelling_and_punctuation() -> None:
    assert word_error_rate("I have twenty-three dollars, don't I?", "i have $23 do not i") == 0
    assert word_error_rate("The colour is grey.", "The color is gray") == 0
    assert word_error_rate("The dog sleeps here.", "the dog here") == pytest.approx(0.25)
    assert word_error_rate("Yes.", "no no no") == pytest.approx(3.0)
    with pytest.raises(ValueError, match="no words"):
        word_error_rate("...", "something")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_hears_what_a_recording_says() -> None:
    clips = {c["file"]: c["text"] for c in json.loads((PROMPTS / "clips.json").read_text(encoding="utf-8"))}
    heard = transcribe(PROMPTS / "am_onyx.flac")
    assert word_error_rate(clips["am_onyx.flac"], heard) < 0.15
    assert word_error_rate(clips["bf_emma.flac"], heard) > 0.7
