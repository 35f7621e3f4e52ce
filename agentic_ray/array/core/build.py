"""Makes nodes: operands from what users pass, shapes and dtypes inferred, chunks aligned.

Every function here raises at the call what NumPy would raise; none computes.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.chunks import Chunks, Shape
from agentic_ray.array.core.node import LITERAL, DType, NDArray, Node, Op, data, literal, make
from agentic_ray.array.core.program import is_host_only
from agentic_ray.array.core.views import rechunk
from agentic_ray.errors import InvalidTypeError

_SCALARS = (bool, int, float, complex)
_TEXT_INSTEAD = (
    "keep text in a pandas, polars or Arrow table, or make numbers of it first "
    "(numpy.asarray(x).astype(float), pandas.factorize(x))"
)
_OBJECTS_INSTEAD = (
    "say the dtype if they are numbers (numpy.asarray(x, float)); map_reduce goes over Python "
    "objects"
)


def leaf(array: NDArray, chunks: Any = "auto", device: str = "cpu") -> Node:
    """A leaf over ``array``, which must not change any more."""
    return data(array, grids.normalize(chunks, array.shape, array.dtype), device)


def operand(value: Any) -> Node:
    """``value`` as an operand: a Python scalar stays weakly typed, an array is taken as it is.

    Raises
    ------
    InvalidTypeError
        It holds no numbers.
    """
    node = getattr(value, "_node", None)
    if isinstance(node, Node):
        return node
    if type(value) in _SCALARS:
        return literal(value)
    if isinstance(value, _SCALARS) and not isinstance(value, np.generic):
        base: Any = next(k for k in _SCALARS if isinstance(value, k))  # a subclass of Python's own
        return literal(base(value))
    return _leaf_of(value)


def strict_operand(value: Any) -> Node:
    """``value`` as an array: lists and scalars become one, as in NumPy.

    Raises
    ------
    InvalidTypeError
        It holds no numbers.
    """
    node = getattr(value, "_node", None)
    return node if isinstance(node, Node) else _leaf_of(value)


def _leaf_of(value: Any) -> Node:
    if isinstance(value, list | tuple):
        value = without_arrays(value)
    elif isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise InvalidTypeError(
            "this masked array hides values, and arrays have no mask: pass x.filled(numpy.nan) to "
            "functions that skip NaN, or the mask as where="
        )
    array = np.array(value)
    check_numbers(array.dtype, value)
    return leaf(array)


def without_arrays(value: Any) -> Any:
    """Nested sequences with the arrays of this package in them as NumPy's.

    Tuples stay tuples: in a list of records they are the records.
    """
    if isinstance(getattr(value, "_node", None), Node):
        return np.asarray(value)
    if isinstance(value, list | tuple):
        elements = [without_arrays(element) for element in value]
        return elements if isinstance(value, list) else tuple(elements)
    return value


def check_numbers(dtype: DType, of: Any = None) -> DType:
    """``dtype`` if arrays of it can be cut in chunks, sent and computed with.

    Raises
    ------
    InvalidTypeError
        It is of objects or texts.
    """
    if dtype.hasobject or dtype.kind in "OSUT":
        what = "" if of is None else f": a {type(of).__name__} cannot be converted"
        raise InvalidTypeError(
            f"arrays hold numbers, booleans, dates or records of them, not {dtype}{what}; "
            f"{_OBJECTS_INSTEAD if dtype.hasobject else _TEXT_INSTEAD}"
        )
    return dtype


# --- elementwise -------------------------------------------------------------------------


def _result_dtype(op: Op, inputs: Sequence[Node], params: tuple[Any, ...]) -> DType:
    """The dtype of ``op``'s result.

    Raises
    ------
    TypeError, OverflowError
        NumPy has no such operation for these operands.
    """
    kinds = tuple(
        [_kind_of_scalar(node.params[2]) if node.op is LITERAL else node.dtype for node in inputs]
    )
    try:
        return _probe(op, params, kinds)
    except Exception:  # of the stand-in, perhaps; NumPy says what it thinks of the number itself
        own = [node.params if node.op is LITERAL else node.dtype for node in inputs]
        return _probe.__wrapped__(op, params, tuple(own))


@functools.lru_cache(maxsize=8192)
def _probe(op: Op, params: tuple[Any, ...], kinds: tuple[Any, ...]) -> DType:
    """The dtype that ``op``'s kernel gives, for dtypes and what `_kind_of_scalar` gives."""
    operands = [np.empty(0, kind) if isinstance(kind, np.dtype) else kind[-1] for kind in kinds]
    with np.errstate(all="ignore"):
        return np.asarray(op.kernel(np, *operands, *params)).dtype


def _kind_of_scalar(value: Any) -> tuple[str, Any]:
    """The type of a Python scalar, and one that stands for it where only dtypes are asked for.

    Of an integer it also matters into which dtypes it fits.
    """
    kind = type(value)
    if kind is not int:
        return _KINDS[kind]
    bits = value.bit_length() if value >= 0 else (~value).bit_length()
    width = _WIDTHS[bits] if bits <= 64 else bits
    return "int", (1 << width) - 1 if value >= 0 else -(1 << width)


_KINDS: dict[type, tuple[str, Any]] = {
    bool: ("bool", True),
    float: ("float", 1.0),
    complex: ("complex", 1j),
}
_WIDTHS = [next(w for w in (7, 8, 15, 16, 31, 32, 63, 64) if bits <= w) for bits in range(65)]
"""Bits of the largest integer that fits into the same dtypes as one of so many bits."""


def elementwise(op: Op, inputs: Sequence[Node], params: tuple[Any, ...] = ()) -> Node:
    """``op`` over broadcast operands, aligned to one grid of chunks.

    Raises
    ------
    ValueError
        Shapes do not broadcast.
    TypeError
        NumPy has no such operation for these dtypes.
    """
    arrays = [node for node in inputs if node.op.kind != "literal"]
    if not arrays:
        inputs = arrays = [leaf(np.asarray(node.params[2])) for node in inputs]
    dtype = _result_dtype(op, inputs, params)
    first = arrays[0]
    for other in arrays[1:]:
        if other.shape != first.shape or other.chunks != first.chunks:
            return _broadcast(op, inputs, arrays, params, dtype)
    return make(op, tuple(inputs), params, first.shape, dtype, first.chunks)


def _broadcast(
    op: Op, inputs: Sequence[Node], arrays: list[Node], params: tuple[Any, ...], dtype: DType
) -> Node:
    shape = broadcast_shapes([node.shape for node in arrays], op.name)
    chunks = grids.unify(shape, [(node.shape, node.chunks, node.nbytes) for node in arrays])
    return make(
        op,
        tuple([align(node, shape, chunks) for node in inputs]),
        params,
        shape,
        dtype,
        chunks,
    )


def align(node: Node, shape: Shape, chunks: Chunks) -> Node:
    """``node`` with chunks that fit ``chunks`` where it is not broadcast."""
    if node.chunks == chunks:
        return node
    skip = len(shape) - len(node.shape)
    wanted = tuple(
        [
            chunks[skip + axis] if length == shape[skip + axis] else (length,)
            for axis, length in enumerate(node.shape)
        ]
    )
    return rechunk(node, wanted)


def broadcast_shapes(shapes: Sequence[Shape], name: str = "") -> Shape:
    """The shape that ``shapes`` broadcast to.

    Raises
    ------
    ValueError
        They do not.
    """
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        text = " ".join(str(shape) for shape in shapes)
        where = f"{name}: " if name else ""
        raise ValueError(f"{where}operands could not be broadcast together: {text}") from None


# --- reductions --------------------------------------------------------------------------


def axes_of(axis: Any, ndim: int) -> tuple[int, ...]:
    """Axes to reduce, sorted; all of them for None.

    Raises
    ------
    numpy.exceptions.AxisError
        There is no such axis.
    ValueError
        An axis is named twice.
    TypeError
        An axis is no integer.
    """
    if axis is None:
        return tuple(range(ndim))
    if isinstance(axis, bool | np.bool_ | list):
        raise TypeError(f"an axis is an integer or a tuple of integers, not {axis!r}")
    if not isinstance(axis, tuple):
        axis = operator.index(axis)
    return tuple(sorted(normalize_axis_tuple(axis, ndim)))


def axes_of_ufunc(axis: Any, ndim: int) -> tuple[int, ...]:
    """Axes that a ufunc reduces, sorted: as `axes_of`, but an array without axes may be reduced
    over axis 0 or -1, as in NumPy.

    Raises
    ------
    numpy.exceptions.AxisError
        There is no such axis, or one is named twice.
    """
    if ndim == 0 and isinstance(axis, int | np.integer) and axis in (0, -1):
        axis = ()
    return axes_of(axis, ndim)


def reduction(
    op: Op,
    inputs: Sequence[Node],
    axes: tuple[int, ...],
    keepdims: bool,
    dtype: DType,
    params: tuple[Any, ...] = (),
) -> Node:
    """A reduction of operands that broadcast against the first."""
    big = inputs[0]
    shape = tuple(
        [1 if a in axes else n for a, n in enumerate(big.shape) if keepdims or a not in axes]
    )
    chunks = tuple(
        [(1,) if a in axes else c for a, c in enumerate(big.chunks) if keepdims or a not in axes]
    )
    aligned = tuple([align(node, big.shape, big.chunks) for node in inputs])
    return make(op, aligned, (axes, bool(keepdims), *params), shape, dtype, chunks)


# --- blocks as a whole -------------------------------------------------------------------


def along(
    op: Op,
    inputs: Sequence[Node],
    axes: Sequence[int],
    lengths: Sequence[int] | None,
    dtype: DType,
    params: tuple[Any, ...] = (),
) -> Node:
    """``op`` along ``axes``, which are put in one chunk; the other axes stay cut.

    Operands have one shape. ``lengths`` are the axes' lengths in the result, default the same.
    """
    first = inputs[0]
    chunks = whole_axes(first, axes)
    aligned = tuple([rechunk(node, chunks) for node in inputs])
    shape = list(first.shape)
    out = list(chunks)
    if lengths is not None:
        for axis, length in zip(axes, lengths, strict=True):
            shape[axis] = length
            out[axis] = (length,)
    return make(op, aligned, params, tuple(shape), dtype, tuple(out))


def whole_axes(node: Node, axes: Sequence[int]) -> Chunks:
    """A grid with ``axes`` in one piece; if chunks then grow too large the others are cut."""
    wanted: list[Any] = [
        (node.shape[axis],) if axis in axes else lengths for axis, lengths in enumerate(node.chunks)
    ]
    if all(len(node.chunks[axis]) == 1 for axis in axes):
        return node.chunks
    largest = math.prod([max(lengths) for lengths in wanted])
    limit = grids.rules().elements(node.dtype)
    if largest > limit:
        for axis in range(node.ndim):
            if axis not in axes:
                wanted[axis] = "auto"
        return grids.normalize(tuple(wanted), node.shape, node.dtype)
    return tuple(wanted)


def gufunc(
    op: Op,
    inputs: Sequence[Node],
    core: Sequence[int],
    out_core: Shape,
    dtype: DType,
    params: tuple[Any, ...] = (),
) -> Node:
    """``op`` over stacks: the last ``core[i]`` axes of operand i in one chunk, the others
    broadcast and stay cut.
    """
    loops = [node.shape[: node.ndim - n] for node, n in zip(inputs, core, strict=True)]
    loop = broadcast_shapes(loops, op.name)
    cut = grids.unify(
        loop,
        [
            (shape, node.chunks[: len(shape)], node.nbytes)
            for node, shape in zip(inputs, loops, strict=True)
        ],
    )
    aligned: list[Node] = []
    for node, n, own in zip(inputs, core, loops, strict=True):
        skip = len(loop) - len(own)
        head = tuple(
            cut[skip + a] if length == loop[skip + a] else (length,) for a, length in enumerate(own)
        )
        aligned.append(rechunk(node, (*head, *grids.single(node.shape[node.ndim - n :]))))
    return make(
        op,
        tuple(aligned),
        (*params, (len(loop), tuple(core))),
        (*loop, *out_core),
        dtype,
        (*cut, *grids.single(out_core)),
    )


def whole(
    op: Op, inputs: Sequence[Node], shape: Shape, dtype: DType, params: tuple[Any, ...] = ()
) -> Node:
    """``op`` on whole operands, gathered in one task."""
    gathered = tuple([rechunk(node, grids.single(node.shape)) for node in inputs])
    return make(op, gathered, params, shape, dtype, grids.single(shape))


def picks(node: Node, outputs: Sequence[tuple[Shape, DType, Chunks]]) -> list[Node]:
    """The arrays of a node whose value is a tuple of arrays: shape, dtype, chunks of each."""
    return [
        make(PICK, (node,), (i,), shape, dtype, chunks)
        for i, (shape, dtype, chunks) in enumerate(outputs)
    ]


def gufunc_picks(node: Node, cores: Sequence[tuple[Shape, DType]]) -> list[Node]:
    """The arrays of a tuple-valued `gufunc`: core shape and dtype of each."""
    loop: int = node.params[-1][0]
    return picks(
        node,
        [
            ((*node.shape[:loop], *core), dtype, (*node.chunks[:loop], *grids.single(core)))
            for core, dtype in cores
        ],
    )


def pick_kernel(xp: Any, values: tuple[Any, ...], index: int) -> Any:
    return values[index]


PICK = Op("pick", "pick", pick_kernel)


def blockwise_op(name: str, kernel: Callable[..., Any], weight: float = 1.0) -> Op:
    """An operation for `along` and `whole`: block i of the result from block i of each operand."""
    return Op(name, "tasks", kernel, _lower_rows, weight, reads_views=True)


def gufunc_op(
    name: str, kernel: Callable[..., Any], weight: float = 1.0, *, of_user: bool = False
) -> Op:
    """An operation for `gufunc`."""
    return Op(
        name, "tasks", Looped(kernel), _lower_loops, weight, of_user=of_user, reads_views=True
    )


@dataclass(frozen=True, slots=True)
class Looped:
    """A kernel whose node carries, as last parameter, how its operands loop."""

    kernel: Callable[..., Any]

    @property
    def host_only(self) -> bool:
        return is_host_only(self.kernel)

    @property
    def size_bytes(self) -> int:
        """Bytes of a user's function that the operation holds."""
        return int(getattr(self.kernel, "size_bytes", 0))

    def __call__(self, xp: Any, *values: Any) -> Any:
        return self.kernel(xp, *values[:-1])


def _lower_rows(node: Node, lowering: Any) -> list[Any]:
    rows = zip(*[lowering.readings(source) for source in node.inputs], strict=True)
    work = lowering.work(node)
    return list(lowering.call(node, node.op.kernel, rows, params=node.params, flops=work))


def _lower_loops(node: Node, lowering: Any) -> list[Any]:
    loop, cores = node.params[-1]
    wanted = grids.numblocks(node.chunks)[:loop]
    columns = []
    for source, core in zip(node.inputs, cores, strict=True):
        counts = grids.numblocks(source.chunks)[: source.ndim - core]
        values = lowering.readings(source)
        columns.append([values[i] for i in grids.blocks_under(counts, wanted)])
    rows = zip(*columns, strict=True)
    work = lowering.work(node)
    return list(lowering.call(node, node.op.kernel, rows, params=node.params, flops=work))
