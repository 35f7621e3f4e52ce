"""Arrays of Dask's as arrays of this package, and back; chunks stay where they were made."""

from __future__ import annotations

import itertools
import math
import uuid
from collections.abc import Iterator
from typing import Any

import dask
import dask.array as da
import numpy as np
from dask.highlevelgraph import HighLevelGraph

from agentic_ray.array.array_object import Array
from agentic_ray.array.core import evaluate
from agentic_ray.array.core.node import DATA
from agentic_ray.array.core.views import PERMUTE
from agentic_ray.array.creation import zeros
from agentic_ray.array.userfunctions import numeric_dtype
from agentic_ray.errors import BlockResultError, InvalidArgumentError, InvalidTypeError
from agentic_ray.graph import Codelet, Task, TaskGraph, cull
from agentic_ray.interop.dask_plan import KeptChunk, Plan
from agentic_ray.interop.dask_run import run_graph
from agentic_ray.runtime import get_session

_Chunks = tuple[tuple[int, ...], ...]


def from_dask(array: da.Array) -> Array:
    """Compute an array of Dask's by this package; return it as an array of the same chunks.

    The chunks stay where they were made: none comes to this process. If all of them are lost with
    the cluster's only node they are not made again.

    Parameters
    ----------
    array : dask.array.Array
        Of numbers, booleans or times, with chunks of known sizes.

    Raises
    ------
    InvalidTypeError
        It is no array of Dask's, or has objects or text.
    InvalidArgumentError
        The size of a chunk is not known; call its ``compute_chunk_sizes()`` first.
    BlockResultError
        A chunk has another shape or dtype than the array says, or is masked.

    Examples
    --------
    >>> import agentic_ray as ar, dask.array as da
    >>> x = ar.interop.dask.from_dask(da.arange(10, chunks=5) * 2)
    >>> int(x.sum()), x.chunks
    (90, ((5, 5),))
    """
    if not isinstance(array, da.Array):
        raise InvalidTypeError(f"from_dask takes an array of Dask's, not a {type(array).__name__}")
    dtype = numeric_dtype("from_dask", array.dtype)
    if any(math.isnan(n) for axis in array.chunks for n in axis):
        raise InvalidArgumentError(
            "the sizes of some chunks are not known; call the array's compute_chunk_sizes() first"
        )
    like = zeros(array.shape, dtype=dtype, chunks=array.chunks)._node
    (array,) = dask.optimize(array)
    plan = Plan.of(array)
    checks = [
        Task.of(_CHECKED, plan.value((array.name, *place)), shape, dtype.str, key=f"chunk{place}")
        for place, shape in _grid(array.chunks)
    ]
    names = [task.key for task in checks]
    graph = cull(TaskGraph([*plan.tasks, *checks], names))
    made = run_graph(get_session(), graph, 0, [], handles=True)
    return Array(evaluate.stored(like, [made[name] for name in names]))


def to_dask(array: Array) -> da.Array:
    """Compute an array of this package; return it as one of Dask's of the same chunks.

    The chunks stay where they were made. Under the scheduler `get` the tasks of Dask are given
    them there; another scheduler of this process, such as Dask's threads, gets copies.

    Parameters
    ----------
    array : Array

    Raises
    ------
    InvalidTypeError
        It is no array of this package.

    Examples
    --------
    >>> import agentic_ray as ar, agentic_ray.array as xp
    >>> x = ar.interop.dask.to_dask(xp.arange(10, chunks=5) * 2)
    >>> x.chunks, int(x.sum().compute(scheduler=ar.interop.dask.get))
    (((5, 5),), 90)
    """
    if not isinstance(array, Array):
        raise InvalidTypeError(f"to_dask takes an array of agentic_ray, not {type(array).__name__}")
    (leaf,) = evaluate.persist([array._node])
    orders: list[tuple[int, ...]] = []
    while leaf.op is PERMUTE:
        orders.append(leaf.params[0])
        (leaf,) = leaf.inputs
    if leaf.op is DATA:
        found = da.from_array(leaf.params[0].value, chunks=leaf.chunks)
    else:
        name = f"agentic-ray-{uuid.uuid4().hex}"
        chunks = zip(_grid(leaf.chunks), leaf.params[0].value, strict=True)
        nodes = {(name, *place): KeptChunk((name, *place), chunk) for (place, _), chunk in chunks}
        graph = HighLevelGraph.from_collections(name, nodes)
        found = da.Array(graph, name, leaf.chunks, dtype=leaf.dtype)
    for order in reversed(orders):
        found = found.transpose(order)
    return found


def _grid(chunks: _Chunks) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The place in the grid and the shape of each chunk, in C order."""
    places = itertools.product(*(range(len(axis)) for axis in chunks))
    return zip(places, itertools.product(*chunks), strict=True)


def _check(chunk: Any, shape: tuple[int, ...], dtype: str) -> Any:
    """Return a chunk as an array in C order, if it is as its array says."""
    if isinstance(chunk, np.ma.MaskedArray):
        raise BlockResultError("a chunk is masked; fill it first: da.ma.filled(array, value)")
    found = np.asarray(chunk)
    if found.shape != shape or found.dtype != np.dtype(dtype):
        raise BlockResultError(
            f"a chunk has shape {found.shape} and dtype {found.dtype}; its array says {shape} and "
            f"{np.dtype(dtype)}"
        )
    return np.ascontiguousarray(found).reshape(shape)


_CHECKED = Codelet("dask.chunk", _check)
