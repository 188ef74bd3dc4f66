"""``--cuda-kernel``: the vocoder's anti-aliased activation as one CUDA kernel instead of some forty passes over memory.

The kernel (``fused_snake.cu``) is compiled when a model is loaded. It has no backward pass.
"""

from __future__ import annotations

import logging
import time
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from indextts.accel.nvrtc import Kernels
from indextts.errors import UnsupportedOption
from indextts.models.bigvgan import BigVGAN
from indextts.models.snake import TAPS, AntiAliasedSnake

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("fused_snake.cu")
OUTPUTS_PER_THREAD = 8
THREADS = 128
STORED = {torch.float32: 32, torch.float16: 16, torch.bfloat16: 17}


def apply_fused_snake(vocoder: BigVGAN) -> None:
    """Replace every anti-aliased activation of ``vocoder``, which is on a CUDA device, by the kernel.

    Raises:
        UnsupportedOption: the kernel cannot be compiled or loaded here.
    """
    device = next(vocoder.parameters()).device
    started = time.perf_counter()
    try:
        for dtype in STORED:
            _kernels(dtype, device.index or 0)
    except (ImportError, RuntimeError) as error:
        raise UnsupportedOption(f"--cuda-kernel: the kernel cannot be compiled here: {error}") from error
    logger.info("compiled the fused activation in %.1f s", time.perf_counter() - started)
    for module in list(vocoder.modules()):
        for name, child in module.named_children():
            if isinstance(child, AntiAliasedSnake):
                setattr(module, name, FusedSnake(child))


class FusedSnake(nn.Module):
    """``AntiAliasedSnake`` on the GPU in one pass, with the same parameters. Arithmetic is in float32."""

    def __init__(self, snake: AntiAliasedSnake) -> None:
        super().__init__()
        self.act = snake.act

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: ``[B, C, T]`` in float32, float16 or bfloat16. Returns: the same."""
        return fused_snake(x, self.act.alpha.float(), self.act.beta.float())


def fused_snake(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """SnakeBeta between a 2x up- and a 2x down-sampler.

    Args:
        x: ``[B, C, T]`` on a CUDA device.
        alpha, beta: ``[C]`` float32, log frequency and log magnitude.

    Returns:
        ``[B, C, T]`` in the precision of x.
    """
    x, alpha, beta = x.contiguous(), alpha.contiguous(), beta.contiguous()
    y = torch.empty_like(x)
    batch, channels, frames = x.shape
    blocks_per_row = -(-frames // (THREADS * OUTPUTS_PER_THREAD))
    if x.numel():
        kernels, blocks = _kernels(x.dtype, x.device.index), batch * channels * blocks_per_row
        kernels.launch("fused_snake", blocks, THREADS, x, alpha, beta, y, channels, frames, blocks_per_row)
    return y


def definitions(dtype: torch.dtype) -> dict[str, str]:
    """What the source wants to be told from outside."""
    taps = ",".join(f"{tap:.9e}f" for tap in TAPS)
    return {"OUTPUTS": str(OUTPUTS_PER_THREAD), "TAPS": taps, "STORED": str(STORED[dtype])}


@cache
def _kernels(dtype: torch.dtype, device_index: int) -> Kernels:
    return Kernels(SOURCE, definitions(dtype), device_index)
