"""The truncated w2v-BERT against the reference tensors."""

from __future__ import annotations

import re

import torch

from indextts.config import W2VBertConfig
from indextts.models.semantic_encoder import SemanticEncoder


def test_hidden_state_and_normalisation(golden) -> None:
    case = golden.component("w2v_bert")
    layer = max(int(m[1]) for name in case.names("out") if (m := re.fullmatch(r"hidden(\d+)", name)))
    sizes = {key: value for key, value in case.config.items() if not key.startswith("_")}
    encoder = SemanticEncoder(W2VBertConfig(**sizes, output_layer=layer)).eval()

    statistics = {"mean": case.input("stat_mean"), "var": case.input("stat_var")}
    dropped = {
        k for k in case.weights if (m := re.match(r"encoder\.layers\.(\d+)\.", k)) and int(m[1]) >= layer
    }
    kept = {k: v for k, v in case.weights.items() if k not in dropped}
    encoder.load_state_dict(kept | statistics, strict=True)

    features, mask = case.input("input_features"), case.input("attention_mask")
    with torch.no_grad():
        hidden = encoder(features, mask)
        projected, _ = encoder.feature_projection(features)
        case.check(f"hidden{layer}", hidden)
        case.check("normalized", encoder.normalize(hidden))
    case.check("hidden0", projected * mask[..., None])
