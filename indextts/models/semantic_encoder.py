"""The semantic encoder: the first layers of w2v-BERT 2.0 and the normalisation of their output (spec 5.3)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from transformers import Wav2Vec2BertConfig, Wav2Vec2BertModel

from indextts.config import W2VBertConfig


class SemanticEncoder(nn.Module):
    """Filterbank features to 50 Hz embeddings of what is said and how, and little of who says it.

    Only the ``output_layer`` layers that matter are built (17 of 24 in the released model). The state dict is
    that of transformers' ``Wav2Vec2BertModel``, less the dropped layers, plus vectors ``mean`` and ``var``
    of ``wav2vec2bert_stats``. The layers may be in half precision; features and normalised embeddings are float32.
    """

    mean: Tensor  # [D]
    var: Tensor  # [D]

    def __init__(self, config: W2VBertConfig) -> None:
        super().__init__()
        model = Wav2Vec2BertModel(transformers_config(config))
        self.feature_projection = model.feature_projection
        self.masked_spec_embed = model.masked_spec_embed  # unused; the checkpoint has it
        self.encoder = model.encoder
        self.register_buffer("mean", torch.zeros(config.hidden_size))
        self.register_buffer("var", torch.ones(config.hidden_size))

    def forward(self, input_features: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Compute the hidden state of layer ``output_layer``.

        Args:
            input_features: ``[B, T, 160]`` from :func:`indextts.audio.semantic_features`.
            attention_mask: ``[B, T]``, 0 for padding.

        Returns:
            ``[B, T, D]``, not normalised; all positions, also the masked ones.
        """
        dtype = self.feature_projection.projection.weight.dtype
        projected, _ = self.feature_projection(input_features.to(dtype))
        return self.encoder(projected, attention_mask=attention_mask).last_hidden_state

    def normalize(self, hidden: Tensor) -> Tensor:
        """Shift and scale ``[B, T, D]`` by the statistics that go with the weights (no epsilon)."""
        return (hidden.to(self.mean.dtype) - self.mean) / torch.sqrt(self.var)


def transformers_config(config: W2VBertConfig) -> Wav2Vec2BertConfig:
    """The configuration of the truncated model, without any of the random effects of its training."""
    return cast(
        Wav2Vec2BertConfig,
        Wav2Vec2BertConfig(
            hidden_size=config.hidden_size,
            num_hidden_layers=config.output_layer,
            num_attention_heads=config.num_attention_heads,
            intermediate_size=config.intermediate_size,
            feature_projection_input_dim=config.feature_projection_input_dim,
            conv_depthwise_kernel_size=config.conv_depthwise_kernel_size,
            left_max_position_embeddings=config.left_max_position_embeddings,
            right_max_position_embeddings=config.right_max_position_embeddings,
            position_embeddings_type="relative_key",
            layerdrop=0.0,
            conformer_conv_dropout=0.0,
            feat_proj_dropout=0.0,
            apply_spec_augment=False,
        ),
    )
