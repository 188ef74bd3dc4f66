"""How much memory the program takes. Imports no torch: what has not been imported has nothing on a GPU."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


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
