"""Speech codes and semantic embeddings of all training utterances, held on the device that trains on them.

``training/extract_semantics.py`` runs the finished semantic encoder and codec once over a split of the data
and writes, into one folder per split:

- ``codes.bin``: int16, the codes of all utterances back to back, 50 a second
- ``embeddings.bin``: float16 ``[frames, D]``, their normalised semantic embeddings, clean recordings
- ``embeddings_augmented.bin``: the same of one augmented version (noise, rooms, band limits)
- ``index.npz``: ``offset`` int64 ``[U + 1]`` in frames, and which utterance each row is

The codes and the clean embeddings are targets; prompts are drawn from both versions of the embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from training.dataset import SpeechData

Indices = Tensor | np.ndarray | Sequence[int]
IDENTITY = ("voice", "sentence", "style")
WRITTEN_ROWS = 1 << 19  # that pass through the memory of the host at a time


class Semantics:
    """Codes and embeddings by utterance index, the same indices as those of ``SpeechData`` of that split.

    Attributes:
        length: int64 ``[U]``, frames of 20 ms in each utterance.
        dim: D, size of an embedding.
        codebook_size: number of codes; all codes are smaller.
    """

    def __init__(self, root: str | Path, device: str | torch.device = "cuda", split: str = "train") -> None:
        folder = Path(root) / "semantics" / split
        self.device = torch.device(device)
        with np.load(folder / "index.npz") as index:
            self._identity = {name: index[name] for name in IDENTITY}
            self._offset = torch.from_numpy(index["offset"]).to(self.device)
            self.dim, self.codebook_size = int(index["dim"]), int(index["codebook_size"])
        self.length = self._offset.diff()
        self._codes = self._load(folder / "codes.bin", torch.int16)
        self._clean = self._load(folder / "embeddings.bin", torch.float16).view(-1, self.dim)
        self._augmented = self._load(folder / "embeddings_augmented.bin", torch.float16).view(-1, self.dim)

    def _load(self, path: Path, dtype: torch.dtype) -> Tensor:
        count = path.stat().st_size // dtype.itemsize
        return torch.from_file(str(path), shared=False, size=count, dtype=dtype).to(self.device)

    def __len__(self) -> int:
        return len(self.length)

    def check(self, data: SpeechData) -> None:
        """Raise ``ValueError`` unless the utterances of ``data`` begin with those that were extracted."""
        for name, mine in self._identity.items():
            theirs = getattr(data, name)[: len(self)].cpu().numpy()
            if len(theirs) != len(mine) or not np.array_equal(theirs, mine):
                raise ValueError(f"the semantics were extracted from other data: column {name!r} differs")

    def codes(self, indices: Indices) -> tuple[Tensor, Tensor]:
        """Codes of whole utterances.

        Returns:
            int64 ``[B, T]``, 0 after the end of an utterance, and lengths ``[B]``.
        """
        rows = self._rows(indices)
        at, inside = self._window(rows, torch.zeros_like(rows), int(self.length[rows].max()))
        return self._codes[at].long() * inside, self.length[rows]

    def embeddings(
        self,
        indices: Indices,
        augmented: bool,
        start: Tensor | int | None = None,
        num_frames: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Normalised semantic embeddings of utterances, or of an excerpt from each.

        Args:
            indices: utterances, ``[B]``.
            augmented: take those of the augmented recording.
            start: first frame of the excerpt, one for all or ``[B]``; the beginning by default.
            num_frames: T; up to the end of the longest utterance by default.

        Returns:
            float32 ``[B, T, D]``, zero after the end of an utterance, and ``[B]``, the frames inside.
        """
        rows = self._rows(indices)
        begin = torch.as_tensor(0 if start is None else start, device=self.device).to(torch.int64).expand(len(rows))
        if num_frames is None:
            num_frames = int((self.length[rows] - begin).max())
        at, inside = self._window(rows, begin, num_frames)
        table = self._augmented if augmented else self._clean
        return table[at].float() * inside[..., None], inside.sum(1)

    def _rows(self, indices: Indices) -> Tensor:
        return torch.as_tensor(indices, dtype=torch.int64, device=self.device).reshape(-1)

    def _window(self, rows: Tensor, begin: Tensor, frames: int) -> tuple[Tensor, Tensor]:
        """Positions in the flat tables ``[B, T]``, and which of them lie inside the utterance."""
        within = begin[:, None] + torch.arange(frames, device=self.device)
        inside = (within >= 0) & (within < self.length[rows, None])
        return (within + self._offset[rows, None]).clamp_(0, len(self._codes) - 1), inside


class SemanticsWriter:
    """Collects what :class:`Semantics` reads on the device of the data, utterances in any order, and writes it."""

    def __init__(self, root: str | Path, data: SpeechData, length: np.ndarray, dim: int, codebook_size: int) -> None:
        self.folder = Path(root) / "semantics" / data.split
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "index.npz").unlink(missing_ok=True)  # it marks a complete set
        offset = np.cumsum([0, *length]).astype(np.int64)
        self.frames, device = int(offset[-1]), data.voice.device
        self._offset = torch.from_numpy(offset).to(device)
        # One row more than there are frames: it takes the padding, so that nobody need count what is left.
        self._codes = torch.zeros(self.frames + 1, dtype=torch.int16, device=device)
        self._clean = torch.zeros(self.frames + 1, dim, dtype=torch.float16, device=device)
        self._augmented = torch.zeros_like(self._clean)
        self._index = {name: getattr(data, name).cpu().numpy() for name in IDENTITY}
        self._index |= {"offset": offset, "dim": np.int64(dim), "codebook_size": np.int64(codebook_size)}

    @property
    def codes(self) -> Tensor:
        """Codes of all utterances back to back, int16 ``[frames]``."""
        return self._codes[: self.frames]

    def write(self, indices: Tensor, codes: Tensor, clean: Tensor, augmented: Tensor) -> None:
        """Store rows ``[B, T]`` and ``[B, T, D]`` (padded) of the given utterances."""
        indices = indices.to(self._offset.device)
        at = self._offset[indices, None] + torch.arange(codes.shape[1], device=indices.device)
        at = torch.where(at < self._offset[indices + 1, None], at, self.frames)
        self._codes[at] = codes.short()
        self._clean[at] = clean.half()
        self._augmented[at] = augmented.half()

    def finish(self) -> None:
        """Write the files, and mark the set as complete."""
        tables = {
            "codes.bin": self._codes,
            "embeddings.bin": self._clean,
            "embeddings_augmented.bin": self._augmented,
        }
        with ThreadPoolExecutor(len(tables)) as pool:
            list(pool.map(self._dump, tables, tables.values()))
        np.savez(self.folder / "index.npz", **self._index)  # pyright: ignore[reportArgumentType]

    def _dump(self, name: str, table: Tensor) -> None:
        with (self.folder / name).open("wb") as file:
            for part in table[: self.frames].split(WRITTEN_ROWS):
                part.cpu().numpy().tofile(file)
