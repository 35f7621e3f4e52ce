"""``x.flat``: the elements of an array in C order, to loop over, read and assign by position."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.assigning import cycled
from agentic_ray.array.core import evaluate
from agentic_ray.array.viewing import Reshape


class FlatView:
    """NumPy's ``flatiter``, as far as it reads and assigns."""

    __slots__ = ("_flat", "base")

    def __init__(self, array: Array) -> None:
        self.base = array
        self._flat = array._view(Reshape((array.size,)))

    def __len__(self) -> int:
        return self.base.size

    def __iter__(self) -> Iterator[Any]:
        return iter(evaluate.value(self._flat._node))

    def __getitem__(self, key: Any) -> Array:
        found = self._flat[key]
        return found if found.base is None else found.copy()

    def __setitem__(self, key: Any, value: Any) -> None:
        selected = self._flat[key]
        if not selected.shape and np.ndim(value):
            raise ValueError("Error setting single item of array.")
        if not np.size(value):
            return  # nothing to repeat: NumPy assigns nothing
        values = cycled(value, selected.size, self.base.dtype)
        self._flat[key] = values if selected.shape else values[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return self._flat.__array__(dtype, copy)

    def copy(self) -> Array:
        """Return the elements as an array of its own."""
        return self._flat.copy()
