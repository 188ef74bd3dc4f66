"""What is measured on, and how much memory it takes."""

from __future__ import annotations

import gc
import importlib.metadata
import importlib.util
import os
import platform
import re

import torch

from indextts import __version__
from indextts.memory import PROC, process_status_bytes


def describe_machine(device: torch.device) -> dict[str, str | int]:
    """Device, processor and versions, by the names they are shown with."""
    found: dict[str, str | int] = {
        "device": device_name(device),
        "cpu": cpu_name(),
        "cpu cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "cpu threads of torch": torch.get_num_threads(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "deepspeed": package_version("deepspeed"),
        "indextts": __version__,
    }
    if device.type == "cuda":
        found["cuda"] = torch.version.cuda or torch.version.hip or "unknown"
        found["tf32 in float32 products"] = "on" if torch.backends.cuda.matmul.allow_tf32 else "off"
    return found


def device_name(device: torch.device) -> str:
    """``NVIDIA H100 80GB HBM3 (cuda:0, 80 GB)``."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name} ({device}, {properties.total_memory / 1e9:.0f} GB)"
    if device.type == "xpu":
        return f"{torch.xpu.get_device_name(device)} ({device})"
    return str(device)


def cpu_name() -> str:
    """The model of the processor, as far as the system tells."""
    try:
        model = re.search(r"^model name\s*:\s*(.+)$", (PROC / "cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        model = None
    return model.group(1) if model else platform.processor() or platform.machine()


def package_version(name: str) -> str:
    """The version of an installed package, without importing it."""
    return importlib.metadata.version(name) if importlib.util.find_spec(name) else "not installed"


class PeakMemory:
    """The most memory in use since ``reset``: of tensors on a CUDA device, else resident in main memory."""

    def __init__(self, device: torch.device) -> None:
        self.on_cuda = device.type == "cuda"
        self.device = device
        self.is_known = True

    @property
    def kind(self) -> str:
        return "allocated on the GPU" if self.on_cuda else "resident set of the process"

    def reset(self) -> None:
        """Let go of what nobody uses, and start over."""
        gc.collect()
        if self.on_cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        try:
            (PROC / "self" / "clear_refs").write_text("5")  # resets VmHWM, see proc(5)
        except OSError:
            self.is_known = False

    def read(self) -> int | None:
        """Bytes; None where the system does not tell."""
        if self.on_cuda:
            return torch.cuda.max_memory_allocated(self.device)
        if not self.is_known:
            return None
        return process_status_bytes("VmHWM")


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was asked to."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
