"""Makes the vocabulary of the bundled model, ``checkpoints/nano/bpe.model``.

    python -m training.train_tokenizer --data DATA [--model checkpoints/nano]

Reads ``DATA/sentences.json``: a list of ``{"text": …, "language": "en" | "zh"}``, the text normalised.
A small model with little data learns to read best from short pieces that occur often, so:

* English is SentencePiece BPE over phonemes (``text.english`` in ``config.yaml``) with pieces of at most
  two symbols, or over upper-case text with pieces of at most five letters.
* Mandarin is pinyin: the initial, and the final with its tone (``ZH`` ``ONG4``). The finals are fixed pieces, and
  beside phonemes the initials are too; so no syllable is ever unknown, be it in the training text or not.
* Every printable ASCII character is a piece, and punctuation never joins another piece.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import random
import string
from collections.abc import Sequence
from pathlib import Path

import sentencepiece

from indextts.config import TextConfig
from indextts.config_file import load_model_config
from indextts.text.phonemes import clean
from indextts.text.pinyin import to_pinyin
from indextts.text.tokenizer import spell_out

FINALS = [
    *("A", "AI", "AN", "ANG", "AO", "E", "EI", "EN", "ENG", "ER", "O", "ONG", "OU", "NG"),
    *("I", "IA", "IAN", "IANG", "IAO", "IE", "IN", "ING", "IONG", "IU"),
    *("U", "UA", "UAI", "UAN", "UANG", "UE", "UI", "UN", "UO", "V", "VAN", "VE", "VN"),
]
LONG_INITIALS = ["ZH", "CH", "SH"]
TONES = "12345"
PUNCTUATION = ("...", ",", ".", "!", "?", "'", "-")
MAX_PIECE_LETTERS, MAX_PIECE_PHONEMES = 5, 2
MAX_SENTENCES = 30_000

_log = logging.getLogger(__name__)


def spelled(sentence: dict, config: TextConfig) -> str:
    """A sentence of the data as the vocabulary sees it: what ``TextTokenizer`` would make of its text."""
    if config.english == "phonemes" and sentence["language"] == "en":
        return clean(sentence["phonemes"])
    return spell_out(to_pinyin(sentence["text"]), config.english)


def train_vocabulary(lines: Sequence[str], size: int, english: str = "letters") -> bytes:
    """The serialised SentencePiece model of ``size`` pieces for spelled-out ``lines``."""
    phonemes = english == "phonemes"
    finals = [final + tone for final in FINALS for tone in TONES]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="bpe",
        vocab_size=size,
        character_coverage=1.0,
        bos_id=0,
        eos_id=1,
        unk_id=2,
        user_defined_symbols=[*PUNCTUATION, *(LONG_INITIALS if phonemes else ()), *finals],
        required_chars="".join(sorted(set(string.printable.upper()) - set(string.whitespace) - set(PUNCTUATION))),
        max_sentencepiece_length=MAX_PIECE_PHONEMES if phonemes else MAX_PIECE_LETTERS,
        split_by_unicode_script=not phonemes,  # a mark of stress belongs to its vowel
        normalization_rule_name="identity",  # else modifier letters of the phonemes would become plain ones
        split_digits=True,
        minloglevel=1,
    )
    return model.getvalue()


def balanced(lines: dict[str, list[str]], limit: int, seed: int = 0) -> list[str]:
    """At most ``limit`` lines of each language, the rarer one repeated, so that both get the pieces they need."""
    source = random.Random(seed)
    chosen = {language: source.sample(all_of, min(limit, len(all_of))) for language, all_of in lines.items()}
    most = max(map(len, chosen.values()))
    return [line for own in chosen.values() for line in (own * -(-most // len(own)))[:most]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=Path("checkpoints/nano"))
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = load_model_config(options.model / "config.yaml")
    texts: dict[str, list[str]] = {}
    for sentence in json.loads((options.data / "sentences.json").read_text(encoding="utf-8")):
        texts.setdefault(sentence["language"], []).append(spelled(sentence, config.text))
    chosen = balanced(texts, MAX_SENTENCES)
    model = train_vocabulary(chosen, config.gpt.number_text_tokens, config.text.english)
    path = options.model / config.bpe_model
    path.write_bytes(model)
    _log.info("%d lines → %s, %d pieces", len(chosen), path, config.gpt.number_text_tokens)


if __name__ == "__main__":
    main()
