"""`map_blocks`, which applies a user's function to each chunk."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from agentic_ray.array.array_object import Array
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.build import align, broadcast_shapes, strict_operand
from agentic_ray.array.core.chunks import Chunks, Shape
from agentic_ray.array.core.node import DType, Node, Op, make
from agentic_ray.array.core.program import as_array
from agentic_ray.array.core.views import rechunk
from agentic_ray.array.userfunctions import (
    UserKernel,
    checked,
    numeric_dtype,
    probed,
    sample,
    user_kernel,
)
from agentic_ray.errors import InvalidArgumentError, InvalidTypeError

_HINT = "; say with chunks=, drop_axis= or new_axis= how the function changes the shape"


def map_blocks(
    function: Callable[..., Any],
    *args: Any,
    name: str | None = None,
    dtype: Any = None,
    chunks: Any = None,
    drop_axis: int | Iterable[int] | None = None,
    new_axis: int | Iterable[int] | None = None,
    enforce_ndim: bool = True,
    meta: Any = None,
    **options: Any,
) -> Array:
    """Apply ``function`` to each chunk.

    The function is captured at this call: later changes of its globals, of variables that it closes
    over, or of its arguments change nothing.

    Parameters
    ----------
    function : callable or codelet
        ``f(block, ...) -> block``. A parameter ``xp`` is passed numpy or cupy; a function without
        one, and without a version for GPUs, is called on CPUs only. A parameter ``block_id`` is
        passed the position of the block, and ``block_info``, as in Dask, a dict: for each array's
        place among ``args``, and for None (the result), its ``shape``, ``num-chunks``,
        ``array-location`` and ``chunk-location``; for None also ``chunk-shape`` and ``dtype``.
    *args : Array or anything
        Arrays are aligned to one grid of chunks after broadcasting. Each call is passed every other
        argument as it is, NumPy arrays too (unless no `Array` is among ``args``). Without any array
        ``chunks`` says how many blocks there are.
    name : str, optional
        Name for the function in plans and messages.
    dtype
        Dtype of the result; None: found by a call on a block of one element, all ones. A result of
        another dtype is converted if ``numpy.can_cast(..., "same_kind")`` allows it, otherwise
        refused.
    chunks : tuple, optional
        Chunks of the result, where blocks change in shape: for each axis the length of every block,
        or a tuple of the lengths of all blocks.
    drop_axis : int or sequence of int, optional
        Axes that blocks lose. They are put in one chunk first.
    new_axis : int or sequence of int, optional
        Axes of the result that blocks gain, of length 1 unless ``chunks`` says more.
    enforce_ndim : bool
        Accepted for Dask's sake; shapes are always checked.
    meta : numpy.ndarray, optional
        Array with the result's dtype, if ``dtype`` does not say it, and number of axes.
    **options
        Passed on to ``function``.

    Raises
    ------
    InvalidArgumentError
        There is no array and no chunks; chunks or axes do not fit; or the dtype cannot be found.
    InvalidTypeError
        The function cannot be called with these arguments.
    SerializationError
        The function, or something it sees, cannot be sent to another process.
    BlockResultError
        When values are computed: a block has a wrong shape, or a dtype that cannot be converted.
        The message names function and block.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> x = xp.reshape(xp.arange(6.0), (2, 3)).rechunk((1, 3))
    >>> xp.map_blocks(lambda b: b.mean(axis=1), x, drop_axis=1).compute()
    array([1., 4.])
    """
    nodes, places, fixed = split_arguments(args)
    kernel = user_kernel(
        "map_blocks", function, options, blocks=len(nodes), fixed=fixed, name=name
    )  # fmt: skip
    if nodes:
        shape = broadcast_shapes([node.shape for node in nodes], "map_blocks")
        dropped = axes_of("drop_axis", drop_axis, len(shape))
        nodes = whole_along(nodes, dropped, len(shape))
        grid = grids.unify(shape, [(node.shape, node.chunks, node.nbytes) for node in nodes])
        nodes = [align(node, shape, grid) for node in nodes]
        axes = kept_and_new(dropped, new_axis, len(shape))
        out = result_chunks(axes, grid, chunks)
    elif chunks is None or drop_axis is not None or new_axis is not None:
        raise InvalidArgumentError(
            "map_blocks needs an array; without one chunks= alone says which blocks are made"
        )
    else:
        grid = out = made_chunks(chunks)
        axes = tuple(range(len(out)))
    sources = tuple([(i, n.shape, n.chunks) for i, n in zip(places, nodes, strict=True)])
    layout = Layout(axes, grid, out, sources)
    told = Told(kernel.takes("block_id"), kernel.takes("block_info"))
    wanted = result_dtype(
        kernel, nodes, dtype, meta, len(out), told.first(layout)
    )  # fmt: skip
    op = Op(kernel.name, "tasks", _whole, _lower, of_user=True)
    params = (BlockCall(kernel, wanted), layout, told)
    return Array(make(op, tuple(nodes), params, grids.shape_of(out), wanted, out))


def split_arguments(args: Sequence[Any]) -> tuple[list[Node], list[int], list[tuple[int, Any]]]:
    """Return the arrays among a user's arguments, their places, and the other arguments by
    place."""
    kinds: tuple[type, ...] = (Array,)
    if not any(isinstance(arg, Array) for arg in args):
        kinds = (Array, np.ndarray)
    places = [i for i, arg in enumerate(args) if isinstance(arg, kinds)]
    fixed = [(i, arg) for i, arg in enumerate(args) if i not in places]
    return [strict_operand(args[i]) for i in places], places, fixed


def axes_of(what: str, given: int | Iterable[int] | None, ndim: int) -> tuple[int, ...]:
    """Return axes as a user gives them, sorted.

    Raises
    ------
    numpy.exceptions.AxisError
        There is no such axis.
    InvalidArgumentError, InvalidTypeError
        An axis is named twice, or is no number.
    """
    if given is None:
        return ()
    try:
        return tuple(sorted(normalize_axis_tuple(given, ndim, what)))
    except np.exceptions.AxisError:
        raise
    except ValueError as error:
        raise InvalidArgumentError(str(error)) from None
    except TypeError as error:
        raise InvalidTypeError(f"{what}: {error}") from None


def whole_along(nodes: Sequence[Node], axes: Sequence[int], ndim: int) -> list[Node]:
    """Put these axes of ``nodes``, which broadcast to ``ndim`` axes, in one chunk."""
    result: list[Node] = []
    for node in nodes:
        skip = ndim - node.ndim
        wanted = tuple(
            [
                (node.shape[axis],) if axis + skip in axes else lengths
                for axis, lengths in enumerate(node.chunks)
            ]
        )
        result.append(rechunk(node, wanted))
    return result


def kept_and_new(
    dropped: Sequence[int], new_axis: int | Iterable[int] | None, ndim: int
) -> tuple[int | None, ...]:
    """Return for each axis of the result the axis it comes from; None if it is new."""
    axes: list[int | None] = [axis for axis in range(ndim) if axis not in dropped]
    if new_axis is not None:
        given = [new_axis] if isinstance(new_axis, int | np.integer) else list(new_axis)
        for axis in axes_of("new_axis", given, len(axes) + len(given)):
            axes.insert(axis, None)
    return tuple(axes)


def result_chunks(axes: Sequence[int | None], grid: Chunks, chunks: Any) -> Chunks:
    """Return the grid of the result: as ``chunks`` says, or that of the arguments.

    Raises
    ------
    InvalidArgumentError
        ``chunks`` has another number of axes, or of blocks along an axis that is not new.
    InvalidTypeError
        ``chunks`` is no tuple of lengths.
    """
    if chunks is None:
        return tuple([(1,) if axis is None else grid[axis] for axis in axes])
    if not isinstance(chunks, tuple | list):
        raise InvalidTypeError(
            f"chunks must be a tuple with an entry for each axis, not {chunks!r}"
        )
    if len(chunks) != len(axes):
        raise InvalidArgumentError(
            f"chunks has {len(chunks)} entries for a result of {len(axes)} axes"
        )
    result: list[tuple[int, ...]] = []
    for number, (axis, entry) in enumerate(zip(axes, chunks, strict=True)):
        lengths = _lengths(entry)
        count = 1 if axis is None else len(grid[axis])
        if isinstance(entry, int | np.integer):
            lengths = lengths * count
        if axis is not None and len(lengths) != count:
            raise InvalidArgumentError(
                f"axis {number}: {count} blocks go in, {len(lengths)} are to come out"
            )
        result.append(lengths)
    return tuple(result)


def made_chunks(chunks: Any) -> Chunks:
    """Return the grid of a result that is made without arrays."""
    if not isinstance(chunks, tuple | list):
        raise InvalidTypeError(
            f"chunks must be a tuple with an entry for each axis, not {chunks!r}"
        )
    return tuple([_lengths(entry) for entry in chunks])


def _lengths(entry: Any) -> tuple[int, ...]:
    parts = [entry] if isinstance(entry, int | np.integer) else entry
    if not isinstance(parts, tuple | list) or not all(
        isinstance(n, int | np.integer) and not isinstance(n, bool) for n in parts
    ):
        raise InvalidTypeError(f"chunks must be lengths, or tuples of lengths, not {entry!r}")
    if not parts or any(n < 0 for n in parts):
        raise InvalidArgumentError(
            f"chunks must hold at least one length, none negative: {entry!r}"
        )
    return tuple([int(n) for n in parts])


def result_dtype(
    kernel: UserKernel,
    nodes: Sequence[Node],
    dtype: Any,
    meta: Any,
    ndim: int,
    told: dict[str, Any],
    margins: Sequence[Sequence[int]] | None = None,
) -> DType:
    """Return the dtype of the result: given, or found by a call on blocks of one element, plus the
    elements along each axis that ``margins`` names."""
    operation = kernel.name
    if meta is not None:
        if not isinstance(meta, np.ndarray):
            raise InvalidTypeError(
                f"{operation}: meta must be a NumPy array, not {type(meta).__name__}"
            )
        if meta.ndim != ndim:
            raise InvalidArgumentError(
                f"{operation}: meta has {meta.ndim} axes, the result {ndim}"
            )  # fmt: skip
        dtype = meta.dtype if dtype is None else dtype
    if dtype is not None:
        return numeric_dtype(operation, dtype)
    wider = [[0] * node.ndim for node in nodes] if margins is None else margins
    blocks = [
        sample(node, tuple([1 + n for n in more])) for node, more in zip(nodes, wider, strict=True)
    ]
    found = probed(kernel, blocks, told)
    return numeric_dtype(operation, as_array(np, found).dtype)


# --- which block goes where ----------------------------------------------------------------


Edges: TypeAlias = list[list[int]]
"""Edges of one array's chunks along each axis, the end of the last included."""
Place: TypeAlias = tuple[Shape, Shape, dict[str, Any]]
"""Place of a block of the result: its shape, its position in the grid, and the keyword arguments
that tell the function about it."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Map from blocks of the result to the blocks of the arguments that make them.

    Parameters
    ----------
    axes : tuple of int or None
        Axis of the arguments for each axis of the result; None for a new one.
    grid, out : Chunks
        Grids of the arguments after broadcasting, and of the result.
    sources : tuple of (int, shape, chunks)
        Place of each array among the arguments, with its shape and chunks.
    """

    axes: tuple[int | None, ...]
    grid: Chunks
    out: Chunks
    sources: tuple[tuple[int, Shape, Chunks], ...]

    def blocks(self) -> Iterator[tuple[Shape, Shape]]:
        """Yield the positions of each block of the result, in C order: there and in the
        arguments."""
        for index in itertools.product(*map(range, grids.numblocks(self.out))):
            inside = [0] * len(self.grid)
            for axis, at in zip(self.axes, index, strict=True):
                if axis is not None:
                    inside[axis] = at
            yield index, tuple(inside)

    def shape(self, index: Shape) -> Shape:
        """Return the shape of one block of the result."""
        return tuple([lengths[at] for lengths, at in zip(self.out, index, strict=True)])

    def within(self, source: int, inside: Shape) -> Shape:
        """Return the position of the block of one array that goes into it."""
        counts = grids.numblocks(self.sources[source][2])
        own = inside[len(inside) - len(counts) :]
        return tuple([at if n > 1 else 0 for at, n in zip(own, counts, strict=True)])

    def edges(self) -> list[Edges]:
        """Return the edges of each array's chunks along each axis; the result's are last."""
        grids_of = [*(chunks for _, _, chunks in self.sources), self.out]
        return [[grids.offsets(lengths) for lengths in chunks] for chunks in grids_of]

    def info(
        self, edges: list[Edges], index: Shape, inside: Shape, dtype: DType | None
    ) -> dict[Any, Any]:
        """Return the dict that ``block_info`` passes to a function, with Dask's keys."""
        found: dict[Any, Any] = {
            place: _located(edges[number], self.within(number, inside))
            for number, (place, _, _) in enumerate(self.sources)
        }
        about = _located(edges[-1], index)
        found[None] = {**about, "chunk-shape": self.shape(index), "dtype": dtype}
        return found

    def rows(self, columns: Sequence[Sequence[Any]], told: Told, dtype: DType) -> Iterator[Any]:
        """Yield the arguments of each call, from the blocks of each array in C order."""
        counts = [grids.strides(grids.numblocks(chunks)) for _, _, chunks in self.sources]
        edges = self.edges()
        for index, inside in self.blocks():
            row = [
                values[sum(a * b for a, b in zip(self.within(i, inside), strides, strict=True))]
                for i, (values, strides) in enumerate(zip(columns, counts, strict=True))
            ]
            more = told.of(self, edges, (index, inside), dtype)
            yield (*row, (self.shape(index), index, more))


def _located(edges: Edges, index: Shape) -> dict[str, Any]:
    return {
        "shape": tuple([axis[-1] for axis in edges]),
        "num-chunks": tuple([len(axis) - 1 for axis in edges]),
        "array-location": [(axis[i], axis[i + 1]) for axis, i in zip(edges, index, strict=True)],
        "chunk-location": index,
    }


@dataclass(frozen=True, slots=True)
class Told:
    """Which of ``block_id`` and ``block_info`` a function is passed."""

    block_id: bool
    block_info: bool

    def first(self, layout: Layout) -> dict[str, Any]:
        """Return the keyword arguments for the first block, before the result's dtype is known."""
        return self.of(layout, layout.edges(), next(layout.blocks()), None)

    def of(
        self,
        layout: Layout,
        edges: list[Edges],
        block: tuple[Shape, Shape],
        dtype: DType | None,
    ) -> dict[str, Any]:
        """Return the keyword arguments that tell a function about one block."""
        more: dict[str, Any] = {}
        if self.block_id:
            more["block_id"] = block[0]
        if self.block_info:
            more["block_info"] = layout.info(edges, *block, dtype)
        return more


@dataclass(frozen=True, slots=True)
class BlockCall:
    """A call of a user's kernel for one block; the last argument is the block's `Place`."""

    kernel: UserKernel
    dtype: DType

    @property
    def host_only(self) -> bool:
        return self.kernel.host_only

    @property
    def size_bytes(self) -> int:
        return self.kernel.size_bytes

    def __call__(self, xp: Any, *row: Any) -> Any:
        *blocks, (shape, index, more) = row
        result = self.kernel(xp, *blocks, **more)
        return checked(xp, result, shape, self.dtype, self.kernel.name, index, _HINT)


def _whole(xp: Any, *values: Any) -> Any:
    """Call the kernel with arrays of one block each."""
    *blocks, call, layout, told = values
    (row,) = layout.rows([[block] for block in blocks], told, call.dtype)
    return call(xp, *row)


def _lower(node: Node, lowering: Any) -> list[Any]:
    call, layout, told = node.params
    columns = [lowering.blocks(source) for source in node.inputs]
    rows = layout.rows(columns, told, call.dtype)
    return list(lowering.call(node, call, rows, flops=lowering.work(node)))
