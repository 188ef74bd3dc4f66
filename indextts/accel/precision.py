"""``--fp16`` and ``--bf16``: every network in half precision, but for what has to stay float32.

Weights are converted network by network, before they go to the device (`indextts.loading`): there is no moment at which
the whole model is there in float32. The networks know nothing of it. Each takes its input in the precision of its
weights, so what is kept in float32 here is computed in float32 there (`KEPT`):

| network | in half precision | stays float32 |
|---|---|---|
| semantic encoder | all layers | features, statistics, the embedding |
| semantic codec | the encoder | projection to the codebook, the codebook, distances |
| language model | all | scores that codes are drawn from |
| flow | attention, feed-forward, WaveNet | state and update of the solver, guidance, norms, time, what meets the mel |
| vocoder | convolutions between the first and the last | mel, both of these, the phase of the activations, waveform |
| style encoder, length regulator, projection of the latents | | all: small, and run once for a voice or a batch |

Norms and the softmax of attention keep their statistics in float32 inside of the libraries' kernels.
"""

from __future__ import annotations

import fnmatch
from itertools import chain

import torch
from torch import nn

from indextts.config import EngineConfig

KEPT: dict[str, tuple[str, ...]] = {
    "semantic_encoder": ("mean", "var"),
    "semantic_codec": ("quantizer.*",),
    "style_encoder": ("*",),
    "gpt": (),
    "s2mel": (
        "gpt_layer.*",
        "length_regulator.*",
        "cfm.estimator.t_embedder*",
        "cfm.estimator.*_norm.*",
        "cfm.estimator.transformer.norm.*",
        "cfm.estimator.cond_projection.*",
        "cfm.estimator.cond_x_merge_linear.*",
        "cfm.estimator.wavenet.cond_layer.*",
        "cfm.estimator.final_layer.*",
        "cfm.estimator.conv2.*",
    ),
    "vocoder": ("conv_pre.*", "*.act.*", "conv_post.*"),
}
"""Parameters and buffers that stay float32, by network."""

HALVED = "{} semantic encoder, codec, language model, flow and vocoder; float32 style encoder, solver and waveform"


def asked_precision(config: EngineConfig) -> torch.dtype | None:
    """The half precision that is asked for."""
    return torch.float16 if config.fp16 else torch.bfloat16 if config.bf16 else None


def apply_precision(name: str, network: nn.Module, dtype: torch.dtype) -> None:
    """Convert a network in place, where it is. What is converted already stays as it is.

    Args:
        name: The name that it has in `indextts.loading.Models`.
        dtype: float16 or bfloat16.
    """
    for key, tensor in chain(network.named_parameters(), network.named_buffers()):
        if tensor.is_floating_point() and not any(fnmatch.fnmatchcase(key, pattern) for pattern in KEPT[name]):
            tensor.data = tensor.data.to(dtype)
