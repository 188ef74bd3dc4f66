"""The convolutional head of the flow estimator: gated convolutions with a residual and a skip path (spec 9.4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indextts.config import WaveNetConfig
from indextts.models.weight_norm import weight_norm


@dataclass(frozen=True)
class Mirror:
    """Where the frames of ragged rows come from that are padded by mirroring, and which of them are zero instead.

    Attributes:
        index: int64 ``[B, 1, left + F + right]``.
        real: bool of the same shape, false beyond the end of a row that is too short to be mirrored so far.
        inside: ``real``, less what comes from outside of the mask.
    """

    index: Tensor
    real: Tensor
    inside: Tensor

    @classmethod
    def at(cls, left: int, right: int, lengths: Tensor, mask: Tensor) -> Mirror:
        """The mirror for rows of ``lengths [B]``, with ``left`` frames in front and ``right`` behind.

        ``mask`` is bool ``[B, 1, F]``. What follows ``right`` frames after a row's end has no meaning.
        """
        frames = mask.shape[2]
        last = lengths.clamp(min=max(left, right) + 1)[:, None] - 1
        position = torch.arange(-left, frames + right, device=mask.device).abs()
        position = torch.where(position > last, 2 * last - position, position)
        index = position.clamp(0, frames - 1)[:, None]
        real = (position < lengths[:, None])[:, None]
        return cls(index, real, real & mask.gather(2, index))


@dataclass(frozen=True)
class Edges:
    """What the convolutions must know of ragged rows, the same for every pass.

    Attributes:
        mask: bool ``[B, 1, F]``, true where a frame counts.
        mirrors: By how many frames a convolution wants in front and behind.
    """

    mask: Tensor
    mirrors: dict[tuple[int, int], Mirror]


class NormedConv1d(nn.Module):
    """A weight-normed convolution two levels down, where the released parameter names have it (``conv.conv``)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1, dilation: int = 1) -> None:
        super().__init__()
        conv = weight_norm(nn.Conv1d(in_channels, out_channels, kernel_size, dilation=dilation))
        self.conv = nn.ModuleDict({"conv": conv})
        padding = (kernel_size - 1) * dilation
        self.left, self.right = padding - padding // 2, padding // 2

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, left + F + right]`` -> ``[B, out, F]``."""
        return self.conv["conv"](x)


class WaveNet(nn.Module):
    """``num_layers`` gated convolutions, each biased by the time embedding."""

    def __init__(self, config: WaveNetConfig) -> None:
        super().__init__()
        width, layers = config.hidden_dim, config.num_layers
        self.gate: Callable[[Tensor, Tensor], Tensor] = gated
        self.cond_layer = NormedConv1d(width, 2 * width * layers)
        self.in_layers = nn.ModuleList(
            NormedConv1d(width, 2 * width, config.kernel_size, config.dilation_rate**i) for i in range(layers)
        )
        self.res_skip_layers = nn.ModuleList(
            NormedConv1d(width, 2 * width if i < layers - 1 else width) for i in range(layers)
        )

    @property
    def paddings(self) -> list[tuple[int, int]]:
        """The frames that each layer wants in front and behind."""
        return [(layer.left, layer.right) for layer in self.in_layers if isinstance(layer, NormedConv1d)]

    @property
    def reach(self) -> int:
        """How many earlier frames a frame feels at most."""
        return sum(left for left, _ in self.paddings)

    def edges(self, lengths: Tensor, mask: Tensor) -> Edges:
        """For rows of which frames count where ``mask [B, 1, F]`` is true, mirrored at ``lengths [B]``."""
        return Edges(mask, {padding: Mirror.at(*padding, lengths, mask) for padding in sorted(set(self.paddings))})

    def forward(self, x: Tensor, bias: Tensor, edges: Edges | None) -> Tensor:
        """One pass.

        Args:
            x: ``[B, C, F]``; not masked before the first layer.
            bias: ``[B, 2 C layers, 1]``, what ``cond_layer`` makes of the time embedding.
            edges: None means that every frame of every row counts. Then F must exceed what a layer mirrors.

        Returns:
            ``[B, C, F]``, zero outside the mask.
        """
        width, layers = x.shape[1], len(self.in_layers)
        skipped = torch.zeros_like(x)
        biases = bias.to(x.dtype).chunk(layers, dim=1)
        steps = zip(self.in_layers, self.res_skip_layers, self.paddings, biases, strict=True)
        for number, (in_layer, res_skip, padding, bias) in enumerate(steps):
            padded = mirrored(x, padding, edges, is_masked=number > 0)
            out = res_skip(self.gate(in_layer(padded), bias))
            if out.shape[1] > width:  # all layers but the last
                residual, out = out.chunk(2, dim=1)
                x = x + residual
            skipped = skipped + out
        return skipped if edges is None else skipped * edges.mask


def gated(x: Tensor, bias: Tensor) -> Tensor:
    """``x [B, 2 C, F]`` and ``bias [B or 1, 2 C, 1]`` -> ``[B, C, F]``: one half through the gates of the other."""
    gates, filters = (x + bias).chunk(2, dim=1)
    return gates.tanh() * filters.sigmoid()


def mirrored(x: Tensor, padding: tuple[int, int], edges: Edges | None, is_masked: bool) -> Tensor:
    """Mirror every row of ``x [B, C, F]`` at its first and at its own last frame.

    Args:
        padding: Frames to put in front and behind.
        edges: Where rows end; a row too short for the padding is continued with zeros. None: all rows are whole.
        is_masked: Frames outside of the mask are zero.

    Returns:
        ``[B, C, left + F + right]``.
    """
    if edges is None:
        return F.pad(x, padding, mode="reflect")
    mirror = edges.mirrors[padding]
    padded = x.gather(2, mirror.index.expand(-1, x.shape[1], -1))
    return padded * (mirror.inside if is_masked else mirror.real)
