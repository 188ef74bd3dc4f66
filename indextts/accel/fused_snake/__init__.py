"""``--cuda-kernel``: the vocoder's anti-aliased activation as one CUDA kernel instead of some forty passes over memory.

The kernel (``fused_snake.cu``) is compiled when a model is loaded, by NVRTC, which comes with PyTorch: no compiler
need be installed, and it takes about a second. It has no backward pass.
"""

from __future__ import annotations

import ctypes
import logging
import time
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

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
            _kernel(dtype, device.index or 0)
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
        kernel = _kernel(x.dtype, x.device.index)
        kernel(batch * channels * blocks_per_row, x, alpha, beta, y, channels, frames, blocks_per_row)
    return y


def definitions(dtype: torch.dtype) -> dict[str, str]:
    """What the source wants to be told from outside."""
    taps = ",".join(f"{tap:.9e}f" for tap in TAPS)
    return {"OUTPUTS": str(OUTPUTS_PER_THREAD), "TAPS": taps, "STORED": str(STORED[dtype])}


class _Kernel:
    """A compiled kernel on one device."""

    def __init__(self, cubin: bytes) -> None:
        from cuda.bindings import driver  # pyright: ignore[reportAttributeAccessIssue]

        self._driver = driver
        self._module = _checked(driver.cuModuleLoadData(cubin))
        self._function = _checked(driver.cuModuleGetFunction(self._module, b"fused_snake"))

    def __call__(self, blocks: int, *arguments: Tensor | int) -> None:
        """Launch on the current stream, each argument as a pointer or a C int."""
        values = tuple(a.data_ptr() if isinstance(a, Tensor) else a for a in arguments)
        types = tuple(ctypes.c_void_p if isinstance(a, Tensor) else ctypes.c_int for a in arguments)
        stream = torch.cuda.current_stream().cuda_stream
        _checked(
            self._driver.cuLaunchKernel(self._function, blocks, 1, 1, THREADS, 1, 1, 0, stream, (values, types), 0)
        )


@cache
def _kernel(dtype: torch.dtype, device_index: int) -> _Kernel:
    """The kernel for one precision on one device, compiled once in a process."""
    with torch.cuda.device(device_index):
        torch.cuda.current_stream().synchronize()  # there must be a context to load into
        return _Kernel(compiled(dtype, torch.cuda.get_device_capability(device_index)))


def compiled(dtype: torch.dtype, capability: tuple[int, int]) -> bytes:
    """The kernel for one precision as machine code for GPUs of one compute capability. Needs no GPU.

    Raises:
        RuntimeError: with what the compiler says.
    """
    from cuda.bindings import nvrtc  # pyright: ignore[reportAttributeAccessIssue]

    options = ["--gpu-architecture=sm_{}{}".format(*capability), *(f"-D{k}={v}" for k, v in definitions(dtype).items())]
    program = _checked(nvrtc.nvrtcCreateProgram(SOURCE.read_bytes(), SOURCE.name.encode(), 0, [], []))
    try:
        _checked(nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options]))
    except RuntimeError as error:
        said = bytearray(_checked(nvrtc.nvrtcGetProgramLogSize(program)))
        _checked(nvrtc.nvrtcGetProgramLog(program, said))
        raise RuntimeError(f"{error}: {said.decode(errors='replace').strip(chr(0)).strip()}") from error
    cubin = bytearray(_checked(nvrtc.nvrtcGetCUBINSize(program)))
    _checked(nvrtc.nvrtcGetCUBIN(program, cubin))
    return bytes(cubin)


def _checked(result: tuple) -> Any:
    """What a call returned beside its status, None if nothing; a status that is not success is an error."""
    status, *values = result
    if status != 0:
        raise RuntimeError(getattr(status, "name", str(status)))
    return values[0] if values else None
