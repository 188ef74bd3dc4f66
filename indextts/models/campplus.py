"""CAM++, the style encoder: log-mel filterbanks in, one vector that says who is speaking out (spec 10).

A small 2-D convolutional head looks at the spectrogram as an image, then a densely connected time-delay
network (D-TDNN) with context-aware masking (CAM) walks along time: every layer scales its own output with a
mask computed from what the whole utterance, and the two seconds around it, sound like. Mean and standard
deviation over time make the utterance one vector.

Paper: Wang et al., "CAM++: A Fast and Efficient Network for Speaker Verification Using Context-Aware
Masking" (2023).
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indextts.config import StyleEncoderConfig

HEAD_CHANNELS = 32
HEAD_FREQUENCY_STRIDE = 8  # three convolutions that halve the frequency axis
DENSE_BLOCKS = ((12, 1), (24, 2), (16, 2))  # (layers, dilation) of the three dense blocks
SEGMENT_FRAMES = 100  # window of the local context, about two seconds after the first layer's stride


class CAMPPlus(nn.Module):
    """The style encoder.

    ``init_channels`` enter the first dense block; every dense layer adds ``growth_rate`` channels, through a
    bottleneck of ``bn_size * growth_rate``.
    """

    def __init__(self, config: StyleEncoderConfig) -> None:
        super().__init__()
        self.dim = config.dim
        self.head = ConvHead()
        head_size = HEAD_CHANNELS * -(-config.feat_dim // HEAD_FREQUENCY_STRIDE)
        channels = config.init_channels
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["tdnn"] = TDNNLayer(head_size, channels)
        for i, (num_layers, dilation) in enumerate(DENSE_BLOCKS, start=1):
            block = DenseBlock(num_layers, channels, config.growth_rate, config.bn_size, dilation)
            layers[f"block{i}"] = block
            channels += num_layers * config.growth_rate
            layers[f"transit{i}"] = TransitLayer(channels, channels // 2)
            channels //= 2
        layers["out_nonlinear"] = batchnorm_relu(channels)
        layers["stats"] = StatisticsPooling()
        layers["dense"] = DenseLayer(2 * channels, config.dim)
        self.xvector = nn.Sequential(layers)

    def forward(self, feat: Tensor) -> Tensor:
        """Encode utterances of equal length.

        Args:
            feat: Kaldi log filterbanks, every bin's mean over time removed, ``[B, F, feat_dim]``.

        Returns:
            Style vectors ``[B, dim]``, not normalised.
        """
        return self.xvector(self.head(feat.transpose(1, 2)))


class ConvHead(nn.Module):
    """Residual 2-D convolutions that keep time and divide frequency by eight."""

    def __init__(self) -> None:
        super().__init__()
        c = HEAD_CHANNELS
        self.conv1 = nn.Conv2d(1, c, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(c)
        self.layer1 = nn.Sequential(ResidualBlock(c, halve_frequency=True), ResidualBlock(c))
        self.layer2 = nn.Sequential(ResidualBlock(c, halve_frequency=True), ResidualBlock(c))
        self.conv2 = nn.Conv2d(c, c, 3, stride=(2, 1), padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(c)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, feat_dim, F]`` to ``[B, 32 * ceil(feat_dim / 8), F]``."""
        x = F.relu(self.bn1(self.conv1(x.unsqueeze(1))))
        x = self.layer2(self.layer1(x))
        x = F.relu(self.bn2(self.conv2(x)))
        return x.flatten(1, 2)


class ResidualBlock(nn.Module):
    def __init__(self, channels: int, halve_frequency: bool = False) -> None:
        super().__init__()
        stride = (2, 1) if halve_frequency else (1, 1)
        self.conv1 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if halve_frequency:
            self.shortcut.append(nn.Conv2d(channels, channels, 1, stride=stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.shortcut(x))


def batchnorm_relu(channels: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(batchnorm=nn.BatchNorm1d(channels), relu=nn.ReLU()))


class TDNNLayer(nn.Module):
    """The first time convolution; it halves the frame rate."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Conv1d(in_channels, out_channels, 5, stride=2, padding=2, bias=False)
        self.nonlinear = batchnorm_relu(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.nonlinear(self.linear(x))


class CAMLayer(nn.Module):
    """Context-aware masking: a local convolution, scaled by a mask drawn from its wider context."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int) -> None:
        super().__init__()
        hidden = in_channels // 2
        self.linear_local = nn.Conv1d(
            in_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=False
        )
        self.linear1 = nn.Conv1d(in_channels, hidden, 1)
        self.linear2 = nn.Conv1d(hidden, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        # The mask is constant within a segment: compute it once a segment, then spread it over the frames.
        segments = F.avg_pool1d(x, SEGMENT_FRAMES, SEGMENT_FRAMES, ceil_mode=True)
        context = x.mean(-1, keepdim=True) + segments
        mask = torch.sigmoid(self.linear2(F.relu(self.linear1(context))))
        mask = mask.repeat_interleave(SEGMENT_FRAMES, dim=-1)[..., : x.shape[-1]]
        return self.linear_local(x) * mask


class DenseTDNNLayer(nn.Module):
    def __init__(self, in_channels: int, growth_rate: int, bn_size: int, dilation: int) -> None:
        super().__init__()
        bottleneck = bn_size * growth_rate
        self.nonlinear1 = batchnorm_relu(in_channels)
        self.linear1 = nn.Conv1d(in_channels, bottleneck, 1, bias=False)
        self.nonlinear2 = batchnorm_relu(bottleneck)
        self.cam_layer = CAMLayer(bottleneck, growth_rate, dilation)

    def forward(self, x: Tensor) -> Tensor:
        return self.cam_layer(self.nonlinear2(self.linear1(self.nonlinear1(x))))


class DenseBlock(nn.ModuleDict):
    """Layers whose outputs are each concatenated after everything before them."""

    def __init__(self, num_layers: int, channels: int, growth_rate: int, bn_size: int, dilation: int) -> None:
        super().__init__()
        for j in range(num_layers):
            in_channels = channels + j * growth_rate
            self[f"tdnnd{j + 1}"] = DenseTDNNLayer(in_channels, growth_rate, bn_size, dilation)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.values():
            x = torch.cat([x, layer(x)], dim=1)
        return x


class TransitLayer(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.nonlinear = batchnorm_relu(in_channels)
        self.linear = nn.Conv1d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.nonlinear(x))


class StatisticsPooling(nn.Module):
    """Mean and unbiased standard deviation over time, ``[B, C, T]`` to ``[B, 2C]``."""

    def forward(self, x: Tensor) -> Tensor:
        std, mean = torch.std_mean(x.float(), dim=-1, correction=1)  # the sum of squares needs float32
        return torch.cat([mean, std], dim=-1).to(x.dtype)


class DenseLayer(nn.Module):
    """The embedding layer: a linear map (stored as a 1x1 convolution) and a batch norm without parameters."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Conv1d(in_channels, out_channels, 1, bias=False)
        self.nonlinear = nn.Sequential(OrderedDict(batchnorm=nn.BatchNorm1d(out_channels, affine=False)))

    def forward(self, x: Tensor) -> Tensor:
        return self.nonlinear(self.linear(x.unsqueeze(-1)).squeeze(-1))
