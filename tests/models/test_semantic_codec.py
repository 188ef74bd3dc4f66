"""The semantic codec: lookup rules and straight-through gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from indextts.config import SemanticCodecConfig
from indextts.models.semantic_codec import SemanticCodec

CONFIG = SemanticCodecConfig(
    codebook_size=32,
    hidden_size=20,
    codebook_dim=4,
    vocos_dim=12,
    vocos_intermediate_dim=16,
    vocos_num_layers=2,
)


def codec() -> SemanticCodec:
    torch.manual_seed(0)
    return SemanticCodec(CONFIG)


def test_codes_are_nearest_by_cosine_and_embeddings_use_the_stored_row() -> None:
    model, x = codec(), torch.randn(2, 7, 20)
    codes, quantized = model.quantize(x)
    z_e = F.normalize(model.project(x), dim=1).transpose(1, 2)
    rows = F.normalize(model.quantizer.first.codebook.weight, dim=1)
    distance = (z_e[:, :, None] - rows).square().sum(-1)
    assert torch.equal(codes, distance.argmin(-1))
    torch.testing.assert_close(quantized, model.vq2emb(codes).transpose(1, 2))


def test_of_equal_rows_the_first_wins() -> None:
    model = codec()
    with torch.no_grad():
        model.quantizer.first.codebook.weight.copy_(torch.ones(32, 4))
    assert model.quantize(torch.randn(1, 5, 20))[0].tolist() == [[0] * 5]


def test_gradients_pass_the_quantiser() -> None:
    model, x = codec(), torch.randn(1, 6, 20, requires_grad=True)
    model.quantize(x)[1].square().sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    assert model.quantizer.first.codebook.weight.grad is None


def test_code_out_of_range_fails() -> None:
    with pytest.raises(IndexError):
        codec().vq2emb(torch.tensor([[32]]))
