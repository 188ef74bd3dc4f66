"""The fused activation equals the plain one: its source compiled for the CPU, and the kernel itself on a GPU."""

from __future__ import annotations

import ctypes
import shutil
import subprocess

import pytest
import torch

from indextts.accel import fused_snake
from indextts.accel.nvrtc import compiled
from indextts.config import VocoderConfig
from indextts.errors import UnsupportedOption
from indextts.models.bigvgan import BigVGAN
from indextts.models.snake import AntiAliasedSnake

VOCODER = VocoderConfig(
    num_mels=8,
    upsample_rates=(4, 4),
    upsample_kernel_sizes=(8, 8),
    upsample_initial_channel=16,
    resblock_kernel_sizes=(3, 7),
    resblock_dilation_sizes=((1, 3), (1, 3)),
)
SHAPES = [(1, 1, 1), (2, 3, 2), (1, 4, 5), (2, 5, 7), (1, 3, 8), (1, 2, 9), (2, 3, 100), (1, 2, 263), (3, 7, 1000)]

# Blocks and threads as loops, so that a compiler for the CPU takes the kernel.
ON_THE_CPU = """
#include <cmath>
#define __device__
#define __global__
#define __restrict__
#define __sinf sinf
static struct {{ int x; }} blockIdx, threadIdx, blockDim;
{definitions}
#include "{source}"
extern "C" void run(
    const float* x, const float* alpha, const float* beta, float* y, int rows, int channels, int frames
) {{
    blockDim.x = 32;
    int blocks_per_row = (frames + 32 * OUTPUTS - 1) / (32 * OUTPUTS);
    for (blockIdx.x = 0; blockIdx.x < rows * blocks_per_row; ++blockIdx.x)
        for (threadIdx.x = 0; threadIdx.x < 32; ++threadIdx.x)
            fused_snake(x, alpha, beta, y, channels, frames, blocks_per_row);
}}
"""


def some_snake(channels: int) -> AntiAliasedSnake:
    snake = AntiAliasedSnake(channels)
    for parameter in snake.parameters():
        torch.nn.init.normal_(parameter)
    return snake.requires_grad_(False)


@pytest.fixture(scope="module")
def on_the_cpu(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler on this machine")
    folder = tmp_path_factory.mktemp("kernel")
    defines = "\n".join(f"#define {k} {v}" for k, v in fused_snake.definitions(torch.float32).items())
    source = folder / "kernel.cpp"
    source.write_text(ON_THE_CPU.format(definitions=defines, source=fused_snake.SOURCE))
    library = folder / "kernel.so"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, source], check=True, capture_output=True)
    return ctypes.CDLL(str(library))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_source_computes_the_plain_activation(on_the_cpu: ctypes.CDLL, shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    snake, x = some_snake(shape[1]), 3 * torch.randn(shape)
    y = torch.full_like(x, float("nan"))
    pointers = [ctypes.c_void_p(t.data_ptr()) for t in (x, snake.act.alpha, snake.act.beta, y)]
    on_the_cpu.run(*pointers, shape[0] * shape[1], *shape[1:])
    torch.testing.assert_close(y, snake(x), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", fused_snake.STORED)
@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (8, 9), (9, 0), (12, 0)])
def test_the_kernel_compiles_where_there_is_no_gpu(dtype: torch.dtype, capability: tuple[int, int]) -> None:
    pytest.importorskip("cuda.bindings", reason="comes with PyTorch for CUDA")
    assert compiled(fused_snake.SOURCE, fused_snake.definitions(dtype), capability).startswith(b"\x7fELF")


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [*SHAPES, (1, 768, 4096), (8, 24, 70001)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 3e-5), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_the_kernel_equals_the_plain_activation(shape: tuple[int, int, int], dtype: torch.dtype, tolerance: float):
    torch.manual_seed(0)
    snake, x = some_snake(shape[1]).cuda(), (3 * torch.randn(shape, device="cuda")).to(dtype)
    got = fused_snake.FusedSnake(snake)(x)
    assert got.dtype == dtype
    torch.testing.assert_close(got.float(), snake(x.float()), atol=tolerance, rtol=tolerance)


@pytest.mark.gpu
def test_a_vocoder_sounds_the_same_with_the_kernel() -> None:
    torch.manual_seed(0)
    vocoder = BigVGAN(VOCODER).cuda().eval().requires_grad_(False)
    mel = torch.randn(1, vocoder.conv_pre.in_channels, 40, device="cuda")
    plain = vocoder(mel)
    count = sum(isinstance(module, AntiAliasedSnake) for module in vocoder.modules())
    fused_snake.apply_fused_snake(vocoder)
    assert count == sum(isinstance(module, fused_snake.FusedSnake) for module in vocoder.modules()) > 0
    torch.testing.assert_close(vocoder(mel), plain, atol=1e-4, rtol=1e-4)


def test_without_cuda_the_kernel_is_an_error_by_name() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(UnsupportedOption, match="--cuda-kernel"):
        fused_snake.apply_fused_snake(BigVGAN(VOCODER))
