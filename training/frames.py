"""Crops of speech with what is known of every 20 ms of them: phone, pitch, voicing and energy.

The labels come from the teacher (phones) and from the clean recording (pitch, energy). The semantic encoder learns
to name them from degraded recordings, and the codec to keep them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from indextts.audio import num_semantic_frames, resample_22k_to_16k
from training.dataset import SAMPLE_RATE_HZ, SpeechData
from training.pitch import FRAME_CENTRE, frame_energy_db, pitch

NUM_PHONES = 178  # symbols of the teacher
SEMANTIC_HZ = 50.0
PHONE_SHIFT = round((FRAME_CENTRE / 16000 - 0.5 / SEMANTIC_HZ) * SAMPLE_RATE_HZ)
"""Centres of semantic frames lie so many samples later than those that ``phones_at`` assumes."""
ENERGY_UNIT_DB = 10.0
MEASURED_BATCH_S = 600.0
MIN_SAMPLES = 1600  # at 16 kHz: shorter rows are padded up to a tenth of a second


class FrameLabels(NamedTuple):
    """What is known of the frames of a batch, each ``[B, T]``."""

    phones: Tensor  # sounds, by their symbol of the teacher
    log_f0: Tensor  # octaves above the mean of the voice; meaningless where unvoiced
    voiced: Tensor  # bool
    energy: Tensor  # in units of ENERGY_UNIT_DB, relative to the mean of the crop
    valid: Tensor  # bool, inside the utterance


@dataclass(frozen=True)
class Crops:
    """A batch of clean excerpts."""

    wave: Tensor  # [B, N] at 16 kHz
    num_samples: Tensor  # [B] at 16 kHz
    voice: Tensor  # [B]
    labels: FrameLabels


def batches_by_length(num_samples: Tensor, batch_s: float) -> Iterator[tuple[Tensor, list[int]]]:
    """Utterances in batches that hold about ``batch_s`` seconds with their padding, the longest first.

    Args:
        num_samples: ``[U]``, length of each utterance at 22.05 kHz.
        batch_s: size of a batch; an utterance that is longer makes a batch of its own.

    Yields:
        Indices ``[B]`` on the device of ``num_samples``, and their lengths, which do not rise.
    """
    order = torch.argsort(num_samples, descending=True)
    lengths, first = num_samples[order].tolist(), 0
    while first < len(lengths):
        rows = slice(first, first + max(1, int(batch_s * SAMPLE_RATE_HZ / max(1, lengths[first]))))
        yield order[rows], lengths[rows]
        first = rows.stop


class CropSampler:
    """Draws labelled crops, every second of speech with the same probability."""

    def __init__(self, data: SpeechData, seed: int) -> None:
        self.data = data
        self.generator = torch.Generator(data.device).manual_seed(seed)
        self._f0_sum = torch.zeros(data.num_voices, device=data.device)
        self._f0_count = torch.zeros(data.num_voices, device=data.device)
        self._measured = 0
        self._take_in()

    def refresh(self) -> int:
        """Take in newly generated speech; how many utterances came."""
        added = self.data.refresh()
        if added:
            self._take_in()
        return added

    def draw(self, crop_s: float, batch_s: float) -> Crops:
        """A batch of ``batch_s`` seconds in crops of ``crop_s``; shorter utterances are padded."""
        rows = max(2, round(batch_s / crop_s))
        which, place = torch.rand(2, rows, generator=self.generator, device=self.data.device)
        chosen = torch.searchsorted(self._ends_s, which.double() * self._ends_s[-1]).clamp(max=len(self.data) - 1)
        spare = (self.data.num_samples(chosen) - int(crop_s * SAMPLE_RATE_HZ)).clamp(min=0)
        return self.crops(chosen, (place * spare).long(), int(crop_s * SAMPLE_RATE_HZ))

    def crops(self, indices: Tensor, start: Tensor | int, num_samples: int) -> Crops:
        """Excerpts from ``start`` (samples at 22.05 kHz, for all or ``[B]``) with their labels."""
        data = self.data
        wave = resample_22k_to_16k(data.wave(indices, start, num_samples))
        wave = F.pad(wave, (0, max(0, MIN_SAMPLES - wave.shape[1])))
        inside = (data.num_samples(indices) - start).clamp(max=num_samples) * 16000 // SAMPLE_RATE_HZ
        inside = inside.clamp(min=MIN_SAMPLES)
        frames = int(num_semantic_frames(wave.shape[1]))
        log_f0, voiced = pitch(wave, frames)
        voice = data.voice[indices]
        mean = self._f0_sum[voice] / self._f0_count[voice].clamp(min=1)
        labels = FrameLabels(
            phones=data.phones_at(indices, SEMANTIC_HZ, frames, start + PHONE_SHIFT),
            log_f0=(log_f0 - mean[:, None]).clamp(-1.5, 1.5),
            voiced=voiced,
            energy=frame_energy_db(wave, frames) / ENERGY_UNIT_DB,
            valid=torch.arange(frames, device=wave.device) < num_semantic_frames(inside)[:, None],
        )
        return Crops(wave, inside, voice, labels)

    def _take_in(self) -> None:
        """Prepare for drawing, and add the pitch of the utterances that are new to the mean of their voices."""
        self._ends_s = self.data.length_s.double().cumsum(0)
        new = torch.arange(self._measured, len(self.data), device=self.data.device)
        for part, num_samples in batches_by_length(self.data.num_samples(new), MEASURED_BATCH_S):
            utterances = new[part]
            wave = resample_22k_to_16k(self.data.wave(utterances, 0, num_samples[0]))
            log_f0, voiced = pitch(wave, wave.shape[1] // 320)
            voice = self.data.voice[utterances]
            self._f0_sum.index_add_(0, voice, (log_f0 * voiced).sum(1))
            self._f0_count.index_add_(0, voice, voiced.sum(1).float())
        self._measured = len(self.data)


class FrameHeads(nn.Module):
    """Linear read-outs of the labels from an embedding; thrown away after training."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.out = nn.Linear(dim, NUM_PHONES + 3)

    def losses(self, hidden: Tensor, labels: FrameLabels) -> dict[str, Tensor]:
        """Cross-entropies and absolute errors of ``hidden [B, T, D]``, each a scalar."""
        phones, log_f0, voicing, energy = self._read(hidden)
        valid, voiced = labels.valid, labels.voiced & labels.valid
        targets = labels.phones.masked_fill(~valid, -100)
        return {
            "phone": F.cross_entropy(phones.transpose(1, 2), targets, label_smoothing=0.05),
            "f0": _mean(F.smooth_l1_loss(log_f0, labels.log_f0, reduction="none", beta=0.1), voiced),
            "voicing": _mean(
                F.binary_cross_entropy_with_logits(voicing, labels.voiced.float(), reduction="none"), valid
            ),
            "energy": _mean(F.smooth_l1_loss(energy, labels.energy, reduction="none", beta=0.3), valid),
        }

    @torch.no_grad()
    def metrics(self, hidden: Tensor, labels: FrameLabels) -> dict[str, Tensor]:
        """Phone accuracy outside silence, pitch error, voicing accuracy and energy error."""
        phones, log_f0, voicing, energy = self._read(hidden)
        valid, voiced = labels.valid, labels.voiced & labels.valid
        spoken = valid & (labels.phones > 0)
        return {
            "phone_accuracy": _mean((phones.argmax(-1) == labels.phones).float(), spoken),
            "f0_semitones": _mean((log_f0 - labels.log_f0).abs() * 12, voiced),
            "voicing_accuracy": _mean(((voicing > 0) == labels.voiced).float(), valid),
            "energy_db": _mean((energy - labels.energy).abs() * ENERGY_UNIT_DB, valid),
        }

    def _read(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        phones, rest = self.out(hidden).float().split([NUM_PHONES, 3], -1)
        return phones, *rest.unbind(-1)


LOSS_WEIGHTS = {"phone": 1.0, "f0": 6.0, "voicing": 0.5, "energy": 1.0}


def weighted(losses: dict[str, Tensor]) -> Tensor:
    """The sum that is minimised."""
    total = sum(LOSS_WEIGHTS[name] * loss for name, loss in losses.items())
    assert isinstance(total, Tensor)
    return total


def _mean(values: Tensor, where: Tensor) -> Tensor:
    return (values * where).sum() / where.sum().clamp(min=1)
