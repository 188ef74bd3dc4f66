"""The conformer encoder before each perceiver (spec 7.1): w2v-BERT embeddings in, half the frame rate out.

It departs from the usual conformer in three ways: no macaron feed-forward, a LayerNorm in place of the
batch norm, and "relative" positions that are never shifted, so that they are but a bias on the absolute key
position.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from indextts.config import ConformerConfig


def length_mask(lengths: Tensor, size: int) -> Tensor:
    """True where a position lies inside its row: ``[B]`` lengths to ``[B, size]``."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def sinusoidal_positions(num_frames: int, width: int, device: torch.device | None = None) -> Tensor:
    """Sinusoids ``[1, num_frames, width]``: sine in the even columns, cosine in the odd ones."""
    frame = torch.arange(num_frames, device=device, dtype=torch.float32)[:, None]
    column = torch.arange(0, width, 2, device=device, dtype=torch.float32)
    rate = torch.exp(column * (-math.log(10000.0) / width))
    return torch.stack((torch.sin(frame * rate), torch.cos(frame * rate)), dim=-1).flatten(1)[None]


class ConvSubsampling(nn.Module):
    """Halves the frame rate with one strided 3x3 convolution over time and features."""

    def __init__(self, input_dim: int, output_size: int) -> None:
        super().__init__()
        self.scale = math.sqrt(output_size)
        self.conv = nn.Sequential(nn.Conv2d(1, output_size, 3, stride=2), nn.ReLU())
        self.out = nn.Sequential(nn.Linear(output_size * ((input_dim - 1) // 2), output_size))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, input_dim]`` to ``[B, (T - 1) // 2, output_size]``, scaled by sqrt(output_size)."""
        convolution = self.conv[0]
        assert isinstance(convolution, nn.Conv2d)
        windows = x.unfold(1, 3, 2).unfold(2, 3, 2).flatten(3)  # [B, T2, F2, 9]; a matrix product, as in `_pointwise`
        x = F.relu(F.linear(windows, convolution.weight.flatten(1), convolution.bias))
        return self.out(x.transpose(2, 3).flatten(2)) * self.scale


class PositionBiasedAttention(nn.Module):
    """Self-attention whose scores are ``((q + u) . k + (q + v) . p) / sqrt(head size)``."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.linear_q = nn.Linear(width, width)
        self.linear_k = nn.Linear(width, width)
        self.linear_v = nn.Linear(width, width)
        self.linear_out = nn.Linear(width, width)
        self.linear_pos = nn.Linear(width, width, bias=False)
        self.pos_bias_u = nn.Parameter(torch.zeros(heads, width // heads))
        self.pos_bias_v = nn.Parameter(torch.zeros(heads, width // heads))

    def forward(self, x: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """``x [B, T, width]``, ``mask [B, T]`` (true: a real frame), ``positions [1, T, width]``."""
        q, k, v, p = (
            y.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for y in (self.linear_q(x), self.linear_k(x), self.linear_v(x), self.linear_pos(positions))
        )
        # Without a shift the four products regroup as q . (k + p) plus a bias that only depends on the key.
        bias = k @ self.pos_bias_u.to(k.dtype)[..., None] + p @ self.pos_bias_v.to(p.dtype)[..., None]
        bias = (bias.transpose(2, 3) / math.sqrt(q.shape[-1])).masked_fill(~mask[:, None, None], float("-inf"))
        y = F.scaled_dot_product_attention(q, k + p, v, attn_mask=bias.expand(-1, -1, x.shape[1], -1))
        return self.linear_out(y.transpose(1, 2).flatten(2))


class ConvolutionModule(nn.Module):
    """Gated pointwise convolution, depthwise convolution, LayerNorm, SiLU, pointwise convolution."""

    def __init__(self, width: int, kernel_size: int) -> None:
        super().__init__()
        self.pointwise_conv1 = nn.Conv1d(width, 2 * width, 1)
        self.depthwise_conv = nn.Conv1d(width, width, kernel_size, padding=kernel_size // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.pointwise_conv2 = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``x [B, T, width]``, ``mask [B, T]``; masked frames are zero before and after."""
        padding = ~mask[..., None]
        x = F.glu(_pointwise(self.pointwise_conv1, x.masked_fill(padding, 0.0)), dim=2)
        x = self.norm(self.depthwise_conv(x.transpose(1, 2)).transpose(1, 2))
        return _pointwise(self.pointwise_conv2, F.silu(x)).masked_fill(padding, 0.0)


def _pointwise(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """A convolution of kernel 1 on ``[B, T, width]`` as the matrix product it is.

    Convolution libraries plan anew for every shape, and recordings come in all lengths.
    """
    return F.linear(x, conv.weight[..., 0], conv.bias)


class FeedForward(nn.Module):
    """Two linear layers with a SiLU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w_1 = nn.Linear(width, hidden)
        self.w_2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.w_2(F.silu(self.w_1(x)))


class ConformerBlock(nn.Module):
    """Attention, convolution and feed-forward, each with a norm before and a residual around it."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        width = config.output_size
        self.self_attn = PositionBiasedAttention(width, config.attention_heads)
        self.conv_module = ConvolutionModule(width, config.cnn_module_kernel)
        self.feed_forward = FeedForward(width, config.linear_units)
        self.norm_mha = nn.LayerNorm(width)
        self.norm_conv = nn.LayerNorm(width)
        self.norm_ff = nn.LayerNorm(width)
        self.norm_final = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        x = x + self.self_attn(self.norm_mha(x), mask, positions)
        x = x + self.conv_module(self.norm_conv(x), mask)
        x = x + self.feed_forward(self.norm_ff(x))
        return self.norm_final(x)


class ConformerEncoder(nn.Module):
    """Subsampling, a stack of conformer blocks, a last norm."""

    def __init__(self, input_dim: int, config: ConformerConfig) -> None:
        super().__init__()
        self.embed = ConvSubsampling(input_dim, config.output_size)
        self.encoders = nn.ModuleList(ConformerBlock(config) for _ in range(config.num_blocks))
        self.after_norm = nn.LayerNorm(config.output_size)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode a padded batch.

        A row never sees the contents of its padding, but the convolutions do see where it ends: a padded
        row comes out a little different at its end than it would alone. For the exact values give each
        recording by itself.

        Args:
            x: ``[B, T, input_dim]``, T at least 3.
            lengths: ``[B]`` valid frames, each at least 3; a larger value than T means "all of them".

        Returns:
            ``y [B, T2, output_size]`` with T2 = (T - 1) // 2, rows beyond the length not zeroed, and the mask
            ``[B, T2]`` of those within.
        """
        mask = length_mask(lengths, x.shape[1])[:, 2::2]
        x = self.embed(x)
        positions = sinusoidal_positions(x.shape[1], x.shape[2], x.device).to(x.dtype)
        for block in self.encoders:
            x = block(x, mask, positions)
        return self.after_norm(x), mask
