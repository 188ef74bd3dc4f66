"""A tiny language model with random weights, and texts of different lengths for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from indextts.config import ConformerConfig, GPTConfig
from indextts.models.gpt import UnifiedVoice

ENCODER = ConformerConfig(output_size=16, linear_units=16, attention_heads=2, num_blocks=1, perceiver_dim_head=8)
CONFIG = GPTConfig(
    model_dim=32,
    layers=2,
    heads=2,
    max_mel_tokens=40,
    max_text_tokens=20,
    number_text_tokens=30,
    number_mel_codes=22,
    start_mel_token=20,
    stop_mel_token=21,
    condition_num_latent=3,
    cond_input_dim=12,
    emo_perceiver_dim=8,
    condition_module=ENCODER,
    emo_condition_module=ENCODER,
)


@pytest.fixture(scope="module")
def model() -> UnifiedVoice:
    torch.manual_seed(0)
    model = UnifiedVoice(CONFIG).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():  # far from uniform, so that the hypotheses differ
        if name.startswith("gpt.h") and name.endswith("weight") and parameter.dim() == 2:
            parameter.mul_(15)
    model.mel_head.weight.mul_(2)
    model.mel_head.bias[CONFIG.stop_mel_token] = 0.5
    return model


@pytest.fixture
def late_stops(model: UnifiedVoice) -> Iterator[None]:
    """The segments end later than they would, and at more different lengths."""
    before = model.mel_head.bias.clone()
    model.mel_head.bias[model.config.stop_mel_token] = -1.0
    yield
    model.mel_head.bias.copy_(before)


@pytest.fixture(scope="module")
def conds(model: UnifiedVoice) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    speech = torch.randn(1, 30, CONFIG.cond_input_dim, generator=generator)
    lengths = torch.tensor([30])
    return model.condition(speech, lengths), model.emotion_vector(speech, lengths)


def texts() -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([9, 4, 14, 1, 7, 12])
    ids = torch.randint(2, 30, (len(lengths), 14), generator=torch.Generator().manual_seed(2))
    return ids, lengths
