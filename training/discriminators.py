"""The critics that a vocoder is trained against: by periods of the waveform, and by spectrograms.

Both kinds return a map of scores and the feature maps of every layer, for the feature-matching loss.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from indextts.models.weight_norm import weight_norm

LEAKY_SLOPE = 0.1
PERIODS = (2, 3, 5, 7, 11)
PERIOD_CHANNELS = (32, 64, 128, 256, 256)
WINDOWS = (512, 1024, 2048)
SPECTROGRAM_CHANNELS = 32

Judgement = tuple[Tensor, list[Tensor]]
"""Scores of one critic, of any shape, and its feature maps."""


class PeriodDiscriminator(nn.Module):
    """Looks at every ``period``-th sample (Kong et al., "HiFi-GAN", 2020)."""

    def __init__(self, period: int, channels: tuple[int, ...] = PERIOD_CHANNELS) -> None:
        super().__init__()
        self.period = period
        strides = [3] * (len(channels) - 1) + [1]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(before, after, (5, 1), (stride, 1), padding=(2, 0)))
            for before, after, stride in zip((1, *channels), channels, strides, strict=False)
        )
        self.score = weight_norm(nn.Conv2d(channels[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, wave: Tensor) -> Judgement:
        """Args: wave: ``[B, N]``."""
        wave = F.pad(wave, (0, -wave.shape[-1] % self.period), mode="reflect")
        x = wave.view(len(wave), 1, -1, self.period)
        return _judge(x, self.layers, self.score)


class SpectrogramDiscriminator(nn.Module):
    """Looks at real and imaginary parts of a short-time spectrum (as in Défossez et al., "EnCodec", 2022)."""

    window: Tensor

    def __init__(self, window: int, channels: int = SPECTROGRAM_CHANNELS) -> None:
        super().__init__()
        self.size = window
        self.register_buffer("window", torch.hann_window(window), persistent=False)
        self.layers = nn.ModuleList(
            [
                weight_norm(nn.Conv2d(2, channels, (3, 9), padding=(1, 4))),
                *(weight_norm(nn.Conv2d(channels, channels, (3, 9), (1, 2), padding=(1, 4))) for _ in range(3)),
                weight_norm(nn.Conv2d(channels, channels, 3, padding=1)),
            ]
        )
        self.score = weight_norm(nn.Conv2d(channels, 1, 3, padding=1))

    def forward(self, wave: Tensor) -> Judgement:
        """Args: wave: ``[B, N]``."""
        with torch.autocast(wave.device.type, enabled=False):
            spectrum = torch.stft(
                wave.float(), self.size, self.size // 4, window=self.window, normalized=True, return_complex=True
            )
        x = torch.view_as_real(spectrum).permute(0, 3, 2, 1)  # [B, 2, frames, bins]
        return _judge(x, self.layers, self.score)


class VocoderDiscriminator(nn.Module):
    """All critics together.

    Args:
        width: factor on the channels of every critic.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        channels = tuple(round(width * c) for c in PERIOD_CHANNELS)
        critics: list[nn.Module] = [PeriodDiscriminator(period, channels) for period in PERIODS]
        critics += [SpectrogramDiscriminator(n, round(width * SPECTROGRAM_CHANNELS)) for n in WINDOWS]
        self.critics = nn.ModuleList(critics)

    def forward(self, wave: Tensor) -> list[Judgement]:
        """Args: wave: ``[B, N]``."""
        return [critic(wave) for critic in self.critics]


def _judge(x: Tensor, layers: nn.ModuleList, score: nn.Module) -> Judgement:
    x = x.contiguous(memory_format=torch.channels_last)
    features = []
    for layer in layers:
        x = F.leaky_relu(layer(x), LEAKY_SLOPE)
        features.append(x)
    return score(x), features
