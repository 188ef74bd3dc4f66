"""Memory that a process does not have yet: an allocator may give what was freed before."""

from __future__ import annotations

import mmap


def mapped(size: int) -> mmap.mmap:
    """``size`` bytes of new pages, all written to."""
    pages = mmap.mmap(-1, size)
    for start in range(0, size, mmap.PAGESIZE):
        pages[start] = 1
    return pages
