"""Generated speech, held in one tensor on the device that trains on it.

``training/generate.py`` writes shards of raw 22,050 Hz samples and labels; ``SpeechData`` reads all complete
ones and hands out batches by gathering on the device, so training needs no loader processes. A folder of data
holds:

- ``sentences.json``: list of ``{"text", "language", "phonemes", "heldout"}``; a row is a sentence id
- ``voices.json``: list of ``{"name", "heldout", ...}``; a row is a voice id
- ``shard_NNNNN.pcm``, ``.npz``, ``.json``: samples, labels, and last the mark that it is complete
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

SAMPLE_RATE_HZ = 22050
PHONE_FRAME_S = 0.025
"""Length of the frames in which the shards count the durations of phones."""

# Ids of the teacher's symbols that are no sounds of their own.
SILENT = (0, 1, 2, 3, 4, 5, 6, 9, 10, 11, 12, 13, 14, 15)  # the edges, and ; : , . ! ? — … " ( ) “ ”
WITH_NEXT = (156, 157)  # marks of stress, which stand before their vowel
WITH_LAST = (16, 158, 169, 171, 172, 173)  # the space, the mark of length, and the tones

Indices = Tensor | np.ndarray | Sequence[int]
Split = Literal["train", "heldout"]


class SpeechData:
    """All utterances of one split, on one device.

    The train split has neither held-out voices nor held-out sentences; the held-out split has only utterances
    in which both are held out. Indices count the utterances of the split and stay valid across ``refresh``.

    Attributes:
        length_s: float32 ``[U]``, duration of each utterance.
        voice: int64 ``[U]``, voice id, dense over all voices of both splits.
        sentence: int64 ``[U]``, row of ``sentences.json``.
        style: int64 ``[U]``, prosodic style (``training/styles.py``), 0 is neutral.
        intensity: float32 ``[U]``, strength of that style, 0 to 1.
        language: int64 ``[U]``, 0 English, 1 Mandarin.
    """

    def __init__(self, root: str | Path, device: str | torch.device = "cuda", split: Split = "train") -> None:
        self.root, self.device, self.split = Path(root), torch.device(device), split
        self.sentences: list[dict] = json.loads((self.root / "sentences.json").read_text(encoding="utf-8"))
        self.voices: list[dict] = json.loads((self.root / "voices.json").read_text(encoding="utf-8"))
        self._sentence_heldout = np.array([s["heldout"] for s in self.sentences], bool)
        self._voice_heldout = np.array([v["heldout"] for v in self.voices], bool)
        self._shards: set[str] = set()
        self._pcm = _Growing(torch.int16, self.device)
        # Of every 25 ms, utterances back to back: which phone it is, and the how manieth symbol of its sentence.
        self._track = _Growing(torch.int16, self.device)
        self._symbol_track = _Growing(torch.int16, self.device)
        empty = torch.zeros(0, dtype=torch.int64, device=self.device)
        self.voice = self.sentence = self.style = self.language = empty
        self._offset = self._length = self._track_offset = self._track_length = empty
        self.intensity = self.length_s = empty.float()
        self.refresh()

    def __len__(self) -> int:
        return len(self.voice)

    @property
    def num_voices(self) -> int:
        """Number of voice ids, of both splits."""
        return len(self.voices)

    def refresh(self) -> int:
        """Reads the shards completed since the last call and returns how many utterances they added."""
        added = 0
        for mark in sorted(self.root.glob("shard_*.json")):
            if mark.stem not in self._shards:
                self._shards.add(mark.stem)
                added += self._read(mark)
        if added:
            self.length_s = self._length.float() / SAMPLE_RATE_HZ
            self._group_by_voice()
        return added

    def _read(self, mark: Path) -> int:
        with np.load(mark.with_suffix(".npz")) as arrays:
            rows = {name: arrays[name] for name in arrays.files}
        new_voice, new_text = self._voice_heldout[rows["voice"]], self._sentence_heldout[rows["sentence"]]
        keep = np.flatnonzero(new_voice & new_text if self.split == "heldout" else ~(new_voice | new_text))
        if not len(keep):
            return 0
        pcm = np.fromfile(mark.with_suffix(".pcm"), "<i2")
        ends = rows["offset"] + rows["length"]
        phones = [slice(*rows["phone_offset"][i : i + 2]) for i in keep]
        heard = sounds(rows["phone_ids"])
        tracks = [np.repeat(heard[p], rows["phone_frames"][p]) for p in phones]
        symbols = [np.repeat(np.arange(p.stop - p.start), rows["phone_frames"][p]) for p in phones]
        lengths, track_lengths = rows["length"][keep], np.array([len(t) for t in tracks], np.int64)
        self._append("_offset", self._pcm.size + np.cumsum(lengths) - lengths)
        self._append("_length", lengths)
        self._append("_track_offset", self._track.size + np.cumsum(track_lengths) - track_lengths)
        self._append("_track_length", track_lengths)
        for name in ("voice", "sentence", "style", "language", "intensity"):
            self._append(name, rows[name][keep])
        self._pcm.extend(np.concatenate([pcm[rows["offset"][i] : ends[i]] for i in keep]))
        self._track.extend(np.concatenate(tracks).astype(np.int16))
        self._symbol_track.extend(np.concatenate(symbols).astype(np.int16))
        return len(keep)

    def _append(self, name: str, values: np.ndarray) -> None:
        old: Tensor = getattr(self, name)
        setattr(self, name, torch.cat([old, torch.from_numpy(values).to(self.device, old.dtype)]))

    def _group_by_voice(self) -> None:
        self._by_voice = torch.argsort(self.voice, stable=True)
        counts = torch.bincount(self.voice, minlength=self.num_voices)
        self._voice_count, self._voice_start = counts, torch.cumsum(counts, 0) - counts
        rank = torch.empty_like(self._by_voice)
        rank[self._by_voice] = torch.arange(len(rank), device=self.device)
        self._rank_in_voice = rank - self._voice_start[self.voice]

    def _to_indices(self, indices: Indices) -> Tensor:
        return torch.as_tensor(indices, dtype=torch.int64, device=self.device).reshape(-1)

    def num_samples(self, indices: Indices) -> Tensor:
        """Length of each utterance, int64 ``[B]``, in samples."""
        return self._length[self._to_indices(indices)]

    def wave(
        self, indices: Indices, start_samples: Indices | int | None = None, num_samples: int | None = None
    ) -> Tensor:
        """Samples of the utterances, or of an excerpt from each.

        Args:
            indices: Utterances, ``[B]``.
            start_samples: First sample of the excerpt, one for all or ``[B]``. The beginning by default.
            num_samples: Length N of the excerpt; up to the end of the longest utterance by default.

        Returns:
            float32 ``[B, N]`` in [-1, 1], zero before the beginning and after the end of an utterance.
        """
        rows = self._to_indices(indices)
        start = self._starts(rows, start_samples)
        length = self._length[rows]
        if num_samples is None:
            num_samples = int((length - start).max())
        at = start[:, None] + torch.arange(num_samples, device=self.device)
        inside = (at >= 0) & (at < length[:, None])
        at = (at + self._offset[rows, None]).clamp_(0, self._pcm.size - 1)
        return self._pcm.data[at].float().mul_(1 / 32768).mul_(inside)

    def _starts(self, rows: Tensor, start_samples: Indices | int | None) -> Tensor:
        start = torch.as_tensor(start_samples if start_samples is not None else 0, device=self.device)
        return start.to(torch.int64).expand(len(rows))

    def phones_at(
        self,
        indices: Indices,
        frame_hz: float = 50.0,
        num_frames: int | None = None,
        start_samples: Indices | int | None = None,
    ) -> Tensor:
        """Sound (``sounds``) at the centre of each frame, int64 ``[B, T]``; 0 is padding and silence.

        Args:
            indices: Utterances, ``[B]``.
            frame_hz: Frame rate of the result.
            num_frames: T; up to the end of the longest utterance by default.
            start_samples: Sample of the utterance at which the first frame begins, one for all or ``[B]``.
        """
        return self._at(self._track, 0, indices, frame_hz, num_frames, start_samples)

    def symbols_at(
        self,
        indices: Indices,
        frame_hz: float = 50.0,
        num_frames: int | None = None,
        start_samples: Indices | int | None = None,
    ) -> Tensor:
        """Which symbol of its sentence is spoken at the centre of each frame, int64 ``[B, T]``, arguments as above.

        0 is the silence at the beginning, 1 the first symbol of the phonemes; -1 is outside the utterance.
        """
        return self._at(self._symbol_track, -1, indices, frame_hz, num_frames, start_samples)

    def _at(
        self,
        track: _Growing,
        outside: int,
        indices: Indices,
        frame_hz: float,
        num_frames: int | None,
        start_samples: Indices | int | None,
    ) -> Tensor:
        rows = self._to_indices(indices)
        start_s = self._starts(rows, start_samples).double() / SAMPLE_RATE_HZ
        if num_frames is None:
            num_frames = int(((self.length_s[rows] - start_s) * frame_hz).max())
        centre_s = start_s[:, None] + (torch.arange(num_frames, device=self.device) + 0.5) / frame_hz
        at = (centre_s / PHONE_FRAME_S).floor().long()
        inside = (at >= 0) & (at < self._track_length[rows, None])
        at = (at + self._track_offset[rows, None]).clamp_(0, track.size - 1)
        return track.data[at].long().masked_fill(~inside, outside)

    def text(self, index: int) -> str:
        """Normalised text of an utterance."""
        return self.sentences[int(self.sentence[index])]["text"]

    def phonemes(self, index: int) -> str:
        """The symbols that the teacher read for an utterance."""
        return self.sentences[int(self.sentence[index])]["phonemes"]

    def by_voice(self, voice: int) -> Tensor:
        """Indices ``[n]`` of the utterances of a voice."""
        start = int(self._voice_start[voice])
        return self._by_voice[start : start + int(self._voice_count[voice])]

    def same_voice_pairs(self, generator: torch.Generator, n: int) -> tuple[Tensor, Tensor]:
        """Draws pairs of utterances of the same voice with different sentences.

        Returns:
            Prompts ``[n]`` and targets ``[n]``. Targets are uniform over the utterances that have a partner.
        """
        usable = torch.nonzero(self._voice_count[self.voice] > 1).squeeze(1)
        if not len(usable):
            raise ValueError(f"no voice with two utterances in the {self.split} split of {self.root}")
        prompts, targets, found = [], [], 0
        for _ in range(64):
            draw = torch.rand(2, n + n // 8 + 8, generator=generator, device=generator.device).to(self.device)
            target = usable[(draw[0] * len(usable)).long().clamp_(max=len(usable) - 1)]
            voice = self.voice[target]
            others = self._voice_count[voice] - 1
            step = 1 + torch.minimum((draw[1] * others).long(), others - 1)
            place = (self._rank_in_voice[target] + step) % (others + 1)
            prompt = self._by_voice[self._voice_start[voice] + place]
            differs = self.sentence[prompt] != self.sentence[target]
            prompts.append(prompt[differs])
            targets.append(target[differs])
            found += len(prompts[-1])
            if found >= n:
                return torch.cat(prompts)[:n], torch.cat(targets)[:n]
        raise ValueError(f"too few voices with two different sentences in {self.root}")


def sounds(ids: np.ndarray) -> np.ndarray:
    """What is heard while each symbol ``[S]`` of utterances in a row lasts, as the id of a symbol.

    The teacher gives time to marks of stress, tones and spaces too. That time belongs to the sound beside them, and
    nobody could tell such frames from it; all punctuation is the same silence. Utterances begin and end with 0.
    """
    heard = np.where(np.isin(ids, SILENT), 0, ids)
    while (marks := np.isin(heard, WITH_NEXT)).any():
        heard = np.where(marks, np.append(heard[1:], 0), heard)
    while (marks := np.isin(heard, WITH_LAST)).any():
        heard = np.where(marks, np.append(0, heard[:-1]), heard)
    return heard


class _Growing:
    """A tensor on a device that is appended to without copying the whole each time."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self.data = torch.zeros(1, dtype=dtype, device=device)
        self.size = 0

    def extend(self, values: np.ndarray) -> None:
        end = self.size + len(values)
        if end > len(self.data):
            capacity = max(end, len(self.data) * 3 // 2)
            grown = torch.empty(capacity, dtype=self.data.dtype, device=self.data.device)
            grown[: self.size] = self.data[: self.size]
            self.data = grown
        self.data[self.size : end] = torch.from_numpy(values).to(self.data.device)
        self.size = end
