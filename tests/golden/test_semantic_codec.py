"""The semantic codec against the reference tensors."""

from __future__ import annotations

import torch

from indextts.config import SemanticCodecConfig
from indextts.models.semantic_codec import SemanticCodec


def test_quantize_and_back(golden) -> None:
    case = golden.component("semantic_codec")
    codec = SemanticCodec(SemanticCodecConfig(**case.config)).eval()
    codec.load_state_dict(
        {k: v for k, v in case.weights.items() if not k.startswith("decoder.")}, strict=True
    )
    with torch.no_grad():
        x = case.input("x")
        codes, quantized = codec.quantize(x)
        case.check("encoder_out", codec.encoder(x.transpose(1, 2)).transpose(1, 2))
        case.check("z_e", codec.project(x))
        case.check("codes", codes)
        case.check("quantized", quantized)
        case.check("vq2emb", codec.vq2emb(case.input("codes")))
