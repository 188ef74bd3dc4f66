"""What happens to a voice between the mouth and a microphone, simulated in batches on the training device.

Prompts are recorded by people in rooms, with cheap microphones and over telephones; generated speech is not.
Every row draws its own room, noise, frequency response, level and distortion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

ROOM_S = 0.5  # length of the synthetic impulse responses


@dataclass(frozen=True)
class Augmentation:
    """How often each effect occurs, and its range."""

    clean: float = 0.2  # rows left as they are, but for their level
    room: float = 0.5
    room_rt60_s: tuple[float, float] = (0.1, 0.7)
    room_direct_db: tuple[float, float] = (-2.0, 18.0)  # direct sound over reverberation
    noise: float = 0.7
    noise_snr_db: tuple[float, float] = (5.0, 40.0)
    noise_slope: tuple[float, float] = (
        0.0,
        2.0,
    )  # power falls with frequency to this exponent: white to brown
    babble: float = 0.15
    babble_snr_db: tuple[float, float] = (12.0, 30.0)
    equalizer: float = 0.6
    equalizer_db: float = 6.0  # standard deviation
    low_cut: float = 0.4
    low_cut_hz: tuple[float, float] = (50.0, 300.0)
    high_cut: float = 0.3
    high_cut_hz: tuple[float, float] = (3000.0, 8000.0)
    telephone: float = 0.08  # 300 to 3400 Hz
    clip: float = 0.15
    clip_level: tuple[float, float] = (0.3, 0.9)  # of the peak
    peak: tuple[float, float] = (0.05, 0.95)


def augment(
    wave: Tensor, sample_rate_hz: int, generator: torch.Generator, effects: Augmentation | None = None
) -> Tensor:
    """Degrade each row in its own way, without shifting it in time.

    Args:
        wave: ``[B, N]`` float32, zero-padded at the end. Padding may come back filled with noise.
        sample_rate_hz: its rate.
        generator: source of randomness, on the device of ``wave``.
        effects: frequencies and ranges of the effects.

    Returns:
        ``[B, N]``.
    """
    effects = effects or Augmentation()
    with torch.autocast(wave.device.type, enabled=False), torch.no_grad():
        draw = _Dice(len(wave), generator)
        dirty = ~draw.chance(effects.clean)
        level = _rms(wave)
        degraded = _filter(wave, sample_rate_hz, draw, effects)
        degraded = degraded * (level / _rms(degraded).clamp(min=1e-8))
        degraded = degraded + level * _noise(degraded, sample_rate_hz, draw, effects)
        degraded = _clip(degraded, draw, effects)
        degraded = torch.where(dirty[:, None], degraded, wave)
        peak = degraded.abs().amax(1, keepdim=True).clamp(min=1e-5)
        return degraded / peak * draw.log_between(effects.peak)[:, None]


class _Dice:
    """Random numbers, one for each row."""

    def __init__(self, rows: int, generator: torch.Generator) -> None:
        self.rows, self.generator, self.device = rows, generator, generator.device

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand((self.rows, *shape), generator=self.generator, device=self.device)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn((self.rows, *shape), generator=self.generator, device=self.device)

    def chance(self, probability: float) -> Tensor:
        return self.uniform() < probability

    def between(self, bounds: tuple[float, float]) -> Tensor:
        return bounds[0] + (bounds[1] - bounds[0]) * self.uniform()

    def log_between(self, bounds: tuple[float, float]) -> Tensor:
        return torch.exp(self.between((math.log(bounds[0]), math.log(bounds[1]))))


def _rms(wave: Tensor) -> Tensor:
    """Level ``[B, 1]`` over the samples that are not padding."""
    count = (wave != 0).sum(1, keepdim=True).clamp(min=1)
    return (wave.square().sum(1, keepdim=True) / count).sqrt()


def _filter(wave: Tensor, sample_rate_hz: int, draw: _Dice, effects: Augmentation) -> Tensor:
    """Room and frequency response, together in one multiplication of spectra."""
    samples = wave.shape[1]
    room = _room(sample_rate_hz, draw, effects)
    size = samples + room.shape[1]
    response = torch.fft.rfft(room, size) * _frequency_response(size, sample_rate_hz, draw, effects)
    return torch.fft.irfft(torch.fft.rfft(wave, size) * response, size)[:, :samples]


def _room(sample_rate_hz: int, draw: _Dice, effects: Augmentation) -> Tensor:
    """Impulse responses ``[B, L]``: the direct sound, and noise that decays by 60 dB in ``rt60``."""
    time_s = torch.arange(int(ROOM_S * sample_rate_hz), device=draw.device) / sample_rate_hz
    decay = torch.exp(-math.log(1000.0) * time_s / draw.log_between(effects.room_rt60_s)[:, None])
    onset_s = draw.between((0.001, 0.02))[:, None]  # the first reflection
    # Early reflections are sparse, late ones dense: keep few samples at first, all after 80 ms.
    density = (time_s / 0.08).clamp(0.02, 1.0)
    tail = draw.normal(len(time_s)) * (draw.uniform(len(time_s)) < density) * decay * (time_s > onset_s)
    energy = tail.square().sum(1, keepdim=True).sqrt().clamp(min=1e-8)
    amount = 10 ** (-draw.between(effects.room_direct_db) / 20) * draw.chance(effects.room)
    response = tail / energy * amount[:, None]
    response[:, 0] = 1.0
    return response


def _frequency_response(size: int, sample_rate_hz: int, draw: _Dice, effects: Augmentation) -> Tensor:
    """Zero-phase gains ``[B, size // 2 + 1]`` of microphones and lines."""
    hz = torch.linspace(0, sample_rate_hz / 2, size // 2 + 1, device=draw.device)
    points = draw.normal(1, 8) * effects.equalizer_db * draw.chance(effects.equalizer)[:, None, None]
    # The points are spaced evenly over log frequency: low bands are narrow, high ones wide.
    place = torch.log1p(hz / 100) / math.log1p(sample_rate_hz / 200) * 7
    left = place.floor().clamp(0, 6).long()
    weight = place - left
    gain_db = points[:, 0, left] * (1 - weight) + points[:, 0, left + 1] * weight

    telephone = draw.chance(effects.telephone)
    low_hz = torch.where(draw.chance(effects.low_cut), draw.log_between(effects.low_cut_hz), 0.0)
    high_hz = torch.where(draw.chance(effects.high_cut), draw.log_between(effects.high_cut_hz), 1e6)
    low_hz = torch.where(telephone, 300.0, low_hz)[:, None]
    high_hz = torch.where(telephone, 3400.0, high_hz)[:, None]
    cut = 1 / (1 + (low_hz / hz.clamp(min=1.0)) ** 4) / (1 + (hz / high_hz) ** 12)
    return 10 ** (gain_db / 20) * cut


def _noise(wave: Tensor, sample_rate_hz: int, draw: _Dice, effects: Augmentation) -> Tensor:
    """Coloured noise and other rows' speech ``[B, N]``, relative to a speech level of one."""
    samples = wave.shape[1]
    spectrum = torch.fft.rfft(draw.normal(samples))
    hz = torch.linspace(0, sample_rate_hz / 2, spectrum.shape[1], device=draw.device).clamp(min=40.0)
    coloured = torch.fft.irfft(spectrum * hz ** (-draw.between(effects.noise_slope)[:, None] / 2), samples)
    snr = 10 ** (-draw.between(effects.noise_snr_db) / 20) * draw.chance(effects.noise)
    noise = coloured / coloured.square().mean(1, keepdim=True).sqrt() * snr[:, None]

    others = wave.roll(1, 0) + wave.roll(2, 0).flip(1) if len(wave) > 2 else torch.zeros_like(wave)
    babble_snr = 10 ** (-draw.between(effects.babble_snr_db) / 20) * draw.chance(effects.babble)
    return noise + others / _rms(others).clamp(min=1e-5) * babble_snr[:, None]


def _clip(wave: Tensor, draw: _Dice, effects: Augmentation) -> Tensor:
    limit = wave.abs().amax(1) * torch.where(draw.chance(effects.clip), draw.between(effects.clip_level), 1.0)
    return wave.clamp(-limit[:, None], limit[:, None])
