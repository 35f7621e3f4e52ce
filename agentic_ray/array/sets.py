"""Set operations on two arrays: membership, intersection, union, differences."""

from __future__ import annotations

from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.build import leaf, operand, strict_operand
from agentic_ray.array.core.elements import cast
from agentic_ray.array.core.node import DType, Node, Op, make
from agentic_ray.array.core.program import codelet
from agentic_ray.array.core.views import concatenated, rechunk, reshaped
from agentic_ray.array.creation import ones, zeros
from agentic_ray.array.elementwise import logical_not
from agentic_ray.array.manipulation import concatenate
from agentic_ray.array.searching import are_many, counted_before
from agentic_ray.array.small import by_numpy_if_small
from agentic_ray.array.sorting import argsort, sort
from agentic_ray.array.taking import take
from agentic_ray.array.uniqueness import unique

# --- membership --------------------------------------------------------------------------


def isin(
    x1: Any, x2: Any, /, assume_unique: bool = False, invert: bool = False, *,
    kind: str | None = None,
) -> Array:  # fmt: skip
    """Whether each element of ``x1`` is one of ``x2``; NaN is in nothing.

    Parameters
    ----------
    x1, x2 : array_like
    assume_unique : bool
        Promise, in NumPy, that neither has an element twice; not needed here.
    invert : bool
        Whether to test that each is not in ``x2`` instead.
    kind : {None, "sort", "table"}
        NumPy's choice of a method, which is made here by size; ``"table"`` is for integers.

    Returns
    -------
    Array of bool
        Truth values in the shape of ``x1``.

    Raises
    ------
    ValueError
        There is no such kind, or it does not go with these dtypes.
    """
    node = strict_operand(x1) if isinstance(x1, list | tuple) else operand(x1)
    test = strict_operand(x2) if isinstance(x2, list | tuple) else operand(x2)
    node, test = _array_of(node, test.dtype), _array_of(test, node.dtype)
    if kind not in (None, "sort", "table"):
        raise ValueError(f"Invalid kind: '{kind}'. Please use None, 'sort' or 'table'.")
    if kind == "table" and not {node.dtype.kind, test.dtype.kind} <= set("iub"):
        raise ValueError(
            "The 'table' method is only supported for boolean or integer arrays. Please select "
            "'sort' or None for kind."
        )
    found = Array(_isin(node, reshaped(test, (test.size,))))
    return logical_not(found) if invert else found


def _array_of(node: Node, other: DType) -> Node:
    """Convert a Python scalar to an array: a float beside an array of floats takes their type, any
    other scalar keeps its value (2.5 is in no array of integers)."""
    if node.op.kind != "literal":
        return node
    value = node.params[2]
    dtype = np.result_type(other, value) if isinstance(value, float | complex) else None
    return leaf(np.asarray(value, dtype))


def _isin(node: Node, test: Node) -> Node:
    if test.size == 0:
        return zeros(node.shape, dtype=np.bool_, chunks=node.chunks)._node
    # Each pair of chunks sorts both: fewer, full chunks are less work.
    size = max(*test.chunks[0], grids.rules().elements(test.dtype))
    test = rechunk(test, (grids.regular(test.size, size),))
    if are_many(node.blocks, test.blocks):
        flat = reshaped(node, (node.size,))
        before, upto = (Array(counted_before(flat, test, side)) for side in ("left", "right"))
        x = Array(flat)
        return reshaped(((upto > before) & (x == x))._node, node.shape)
    return make(_ISIN, (node, test), (), node.shape, np.dtype(np.bool_), node.chunks)


def _isin_kernel(xp: Any, x: Any, test: Any) -> Any:
    return xp.isin(x, test)


def _either(left: Any, right: Any, *, xp: Any) -> Any:
    return left | right


def _lower_isin(node: Node, lowering: Any) -> list[Any]:
    """Look for each block in each chunk of the other operand, one at a time.

    (Searching a sorted table needs a random access for each element and level, which takes
    longer than sorting both.)
    """
    x, test = node.inputs
    blocks, pieces = lowering.blocks(x), lowering.blocks(test)
    start = len(lowering.tasks)
    found = lowering.call(
        node, _isin_kernel, [(block, piece) for block in blocks for piece in pieces],
        read_bytes=x.nbytes * len(pieces) + test.nbytes * len(blocks),
        written_bytes=node.nbytes * len(pieces),
    )  # fmt: skip
    pairs = lowering.tasks[start:]
    del lowering.tasks[start:]
    either = codelet("isin.either", _either)
    result: list[Any] = []
    # Results of one block are combined before the next is looked for, to hold less.
    for i in range(0, len(found), len(pieces)):
        lowering.tasks += pairs[i : i + len(pieces)]
        found_here = found[i : i + len(pieces)]
        result.append(lowering.tree(node, found_here, either, f".either{i // len(pieces)}"))
    return result


_ISIN = Op("isin", "tasks", _isin_kernel, _lower_isin, weight=16)


# --- sets --------------------------------------------------------------------------------


def _flat(x: Any) -> Node:
    node = strict_operand(x)
    return reshaped(node, (node.size,))


def _both(first: Node, second: Node) -> Array:
    """Join the elements of two vectors, in the dtype that holds both."""
    dtype = np.result_type(first.dtype, second.dtype)
    return Array(concatenated([cast(first, dtype), cast(second, dtype)], 0))


@by_numpy_if_small
def union1d(x1: Any, x2: Any, /) -> Array:
    """Return the sorted unique elements of two arrays together.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.union1d([3, 1], [1, 2]).compute()
    array([1, 2, 3])
    """
    result: Array = unique(concatenate((x1, x2), None))
    return result


@by_numpy_if_small
def intersect1d(
    x1: Any, x2: Any, /, assume_unique: bool = False, return_indices: bool = False
) -> Any:
    """Return the sorted unique elements that are in both arrays.

    Parameters
    ----------
    x1, x2 : array_like
    assume_unique : bool
        Whether neither has an element twice (then nothing is looked for twice).
    return_indices : bool
        Whether to return also where each element comes first in ``x1`` and in ``x2``, in C order.

    Returns
    -------
    Array, or three of them

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.intersect1d([1, 3, 4], [3, 1, 1]).compute()
    array([1, 3])
    """
    a, b = Array(_flat(x1)), Array(_flat(x2))
    if not assume_unique:
        a, first_a = unique(a, return_index=True)
        b, first_b = unique(b, return_index=True)
    both = _both(a._node, b._node)
    ordered = sort(both)
    common = ordered[1:] == ordered[:-1]
    values = ordered[:-1][common]
    if not return_indices:
        return values
    order = argsort(both)
    in_a, in_b = order[:-1][common], order[1:][common] - a.shape[0]
    if not assume_unique:
        in_a, in_b = take(first_a, in_a), take(first_b, in_b)
    return values, in_a, in_b


@by_numpy_if_small
def setdiff1d(x1: Any, x2: Any, /, assume_unique: bool = False) -> Array:
    """Return the unique elements of ``x1`` that are not in ``x2``; sorted, unless ``assume_unique``
    says that neither has an element twice."""
    a, b = Array(_flat(x1)), Array(_flat(x2))
    if not assume_unique:
        a = unique(a)
    result: Array = a[isin(a, b, invert=True)]
    return result


@by_numpy_if_small
def setxor1d(x1: Any, x2: Any, /, assume_unique: bool = False) -> Array:
    """Return the sorted unique elements that are in one of the arrays only.

    ``assume_unique`` says that neither has an element twice.
    """
    a, b = Array(_flat(x1)), Array(_flat(x2))
    if not assume_unique:
        a, b = unique(a), unique(b)
    both = _both(a._node, b._node)
    if not both.shape[0]:
        return both
    ordered = sort(both)
    edge = ones((1,), dtype=np.bool_)._node
    new = Array(concatenated([edge, (ordered[1:] != ordered[:-1])._node, edge], 0))
    result: Array = ordered[new[1:] & new[:-1]]
    return result
