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


def test_other_data_is_noticed(semantics: Semantics, data: SimpleNamespace) -> None:
    semantics.check(data)  # type: ignore[arg-type]
    data.voice = data.voice.flip(0)
    with pytest.raises(ValueError, match="voice"):
        semantics.check(data)  # type: ignore[arg-type]


def test_unfinished_extraction_cannot_be_read(tmp_path: Path, data: SimpleNamespace) -> None:
    SemanticsWriter(tmp_path, data, LENGTHS, dim=4, codebook_size=100)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        Semantics(tmp_path, "cpu")
