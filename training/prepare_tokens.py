"""Turns all sentences into the token ids that the language model is trained on.

    python -m training.prepare_tokens --data DATA [--model checkpoints/nano]

Reads ``DATA/sentences.json`` and writes ``DATA/tokens.npz``: ``ids`` int16, all sentences one after the other, and
``offsets`` int64 ``[sentences + 1]``; sentence ``i`` (row of ``sentences.json``) is ``ids[offsets[i]:offsets[i + 1]]``.
``places`` int16, one for each id, says with which of the teacher's symbols it begins, and is -1 where nobody knows.

The sentences stand there as the normaliser leaves them, and the teacher read them so. They are not normalised again:
what an abbreviation became the first time ("T.V." → "TV") could become something else the second time.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np

from indextts.config_file import load_model_config
from indextts.text.phonemes import PAUSES
from indextts.text.tokenizer import TextTokenizer
from training.train_tokenizer import spelled

TONES = "→↗↓↘"
"""End a syllable among the teacher's symbols; one without a tone has none."""

_log = logging.getLogger(__name__)


def load_tokenizer(model_dir: Path) -> TextTokenizer:
    """The vocabulary of a checkpoint folder, for text that is normalised already."""
    config = load_model_config(model_dir / "config.yaml")
    return TextTokenizer(model_dir / config.bpe_model, str, **vars(config.text))


def places_of(pieces: Sequence[str], symbols: str) -> list[int]:
    """For each piece of a sentence the index of the first of the teacher's ``symbols`` that it stands for.

    Pieces of phonemes are found by their letters. Pinyin is found by syllables, of which each has its mark of tone
    among the symbols, save the neutral ones. -1 for all pieces where neither is possible.
    """
    found = [(place, letter) for place, symbol in enumerate(symbols) for letter in symbol.translate(PAUSES)]
    letters = [(p, c) for i, (p, c) in enumerate(found) if c != " " or (i and found[i - 1][1] != " ")]
    if "".join(letter for _, letter in letters).strip() == "".join(pieces).replace("▁", " ").strip():
        starts = accumulate([0, *map(len, pieces[:-1])])
        return [letters[max(0, start - 1)][0] for start in starts]  # the marker before the first word is no symbol
    return _places_of_syllables(pieces, symbols) or [-1] * len(pieces)


def _places_of_syllables(pieces: Sequence[str], symbols: str) -> list[int]:
    """``places_of`` for pinyin; none where tones and marks of tone do not match.

    What stands between two marks is a syllable with the neutral ones before it, which get equal parts of it.
    """
    marks = [place + 1 for place, symbol in enumerate(symbols) if symbol in TONES]
    groups: list[list[int]] = [[]]  # pieces that end with a tone
    for index, piece in enumerate(pieces):
        if not piece.strip("▁,.!?'-") and piece != "▁":  # which belongs to the syllable behind it
            continue
        groups[-1].append(index)
        if piece[-1] in "1234":
            groups.append([])
    if len(groups) - 1 != len(marks):
        return []
    places = [-1] * len(pieces)
    for group, begin, end in zip(groups, [0, *marks], [*marks, len(symbols)], strict=True):
        for order, index in enumerate(group):
            places[index] = begin + (end - begin) * order // len(group)
    return list(accumulate(places, max))  # punctuation stands where the piece before it does


def save_tokens(path: Path, rows: Sequence[Sequence[int]], places: Sequence[Sequence[int]]) -> None:
    """Write the file described at the top of this module."""
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    ids = np.fromiter((id for row in rows for id in row), np.int64, count=int(offsets[-1]))
    if len(ids) and ids.max() > np.iinfo(np.int16).max:
        raise ValueError(f"token id {ids.max()} does not fit into 16 bits")
    flat_places = np.fromiter((place for row in places for place in row), np.int16, count=len(ids))
    np.savez_compressed(path, ids=ids.astype(np.int16), offsets=offsets, places=flat_places)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=Path("checkpoints/nano"))
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sentences = json.loads((options.data / "sentences.json").read_text(encoding="utf-8"))
    tokenizer = load_tokenizer(options.model)
    text = load_model_config(options.model / "config.yaml").text
    pieces = [tokenizer.pieces(spelled(sentence, text)) for sentence in sentences]
    rows = [tokenizer.ids(own) for own in pieces]
    places = [places_of(own, sentence["phonemes"]) for own, sentence in zip(pieces, sentences, strict=True)]
    save_tokens(options.data / "tokens.npz", rows, places)
    lengths = sorted(map(len, rows))
    unknown = sum(tokenizer.unknown_id in row for row in rows)
    placed = sum(bool(row) and row[0] >= 0 for row in places)
    _log.info(
        "%d sentences; tokens a sentence: median %d, longest %d; %d with unknown pieces; places of %d known",
        len(rows), lengths[len(lengths) // 2], lengths[-1], unknown, placed,
    )  # fmt: skip


if __name__ == "__main__":
    main()
