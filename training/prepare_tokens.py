"""Turns all sentences into the token ids that the language model is trained on.

    python -m training.prepare_tokens --data DATA [--model checkpoints/nano]

Reads ``DATA/sentences.json`` and writes ``DATA/tokens.npz``: ``ids`` int16, all sentences one after the other, and
``offsets`` int64 ``[sentences + 1]``; sentence ``i`` (row of ``sentences.json``) is ``ids[offsets[i]:offsets[i + 1]]``.

The sentences stand there as the normaliser leaves them, and the teacher read them so. They are not normalised again:
what an abbreviation became the first time ("T.V." → "TV") could become something else the second time.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from indextts.config import load_model_config
from indextts.text.tokenizer import TextTokenizer

_log = logging.getLogger(__name__)


def load_tokenizer(model_dir: Path) -> TextTokenizer:
    """The vocabulary of a checkpoint folder, for text that is normalised already."""
    config = load_model_config(model_dir / "config.yaml")
    return TextTokenizer(model_dir / config.bpe_model, str, config.text.chinese)


def save_tokens(path: Path, rows: Sequence[Sequence[int]]) -> None:
    """Write the file described at the top of this module."""
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    ids = np.fromiter((id for row in rows for id in row), np.int64, count=int(offsets[-1]))
    if len(ids) and ids.max() > np.iinfo(np.int16).max:
        raise ValueError(f"token id {ids.max()} does not fit into 16 bits")
    np.savez_compressed(path, ids=ids.astype(np.int16), offsets=offsets)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=Path("checkpoints/nano"))
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sentences = json.loads((options.data / "sentences.json").read_text(encoding="utf-8"))
    tokenizer = load_tokenizer(options.model)
    rows = [tokenizer.encode(sentence["text"]) for sentence in sentences]
    save_tokens(options.data / "tokens.npz", rows)
    lengths = sorted(map(len, rows))
    unknown = sum(tokenizer.unknown_id in row for row in rows)
    _log.info(
        "%d sentences; tokens a sentence: median %d, longest %d; %d with unknown pieces",
        len(rows), lengths[len(lengths) // 2], lengths[-1], unknown,
    )  # fmt: skip


if __name__ == "__main__":
    main()
