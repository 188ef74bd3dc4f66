"""Our own CUDA kernels: compiled when they are first wanted, by NVRTC, which comes with PyTorch.

No compiler need be installed, and a source takes about a second. Nothing is written to disk.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class Kernels:
    """The kernels of a source, compiled for one device and loaded there."""

    def __init__(self, source: Path, definitions: Mapping[str, str], device_index: int) -> None:
        """
        Raises:
            ImportError, RuntimeError: they cannot be compiled or loaded here.
        """
        from cuda.bindings import driver  # pyright: ignore[reportAttributeAccessIssue]

        self._driver = driver
        self._functions: dict[str, Any] = {}
        with torch.cuda.device(device_index):
            torch.cuda.current_stream().synchronize()  # there must be a context to load into
            capability = torch.cuda.get_device_capability(device_index)
            self._overlap = [_overlap_attribute(driver)] if capability >= (9, 0) else []
            self._module = _checked(driver.cuModuleLoadData(compiled(source, definitions, capability)))

    def launch(
        self,
        name: str,
        blocks: tuple[int, int, int] | int,
        threads: int,
        *arguments: Tensor | int | float,
        overlaps: bool = False,
    ) -> None:
        """Launch on the current stream, each argument as a pointer, a C int or a C float.

        ``overlaps``: the kernel waits by itself for the one in front, where it must, and may be launched before.
        """
        if name not in self._functions:
            self._functions[name] = _checked(self._driver.cuModuleGetFunction(self._module, name.encode()))
        values = tuple(a.data_ptr() if isinstance(a, Tensor) else a for a in arguments)
        types = tuple(_c_type(argument) for argument in arguments)
        config = self._driver.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = (blocks, 1, 1) if isinstance(blocks, int) else blocks
        config.blockDimX, config.blockDimY, config.blockDimZ = threads, 1, 1
        config.hStream = torch.cuda.current_stream().cuda_stream
        if overlaps and self._overlap:
            config.attrs, config.numAttrs = self._overlap, 1
        _checked(self._driver.cuLaunchKernelEx(config, self._functions[name], (values, types), 0))


def _c_type(argument: Tensor | int | float) -> Any:
    if isinstance(argument, Tensor):
        return ctypes.c_void_p
    return ctypes.c_float if isinstance(argument, float) else ctypes.c_int


def _overlap_attribute(driver: Any) -> Any:
    attribute = driver.CUlaunchAttribute()
    attribute.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
    value = driver.CUlaunchAttributeValue()
    value.programmaticStreamSerializationAllowed = 1
    attribute.value = value
    return attribute


def compiled(source: Path, definitions: Mapping[str, str], capability: tuple[int, int]) -> bytes:
    """The kernels of ``source`` as machine code for GPUs of one compute capability. Needs no GPU.

    Raises:
        RuntimeError: with what the compiler says.
    """
    from cuda.bindings import nvrtc  # pyright: ignore[reportAttributeAccessIssue]

    options = ["--gpu-architecture=sm_{}{}".format(*capability), *(f"-D{k}={v}" for k, v in definitions.items())]
    headers = sorted(Path(__file__).parent.glob("*.cuh"))
    names, contents = [header.name.encode() for header in headers], [header.read_bytes() for header in headers]
    program = _checked(
        nvrtc.nvrtcCreateProgram(source.read_bytes(), source.name.encode(), len(headers), contents, names)
    )
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
