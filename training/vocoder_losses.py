"""What tells a vocoder how far its waveform is from the recording."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from indextts.audio import log_mel
from indextts.config import SpectrogramConfig
from training.discriminators import Judgement

# Windows and numbers of bands from fine in time to fine in frequency (as in Kumar et al., "DAC", 2023).
MEL_SCALES = ((64, 10), (128, 20), (256, 40), (512, 80), (1024, 160), (2048, 320))
STFT_WINDOWS = (512, 1024, 2048)
# Spectra are compared above noise of about -74 dB below full scale. Further down nothing is heard, but logarithms
# are steep there, and the gradients of silent excerpts would outweigh those of speech.
MEL_FLOOR, MAGNITUDE_FLOOR = 1e-4, 4e-3


def multi_scale_mel_loss(fake: Tensor, real: Tensor) -> Tensor:
    """Mean absolute difference of log-mel spectrograms ``[B, N]``, in decades, summed over ``MEL_SCALES``."""
    total = fake.new_zeros(())
    floor = torch.full_like(total, math.log(MEL_FLOOR))
    for window, bands in MEL_SCALES:
        config = SpectrogramConfig(n_fft=window, win_length=window, hop_length=window // 4, n_mels=bands)
        fake_mel, real_mel = (torch.logaddexp(log_mel(wave, config), floor) for wave in (fake, real))
        total = total + (fake_mel - real_mel).abs().mean()
    return total / math.log(10)


def stft_distance(fake: Tensor, real: Tensor) -> Tensor:
    """Spectral convergence plus log-magnitude difference, averaged over ``STFT_WINDOWS``, of ``[B, N]``.

    Yamamoto et al., "Parallel WaveGAN", 2020.
    """
    total = fake.new_zeros(())
    for size in STFT_WINDOWS:
        window = torch.hann_window(size, device=fake.device)
        real_magnitude, fake_magnitude = (
            torch.stft(wave, size, size // 4, window=window, return_complex=True).abs() + MAGNITUDE_FLOOR
            for wave in (real, fake)
        )
        difference = (fake_magnitude - real_magnitude).square().mean().sqrt()
        total = total + difference / real_magnitude.square().mean().sqrt()
        total = total + (fake_magnitude.log() - real_magnitude.log()).abs().mean()
    return total / len(STFT_WINDOWS)


def discriminator_loss(real: list[Judgement], fake: list[Judgement]) -> Tensor:
    """Least squares: recordings should score one, imitations zero; averaged over the critics."""
    losses = [
        (r.float() - 1).square().mean() + f.float().square().mean() for (r, _), (f, _) in zip(real, fake, strict=True)
    ]
    return torch.stack(losses).mean()


def adversarial_loss(fake: list[Judgement]) -> Tensor:
    """Least squares: imitations should score one; summed over the critics."""
    return torch.stack([(score.float() - 1).square().mean() for score, _ in fake]).sum()


def feature_matching_loss(real: list[Judgement], fake: list[Judgement]) -> Tensor:
    """Mean absolute difference of the critics' feature maps, summed over layers and critics."""
    differences = [
        (r.detach().float() - f.float()).abs().mean()
        for (_, real_features), (_, fake_features) in zip(real, fake, strict=True)
        for r, f in zip(real_features, fake_features, strict=True)
    ]
    return torch.stack(differences).sum()
