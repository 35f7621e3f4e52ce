"""Let this process keep the memory of arrays that come and go."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Numbers of two settings, from glibc's ``malloc.h``."""

KEPT_BYTES = 32 << 20
"""Bytes of free memory kept in each of malloc's arenas, of which a thread has one."""
LARGEST_BYTES = 4 << 20
"""A larger block comes from the kernel and goes back to it, as by default."""


def keep_freed_memory() -> bool:
    """Make malloc keep freed memory for the next blocks; return whether it could be told.

    By default glibc returns free memory to the kernel beyond twice the largest block that came from
    there. An array of a cache block's size, 512 KB, is then made of new pages each time. The kernel
    clears these one by one, which takes several times as long as to compute the array. Other C
    libraries know no such setting.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_BYTES) and mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))
