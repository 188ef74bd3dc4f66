"""The convolutional head of the flow estimator: gated convolutions with a residual and a skip path (spec 9.4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from indextts.config import WaveNetConfig
from indextts.models.weight_norm import weight_norm


class NormedConv1d(nn.Module):
    """A weight-normed convolution two levels down, where the released parameter names have it (``conv.conv``)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1, dilation: int = 1) -> None:
        super().__init__()
        conv = weight_norm(nn.Conv1d(in_channels, out_channels, kernel_size, dilation=dilation))
        self.conv = nn.ModuleDict({"conv": conv})
        self.padding = (kernel_size - 1) * dilation
        self.left = self.padding - self.padding // 2

    def forward(self, x: Tensor, edges: Tensor | None = None) -> Tensor:
        """``[B, C, F]`` -> ``[B, out, F]``; rows are mirrored at ``edges [B]``, without them frames are lost."""
        if edges is not None:
            x = reflect_pad(x, self.left, self.padding - self.left, edges)
        return self.conv["conv"](x)


def reflect_pad(x: Tensor, left: int, right: int, lengths: Tensor) -> Tensor:
    """Mirror every row at its first and at its own last frame; a row too short for that is continued with zeros.

    Args:
        x: ``[B, C, F]``.
        left: Frames to put before each row.
        right: Frames to put after each row's end.
        lengths: int64 ``[B]`` valid frames of each row.

    Returns:
        ``[B, C, left + F + right]``; what follows ``right`` frames after a row's end has no meaning.
    """
    frames = x.shape[2]
    last = lengths.clamp(min=max(left, right) + 1)[:, None] - 1
    position = torch.arange(-left, frames + right, device=x.device).abs()
    position = torch.where(position > last, 2 * last - position, position)
    index = position.clamp(0, frames - 1)[:, None].expand(-1, x.shape[1], -1)
    return x.gather(2, index).masked_fill((position >= lengths[:, None])[:, None], 0)


class WaveNet(nn.Module):
    """``num_layers`` gated convolutions, each biased by the time embedding."""

    def __init__(self, config: WaveNetConfig) -> None:
        super().__init__()
        width, layers = config.hidden_dim, config.num_layers
        self.cond_layer = NormedConv1d(width, 2 * width * layers)
        self.in_layers = nn.ModuleList(
            NormedConv1d(width, 2 * width, config.kernel_size, config.dilation_rate**i) for i in range(layers)
        )
        self.res_skip_layers = nn.ModuleList(
            NormedConv1d(width, 2 * width if i < layers - 1 else width) for i in range(layers)
        )

    @property
    def reach(self) -> int:
        """How many earlier frames a frame feels at most."""
        return sum(layer.left for layer in self.in_layers if isinstance(layer, NormedConv1d))

    def forward(self, x: Tensor, mask: Tensor, time: Tensor, edges: Tensor) -> Tensor:
        """One pass.

        Args:
            x: ``[B, C, F]``; not masked before the first layer.
            mask: bool ``[B, 1, F]``, true where a frame counts.
            time: ``[B, C, 1]`` time embedding.
            edges: int64 ``[B]``, the length at which a row's convolutions see a mirror.

        Returns:
            ``[B, C, F]``, zero outside the mask.
        """
        width, layers = x.shape[1], len(self.in_layers)
        skipped = torch.zeros_like(x)
        biases = self.cond_layer(time).chunk(layers, dim=1)
        for in_layer, res_skip, bias in zip(self.in_layers, self.res_skip_layers, biases, strict=True):
            gates, filters = (in_layer(x, edges) + bias).chunk(2, dim=1)
            out = res_skip(gates.tanh() * filters.sigmoid())
            if out.shape[1] > width:  # all layers but the last
                residual, out = out.chunk(2, dim=1)
                x = (x + residual) * mask
            skipped = skipped + out
        return skipped * mask
