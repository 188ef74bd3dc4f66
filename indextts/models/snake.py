"""SnakeBeta between a 2x up- and a 2x down-sampler (BigVGAN, spec 11).

A periodic non-linearity makes harmonics above half the sampling rate, which would fold back as noise. So it
runs at twice the rate, between two low-pass filters. Both filters are computed in polyphase form: the doubled
signal is never interleaved, it lives as its even and its odd samples, and each phase is a sum of six shifted
copies of the input. That is the same sum as the strided convolutions of the definition, at a fraction of
their cost on a CPU, and a compiler fuses it into two passes over memory.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn


def low_pass_taps(count: int = 12) -> tuple[float, ...]:
    """A Kaiser-windowed low-pass filter at a quarter of the sampling rate; symmetric, of sum 1."""
    attenuation_db = 2.285 * (count // 2 - 1) * math.pi * 4 * 0.3 + 7.95
    n = np.arange(count) - (count - 1) / 2
    taps = np.kaiser(count, beta=0.1102 * (attenuation_db - 8.7)) * np.sinc(0.5 * n)
    return tuple((taps / taps.sum()).tolist())


TAPS = low_pass_taps()
"""The filter before and after the activation. Plain numbers, so that a compiler takes them as constants."""

REACH = len(TAPS) // 2 - 1
"""How many samples on either side an activated sample feels."""


def upsample_2x(x: Tensor) -> tuple[Tensor, Tensor]:
    """Double the rate; the signal counts as constant beyond its ends.

    Args:
        x: ``[B, C, T]``.

    Returns:
        The even and the odd samples of the doubled signal, ``[B, C, T]`` each.
    """
    frames = x.shape[-1]
    first, last = x[..., :1], x[..., -1:]
    padded = torch.cat([first, first, first, x, last, last, last], dim=-1)
    even, odd = 2 * TAPS[0] * padded[..., :frames], 2 * TAPS[1] * padded[..., 1 : frames + 1]
    for i in range(1, len(TAPS) // 2):
        even.add_(padded[..., i : frames + i], alpha=2 * TAPS[2 * i])
        odd.add_(padded[..., i + 1 : frames + i + 1], alpha=2 * TAPS[2 * i + 1])
    return even, odd


def downsample_2x(even: Tensor, odd: Tensor) -> Tensor:
    """Halve the rate of a signal given as its even and odd samples; it counts as constant beyond its ends.

    Args:
        even: ``[B, C, T]``.
        odd: ``[B, C, T]``.

    Returns:
        ``[B, C, T]``.
    """
    frames = even.shape[-1]
    first, last = even[..., :1], odd[..., -1:]
    even = torch.cat([first, first, even, last, last, last], dim=-1)
    odd = torch.cat([first, first, first, odd, last, last], dim=-1)
    y = TAPS[0] * odd[..., :frames]
    y.add_(even[..., :frames], alpha=TAPS[1])
    for i in range(1, len(TAPS) // 2):
        y.add_(odd[..., i : frames + i], alpha=TAPS[2 * i])
        y.add_(even[..., i : frames + i], alpha=TAPS[2 * i + 1])
    return y


class SnakeBeta(nn.Module):
    """``x + sin(exp(alpha) x)^2 / exp(beta)``, frequency and magnitude learned per channel in log scale."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: ``[B, C, T]``. Returns: ``[B, C, T]``."""
        frequency = self.alpha.exp().unsqueeze(-1)
        inverse_magnitude = 1 / (self.beta.exp().unsqueeze(-1) + 1e-9)
        return torch.addcmul(x, torch.sin(x * frequency).square(), inverse_magnitude)


class AntiAliasedSnake(nn.Module):
    """SnakeBeta at twice the rate, low-pass filtered before and after.

    The filters are constants: checkpoints store them (``upsample.filter``, ``downsample.lowpass.filter``),
    the loader drops them. The arithmetic is in float32 also when x is not, for the phase of a sine has no
    room for the rounding of half precision.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.act = SnakeBeta(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: ``[B, C, T]``. Returns: ``[B, C, T]`` in the precision of x."""
        even, odd = upsample_2x(x.float())
        return downsample_2x(self.act(even), self.act(odd)).to(x.dtype)
