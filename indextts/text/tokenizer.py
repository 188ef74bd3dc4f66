"""Speakable text to the tokens of the language model, and back for display (spec 4.2)."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import sentencepiece

from indextts.errors import CheckpointError, ConfigError
from indextts.text.phonemes import to_phonemes
from indextts.text.pinyin import to_pinyin

CJK = "\u1100-\u11ff\u2e80-\ua4cf\ua840-\ud7af\uf900-\ufaff\ufe30-\ufe4f\uff65-\uffdc\U00020000-\U0002ffff"
_CJK_CHARACTER = re.compile(f"([{CJK}])")
_SPACE_BESIDE_CJK = re.compile(rf"(?<=[{CJK}])\s+|\s+(?=[{CJK}])")

Normalizer = Callable[..., str]
"""Takes a text and, where numbers shall be read by the English rules, ``numbers_language="en"``."""

_log = logging.getLogger(__name__)


class TextTokenizer:
    """The SentencePiece vocabulary of a checkpoint with the normaliser in front.

    Args:
        model_path: the checkpoint's ``bpe.model``.
        normalizer: makes text speakable, usually a ``TextNormalizer``.
        chinese: "characters", or "pinyin" for vocabularies that spell Mandarin as tone-marked syllables.
        english: "letters", or "phonemes" for vocabularies (of pinyin) that spell other words by their sounds.

    Raises:
        CheckpointError: the vocabulary is missing or damaged.
        ConfigError: ``chinese`` or ``english`` is something else.
    """

    def __init__(
        self,
        model_path: str | Path,
        normalizer: Normalizer,
        chinese: str = "characters",
        english: str = "letters",
    ) -> None:
        if chinese not in ("characters", "pinyin"):
            raise ConfigError(f"text.chinese must be 'characters' or 'pinyin', not {chinese!r}")
        if english not in ("letters", "phonemes"):
            raise ConfigError(f"text.english must be 'letters' or 'phonemes', not {english!r}")
        if english == "phonemes" and chinese != "pinyin":
            raise ConfigError("text.english 'phonemes' goes with text.chinese 'pinyin'")
        self.normalizer = normalizer
        self.chinese, self.english = chinese, english
        try:
            self._vocabulary = sentencepiece.SentencePieceProcessor(model_file=str(model_path))
        except (OSError, RuntimeError) as error:
            raise CheckpointError(f"cannot read the vocabulary {model_path}: {error}") from error

    @property
    def vocabulary_size(self) -> int:
        return self._vocabulary.vocab_size()

    @property
    def unknown_id(self) -> int:
        return self._vocabulary.unk_id()

    def tokenize(self, text: str) -> list[str]:
        """Pieces of ``text``, ``▁`` marking the start of a word; none for an empty text."""
        return self.read(text)[0]

    def read(self, text: str, numbers_language: str = "zh") -> tuple[list[str], list[str]]:
        """Pieces of ``text``, and the written words where the pieces are sounds; none where they can be read.

        Args:
            numbers_language: zh or en: by whose rules a text without any letter is read.
        """
        if not text:
            return [], []
        normalizer = self.normalizer if numbers_language == "zh" else partial(self.normalizer, numbers_language="en")
        if self.chinese == "pinyin":
            written = to_pinyin(normalizer(text))
            words = written.split() if self.english == "phonemes" else []
            return self.pieces(spell_out(written, self.english)), words
        if len(text.strip()) > 1:  # a single character is looked up as it is, as the released model does it
            text = split_cjk(normalizer(text))
        return self.pieces(text), []

    def pieces(self, text: str) -> list[str]:
        """Pieces of a text that is spelled as the vocabulary wants it."""
        return self._vocabulary.encode(text, out_type=str)

    def ids(self, tokens: Sequence[str]) -> list[int]:
        """Vocabulary ids of pieces; unknown ones get ``unknown_id`` and are named in the log."""
        ids = [self._vocabulary.piece_to_id(token) for token in tokens]
        unknown = [token for token, id in zip(tokens, ids, strict=True) if id == self.unknown_id]
        if unknown:
            _log.warning("not in the vocabulary, so not spoken: %s", " ".join(dict.fromkeys(unknown)))
        return ids

    def encode(self, text: str) -> list[int]:
        """``tokenize`` and ``ids`` in one go."""
        return self.ids(self.tokenize(text))

    def decode(self, ids: Sequence[int], lower: bool = False) -> str:
        """Readable text of ids, for display only."""
        return join_cjk(self._vocabulary.decode(list(ids)), lower)


def spell_out(text: str, english: str = "letters") -> str:
    """What a "pinyin" vocabulary is trained on and sees of normalised text in pinyin: capitals or phonemes."""
    return to_phonemes(text) if english == "phonemes" else split_cjk(text)


def split_cjk(text: str, upper: bool = True) -> str:
    """Set every East Asian character apart with spaces, and upper-case the rest."""
    items = (item.strip() for item in _CJK_CHARACTER.split(text.strip()))
    return " ".join(item.upper() if upper else item for item in items if item)


def join_cjk(text: str, lower: bool = False) -> str:
    """Undo ``split_cjk`` for display: no spaces beside East Asian characters, those of Latin phrases stay."""
    joined = _SPACE_BESIDE_CJK.sub("", text.strip())
    return joined.lower() if lower else joined
