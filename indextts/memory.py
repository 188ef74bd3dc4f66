"""How much memory the program takes, and how it takes less.

Imports no torch: what has not been imported has nothing on a GPU.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
M_ARENA_MAX = -8  # of malloc.h
ARENAS = 2
KERNELS = 64  # what the steps of one flow use again and again


@dataclass(frozen=True)
class MemoryInUse:
    """Bytes. ``resident``: of the process, None where the system does not tell; ``cuda``: of tensors on its GPUs."""

    resident: int | None
    cuda: int | None


def memory_in_use() -> MemoryInUse:
    """At this moment."""
    torch, cuda = sys.modules.get("torch"), None
    if torch is not None and torch.cuda.is_available():
        cuda = sum(torch.cuda.memory_allocated(device) for device in range(torch.cuda.device_count()))
    return MemoryInUse(process_status_bytes("VmRSS"), cuda)


def process_status_bytes(field: str) -> int | None:
    """A field of ``/proc/self/status``, see proc(5); None where there is no such thing."""
    try:
        found = re.search(rf"^{field}:\s*(\d+) kB$", (PROC / "self" / "status").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found.group(1)) * 1024 if found else None


def limit_arenas() -> None:
    """Let all threads of this process share two arenas of glibc, unless ``MALLOC_ARENA_MAX`` says how many.

    By itself it makes up to eight a core, one for each thread that meets another at an allocation, and each keeps what
    was freed in it: where large tensors come and go in many threads, that is a multiple of what is held. Here only one
    thread at a time computes, so that they hardly meet. Arenas that are there already stay. See mallopt(3).
    """
    if "MALLOC_ARENA_MAX" not in os.environ and (library := glibc()) is not None:
        library.mallopt(M_ARENA_MAX, ARENAS)


def limit_kernel_cache() -> None:
    """Let few of the kernels be kept that oneDNN compiles on a CPU, unless a variable of the two caches says how many.

    Must come before the first convolution. A kernel is for one shape, and every length of a text is another: of the
    1,024 kernels that oneDNN keeps, with 50 MB of code, and of the 1,024 of PyTorch in front of it, 0.2 MB for each
    length, hardly one is used again after the segment, but they lie scattered between the tensors, so that glibc can
    neither join nor return what is freed around them. Fewer cost no time (docs/reliability.md).
    """
    for variable in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(variable, str(KERNELS))


def return_freed_memory() -> None:
    """Give main memory that nobody holds any more back to the operating system, which glibc does by itself only where
    it lies at the end of an arena. See malloc_trim(3).
    """
    if (library := glibc()) is not None:
        library.malloc_trim(0)


def glibc() -> ctypes.CDLL | None:
    """The C library, if it is that one."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
