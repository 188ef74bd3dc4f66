"""The memory that the program takes."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from indextts.memory import MemoryInUse, glibc, memory_in_use, process_status_bytes, return_freed_memory
from tests.pages import mapped


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no /proc")
def test_memory_grows_with_what_is_held() -> None:
    before = memory_in_use().resident
    held = mapped(50_000_000)
    after = memory_in_use().resident
    assert before and after and after - before > len(held) / 2
    assert (process_status_bytes("VmHWM") or 0) >= after and process_status_bytes("VmNothing") is None


@pytest.mark.skipif(glibc() is None, reason="another allocator")
def test_freed_memory_is_returned() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

    def resident() -> int:
        return memory_in_use().resident or 0

    size, addresses = 100_000, []  # too small to be mapped each by itself
    for _ in range(2000):
        addresses.append(libc.malloc(size))
        ctypes.memset(addresses[-1], 1, size)
    held = resident()
    for address in addresses[::2]:  # what is freed lies between what is not
        libc.free(address)
    freed = resident()
    return_freed_memory()
    returned = resident()
    for address in addresses[1::2]:
        libc.free(address)
    assert held - freed < 0.2 * 1000 * size  # else there is nothing to do here
    assert freed - returned > 0.7 * 1000 * size


ARENAS_OF_TWENTY_THREADS = """
import ctypes, re, sys, threading
from pathlib import Path
from indextts.memory import limit_arenas
if sys.argv[2:]:
    limit_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
libc.malloc_info.argtypes, libc.fclose.argtypes = [ctypes.c_int, ctypes.c_void_p], [ctypes.c_void_p]
together = threading.Barrier(20)
def allocate():
    libc.malloc(5000)
    together.wait()
threads = [threading.Thread(target=allocate) for _ in range(20)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
file = libc.fopen(sys.argv[1].encode(), b"w")
libc.malloc_info(0, file)
libc.fclose(file)
print(len(re.findall("<heap nr", Path(sys.argv[1]).read_text())))
"""


@pytest.mark.skipif(glibc() is None, reason="another allocator")
def test_threads_share_arenas(tmp_path: Path) -> None:
    def arenas(*limit: str, **environment: str) -> int:
        words = [sys.executable, "-c", ARENAS_OF_TWENTY_THREADS, str(tmp_path / "info.xml"), *limit]
        before = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
        run = subprocess.run(words, env=before | environment, capture_output=True, text=True, check=True)
        return int(run.stdout)

    assert arenas() > 4
    assert arenas("limit") <= 2
    assert arenas("limit", MALLOC_ARENA_MAX="4") == 4


KERNELS_OF_FORTY_LENGTHS = """
import ctypes
import sys
from pathlib import Path
import torch
from indextts.memory import glibc, limit_kernel_cache
if sys.argv[1:]:
    limit_kernel_cache()
words = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
MallInfo = type("MallInfo", (ctypes.Structure,), {"_fields_": [(word, ctypes.c_size_t) for word in words]})
mallinfo2 = glibc().mallinfo2
mallinfo2.restype = MallInfo
layers = [torch.nn.ConvTranspose1d(64, 64, size) for size in (3, 5, 7, 9, 11)]
with torch.inference_mode():
    for length in range(600, 1000, 10):
        for layer in layers:
            layer(torch.zeros(1, 64, length))
        if length == 600:
            before = mallinfo2()
after = mallinfo2()
code_kb, compiled = 0, False
for words in map(str.split, Path("/proc/self/smaps").read_text().splitlines()):
    if not words[0].endswith(":"):
        compiled = "x" in words[1] and words[5:] in ([], ["[heap]"])
    elif words[0] == "Rss:":
        code_kb += compiled * int(words[1])
print(code_kb, (after.uordblks - before.uordblks + after.hblkhd - before.hblkhd) // 1024)
"""


@pytest.mark.skipif(not hasattr(glibc(), "mallinfo2"), reason="another C library")
@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch without oneDNN")
def test_few_kernels_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def kept_kb(*limit: str) -> tuple[int, int]:
        words = [sys.executable, "-c", KERNELS_OF_FORTY_LENGTHS, *limit]
        code, other = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
        return int(code), int(other)

    for cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        monkeypatch.delenv(cache, raising=False)
    all_code, all_other = kept_kb()
    code, other = kept_kb("limit")
    assert code < 0.6 * all_code and other < 0.3 * all_other
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "1024")  # who knows better, decides
    assert kept_kb("limit")[0] > 0.8 * all_code
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "1024")
    assert kept_kb("limit")[1] > 0.8 * all_other


def test_where_the_system_tells_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("indextts.memory.PROC", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert memory_in_use() == MemoryInUse(None, None)


def test_all_gpus_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 100 + device)
    assert memory_in_use().cuda == 201
