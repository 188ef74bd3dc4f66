"""The scripts that make the bundled vocabulary and the token ids of the training sentences."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from training import prepare_tokens, train_tokenizer

ENGLISH = [
    "The cat sat on the mat, and the dog ate the hat.",
    "That man had a plan to hand the band a fan.",
    "Then there were three, they thought, or thirty-three.",
    "She sells sea shells by the shore.",
]
CHINESE = ["大家好,我是小王.", "今天天气真好!", "你去哪儿?"]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    sentences = [{"text": text, "language": "en"} for text in ENGLISH for _ in range(20)]
    sentences += [{"text": text, "language": "zh"} for text in CHINESE]
    (tmp_path / "sentences.json").write_text(json.dumps(sentences))
    (tmp_path / "config.yaml").write_text("text: {chinese: pinyin}\ngpt: {number_text_tokens: 300}\n")
    return tmp_path


def test_vocabulary_then_tokens(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert tokenizer.vocabulary_size == 300
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
        prepare_tokens.save_tokens(tmp_path / "tokens.npz", [[1, 40_000]])
