"""Values for other libraries: the methods of `Array` for DLPack's and Arrow's protocols, and for
plotting and table libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from agentic_ray.array.core import evaluate
from agentic_ray.array.core.node import NDArray

if TYPE_CHECKING:
    from agentic_ray.array.array_object import Array


def to_numpy(self: Array, dtype: Any = None, copy: bool = False) -> NDArray:
    """Return the values as a NumPy array: plotting and table libraries look for this name."""
    return self.__array__(dtype, copy=copy or None)


def arrow_array(self: Array, type: Any = None) -> Any:
    """Return the values of a vector for ``pyarrow.array(x)``.

    Raises
    ------
    ValueError
        The array is no vector.
    """
    import pyarrow as pa  # heavy, and needed only here

    if self.ndim != 1:
        raise ValueError(f"an Arrow array has one axis, not {self.ndim}; convert a column")
    return pa.array(np.asarray(self), type=type)


def arrow_c_array(self: Array, requested_schema: Any = None) -> tuple[Any, Any]:
    """Export to libraries that take Arrow arrays by their C interface, such as polars."""
    found: tuple[Any, Any] = arrow_array(self).__arrow_c_array__(requested_schema)
    return found


def dlpack(
    self: Array,
    /,
    *,
    stream: Any = None,
    max_version: tuple[int, int] | None = None,
    dl_device: tuple[Any, int] | None = None,
    copy: bool | None = None,
) -> Any:
    """Return the values as a DLPack capsule, always in host memory.

    Raises
    ------
    BufferError
        The values cannot be exported to that device, or not without a copy.
    ValueError
        A stream was given: values in host memory have none.
    """
    if stream is not None:
        raise ValueError("values in host memory have no stream")
    value = evaluate.values([self._node])[0]
    # Consumers may write: values that other expressions share are copied, unless the consumer
    # forbids it.
    if (
        (copy is not False and not (max_version is not None and max_version[0] >= 1))
        or copy
        or copy is None
    ):
        value = np.array(value)
    return value.__dlpack__(max_version=max_version, dl_device=dl_device, copy=copy or None)


def dlpack_device(self: Array) -> tuple[Any, int]:
    return np.empty(0).__dlpack_device__()
