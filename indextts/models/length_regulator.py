"""From semantic embeddings at 50 Hz to conditions at the mel rate (spec 9.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from indextts.config import LengthRegulatorConfig
from indextts.models.conformer import length_mask


def nearest_indices(source_lens: Tensor, target_lens: Tensor, size: int) -> Tensor:
    """Source position of every target frame, as ``F.interpolate(mode="nearest")`` chooses it, row by row.

    Args:
        source_lens: ``[B]`` lengths of the rows before interpolation.
        target_lens: ``[B]`` lengths after it.
        size: Width of the result; frames beyond a row's target length point to some valid position.

    Returns:
        int64 ``[B, size]``.
    """
    scale = source_lens.float() / target_lens.float()
    position = torch.arange(size, device=scale.device, dtype=torch.float32) * scale[:, None]
    return torch.minimum(position.long(), source_lens[:, None] - 1)


class RowNorm(nn.GroupNorm):
    """Group norm with one group, whose statistics go over the valid frames of a row only."""

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels)

    def forward(self, input: Tensor, valid: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """``input [B, C, F]``, ``valid`` bool ``[B, 1, F]`` -> ``[B, C, F]``, computed in float32."""
        x = input.float()
        count = valid.sum(dim=2, keepdim=True) * x.shape[1]
        mean = (x * valid).sum(dim=(1, 2), keepdim=True) / count
        centred = (x - mean) * valid
        variance = centred.square().sum(dim=(1, 2), keepdim=True) / count
        return centred * torch.rsqrt(variance + self.eps) * self.weight[:, None] + self.bias[:, None]


class LengthRegulator(nn.Module):
    """Nearest-neighbour interpolation to a given number of mel frames, then a stack of convolutions."""

    def __init__(self, config: LengthRegulatorConfig) -> None:
        super().__init__()
        channels = config.channels
        self.content_in_proj = nn.Linear(config.in_channels, channels)
        layers: list[nn.Module] = []
        for _ in config.sampling_ratios:
            layers += [nn.Conv1d(channels, channels, 3, padding=1), RowNorm(channels), nn.Mish()]
        self.model = nn.Sequential(*layers, nn.Conv1d(channels, channels, 1))

    def forward(
        self,
        embeddings: Tensor,
        target_lens: Tensor,
        source_lens: Tensor | None = None,
        num_frames: int | None = None,
    ) -> Tensor:
        """Stretch all rows to the same number of frames, or with ``source_lens`` each to its own.

        Args:
            embeddings: ``[B, T, D]`` semantic embeddings.
            target_lens: int64 ``[B]`` wanted mel frames; frames beyond are zero in the result.
            source_lens: int64 ``[B]`` valid embeddings of each row. With them every row is treated as if it were
                alone. Without them all rows are stretched alike and only the result is cut, as released.
            num_frames: F, the longest of ``target_lens`` by default. Naming it spares waiting for the device.

        Returns:
            ``[B, F, C]``.
        """
        rows, tokens, _ = embeddings.shape
        frames = int(target_lens.max()) if num_frames is None else num_frames
        extent = target_lens
        if source_lens is None:
            source_lens = torch.full((rows,), tokens, device=embeddings.device)
            extent = torch.full_like(target_lens, frames)
        index = nearest_indices(source_lens, extent, frames)
        x = self.content_in_proj(embeddings)
        x = x.gather(1, index[:, :, None].expand(-1, -1, x.shape[2])).transpose(1, 2)
        valid = length_mask(extent, frames)[:, None]
        for layer in self.model:
            x = layer(x, valid) if isinstance(layer, RowNorm) else layer(x * valid)
        return x.transpose(1, 2) * length_mask(target_lens, frames)[:, :, None]
