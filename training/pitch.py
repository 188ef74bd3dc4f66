"""Fundamental frequency of many recordings at once: YIN with a batched difference function."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SAMPLE_RATE_HZ = 16000
HOP = 320  # 20 ms, the rate of semantic frames
FRAME_CENTRE = 280  # of semantic frame 0: it covers the samples 0 to 559
MIN_HZ, MAX_HZ = 55.0, 600.0
WINDOW = 512  # samples compared at each lag: 32 ms
MAX_LAG = int(SAMPLE_RATE_HZ / MIN_HZ) + 2
MIN_LAG = int(SAMPLE_RATE_HZ / MAX_HZ)
ACCEPT = 0.15  # the first dip below this is the period
VOICED = 0.35  # a frame whose deepest dip is above this has no pitch
SILENCE_DB = -45.0  # under the loudest frame
FLOOR_DB = -80.0  # of full scale


def pitch(wave: Tensor, num_frames: int) -> tuple[Tensor, Tensor]:
    """Estimate F0 at the centres of the semantic frames.

    Args:
        wave: ``[B, N]`` at 16 kHz, clean.
        num_frames: T.

    Returns:
        ``log2`` of F0 in Hz, ``[B, T]`` (meaningless where unvoiced), and ``voiced [B, T]`` bool.
    """
    with torch.autocast(wave.device.type, enabled=False), torch.no_grad():
        difference, power = _difference(_frames(wave, num_frames))
        lag, depth = _first_dip(difference)
        level_db = 10 * torch.log10(power + 1e-10)
        loud = (level_db > level_db.amax(1, keepdim=True) + SILENCE_DB) & (level_db > FLOOR_DB)
        voiced = (depth < VOICED) & loud
        return _median5(torch.log2(SAMPLE_RATE_HZ / lag), voiced), voiced & ~_isolated(voiced)


def frame_energy_db(wave: Tensor, num_frames: int) -> Tensor:
    """Power ``[B, T]`` in dB around the centres of the semantic frames, relative to the recording's mean.

    Padding with zeros does not change the mean. The result is limited to -50 dB.
    """
    with torch.autocast(wave.device.type, enabled=False), torch.no_grad():
        half = WINDOW // 2
        padded = F.pad(wave, (half, half + num_frames * HOP))[:, FRAME_CENTRE:]
        power = padded.unfold(-1, WINDOW, HOP)[:, :num_frames].square().mean(-1)
        count = (wave != 0).sum(1, keepdim=True).clamp(min=1)
        mean = wave.square().sum(1, keepdim=True) / count
        return (10 * torch.log10(power / mean.clamp(min=1e-10) + 1e-9)).clamp(min=-50.0)


def _frames(wave: Tensor, num_frames: int) -> Tensor:
    """``[B, T, WINDOW + MAX_LAG]`` centred on the semantic frames."""
    size = WINDOW + MAX_LAG
    left = size // 2 - FRAME_CENTRE
    padded = F.pad(wave, (left, size + num_frames * HOP))
    return padded.unfold(-1, size, HOP)[:, :num_frames]


def _difference(frames: Tensor) -> tuple[Tensor, Tensor]:
    """YIN's cumulative mean normalised difference ``[B, T, MAX_LAG + 1]``, and the power of each frame."""
    size = 1 << (frames.shape[-1] - 1).bit_length()  # lags up to MAX_LAG do not wrap around
    spectrum = torch.fft.rfft(frames, size) * torch.fft.rfft(frames[..., :WINDOW], size).conj()
    correlation = torch.fft.irfft(spectrum, size)[..., : MAX_LAG + 1]
    energy = F.pad(frames.square().cumsum(-1), (1, 0))
    energy = energy[..., WINDOW:][..., : MAX_LAG + 1] - energy[..., : MAX_LAG + 1]
    difference = (energy[..., :1] + energy - 2 * correlation).clamp(min=0)
    lags = torch.arange(MAX_LAG + 1, device=frames.device)
    running = difference[..., 1:].cumsum(-1) / lags[1:]
    normalised = difference[..., 1:] / running.clamp(min=1e-9)
    return F.pad(normalised, (1, 0), value=1.0), energy[..., 0] / WINDOW


def _first_dip(difference: Tensor) -> tuple[Tensor, Tensor]:
    """Lag in samples of the first accepted local minimum, else of the deepest one; and its depth."""
    inner = difference[..., MIN_LAG:MAX_LAG]
    before, after = difference[..., MIN_LAG - 1 : MAX_LAG - 1], difference[..., MIN_LAG + 1 :]
    dip = (inner <= before) & (inner <= after)
    accepted = dip & (inner < ACCEPT)
    first = accepted.float().argmax(-1)
    deepest = torch.where(dip, inner, 9.0).argmin(-1)
    index = torch.where(accepted.any(-1), first, deepest)[..., None]
    b, a, c = (values.gather(-1, index)[..., 0] for values in (inner, before, after))
    shift = 0.5 * (a - c) / (a - 2 * b + c).clamp(min=1e-6)  # of the parabola through the three points
    return index[..., 0] + MIN_LAG + shift.clamp(-0.5, 0.5), b


def _median5(values: Tensor, voiced: Tensor) -> Tensor:
    """Median over five frames, unvoiced neighbours counting as the frame itself: removes octave slips."""
    own = values[..., None].expand(*values.shape, 5)
    neighbours = F.pad(values, (2, 2)).unfold(-1, 5, 1)
    usable = F.pad(voiced.float(), (2, 2)).unfold(-1, 5, 1) > 0
    return torch.where(usable, neighbours, own).median(-1).values


def _isolated(voiced: Tensor) -> Tensor:
    """Voiced frames without a voiced neighbour."""
    around = F.pad(voiced.float(), (1, 1)).unfold(-1, 3, 1).sum(-1)
    return voiced & (around < 2)
