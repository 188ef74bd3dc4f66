"""How far two sounds are apart, and two results of a network."""

from __future__ import annotations

import torch
from torch import Tensor

HOP_SAMPLES = 256


def log_spectrum(wave: Tensor) -> Tensor:
    """Power of ``wave [N]`` in dB, ``[bins, frames]``; what is 60 dB below the quietest full-scale tone is silent."""
    window = torch.hann_window(1024)
    # Silence around it: mirrored edges would need a sound of some length.
    spectrum = torch.stft(wave, 1024, HOP_SAMPLES, window=window, pad_mode="constant", return_complex=True)
    return 10 * torch.log10(spectrum.abs().square().clamp_min(1e-6))


def distance_db(one: Tensor, other: Tensor) -> Tensor:
    """Log-spectral distance of each frame, ``[frames]``, of two spectra ``[bins, frames]`` in dB."""
    return (one - other).square().mean(0).sqrt()
