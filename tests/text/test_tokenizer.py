"""The tokeniser: modes, errors and display; the golden cases hold the released behaviour."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pytest
import sentencepiece

from indextts.errors import CheckpointError, ConfigError
from indextts.text.pinyin import to_pinyin
from indextts.text.tokenizer import TextTokenizer, spell_out


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["HELLO WORLD, DA4 JIA1 HAO3.", "好 的 。 WORLD 12345"]),
        model_writer=model, vocab_size=60, model_type="bpe", hard_vocab_limit=False,
        bos_id=0, eos_id=1, unk_id=2, minloglevel=2,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("vocabulary") / "bpe.model"
    path.write_bytes(model.getvalue())
    return path


def shout(text: str) -> str:
    return text + "."


def test_characters_are_split_and_single_ones_skip_the_normalizer(vocabulary: Path) -> None:
    tokenizer = TextTokenizer(vocabulary, shout)
    assert "".join(tokenizer.tokenize("好的")) == "▁好▁的▁."
    assert "".join(tokenizer.tokenize("好")) == "▁好"
    assert tokenizer.tokenize("") == []


def test_pinyin_spells_characters_out_even_a_single_one(vocabulary: Path) -> None:
    tokenizer = TextTokenizer(vocabulary, shout, chinese="pinyin")
    assert "".join(tokenizer.tokenize("大家hello")) == "▁DA4▁JIA1▁HELLO."
    assert "".join(tokenizer.tokenize("好")) == "▁HAO3."


def test_ids_name_unknown_pieces(vocabulary: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = TextTokenizer(vocabulary, shout)
    with caplog.at_level(logging.WARNING):
        ids = tokenizer.encode("QUARTZ")
    assert tokenizer.unknown_id in ids
    assert "Q" in caplog.text


def test_decode_for_display(vocabulary: Path) -> None:
    tokenizer = TextTokenizer(vocabulary, shout)
    assert tokenizer.decode(tokenizer.encode("好的 hello world")) == "好的HELLO WORLD."
    assert tokenizer.decode(tokenizer.encode("hello world"), lower=True) == "hello world."


def test_spell_out_is_what_tokenize_encodes() -> None:
    assert spell_out(to_pinyin(shout("你好 wörld"))) == "NI3 HAO3 WORLD."


def test_errors_name_the_cause(vocabulary: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.model"):
        TextTokenizer(tmp_path / "none.model", shout)
    (tmp_path / "bad.model").write_bytes(b"no vocabulary")
    with pytest.raises(CheckpointError, match=r"bad\.model"):
        TextTokenizer(tmp_path / "bad.model", shout)
    with pytest.raises(ConfigError, match="latin"):
        TextTokenizer(vocabulary, shout, chinese="latin")
