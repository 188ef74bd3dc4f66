"""SnakeBeta between a 2x up- and a 2x down-sampler (BigVGAN, spec 11).

A periodic non-linearity makes harmonics above half the sampling rate, which would fold back as noise. So it
runs at twice the rate, between two low-pass filters. Both filters are computed in polyphase form: the doubled
signal is never interleaved, it lives as its even and its odd samples, and each phase is a sum of six shifted
copies of the input. That is the same sum as the strided convolutions of the definition, at a fraction of
their cost on a CPU, and a compiler fuses it into two passes over memory.
"""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FILTER_TAPS = 12


@cache
def low_pass_taps() -> tuple[float, ...]:
    """The 12 taps of the Kaiser-windowed low-pass filter at half the rate; symmetric, of sum 1."""
    attenuation_db = 2.285 * (FILTER_TAPS // 2 - 1) * math.pi * 4 * 0.3 + 7.95
    beta = 0.1102 * (attenuation_db - 8.7)
    n = torch.arange(FILTER_TAPS, dtype=torch.float64, device="cpu") - (FILTER_TAPS - 1) / 2
    window = torch.kaiser_window(FILTER_TAPS, periodic=False, beta=beta, dtype=torch.float64, device="cpu")
    taps = window * torch.sinc(0.5 * n)
    return tuple((taps / taps.sum()).tolist())


def upsample_2x(x: Tensor) -> tuple[Tensor, Tensor]:
    """Double the rate; the signal counts as constant beyond its ends.

    Args:
        x: ``[B, C, T]``.

    Returns:
        The even and the odd samples of the doubled signal, ``[B, C, T]`` each.
    """
    taps, frames = low_pass_taps(), x.shape[-1]
    padded = F.pad(x, (3, 3), mode="replicate")
    even, odd = 2 * taps[0] * padded[..., :frames], 2 * taps[1] * padded[..., 1 : frames + 1]
    for i in range(1, FILTER_TAPS // 2):
        even.add_(padded[..., i : frames + i], alpha=2 * taps[2 * i])
        odd.add_(padded[..., i + 1 : frames + i + 1], alpha=2 * taps[2 * i + 1])
    return even, odd


def downsample_2x(even: Tensor, odd: Tensor) -> Tensor:
    """Halve the rate of a signal given as its even and odd samples; it counts as constant beyond its ends.

    Args:
        even: ``[B, C, T]``.
        odd: ``[B, C, T]``.

    Returns:
        ``[B, C, T]``.
    """
    taps, frames = low_pass_taps(), even.shape[-1]
    first, last = even[..., :1], odd[..., -1:]
    even = torch.cat([first, first, even, last, last, last], dim=-1)
    odd = torch.cat([first, first, first, odd, last, last], dim=-1)
    y = taps[0] * odd[..., :frames]
    y.add_(even[..., :frames], alpha=taps[1])
    for i in range(1, FILTER_TAPS // 2):
        y.add_(odd[..., i : frames + i], alpha=taps[2 * i])
        y.add_(even[..., i : frames + i], alpha=taps[2 * i + 1])
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
