"""Makes one sorted vector of an unsorted one, or of several that are sorted."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from agentic_ray.array.core.standard import dtype_of

MANY_PARTS = 8
"""Number of sorted parts from which NumPy, where it sorts with AVX-512, sorts them anew quicker
than it merges them: 16 parts of 250,000 numbers took 0.09 s in place of 0.14. The bits are the
same."""


@functools.cache
def _sorts_quickly() -> bool:
    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    return any(name.startswith(("AVX512_SKX", "X86_V4")) for name in found)


def ascending(xp: Any, x: Any) -> Any:
    """Sort a vector; elements that are equal but can be told apart stay in their order.

    Such elements are zeros of both signs and NaNs. To put them right afterwards is cheaper than a
    stable sort, which takes half as long again. (NumPy's vectorised sort may even give a zero the
    sign of another.)
    """
    kind = dtype_of(x).kind
    if kind != "f":
        return xp.sort(x, kind="stable") if kind == "c" else xp.sort(x)
    result = xp.sort(x)
    low, high = (int(xp.searchsorted(result, 0.0, side=side)) for side in ("left", "right"))
    if low < high:
        result[low:high] = x[x == 0]
    if x.size and xp.isnan(result[-1]):
        nans = x[xp.isnan(x)]
        result[x.size - nans.size :] = nans
    return result


def merged(xp: Any, joined: Any, load: Any, parts: int) -> Any:
    """Merge sorted parts, which follow each other in ``joined``; equal elements stay in their
    order. With a ``load``, whose elements go with theirs, return the load in the order of the
    values instead."""
    if load is not None:
        return load[xp.argsort(joined, kind="stable")]
    if xp is not np or (parts >= MANY_PARTS and _sorts_quickly()):
        return ascending(xp, joined)
    joined.sort(kind="stable")  # NumPy's finds the parts and merges them
    return joined
