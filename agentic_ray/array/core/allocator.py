"""Has the C library keep memory that arrays give back, for the next arrays.

By default glibc gives memory from 128 KiB on back to the kernel as soon as it is freed. Each page
of the next array is then a page fault, and takes longer to come by than to compute: two arrays of
800 kB that a loop makes and drops take 20 times as long. The limits rise by themselves to the size
of a block that is freed, but not above 32 MiB. So one block of nearly this size is freed, of which
no page was touched: as in any program that had such an array once, up to 62 MiB of free memory then
stay in the process. Whoever sets ``MALLOC_TRIM_THRESHOLD_`` or ``MALLOC_MMAP_THRESHOLD_`` keeps
what he set, and other C libraries do as they like.

See ``M_MMAP_THRESHOLD`` in mallopt(3).
"""

from __future__ import annotations

import numpy as np

_LARGEST_BYTES = 31 << 20


def keep_freed_memory() -> None:
    """Raise the limits above which the C library gives memory back to the kernel."""
    np.empty(_LARGEST_BYTES, np.uint8)
