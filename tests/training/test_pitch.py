"""Pitch and energy of signals whose pitch and energy are known."""

from __future__ import annotations

import math

import pytest
import torch

from training.pitch import FRAME_CENTRE, HOP, SAMPLE_RATE_HZ, frame_energy_db, pitch


def harmonic(hz: torch.Tensor) -> torch.Tensor:
    """A tone with falling harmonics whose pitch follows ``hz [N]``."""
    phase = torch.cumsum(2 * math.pi * hz.double() / SAMPLE_RATE_HZ, 0)
    return sum(torch.sin(k * phase) / k for k in range(1, 9)).float() * 0.1  # type: ignore[union-attr]


@pytest.mark.parametrize("hz", [70.0, 110.0, 220.0, 440.0])
def test_steady_tone(hz: float) -> None:
    log_f0, voiced = pitch(harmonic(torch.full((16000,), hz))[None], 49)
    assert voiced[:, 1:-1].all()
    assert (log_f0[:, 1:-1] - math.log2(hz)).abs().max() < 0.02


def test_glide_is_measured_at_the_frame_centre() -> None:
    hz = torch.linspace(100, 300, 32000)
    log_f0, voiced = pitch(harmonic(hz)[None], 99)
    want = torch.log2(hz[torch.arange(99) * HOP + FRAME_CENTRE])
    assert voiced[0, 2:-2].all()
    assert (log_f0[0] - want)[2:-2].abs().max() < 0.03


def test_noise_and_silence_are_unvoiced() -> None:
    noise = torch.randn(1, 16000, generator=torch.Generator().manual_seed(0)) * 0.1
    assert pitch(noise, 49)[1].float().mean() < 0.05
    assert not pitch(torch.zeros(1, 16000), 49)[1].any()


def test_rows_are_independent() -> None:
    a, b = harmonic(torch.full((16000,), 100.0)), harmonic(torch.full((16000,), 250.0))
    both = pitch(torch.stack([a, b]), 49)[0]
    torch.testing.assert_close(both[1:], pitch(b[None], 49)[0])


def test_energy_is_relative_to_the_recording() -> None:
    wave = harmonic(torch.full((16000,), 160.0))[None]
    wave[:, 8000:] *= 0.1
    energy = frame_energy_db(wave, 49)
    torch.testing.assert_close(energy, frame_energy_db(wave * 0.3, 49), atol=1e-3, rtol=0)
    torch.testing.assert_close(energy, frame_energy_db(torch.nn.functional.pad(wave, (0, 999)), 49))
    assert abs((energy[0, 5:20].mean() - energy[0, 30:45].mean()).item() - 20) < 0.5
