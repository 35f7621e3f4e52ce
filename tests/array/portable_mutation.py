"""Cases for `test_portable_kernels`: functions that write to their argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import agentic_ray.array as xp


def _after(function: Callable[..., None], *args: Any, **options: Any) -> Callable[[Any], Any]:
    """What ``x`` is after ``function(x, *args)``."""

    def case(d: Any) -> Any:
        x = d.x + 0
        function(x, *[arg(d) if callable(arg) else arg for arg in args], **options)
        return x

    return case


CASES: dict[str, list[Callable[[Any], Any]]] = {
    "put": [_after(xp.put, [0, 9, 9], [1.0, 2.0, 3.0])],
    "place": [_after(xp.place, lambda d: d.b, [1.0, 2.0])],
    "putmask": [_after(xp.putmask, lambda d: d.b, lambda d: d.y)],
    "copyto": [_after(xp.copyto, lambda d: d.y), _after(xp.copyto, 1.0)],
    "fill_diagonal": [_after(xp.fill_diagonal, [1.0, 2.0])],
    "put_along_axis": [_after(xp.put_along_axis, lambda d: d.j[:, :1], 5.0, 1)],
}

NUMPYS_INDEXING = ["put", "place", "fill_diagonal", "put_along_axis"]
"""Assign at index arrays, which the standard has not."""
