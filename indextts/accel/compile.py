"""``--compile``: the layers of the flow's estimator through ``torch.compile``.

Most of their kernels only pass over memory, and the compiler makes few of many: norms with what modulates them, the
rotary embedding, gates and activations. That is for long speech and large batches, where launching is not what takes
the time; within CUDA graphs it helps as well. Decoding stays as it is: there, reading the weights takes the time.

Layers are compiled one by one, for all sizes at once, so that equal layers share what is compiled.
"""

from __future__ import annotations

import torch
from torch import Tensor

from indextts.errors import UnsupportedOption
from indextts.models.dit import DiT

MAX_VARIANTS = 64
"""Of one function: with and without a mask, for each precision, from the first frame or a later one, ..."""


def apply_compile(estimator: DiT) -> None:
    """Compile the layers of ``estimator``, each when it is first called.

    Raises:
        UnsupportedOption: the compiler does not work here.
    """
    _try_out(estimator.conv2.weight.device)
    torch._dynamo.config.recompile_limit = max(MAX_VARIANTS, torch._dynamo.config.recompile_limit)
    for layer in (*estimator.transformer.layers, estimator.transformer.norm, estimator.wavenet, estimator.final_layer):
        layer.compile(dynamic=True)


def _try_out(device: torch.device) -> None:
    @torch.compile
    def double(x: Tensor) -> Tensor:
        return 2 * x

    try:
        double(torch.ones(8, device=device))
    except (ImportError, OSError, RuntimeError) as error:  # there are many compilers, and as many ways to lack one
        reason = " ".join(str(error).split())[:300]
        raise UnsupportedOption(f"--compile: torch.compile does not work here: {reason}") from error
