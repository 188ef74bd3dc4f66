"""CAM++ against the golden style vectors."""

from __future__ import annotations

import torch

from indextts.config import StyleEncoderConfig
from indextts.models.campplus import CAMPPlus


def test_style_vectors(golden) -> None:
    case = golden.component("campplus")
    config = {k: v for k, v in case.config.items() if not k.startswith("_")}
    config["dim"] = config.pop("embedding_size")
    model = CAMPPlus(StyleEncoderConfig(**config)).eval()
    # The set leaves out num_batches_tracked, which plays no part in evaluation; everything else is strict.
    counters = {k: v for k, v in model.state_dict().items() if k.endswith("num_batches_tracked")}
    model.load_state_dict({**counters, **case.weights}, strict=True)
    inputs = sorted(case.names("in"))
    assert inputs
    for name in inputs:
        with torch.no_grad():
            style = model(case.input(name))
        case.check(name.replace("feat", "emb"), style)
