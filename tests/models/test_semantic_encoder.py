"""The semantic encoder in batches and in training."""

from __future__ import annotations

import torch

from indextts.audio import semantic_features
from indextts.config import W2VBertConfig
from indextts.models.semantic_encoder import SemanticEncoder

CONFIG = W2VBertConfig(
    hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=24,
    conv_depthwise_kernel_size=5, output_layer=2,
)  # fmt: skip


def encoder() -> SemanticEncoder:
    torch.manual_seed(0)
    return SemanticEncoder(CONFIG).eval()


def test_only_the_needed_layers_are_built() -> None:
    assert len(encoder().encoder.layers) == CONFIG.output_layer


def test_padding_does_not_change_a_row() -> None:
    lengths = torch.tensor([9760, 16000])
    waves = torch.randn(2, 16000, generator=torch.Generator().manual_seed(1)) * 0.1
    model = encoder()
    with torch.no_grad():
        batched = model(*semantic_features(waves, lengths))
        alone = model(*semantic_features(waves[:1, :9760]))
    torch.testing.assert_close(batched[:1, : alone.shape[1]], alone, atol=1e-5, rtol=1e-4)


def test_every_parameter_but_the_unused_mask_vector_learns() -> None:
    model = encoder().train()
    model(torch.randn(2, 9, 160)).square().sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
    assert set(without) <= {"masked_spec_embed"}


def test_normalize_has_no_epsilon() -> None:
    model = encoder()
    model.load_state_dict(
        model.state_dict() | {"mean": torch.full((16,), 2.0), "var": torch.full((16,), 1e-8)}
    )
    assert torch.allclose(model.normalize(torch.full((1, 1, 16), 2.0001)), torch.tensor(1.0), atol=1e-2)
