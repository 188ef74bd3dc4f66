"""Python, PyTorch, GPUs, compilers and disk."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from indextts.checks.report import FAILED, NOTE, OK, Check

PYTHON_FROM, PYTHON_BELOW = (3, 10), (3, 15)  # as in pyproject.toml
TORCH = "2.11"  # the same
DISK_FLOOR_BYTES = 1_000_000_000
"""Room for recordings, results and the caches of libraries: below it, saving is about to fail."""


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Check:
    """Whether this Python is one that the package is made for."""
    low, below = (".".join(map(str, bound)) for bound in (PYTHON_FROM, PYTHON_BELOW))
    found = f"{'.'.join(map(str, version))} on {platform.system()} {platform.machine()}"
    if PYTHON_FROM <= version < PYTHON_BELOW:
        return Check("Python", OK, found)
    return Check("Python", FAILED, found, f"use Python from {low} up to, but not including, {below}")


def check_torch() -> Check:
    """Whether PyTorch can be imported, and is of the right version."""
    try:
        import torch
    except Exception as error:  # a broken installation fails in many ways, and telling so is the purpose here
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return Check("PyTorch", FAILED, reason, f"install it anew: uv sync, or pip install 'torch=={TORCH}.*'")
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {torch.version.hip}"
    found = f"{torch.__version__}, built for {build if torch.version.cuda or torch.version.hip else 'the CPU only'}"
    if torch.__version__.startswith(f"{TORCH}."):
        return Check("PyTorch", OK, found)
    return Check("PyTorch", FAILED, found, f"install {TORCH}: uv sync, or pip install 'torch=={TORCH}.*'")


@dataclass(frozen=True)
class Gpu:
    """A CUDA device. ``capability`` is (major, minor)."""

    index: int
    name: str
    capability: tuple[int, int]
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class CudaFacts:
    """What there is of CUDA. A version is (major, minor), of the driver the newest CUDA that it can run."""

    built_for: tuple[int, int] | None
    driver: tuple[int, int] | None
    architectures: tuple[str, ...]  # "sm_90": binaries; "compute_90": code that newer devices can translate
    is_available: bool
    gpus: tuple[Gpu, ...]


def gather_cuda() -> CudaFacts:
    """Ask PyTorch and the driver."""
    import torch

    is_available = torch.cuda.is_available()
    return CudaFacts(
        built_for=_version(torch.version.cuda),
        driver=_driver_version(),
        architectures=tuple(torch.cuda.get_arch_list()),
        is_available=is_available,
        gpus=tuple(_gpu(index) for index in range(torch.cuda.device_count())) if is_available else (),
    )


def _gpu(index: int) -> Gpu:
    import torch

    free_bytes, total_bytes = torch.cuda.mem_get_info(index)
    name, capability = torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index)
    return Gpu(index, name, capability, free_bytes, total_bytes)


def _version(text: str | None) -> tuple[int, int] | None:
    match = re.match(r"(\d+)\.(\d+)", text or "")
    return (int(match[1]), int(match[2])) if match else None


def _driver_version() -> tuple[int, int] | None:
    """The newest CUDA that the NVIDIA driver can run, by its own word; None without a driver."""
    number = ctypes.c_int()
    try:
        library = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
        failed = library.cuDriverGetVersion(ctypes.byref(number))
    except (OSError, AttributeError):
        return None
    return None if failed else (number.value // 1000, number.value % 1000 // 10)


def check_cuda(facts: CudaFacts, needed_bytes: int | None) -> Iterator[Check]:
    """Whether PyTorch, driver and devices go together, and whether the model fits.

    Args:
        needed_bytes: What the weights take; None if unknown.
    """
    built_for, driver = _shown(facts.built_for), _shown(facts.driver)
    if facts.driver is None:
        yield Check("CUDA", NOTE, "no NVIDIA driver: the CPU, or a GPU of another maker, does the work")
    elif facts.built_for is None:
        advice = "install PyTorch with CUDA: uv sync, or see pytorch.org/get-started"
        yield Check("CUDA", FAILED, f"the driver runs CUDA {driver}, and PyTorch is built without", advice)
    elif facts.driver[0] < facts.built_for[0]:  # within a major version, an older driver serves
        advice = f"update the NVIDIA driver to one for CUDA {facts.built_for[0]}, or install PyTorch for CUDA {driver}"
        yield Check("CUDA", FAILED, f"the driver runs CUDA {driver}, PyTorch is built for {built_for}", advice)
    elif not facts.is_available:
        advice = "look at CUDA_VISIBLE_DEVICES and nvidia-smi; in a container, start it with --gpus all"
        yield Check("CUDA", FAILED, f"the driver (CUDA {driver}) is there, but PyTorch sees no device", advice)
    else:
        yield Check("CUDA", OK, f"the driver runs CUDA {driver}, PyTorch is built for {built_for}")
    for gpu in facts.gpus:
        yield _check_architecture(gpu, facts.architectures)
        yield _check_memory(gpu, needed_bytes)


def _shown(version: tuple[int, int] | None) -> str:
    return ".".join(map(str, version)) if version else "none"


def _check_architecture(gpu: Gpu, architectures: Sequence[str]) -> Check:
    """Binaries serve a device of the same major version and a minor one at least theirs; other code newer ones."""
    name = f"GPU {gpu.index}"
    found = f"{gpu.name}, compute capability {_shown(gpu.capability)}"
    for architecture in architectures:
        if not (match := re.fullmatch(r"(sm|compute)_(\d+)(\d)[af]?", architecture)):
            continue  # of a GPU of another maker
        made_for = (int(match[2]), int(match[3]))
        if made_for <= gpu.capability and (match[1] == "compute" or made_for[0] == gpu.capability[0]):
            return Check(name, OK, found)
    advice = f"install a PyTorch that supports it (this one: {', '.join(architectures)}), or use --device cpu"
    return Check(name, FAILED, found, advice)


def _check_memory(gpu: Gpu, needed_bytes: int | None) -> Check:
    name = f"GPU {gpu.index} memory"
    found = f"{gpu.free_bytes / 1e9:.1f} of {gpu.total_bytes / 1e9:.1f} GB free"
    if needed_bytes is None:
        return Check(name, NOTE, found)
    found += f"; the weights alone take {needed_bytes / 1e9:.1f} GB in float32"
    if gpu.free_bytes >= needed_bytes:
        return Check(name, OK, found)
    advice = "end other programs on it (nvidia-smi lists them), or choose another device by --device"
    return Check(name, FAILED, found, advice)


def check_other_gpus() -> Iterator[Check]:
    """Devices of other makers."""
    import torch

    if torch.xpu.is_available():
        names = [torch.xpu.get_device_name(index) for index in range(torch.xpu.device_count())]
        yield Check("Intel XPU", OK, ", ".join(names))
    if torch.backends.mps.is_available():
        yield Check("Apple MPS", OK, "Apple GPU")


def check_compilers(on_cuda: bool) -> Iterator[Check]:
    """What could be built here. Speaking needs none of it, with DeepSpeed or without."""
    from torch.utils.cpp_extension import CUDA_HOME

    compiler = shutil.which(os.environ.get("CXX") or "c++") or shutil.which("g++") or shutil.which("clang++")
    follows = "DeepSpeed's own kernels cannot be built; decoding does not use them"
    if compiler:
        yield Check("C++ compiler", OK, compiler)
    else:
        yield Check("C++ compiler", NOTE, f"none: {follows}")
    nvcc = shutil.which("nvcc") or (CUDA_HOME and shutil.which("nvcc", path=str(Path(CUDA_HOME) / "bin")))
    if nvcc:
        yield Check("CUDA compiler", OK, nvcc)
    elif on_cuda:
        yield Check("CUDA compiler", NOTE, f"none: {follows}")


def check_disk(folder: Path) -> Check:
    """Whether the disk of the model folder is about to be full."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    usage = shutil.disk_usage(existing)
    found = f"{usage.free / 1e9:.1f} of {usage.total / 1e9:.1f} GB free at {existing}"
    if usage.free >= DISK_FLOOR_BYTES:
        return Check("disk", OK, found)
    return Check("disk", FAILED, found, f"make room: at least {DISK_FLOOR_BYTES / 1e9:g} GB")
