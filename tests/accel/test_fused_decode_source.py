"""The source of the fused decode step, compiled for the CPU, computes what the plain step does."""

from __future__ import annotations

import ctypes
import dataclasses
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor

from indextts.accel import fused_decode
from indextts.config import GPTConfig
from indextts.decoding.backend import EagerBackend
from indextts.models.gpt import UnifiedVoice

HERE = Path(__file__).parent
CONFIG = dataclasses.replace(
    GPTConfig(), model_dim=128, heads=2, layers=2, number_mel_codes=70, start_mel_token=68, stop_mel_token=69
)
IN_ASSEMBLER = ("load_weights", "load", "multiply_add", "wait_for_the_one_in_front", "let_the_next_one_start")

def without_assembler(source: str) -> str:
    """The source without the functions that `cuda_on_cpu.h` has."""
    for name in IN_ASSEMBLER:
        source = re.sub(
            rf"^__device__ inline \w+ {name}\([^{{]*\) \{{.*?^\}}\n", "", source, flags=re.MULTILINE | re.DOTALL
        )
    return source


def numbers_in_half(header: str) -> str:
    """What is left of the header: the functions that are not about the form of a number."""
    return header[header.index("__device__ inline float low") :]


class OnTheCpu:
    """Stands in for `indextts.accel.nvrtc.Kernels`."""

    def __init__(self, folder: Path, compiler: str, told: dict[str, str]) -> None:
        source = fused_decode.SOURCE.read_text(encoding="utf-8")
        header = (fused_decode.SOURCE.parent.parent / "half.cuh").read_text(encoding="utf-8")
        signatures = re.findall(
            r'extern "C" __global__ void (?:__launch_bounds__\([^)]*\) )?(\w+)\(([^)]*)\)', source
        )
        entries = []
        for name, parameters in signatures:
            names = ", ".join(parameter.split()[-1].lstrip("*") for parameter in parameters.split(","))
            entries.append(
                f'extern "C" void run_{name}(int grid_x, int grid_y, int grid_z, int threads, {parameters}) '
                f"{{ launch({{grid_x, grid_y, grid_z}}, threads, [=] {{ {name}({names}); }}); }}"
            )
        text = "\n".join((
            *(f"#define {key} {value}" for key, value in told.items()),
            f'#include "{HERE / "cuda_on_cpu.h"}"',
            without_assembler(source).replace('#include "half.cuh"', numbers_in_half(header)),
            *entries,
        ))
        (folder / "kernels.cpp").write_text(text, encoding="utf-8")
        library = folder / "kernels.so"
        # Without the flag, statics of one library would be those of the next.
        command = [compiler, "-std=c++20", "-O1", "-w", "-shared", "-fPIC", "-pthread", "-fno-gnu-unique", "-o"]
        subprocess.run([*command, library, folder / "kernels.cpp"], check=True)
        self.library = ctypes.CDLL(str(library))

    def launch(
        self,
        name: str,
        blocks: tuple[int, int, int] | int,
        threads: int,
        *arguments: Tensor | int,
        overlaps: bool = False,
    ) -> None:
        """See `Kernels.launch`. One kernel ends before the next one starts."""
        given = [ctypes.c_void_p(a.data_ptr()) if isinstance(a, Tensor) else ctypes.c_int(a) for a in arguments]
        grid = (blocks, 1, 1) if isinstance(blocks, int) else blocks
        self.library[f"run_{name}"](*map(ctypes.c_int, (*grid, threads)), *given)


def logits_of(backend: EagerBackend, segments: int, beams: int, prefix_length: int, steps: int) -> Tensor:
    generator = torch.Generator().manual_seed(segments)
    prefix = torch.randn(segments, prefix_length, backend.model.config.model_dim, generator=generator)
    mask = torch.arange(prefix_length) >= torch.arange(segments)[:, None]
    with torch.inference_mode():
        backend.prefill(prefix.to(backend.model.dtype), mask, num_beams=beams, max_codes=steps + 1)
        codes = torch.randint(0, backend.start_code, (steps, segments, beams), generator=generator)
        chosen = torch.randint(0, beams, (steps, segments, beams), generator=generator)
        return torch.stack([backend.step(c, b).float() for c, b in zip(codes, chosen, strict=True)])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("segments", "beams", "prefix_length"), [(1, 3, 20), (1, 1, 300), (3, 3, 20), (3, 3, 600), (5, 5, 253)]
)
def test_the_source_computes_the_plain_step(
    segments: int, beams: int, prefix_length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler on this machine")
    torch.manual_seed(0)
    model = UnifiedVoice(CONFIG).eval().requires_grad_(False)
    for parameter in model.gpt.parameters():
        parameter += 0.05 * torch.randn_like(parameter)
    expected = logits_of(EagerBackend(model), segments, beams, prefix_length, 3)
    model.to(torch.bfloat16)
    plain = logits_of(EagerBackend(model), segments, beams, prefix_length, 3)
    rows = segments * beams
    told = fused_decode.definitions(torch.bfloat16, CONFIG.model_dim, CONFIG.heads, beams, -(-rows // 8))
    kernels = OnTheCpu(tmp_path, compiler, told)
    monkeypatch.setattr(fused_decode, "_kernels", lambda *_: kernels)
    fused_decode.apply_fused_decode(model)
    kind = dataclasses.replace(fused_decode.FUSED, show=fused_decode.backend.show_slots)
    fused = logits_of(EagerBackend(model, kind), segments, beams, prefix_length, 3)
    errors = [((logits - expected).norm() / expected.norm()).item() for logits in (fused, plain)]
    assert 0 < errors[0] < 1.2 * errors[1], errors
