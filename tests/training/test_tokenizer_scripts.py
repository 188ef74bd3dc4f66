"""The scripts that make the bundled vocabulary and the token ids of the training sentences."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from indextts.text.phonemes import to_phonemes
from training import prepare_tokens, train_tokenizer

ENGLISH = [
    "The cat sat on the mat, and the dog ate the hat.",
    "That man had a plan to hand the band a fan.",
    "Then there were three, they thought, or thirty-three.",
    "She sells sea shells by the shore.",
]
SYMBOLS = {
    "大家好,我是小王.": "ta↘ʨja→ xau↓, wo↓ ʂɨ↘ ɕjau↓ wa↗ŋ.",
    "今天天气真好!": "ʨi→ntʰjɛ→n tʰjɛ→nʨʰi↘ ꭧə→n xau↓!",
    "他们去哪儿?": "tʰa→mən ʨʰy↘ na↓ɚ?",
}
CHINESE = list(SYMBOLS)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    sentences = [{"text": t, "language": "en", "phonemes": to_phonemes(t)} for t in ENGLISH for _ in range(20)]
    sentences += [{"text": text, "language": "zh", "phonemes": SYMBOLS[text]} for text in CHINESE]
    (tmp_path / "sentences.json").write_text(json.dumps(sentences))
    return tmp_path


@pytest.mark.parametrize("english", ["letters", "phonemes"])
def test_vocabulary_then_tokens(workspace: Path, english: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (workspace / "config.yaml").write_text(
        f"text: {{chinese: pinyin, english: {english}}}\ngpt: {{number_text_tokens: 330}}\n"
    )
    options = ["", "--data", str(workspace), "--model", str(workspace)]
    monkeypatch.setattr(sys, "argv", options)
    train_tokenizer.main()
    prepare_tokens.main()

    sentences = json.loads((workspace / "sentences.json").read_text())
    with np.load(workspace / "tokens.npz") as tokens:
        ids, offsets = tokens["ids"], tokens["offsets"]
    assert ids.dtype == np.int16 and offsets.dtype == np.int64
    assert len(offsets) == len(sentences) + 1 and offsets[-1] == len(ids)
    tokenizer = prepare_tokens.load_tokenizer(workspace)
    assert tokenizer.vocabulary_size == 330
    for row, sentence in enumerate(sentences):
        own = ids[offsets[row] : offsets[row + 1]].tolist()
        assert own == tokenizer.encode(sentence["text"])
        assert tokenizer.unknown_id not in own
    assert tokenizer.tokenize("常")[-1] == "ANG2"  # a final that no sentence has


def test_the_rarer_language_is_repeated() -> None:
    lines = train_tokenizer.balanced({"en": [f"e{i}" for i in range(50)], "zh": ["z1", "z2", "z3"]}, limit=20)
    assert sum(line.startswith("e") for line in lines) == 20
    assert sum(line.startswith("z") for line in lines) == 20
    assert lines == train_tokenizer.balanced({"en": [f"e{i}" for i in range(50)], "zh": ["z1", "z2", "z3"]}, limit=20)


def test_ids_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="40000"):
        prepare_tokens.save_tokens(tmp_path / "tokens.npz", [[1, 40_000]], [[0, 1]])


def test_pieces_know_the_symbols_they_stand_for() -> None:
    symbols = "wˈAt… jˈɛs."
    pieces = ["▁w", "ˈA", "t", "...", "▁j", "ˈɛ", "s", "."]
    assert prepare_tokens.places_of(pieces, symbols) == [0, 1, 3, 4, 5, 7, 9, 10]
    # 们 has no tone, and shares what stands before the mark of 去 with it
    pieces = ["▁T", "A1", "▁M", "EN5", "▁Q", "U4", "?"]
    assert prepare_tokens.places_of(pieces, "tʰa→mən ʨʰy↘?") == [0, 2, 4, 6, 8, 10, 10]
    assert prepare_tokens.places_of(["▁H", "AO3"], "hˈI") == [-1, -1]
