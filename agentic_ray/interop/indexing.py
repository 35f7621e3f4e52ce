"""Pointwise and outer indexing of our arrays in xarray.

For arrays of the standard, xarray's adapter, ``ArrayApiIndexingAdapter``, refuses pointwise
indexing, ``x.isel(time=points, lat=points)``, which the standard lacks. In an assignment it passes
an outer index, ``x[{"time": [0, 1], "lat": [1, 2]}] = 0``, on as if it were a pointwise one, so
that other elements than those are written. Our arrays have NumPy's indexing, so they are handled as
xarray handles NumPy's. Other arrays that come to the adapter are handled as before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xarray.core.indexing import ArrayApiIndexingAdapter, NdArrayLikeIndexingAdapter
from xarray.core.nputils import NumpyVIndexAdapter

from agentic_ray.array.array_object import Array
from agentic_ray.array.manipulation import expand_dims
from agentic_ray.array.taking import take_along_axis


def _points(array: Array, indexer: Any) -> Any:
    key = indexer.tuple
    if array.ndim == 1 and isinstance(key[0], Array) and key[0].dtype.kind in "iu":
        # Positions that are not known yet, such as those of an idxmax, stay so.
        (places,) = key
        vector = array.reshape((1,) * places.ndim + array.shape)
        return take_along_axis(vector, expand_dims(places, -1), -1)[..., 0]
    # (Not through the adapter for NumPy, which refuses an index that is a lazy array.)
    return NumpyVIndexAdapter(array)[key]


def _set_points(array: Array, indexer: Any, value: Any) -> None:
    NdArrayLikeIndexingAdapter(array)._vindex_set(indexer, value)


def _set_outer(array: Array, indexer: Any, value: Any) -> None:
    NdArrayLikeIndexingAdapter(array)._oindex_set(indexer, value)


def _for_ours(theirs: Callable[..., Any], ours: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Any, *args: Any) -> Any:
        if isinstance(self.array, Array):
            return ours(self.array, *args)
        return theirs(self, *args)

    return method


def install() -> None:
    """Let the adapter index our arrays as NumPy's; more calls do no harm."""
    kind = ArrayApiIndexingAdapter
    for name, ours in (
        ("_vindex_get", _points),
        ("_vindex_set", _set_points),
        ("_oindex_set", _set_outer),
    ):
        setattr(kind, name, _for_ours(getattr(kind, name), ours))
