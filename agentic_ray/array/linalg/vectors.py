"""Products in NumPy's spelling: matmul, vecdot and others with all options, inner, outer, cross,
kron."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from agentic_ray.array.array_object import Array, check_order
from agentic_ray.array.core.build import broadcast_shapes, strict_operand
from agentic_ray.array.core.elements import cast
from agentic_ray.array.core.node import Node
from agentic_ray.array.core.views import expanded, permuted, reshaped
from agentic_ray.array.elementwise import conj, multiply
from agentic_ray.array.linalg import products
from agentic_ray.array.manipulation import expand_dims, moveaxis, stack
from agentic_ray.array.outputs import delivered
from agentic_ray.array.small import by_numpy_if_small
from agentic_ray.array.statistics import sum as _sum


def _vecdot(a: Node, b: Node) -> Array:
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(f"vecdot: lengths {a.shape[-1]} and {b.shape[-1]} differ")
    left = conj(Array(a)) if a.dtype.kind == "c" else Array(a)
    product = multiply(left, Array(b))
    if product.dtype.kind == "b":
        return product.any(axis=-1)  # type: ignore[no-any-return]
    return _sum(product, axis=-1, dtype=product.dtype)


def _matvec(a: Node, b: Node) -> Array:
    return products.matmul(Array(a), Array(expanded(b, (b.ndim,))))[..., 0]


def _vecmat(a: Node, b: Node) -> Array:
    left = conj(Array(a)) if a.dtype.kind == "c" else Array(a)
    return products.matmul(expand_dims(left, -2), Array(b))[..., 0, :]


def _matmul(a: Node, b: Node) -> Array:
    return products.matmul(Array(a), Array(b))


_CORES: dict[str, tuple[Callable[[Node, Node], Array], tuple[int, int, int]]] = {
    "matmul": (_matmul, (2, 2, 2)),
    "vecdot": (_vecdot, (1, 1, 0)),
    "matvec": (_matvec, (2, 1, 1)),
    "vecmat": (_vecmat, (1, 2, 1)),
}
"""Products over last axes by name, and the number of core axes of operands and result."""


def _product(
    name: str,
    x1: Any,
    x2: Any,
    out: Any,
    casting: str,
    order: str,
    dtype: Any,
    signature: Any,
    axes: Any,
    axis: Any = None,
    keepdims: bool = False,
) -> Any:
    """Compute a product with the options of NumPy's generalised ufuncs."""
    function, cores = _CORES[name]
    check_order(order)
    nodes = [strict_operand(x1), strict_operand(x2)]
    if signature is not None:
        if dtype is not None:
            raise TypeError("cannot specify both 'signature' and 'dtype'")
        dtype = _of_signature(signature)
    if any(node.ndim < min(core, 1) for node, core in zip(nodes, cores[:2], strict=True)) or (
        name != "matmul" and any(n.ndim < core for n, core in zip(nodes, cores[:2], strict=True))
    ):
        raise ValueError(
            f"{name}: an operand does not have enough dimensions (shapes "
            f"{nodes[0].shape} and {nodes[1].shape})"
        )
    if dtype is not None:
        wanted = np.dtype(dtype)
        for node in nodes:
            if not np.can_cast(node.dtype, wanted, casting):  # type: ignore[arg-type]
                raise TypeError(
                    f"Cannot cast ufunc {name!r} input from {node.dtype!r} to {wanted!r} with "
                    f"casting rule {casting!r}"
                )
        nodes = [cast(node, wanted) for node in nodes]
    if axis is not None and axes is not None:
        raise TypeError("cannot specify both 'axis' and 'axes'")
    if axis is not None:
        axes = [(axis,), (axis,), (axis,) if keepdims else ()]
    if axes is None:
        made = function(*nodes)
        made = made[..., None] if keepdims else made
        return delivered(made, out, casting)
    places = _places(name, axes, cores if not keepdims else (1, 1, 1))
    moved = [_last(node, place) for node, place in zip(nodes, places, strict=False)]
    made = function(*moved)
    made = made[..., None] if keepdims else made
    if len(places) > 2 and places[2]:
        made = moveaxis(made, tuple(range(-len(places[2]), 0)), places[2])
    return delivered(made, out, casting)


def _of_signature(signature: Any) -> Any:
    kinds = signature.replace("->", "") if isinstance(signature, str) else signature
    found = {np.dtype(kind) for kind in kinds if kind is not None}
    if len(found) != 1:
        raise TypeError(f"No loop matching the specified signature {signature!r}")
    return found.pop()


def _places(name: str, axes: Any, cores: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the axes that ``axes`` names for each operand and the result.

    Raises
    ------
    TypeError, ValueError
        ``axes`` is no list of two or three entries of as many axes as there are core axes.
    """
    if not isinstance(axes, list):
        raise TypeError("axes should be a list.")
    if len(axes) != 3 and not (len(axes) == 2 and cores[2] == 0):
        raise ValueError("axes should be a list with an entry for all 3 inputs and outputs.")
    places = [(entry,) if isinstance(entry, int) else tuple(entry) for entry in axes]
    for place, core in zip(places, cores, strict=False):
        if len(place) != core:
            raise np.exceptions.AxisError(
                f"{name}: an entry of axes has {len(place)} axes, not {core}"
            )
    return places


def _last(node: Node, axes: tuple[int, ...]) -> Node:
    """Move ``axes`` of ``node`` to the end."""
    found = [normalize_axis_index(axis, node.ndim) for axis in axes]
    return permuted(node, (*[a for a in range(node.ndim) if a not in found], *found))


def matmul(
    x1: Any,
    x2: Any,
    /,
    out: Any = None,
    *,
    casting: str = "same_kind",
    order: str = "K",
    dtype: Any = None,
    subok: bool = True,
    signature: Any = None,
    axes: Any = None,
) -> Any:
    """Multiply matrices, or stacks of them; vectors are a row or a column.

    Parameters
    ----------
    x1, x2 : array_like
    out : array, optional
    casting, order, dtype, subok, signature, axes
        As in NumPy.

    Raises
    ------
    ValueError
        An operand has no axis, or the inner lengths differ.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.matmul([[1, 0], [0, 1]], [[4, 1], [2, 2]])
    Array([[4, 1],
           [2, 2]], dtype=int64)
    """
    return _product("matmul", x1, x2, out, casting, order, dtype, signature, axes)


def vecdot(
    x1: Any,
    x2: Any,
    /,
    out: Any = None,
    *,
    casting: str = "same_kind",
    order: str = "K",
    dtype: Any = None,
    subok: bool = True,
    signature: Any = None,
    axes: Any = None,
    axis: Any = None,
    keepdims: bool = False,
) -> Any:
    """Multiply vectors along an axis (default: the last), the first one conjugated.

    Raises
    ------
    ValueError
        The vectors differ in length.
    """
    return _product("vecdot", x1, x2, out, casting, order, dtype, signature, axes, axis, keepdims)


def matvec(
    x1: Any,
    x2: Any,
    /,
    out: Any = None,
    *,
    casting: str = "same_kind",
    order: str = "K",
    dtype: Any = None,
    subok: bool = True,
    signature: Any = None,
    axes: Any = None,
) -> Any:
    """Multiply a matrix with a vector, or stacks of them.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.matvec([[1, 2], [3, 4]], [1, 1])
    Array([3, 7], dtype=int64)
    """
    return _product("matvec", x1, x2, out, casting, order, dtype, signature, axes)


def vecmat(
    x1: Any,
    x2: Any,
    /,
    out: Any = None,
    *,
    casting: str = "same_kind",
    order: str = "K",
    dtype: Any = None,
    subok: bool = True,
    signature: Any = None,
    axes: Any = None,
) -> Any:
    """Multiply a vector, conjugated, with a matrix, or stacks of them."""
    return _product("vecmat", x1, x2, out, casting, order, dtype, signature, axes)


# --- NumPy's other products --------------------------------------------------------------


def _exactly(result: Array, out: Any) -> Any:
    """Return ``result``, or put it in ``out``, which must match it exactly, and return that.

    Raises
    ------
    ValueError
        ``out`` has another dtype or shape.
    """
    if out is None:
        return result
    if (
        not isinstance(out, Array | np.ndarray)
        or out.dtype != result.dtype
        or out.shape != result.shape
    ):
        if not isinstance(out, Array | np.ndarray):
            raise TypeError("'out' must be an array")
        raise ValueError(
            "output array is not acceptable (must have the right datatype, number of dimensions, "
            "and be a C-Array)"
        )
    return delivered(result, out)


def dot(a: Any, b: Any, out: Any = None) -> Any:
    """Multiply as NumPy's dot: scalars, vectors, matrices, or over the last and next to last axis.

    Parameters
    ----------
    a, b : array_like
    out : array, optional
        Array of the result's shape and dtype.

    Raises
    ------
    ValueError
        Lengths differ, or ``out`` does not match the result.
    """
    left, right = strict_operand(a), strict_operand(b)
    if left.dtype.kind == "m" or right.dtype.kind == "m" or "M" in (left.dtype.kind,
                                                                   right.dtype.kind):  # fmt: skip
        raise TypeError(f"dot: no product of {left.dtype} and {right.dtype}")
    if not left.ndim or not right.ndim:
        return _exactly(multiply(Array(left), Array(right)), out)
    inner = right.shape[-2] if right.ndim > 1 else right.shape[0]
    if left.shape[-1] != inner:
        raise ValueError(f"shapes {left.shape} and {right.shape} not aligned")
    return _exactly(products.dot(Array(left), Array(right)), out)


def inner(a: Any, b: Any, /) -> Array:
    """Multiply over the last axis of both operands; scalars by each other.

    Raises
    ------
    ValueError
        The last axes differ in length.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> int(xp.inner([1, 2, 3], [0, 1, 0]))
    2
    """
    left, right = strict_operand(a), strict_operand(b)
    if not left.ndim or not right.ndim:
        return multiply(Array(left), Array(right))
    if left.shape[-1] != right.shape[-1]:
        raise ValueError(f"shapes {left.shape} and {right.shape} not aligned")
    axes = ((left.ndim - 1,), (right.ndim - 1,))
    return products.tensordot(Array(left), Array(right), axes)


def vdot(a: Any, b: Any, /) -> Array:
    """Multiply two arrays as vectors, the first one conjugated.

    Raises
    ------
    ValueError
        The sizes differ.
    """
    left, right = strict_operand(a), strict_operand(b)
    if left.size != right.size:
        raise ValueError(f"cannot reshape array of size {right.size} into shape ({left.size},)")
    return _vecdot(reshaped(left, (left.size,)), reshaped(right, (right.size,)))


def outer(a: Any, b: Any, out: Any = None) -> Any:
    """Multiply each element of one operand with each of the other, both flattened.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.outer([1, 2], [3, 4])
    Array([[3, 4],
           [6, 8]], dtype=int64)
    """
    left, right = strict_operand(a), strict_operand(b)
    column, row = reshaped(left, (left.size, 1)), reshaped(right, (1, right.size))
    return delivered(multiply(Array(column), Array(row)), out)


def vector_outer(x1: Any, x2: Any, /) -> Array:
    """Multiply each element of one vector with each of the other: ``linalg.outer``.

    Raises
    ------
    ValueError
        An operand is no vector.
    """
    a, b = strict_operand(x1), strict_operand(x2)
    if a.ndim != 1 or b.ndim != 1:
        raise ValueError(
            f"Input arrays must be one-dimensional, but they are {a.ndim=} and {b.ndim=}."
        )
    return outer(Array(a), Array(b))  # type: ignore[no-any-return]


@by_numpy_if_small
def kron(a: Any, b: Any) -> Array:
    """Compute Kronecker's product: blocks of the second operand, each scaled by an element of the
    first.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> xp.kron([1, 10], [5, 6])
    Array([ 5,  6, 50, 60], dtype=int64)
    """
    left, right = strict_operand(a), strict_operand(b)
    ndim = max(left.ndim, right.ndim)
    left, right = (reshaped(x, (1,) * (ndim - x.ndim) + x.shape) for x in (left, right))
    apart = expanded(left, tuple(range(1, 2 * ndim, 2))), expanded(
        right, tuple(range(0, 2 * ndim, 2)))  # fmt: skip
    made = multiply(*map(Array, apart))
    shape = tuple([m * n for m, n in zip(left.shape, right.shape, strict=True)])
    return Array(reshaped(made._node, shape))


@by_numpy_if_small
def cross(
    a: Any, b: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None
) -> Array:
    """Compute cross products of vectors of length 3, or 2 (deprecated in NumPy; the third is then
    0).

    Parameters
    ----------
    a, b : array_like
    axisa, axisb, axisc : int
        Axes of the vectors in the operands and in the result.
    axis : int, optional
        Axis for all three.

    Raises
    ------
    ValueError
        A vector has another length.
    """
    if axis is not None:
        axisa = axisb = axisc = axis
    left, right = strict_operand(a), strict_operand(b)
    if not left.ndim or not right.ndim:
        raise ValueError("At least one array has zero dimension")
    left, right = _last(left, (axisa,)), _last(right, (axisb,))
    lengths = (left.shape[-1], right.shape[-1])
    if not {*lengths} <= {2, 3}:
        raise ValueError("Both input arrays must be (arrays of) 3-dimensional vectors, but they "
                         f"are {lengths[0]} and {lengths[1]} dimensional instead.")  # fmt: skip
    if 2 in lengths:
        warnings.warn(
            "Arrays of 2-dimensional vectors are deprecated. Use arrays of 3-dimensional vectors "
            "instead. (deprecated in NumPy 2.0)",
            DeprecationWarning,
            stacklevel=2,
        )
    loop = broadcast_shapes([left.shape[:-1], right.shape[:-1]], "cross")
    if lengths != (2, 2):
        axisc = normalize_axis_index(axisc, len(loop) + 1)
    dtype = np.promote_types(left.dtype, right.dtype)
    one, other = Array(cast(left, dtype)), Array(cast(right, dtype))

    def term(i: int, j: int) -> Array | None:
        """Multiply two components; None where one of them is missing, and so 0."""
        if i >= lengths[0] or j >= lengths[1]:
            return None
        return one[..., i] * other[..., j]

    def component(i: int, j: int) -> Array:
        first, second = term(i, j), term(j, i)
        if second is None:
            assert first is not None
            return first
        return -second if first is None else first - second

    if lengths == (2, 2):
        return component(0, 1)
    parts = [component(1, 2), component(2, 0), component(0, 1)]
    return moveaxis(stack(parts, axis=-1), -1, axisc)


def vector_cross(x1: Any, x2: Any, /, *, axis: int = -1) -> Array:
    """Compute cross products of vectors of length 3 along ``axis``: ``linalg.cross``.

    Raises
    ------
    ValueError
        The vectors have another length.
    """
    a, b = strict_operand(x1), strict_operand(x2)
    if a.shape[normalize_axis_index(axis, a.ndim)] != 3 or (
        b.shape[normalize_axis_index(axis, b.ndim)] != 3
    ):
        raise ValueError(
            "Both input arrays must be (arrays of) 3-dimensional vectors, but they are "
            f"{a.shape[axis]} and {b.shape[axis]} dimensional instead."
        )
    return cross(Array(a), Array(b), axis=axis)


def vector_vecdot(x1: Any, x2: Any, /, *, axis: int = -1) -> Array:
    """Multiply vectors along ``axis``, the first one conjugated: ``linalg.vecdot``."""
    return vecdot(x1, x2, axis=axis)  # type: ignore[no-any-return]


def matrix_tensordot(x1: Any, x2: Any, /, *, axes: Any = 2) -> Array:
    """Sum products over axes of both operands: ``linalg.tensordot``."""
    return products.tensordot(x1, x2, axes)
