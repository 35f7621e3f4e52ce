"""Reductions and scans along chunks by functions of the caller's, with Dask's protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from agentic_ray.array.array_object import Array
from agentic_ray.array.blocks import map_blocks
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.build import strict_operand
from agentic_ray.array.core.chunks import Chunks
from agentic_ray.array.core.node import DType, Op, make
from agentic_ray.array.scans import scan_lower
from agentic_ray.array.userfunctions import UserKernel, checked, numeric_dtype, user_kernel
from agentic_ray.errors import InvalidArgumentError

_FOLDED = 8
"""Number of partial results along an axis that are combined at a time."""


def reduced(
    x: Array,
    func: Callable[..., Any],
    combine: Callable[..., Any] | None = None,
    aggregate: Callable[..., Any] | None = None,
    axis: int | Sequence[int] | None = None,
    dtype: Any = None,
    keepdims: bool = False,
) -> Array:
    """Reduce ``x`` chunk by chunk, then in a tree.

    Parameters
    ----------
    x : Array
    func : callable
        ``func(chunk, axis=axes, keepdims=True)``: returns a partial result, of length 1 along the
        axes.
    combine : callable, optional
        Called in the same way on partial results of neighbouring chunks, put together in one array;
        default ``aggregate``.
    aggregate : callable, optional
        Called last, on the remaining results, with the caller's ``keepdims``; default ``combine``,
        or ``func``.
    axis, keepdims
        As in NumPy's reductions.
    dtype : optional
        Dtype of the result; None: found by a call.

    Raises
    ------
    BlockResultError
        When values are computed: a function returned another shape.
    """
    axes = tuple(sorted(range(x.ndim) if axis is None else normalize_axis_tuple(axis, x.ndim)))
    combine = combine or aggregate or func
    aggregate = aggregate or combine
    partial = _partial(func, x, axes, dtype)
    while True:
        merged = _merged(partial.chunks, axes)
        if all(len(merged[at]) == 1 for at in axes):
            break
        partial = _partial(combine, partial.rechunk(merged), axes, dtype)
    partial = partial.rechunk(merged)
    out = [(1,) if at in axes else lengths for at, lengths in enumerate(partial.chunks)]
    return map_blocks(
        aggregate, partial, axis=axes, keepdims=keepdims, dtype=dtype,
        drop_axis=None if keepdims else axes, chunks=tuple(out) if keepdims else None,
    )  # fmt: skip


def _partial(func: Callable[..., Any], x: Array, axes: tuple[int, ...], dtype: Any) -> Array:
    ones = tuple(
        [(1,) * len(lengths) if at in axes else lengths for at, lengths in enumerate(x.chunks)]
    )
    try:
        return map_blocks(func, x, axis=axes, keepdims=True, chunks=ones)
    except InvalidArgumentError:
        if dtype is None:
            raise
    # The function fails on one element: then partial results are assumed to have the result's
    # dtype.
    return map_blocks(func, x, axis=axes, keepdims=True, chunks=ones, dtype=dtype)


def _merged(chunks: Chunks, axes: Sequence[int]) -> Chunks:
    return tuple(
        [
            grids.regular(sum(lengths), _FOLDED) if at in axes else lengths
            for at, lengths in enumerate(chunks)
        ]
    )


def scanned(
    func: Callable[..., Any],
    binop: Callable[..., Any],
    x: Array,
    axis: int | None = None,
    dtype: Any = None,
) -> Array:
    """Scan the chunks of ``x``, then put each together with the total of those before it.

    Parameters
    ----------
    func : callable
        ``func(chunk, axis=axis)``; ``dtype`` is passed too if it has such a parameter.
    binop : callable
        ``binop(before, chunk)``: ``before`` has length 1 along the axis, the last scanned element
        before the chunk.
    axis : int, optional
        Axis; only a vector can do without.
    dtype : optional
        Dtype of the result; None: that of ``x``.
    """
    if axis is None and x.ndim != 1:
        raise InvalidArgumentError("a scan of several axes needs axis=")
    at = normalize_axis_index(0 if axis is None else axis, x.ndim)
    node = strict_operand(x)
    wanted = numeric_dtype("scan", node.dtype if dtype is None else dtype)
    options = {"axis": at}
    kernel = user_kernel("scan", func, options, blocks=1)
    if kernel.takes("dtype"):
        kernel = user_kernel("scan", func, {**options, "dtype": wanted}, blocks=1)
    both = user_kernel("scan", binop, {}, blocks=2)
    op = Op(
        kernel.name, "tasks", _Scan(kernel), scan_lower(_Joined(both, wanted)), of_user=True
    )  # fmt: skip
    return Array(make(op, (node,), (at, wanted), node.shape, wanted, node.chunks))


@dataclass(frozen=True, slots=True)
class _Scan:
    """Kernel that scans a chunk by a user's function."""

    kernel: UserKernel

    @property
    def host_only(self) -> bool:
        return self.kernel.host_only

    @property
    def size_bytes(self) -> int:
        return self.kernel.size_bytes

    def __call__(self, xp: Any, x: Any, axis: int, dtype: DType) -> Any:
        result = self.kernel(xp, x)
        return checked(xp, result, x.shape, dtype, self.kernel.name, (), _SHAPE)


@dataclass(frozen=True, slots=True)
class _Joined:
    """Kernel that puts a scanned chunk together with the total before it."""

    kernel: UserKernel
    dtype: DType

    @property
    def host_only(self) -> bool:
        return self.kernel.host_only

    @property
    def size_bytes(self) -> int:
        return self.kernel.size_bytes

    def __call__(self, xp: Any, x: Any, before: Any) -> Any:
        result = self.kernel(xp, before, x)
        shape = np.broadcast_shapes(x.shape, before.shape)
        return checked(xp, result, shape, self.dtype, self.kernel.name, (), _SHAPE)


_SHAPE = "; a scan keeps the shape"
