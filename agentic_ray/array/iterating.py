"""NumPy's iterators over elements one by one, over values that are brought here.

Elements one by one are for looking at small arrays; computing is done on whole arrays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.core.build import without_arrays

s_, index_exp, ndindex = np.s_, np.index_exp, np.ndindex
"""A slice in brackets as an object (the first two); all indices of a shape."""


def ndenumerate(arr: Any) -> Iterator[tuple[tuple[int, ...], Any]]:
    """Yield each index of ``arr`` with the element there; the values are brought here."""
    return iter(np.ndenumerate(np.asarray(without_arrays(arr))))


def nditer(op: Any, flags: Sequence[str] = (), op_flags: Any = None, **options: Any) -> Any:
    """Return NumPy's iterator over values that are brought here; arguments as there.

    Raises
    ------
    TypeError
        The iterator would write to an array of this package, and the writes would be lost.
    """
    operands = list(op) if isinstance(op, list | tuple) else [op]
    given = op_flags or []
    asked = {flag for entry in given for flag in ([entry] if isinstance(entry, str) else entry)}
    if asked & {"readwrite", "writeonly", "updateifcopy"} and any(
        isinstance(entry, Array) for entry in operands
    ):
        raise TypeError(
            "nditer gives out copies of the values; write to the array by index, or work on a "
            "NumPy array and make an Array of it afterwards"
        )
    values = [None if entry is None else np.asarray(without_arrays(entry)) for entry in operands]
    more = {name: value for name, value in options.items() if value is not None}
    iterator: Any = np.nditer
    if op_flags is not None:
        more["op_flags"] = op_flags
    return iterator(values if len(values) > 1 else values[0], list(flags), **more)


def broadcast(*args: Any) -> np.broadcast:
    """Return NumPy's object over values that are brought here; for a shape see
    `broadcast_shapes`."""
    return np.broadcast(*[np.asarray(without_arrays(arg)) for arg in args])


def shares_memory(a: Any, b: Any, /, max_work: int | None = None) -> bool:
    """Whether NumPy would have elements of both in the same place: one is a view of the other, or
    both are views of a third array, and they overlap.

    Parameters
    ----------
    a, b : array_like
    max_work : int, optional
        As in NumPy.
    """
    if not isinstance(a, Array) or not isinstance(b, Array):
        return bool(_shares(_plain(a), _plain(b), max_work=max_work))
    seen = _seen_together(a, b)
    return seen is not None and bool(_shares(*seen, max_work=max_work))


def may_share_memory(a: Any, b: Any, /, max_work: int | None = 0) -> bool:
    """Whether NumPy would have elements of both between the same bounds: see `shares_memory`."""
    if not isinstance(a, Array) or not isinstance(b, Array):
        return bool(_may_share(_plain(a), _plain(b), max_work=max_work))
    seen = _seen_together(a, b)
    return seen is not None and bool(_may_share(*seen, max_work=max_work))


_shares: Any = np.shares_memory
_may_share: Any = np.may_share_memory


def _plain(x: Any) -> np.ndarray[Any, Any]:
    """Return a NumPy array with memory of its own for ours, which share none with NumPy's."""
    return np.empty(0) if isinstance(x, Array) else np.asarray(x)


def _root(array: Array) -> Array:
    while array.base is not None:
        array = array.base
    return array


def _seen_together(a: Array, b: Array) -> list[np.ndarray[Any, Any]] | None:
    """Return both as NumPy would have them, in one memory whose values must not be read."""
    root = _root(a)
    if root is not _root(b):
        return None
    memory = root._layout
    found = []
    for array in (a, b):
        steps = []
        while array.base is not None:
            steps.append(array._step)
            array = array.base
        seen = memory
        for step in reversed(steps):
            assert step is not None
            seen = step.see(seen)
        found.append(seen)
    return found
