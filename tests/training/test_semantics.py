"""Extracted semantics come back as they were written."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from training.semantics import Semantics, SemanticsWriter

LENGTHS = np.array([5, 2, 7])


@pytest.fixture
def data() -> SimpleNamespace:
    columns = {name: torch.arange(3) + i for i, name in enumerate(("voice", "sentence", "style"))}
    return SimpleNamespace(split="train", **columns)


@pytest.fixture
def semantics(tmp_path: Path, data: SimpleNamespace) -> Semantics:
    writer = SemanticsWriter(tmp_path, data, LENGTHS, dim=4, codebook_size=100)  # type: ignore[arg-type]
    for index in (2, 0, 1):
        t = torch.arange(9)[None]
        clean = (10 * index + t)[..., None].expand(1, 9, 4).float()
        writer.write(torch.tensor([index]), 10 * index + t, clean, -clean)
    writer.finish()
    return Semantics(tmp_path, "cpu")


def test_codes(semantics: Semantics) -> None:
    codes, lengths = semantics.codes([1, 0])
    assert lengths.tolist() == [2, 5] and (semantics.dim, semantics.codebook_size) == (4, 100)
    assert codes.tolist() == [[10, 11, 0, 0, 0], [0, 1, 2, 3, 4]]


def test_embeddings(semantics: Semantics) -> None:
    clean, lengths = semantics.embeddings([2, 1], augmented=False)
    assert clean.shape == (2, 7, 4) and lengths.tolist() == [7, 2]
    assert clean[0, :, 0].tolist() == [20, 21, 22, 23, 24, 25, 26] and clean[1, 2:].abs().max() == 0
    part, lengths = semantics.embeddings([2, 1], True, start=torch.tensor([4, 1]), num_frames=5)
    assert part[..., 3].tolist() == [[-24, -25, -26, 0, 0], [-11, 0, 0, 0, 0]] and lengths.tolist() == [3, 1]


def test_rows_of_one_batch_do_not_disturb_each_other(tmp_path: Path, data: SimpleNamespace) -> None:
    writer = SemanticsWriter(tmp_path, data, LENGTHS, dim=4, codebook_size=100)  # type: ignore[arg-type]
    codes = torch.arange(27).view(3, 9)  # with more padding than there are frames
    clean = codes[..., None].expand(3, 9, 4).float()
    writer.write(torch.tensor([1, 2, 0]), codes, clean, clean + 50)
    assert writer.codes.tolist() == [18, 19, 20, 21, 22, 0, 1, 9, 10, 11, 12, 13, 14, 15]
    writer.finish()
    read = Semantics(tmp_path, "cpu")
    assert read.codes([2])[0].tolist() == [[9, 10, 11, 12, 13, 14, 15]]
    assert read.embeddings([1, 0], augmented=False)[0][..., 2].tolist() == [[0, 1, 0, 0, 0], [18, 19, 20, 21, 22]]
    assert read.embeddings([1], augmented=True)[0][..., 0].tolist() == [[50, 51]]


def test_other_data_is_noticed(semantics: Semantics, data: SimpleNamespace) -> None:
    semantics.check(data)  # type: ignore[arg-type]
    data.voice = data.voice.flip(0)
    with pytest.raises(ValueError, match="voice"):
        semantics.check(data)  # type: ignore[arg-type]


def test_unfinished_extraction_cannot_be_read(tmp_path: Path, data: SimpleNamespace) -> None:
    SemanticsWriter(tmp_path, data, LENGTHS, dim=4, codebook_size=100)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        Semantics(tmp_path, "cpu")
