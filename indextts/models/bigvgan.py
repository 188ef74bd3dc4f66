"""BigVGAN v2: log-mel spectrogram to waveform (spec 11; Lee et al., "BigVGAN", 2023).

A mel frame is widened to many channels, then a few transposed convolutions raise the rate step by step to
that of the waveform while the channels halve; after each step several residual blocks with different
receptive fields, whose outputs are averaged, add the detail of that rate. What lies between the first convolution and
the last activation may be in half precision; mel and waveform are float32.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from indextts.config import VocoderConfig
from indextts.models import snake
from indextts.models.snake import AntiAliasedSnake
from indextts.models.weight_norm import weight_norm


class AMPBlock(nn.Module):
    """Residual block of anti-aliased multi-periodicity composition.

    Args:
        channels: C.
        kernel_size: of every convolution.
        dilations: of the first convolution of each residual branch.
    """

    def __init__(self, channels: int, kernel_size: int, dilations: tuple[int, ...]) -> None:
        super().__init__()

        def conv(dilation: int) -> nn.Conv1d:
            padding = (kernel_size - 1) * dilation // 2
            return weight_norm(nn.Conv1d(channels, channels, kernel_size, dilation=dilation, padding=padding))

        self.convs1 = nn.ModuleList(conv(dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(conv(1) for _ in dilations)
        self.activations = nn.ModuleList(AntiAliasedSnake(channels) for _ in range(2 * len(dilations)))

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: ``[B, C, T]``. Returns: ``[B, C, T]``."""
        for i, (conv1, conv2) in enumerate(zip(self.convs1, self.convs2, strict=True)):
            branch = conv1(self.activations[2 * i](x))
            x = x + conv2(self.activations[2 * i + 1](branch))
        return x


class BigVGAN(nn.Module):
    """The vocoder."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.upsample_initial_channel
        self.conv_pre = weight_norm(nn.Conv1d(config.num_mels, channels, 7, padding=3))
        self.ups = nn.ModuleList()
        self.resblocks = nn.ModuleList()
        for rate, kernel_size in zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True):
            up = nn.ConvTranspose1d(
                channels, channels // 2, kernel_size, stride=rate, padding=(kernel_size - rate) // 2
            )
            self.ups.append(nn.ModuleList([weight_norm(up)]))
            channels //= 2
            for block_kernel_size, dilations in zip(
                config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True
            ):
                self.resblocks.append(AMPBlock(channels, block_kernel_size, dilations))
        self.activation_post = AntiAliasedSnake(channels)
        self.conv_post = weight_norm(nn.Conv1d(channels, 1, 7, padding=3, bias=config.use_bias_at_final))

    @property
    def hop_samples(self) -> int:
        """Samples for each mel frame."""
        return math.prod(self.config.upsample_rates)

    @property
    def reach_frames(self) -> int:
        """How many mel frames on either side of its own a sample feels."""
        config = self.config
        reach = 3 + snake.REACH  # samples, at the rate of the output
        for rate, kernel_size in zip(config.upsample_rates[::-1], config.upsample_kernel_sizes[::-1], strict=True):
            reach += max(
                sum((block_kernel_size - 1) // 2 * (dilation + 1) + 2 * snake.REACH for dilation in dilations)
                for block_kernel_size, dilations in zip(
                    config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True
                )
            )
            reach = (reach + (kernel_size + rate) // 2 - 1) // rate  # at the rate before the transposed convolution
        return reach + 3

    def forward(self, mel: Tensor) -> Tensor:
        """Render a waveform.

        Args:
            mel: natural-log mel spectrogram ``[B, 80, F]``.

        Returns:
            Samples in [-1, 1], ``[B, 1, 256 F]``.
        """
        x = self.conv_pre(mel)
        blocks_per_stage = len(self.resblocks) // len(self.ups)
        for stage, up in enumerate(self.ups):
            widen = cast(nn.ConvTranspose1d, cast(nn.ModuleList, up)[0])
            x = widen(x.to(cast(Tensor, widen.bias).dtype))
            blocks = self.resblocks[stage * blocks_per_stage : (stage + 1) * blocks_per_stage]
            total = blocks[0](x)
            for block in blocks[1:]:
                total = total + block(x)
            x = total / blocks_per_stage
        x = self.conv_post(self.activation_post(x.to(self.activation_post.act.alpha.dtype)))
        return torch.tanh(x) if self.config.use_tanh_at_final else x.clamp(-1, 1)
