"""The semantic codec: one vector quantiser over normalised semantic embeddings (spec 6)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from indextts.config import SemanticCodecConfig
from indextts.models.weight_norm import weight_norm

NORM_EPS = 1e-6
UNUSED_KEYS = ("decoder.*",)  # of the released file: only its training uses them


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution over time, then a two-layer perceptron at every position; residual."""

    def __init__(self, dim: int, intermediate_dim: int, layer_scale: float) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(dim, dim, kernel_size=7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.pwconv1 = nn.Linear(dim, intermediate_dim)
        self.pwconv2 = nn.Linear(intermediate_dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), layer_scale))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, T]`` to ``[B, C, T]``."""
        hidden = self.norm(self.dwconv(x).transpose(1, 2))
        hidden = self.gamma * self.pwconv2(F.gelu(self.pwconv1(hidden)))
        return x + hidden.transpose(1, 2)


class ConvNeXtBackbone(nn.Module):
    """The Vocos backbone: an embedding convolution and a stack of ConvNeXt blocks."""

    def __init__(self, input_dim: int, dim: int, intermediate_dim: int, num_layers: int) -> None:
        super().__init__()
        self.embed = nn.Conv1d(input_dim, dim, kernel_size=7, padding=3)
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.convnext = nn.ModuleList(
            ConvNeXtBlock(dim, intermediate_dim, layer_scale=1 / num_layers) for _ in range(num_layers)
        )
        self.final_layer_norm = nn.LayerNorm(dim, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, D, T]`` to ``[B, T, C]``."""
        hidden = self.embed(x.to(self.embed.weight.dtype))
        hidden = self.norm(hidden.transpose(1, 2)).transpose(1, 2)
        for block in self.convnext:
            hidden = block(hidden)
        return self.final_layer_norm(hidden.transpose(1, 2))


class VectorQuantizer(nn.Module):
    """Nearest codebook row by cosine, in a space of few dimensions (factorised codes)."""

    def __init__(self, hidden_size: int, codebook_size: int, codebook_dim: int) -> None:
        super().__init__()
        self.in_project = weight_norm(nn.Conv1d(hidden_size, codebook_dim, kernel_size=1))
        self.out_project = weight_norm(nn.Conv1d(codebook_dim, hidden_size, kernel_size=1))
        self.codebook = nn.Embedding(codebook_size, codebook_dim)

    def encode(self, z_e: Tensor) -> Tensor:
        """Codes ``[B, T]`` of projected embeddings ``[B, d, T]``; of equally near rows the first."""
        with torch.autocast(z_e.device.type, enabled=False):
            points = F.normalize(z_e.detach().float(), dim=1).transpose(1, 2)
            rows = F.normalize(self.codebook.weight.detach().float(), dim=1)
            return (points @ rows.T).argmax(-1)

    def lookup(self, codes: Tensor) -> Tensor:
        """Codebook rows, as stored, of ``[B, T]``: ``[B, d, T]``."""
        return self.codebook(codes).transpose(1, 2)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes ``[B, T]`` to embeddings ``[B, D, T]``."""
        return self.out_project(self.lookup(codes))


class ResidualQuantizer(nn.Module):
    """A list of quantisers, of which the released codec has one; it exists for the parameter names."""

    def __init__(self, quantizer: VectorQuantizer) -> None:
        super().__init__()
        self.quantizers = nn.ModuleList([quantizer])

    @property
    def first(self) -> VectorQuantizer:
        quantizer = self.quantizers[0]
        assert isinstance(quantizer, VectorQuantizer)
        return quantizer


class SemanticCodec(nn.Module):
    """Semantic embeddings to codes and back.

    The state dict is that of MaskGCT's ``semantic_codec/model.safetensors`` without ``decoder.*``, which only
    its training uses.
    """

    def __init__(self, config: SemanticCodecConfig) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            ConvNeXtBackbone(
                config.hidden_size, config.vocos_dim, config.vocos_intermediate_dim, config.vocos_num_layers
            ),
            nn.Linear(config.vocos_dim, config.hidden_size),
        )
        self.quantizer = ResidualQuantizer(
            VectorQuantizer(config.hidden_size, config.codebook_size, config.codebook_dim)
        )

    def project(self, x: Tensor) -> Tensor:
        """Embeddings ``[B, T, D]`` to the space of the codebook, ``[B, d, T]``, before quantisation."""
        codebook = self.quantizer.first
        return codebook.in_project(self.encoder(x.transpose(1, 2)).transpose(1, 2).to(codebook.codebook.weight.dtype))

    def quantize(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Quantise normalised semantic embeddings.

        Args:
            x: ``[B, T, D]``.

        Returns:
            ``codes [B, T]`` int64 and the quantised embeddings ``[B, T, D]``, through which gradients reach
            the encoder as if nothing had been rounded (straight-through).
        """
        quantizer = self.quantizer.first
        z_e = self.project(x)
        codes = quantizer.encode(z_e)
        z_q = z_e + (quantizer.lookup(codes) - z_e).detach()
        return codes, quantizer.out_project(z_q).transpose(1, 2)

    def vq2emb(self, codes: Tensor) -> Tensor:
        """Codes ``[B, T]``, each below the codebook size, to embeddings ``[B, D, T]``."""
        return self.quantizer.first.decode(codes)
