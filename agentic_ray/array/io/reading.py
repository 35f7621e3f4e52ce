"""Makes the expression over a stored array: one read for each chunk, slices and cuts pushed into
it.

The modules of the formats read a region.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from agentic_ray.array.array_object import Array, check_device
from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.build import check_numbers
from agentic_ray.array.core.chunks import Chunks, Shape
from agentic_ray.array.core.node import DType, NDArray, Node, Op, make
from agentic_ray.array.core.rewrite import rule
from agentic_ray.array.core.views import AxisIndex, slice_of
from agentic_ray.errors import InvalidTypeError

Region = tuple[slice, ...]
"""A slice for each axis of the stored array, each with a positive step."""


class Source(Protocol):
    """A stored array: hashable, cheap to pickle, readable in any process."""

    @property
    def shape(self) -> Shape: ...

    @property
    def dtype(self) -> DType:
        """Dtype of the values as they are returned: in native byte order."""
        ...

    @property
    def grain(self) -> tuple[tuple[int, ...], ...]:
        """Lengths along each axis of the pieces that can only be read as a whole; ``()`` for an
        axis that can be read from any element on."""
        ...

    def read(self, region: Region) -> NDArray: ...


def opened(source: Source, chunks: Any, device: str | None) -> Array:
    """Return the lazy array over ``source``.

    Raises
    ------
    InvalidTypeError
        The elements are not numbers.
    """
    dtype = source.dtype
    try:
        check_numbers(dtype)
    except InvalidTypeError as error:
        raise InvalidTypeError(f"{source}: {error}") from None
    grid = grids.normalize(chunks, source.shape, dtype)
    if isinstance(chunks, str):
        grid = tuple(
            on_grain(lengths, pieces) for lengths, pieces in zip(grid, source.grain, strict=True)
        )
    index = tuple([("s", 0, length, 1) for length in source.shape])
    where = check_device(device) or "cpu"
    node = make(READ, (), (index, source), source.shape, dtype, grid, where)
    return Array(node, is_cell=True)


def on_grain(lengths: tuple[int, ...], pieces: tuple[int, ...]) -> tuple[int, ...]:
    """Return chunks of about these lengths that begin where pieces begin, so that no piece is read
    twice. Without pieces any cut will do."""
    if not pieces or len(lengths) == 1:
        return lengths
    wanted, result, current = lengths[0], list[int](), 0
    for piece in pieces:
        if current and current + piece > wanted:
            result.append(current)
            current = 0
        current += piece
    return (*result, current) if current else tuple(result)


def _read_kernel(xp: Any, index: tuple[AxisIndex, ...], source: Source) -> Any:
    region = tuple([slice(e[1], e[1] + 1) if e[0] == "i" else slice_of(*e[1:]) for e in index])
    block = source.read(region)
    gone = tuple([axis for axis, entry in enumerate(index) if entry[0] == "i"])
    # A copy, even of mapped memory: somebody may write to the file after this.
    block = np.array(block, dtype=source.dtype, order="C", ndmin=len(index))
    return xp.asarray(np.squeeze(block, axis=gone) if gone else block)


def _lower_read(node: Node, lowering: Any) -> list[Any]:
    index, source = node.params
    cuts: list[list[AxisIndex]] = []
    at = 0
    for entry in index:
        if entry[0] == "i":
            cuts.append([entry])
            continue
        _, start, _, step = entry
        begins = grids.offsets(node.chunks[at])[:-1]
        cuts.append(
            [
                ("s", start + begin * step, length, step)
                for begin, length in zip(begins, node.chunks[at], strict=True)
            ]
        )
        at += 1
    rows = [(block,) for block in itertools.product(*cuts)]
    return list(lowering.call(node, _read_kernel, rows, params=(source,), read_bytes=node.nbytes))


READ = Op("read", "tasks", _read_kernel, _lower_read, weight=4)


@rule("slice into read", "slice", most_share=1.0)
def _push_slice(node: Node) -> Node | None:
    """Read only the elements that a slice takes."""
    (below,) = node.inputs
    if below.op is not READ or below.value is not None:
        return None
    outer = iter(node.params[0])
    inner, source = below.params
    index: list[AxisIndex] = []
    for entry in inner:
        if entry[0] == "i":
            index.append(entry)
            continue
        taken = next(outer)
        if taken[0] == "i":
            index.append(("i", entry[1] + taken[1] * entry[3]))
        elif taken[3] < 1:
            return None  # libraries read forwards only
        else:
            start = entry[1] + taken[1] * entry[3]
            index.append(("s", start, taken[2], entry[3] * taken[3]))
    return make(READ, (), (tuple(index), source), node.shape, node.dtype, node.chunks, node.device)


@rule("rechunk into read", "rechunk")
def _push_rechunk(node: Node) -> Node | None:
    """Read in the wanted chunks at once, unless pieces of the file would be read repeatedly."""
    (below,) = node.inputs
    if below.op is not READ or below.value is not None:
        return None
    index, source = below.params
    kept = [axis for axis, entry in enumerate(index) if entry[0] == "s"]
    for axis, lengths in zip(kept, node.chunks, strict=True):
        _, start, _, step = index[axis]
        begins = [start + begin * step for begin in grids.offsets(lengths)[1:-1]]
        if source.grain[axis] and not set(begins) <= set(grids.offsets(source.grain[axis])):
            return None
    return make(READ, (), below.params, node.shape, node.dtype, node.chunks, node.device)


def regular_grain(shape: Shape, sizes: Sequence[int]) -> Chunks:
    """Return the grain of a store in pieces of ``sizes``."""
    return tuple([grids.regular(n, size) for n, size in zip(shape, sizes, strict=True)])
