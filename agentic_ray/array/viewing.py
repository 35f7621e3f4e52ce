"""Views: arrays that show a part of another one, and pass assignments on to it.

As in NumPy, an index of integers and slices, a transpose, a reshape and the real or imaginary part
share the values of the array that they were taken from. Nodes are immutable, so the handles do the
sharing: a view keeps the array it was taken from and a step. The step reads the part from that
array's node, and builds the node of the whole after an assignment to the part.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.assignment import assigned, selected
from agentic_ray.array.core.build import blockwise_op, elementwise
from agentic_ray.array.core.chunks import Shape
from agentic_ray.array.core.elements import (
    COMPLEX,
    ELEMENTWISE,
    FIELD,
    FIELDS,
    WITH_FIELD,
    cast,
)
from agentic_ray.array.core.node import DType, NDArray, Node, Op, make
from agentic_ray.array.core.views import (
    AxisIndex,
    as_key,
    broadcast,
    expanded,
    permuted,
    rechunk,
    reshaped,
    squeezed,
)


class View(Protocol):
    """A step from an array to a part of it."""

    def see(self, memory: NDArray) -> NDArray:
        """Return the part as a view of ``memory``, as NumPy would."""
        ...

    def read(self, whole: Node) -> Node:
        """Return the part of ``whole``."""
        ...

    def write(self, whole: Node, part: Node) -> Node:
        """Return ``whole`` after an assignment of ``part``, which has the part's shape and dtype.

        Raises
        ------
        ValueError
            The view is read-only.
        """
        ...


@dataclass(frozen=True, slots=True)
class Region:
    """Step of an index of integers, slices and new axes. ``basic`` has an entry for each axis of
    the array after axes of length 1 were put in at ``new``."""

    basic: tuple[AxisIndex, ...]
    new: tuple[int, ...] = ()

    @property
    def shape(self) -> Shape:
        return tuple([entry[2] for entry in self.basic if entry[0] == "s"])

    def see(self, memory: NDArray) -> NDArray:
        part: NDArray = np.expand_dims(memory, self.new)[as_key(self.basic)]
        return part

    def read(self, whole: Node) -> Node:
        return selected(expanded(whole, self.new) if self.new else whole, self.basic)

    def write(self, whole: Node, part: Node) -> Node:
        if not self.new:
            return assigned(whole, self.basic, part)
        return squeezed(assigned(expanded(whole, self.new), self.basic, part), self.new)


@dataclass(frozen=True, slots=True)
class Permutation:
    """Step that puts axes in another order."""

    axes: tuple[int, ...]

    def see(self, memory: NDArray) -> NDArray:
        return memory.transpose(self.axes)

    def read(self, whole: Node) -> Node:
        return permuted(whole, self.axes)

    def write(self, whole: Node, part: Node) -> Node:
        back = tuple(np.argsort(self.axes).tolist())
        return rechunk(permuted(part, back), whole.chunks)


@dataclass(frozen=True, slots=True)
class Reshape:
    """Step that puts the elements in C order in another shape."""

    shape: Shape

    def see(self, memory: NDArray) -> NDArray:
        return memory.reshape(self.shape, copy=False)

    def read(self, whole: Node) -> Node:
        return reshaped_lightly(whole, self.shape)

    def write(self, whole: Node, part: Node) -> Node:
        return rechunk(reshaped_lightly(part, whole.shape), whole.chunks)


def reshaped_lightly(node: Node, shape: Shape) -> Node:
    """Reshape; axes of length 1 that come or go leave the chunks alone."""
    if node.size and [n for n in node.shape if n != 1] == [n for n in shape if n != 1]:
        ones = tuple([axis for axis, n in enumerate(node.shape) if n == 1])
        bare = squeezed(node, ones) if ones else node
        new = tuple([axis for axis, n in enumerate(shape) if n == 1])
        return expanded(bare, new) if new else bare
    return reshaped(node, shape)


@dataclass(frozen=True, slots=True)
class ComplexPart:
    """Step to the real or the imaginary part; ``name`` is ``"real"`` or ``"imag"``."""

    name: str

    def see(self, memory: NDArray) -> NDArray:
        return memory.real if self.name == "real" else memory.imag

    def read(self, whole: Node) -> Node:
        if whole.dtype.kind != "c" and self.name == "real":
            return whole
        return elementwise(ELEMENTWISE[self.name], [whole])

    def write(self, whole: Node, part: Node) -> Node:
        if whole.dtype.kind != "c":
            if self.name == "real":
                return part
            raise ValueError("a real array has no imaginary part to assign to")
        other = "imag" if self.name == "real" else "real"
        pair = [part, elementwise(ELEMENTWISE[other], [whole])]
        made = elementwise(COMPLEX, pair if self.name == "real" else pair[::-1])
        return cast(made, whole.dtype)


_FIELD_BLOCK = blockwise_op("field", FIELD.kernel)
_WITH_FIELD_BLOCK = blockwise_op("with_field", WITH_FIELD.kernel)
"""Operation as in `elements`, for fields whose elements are arrays: these have more axes than the
records."""


def element_of(dtype: DType) -> tuple[DType, Shape]:
    """Return the dtype of the numbers in a field of ``dtype``, and the axes that the field adds."""
    return (dtype, ()) if dtype.subdtype is None else dtype.subdtype


@dataclass(frozen=True, slots=True)
class Field:
    """Step to a field of an array of records."""

    name: str

    def see(self, memory: NDArray) -> NDArray:
        part: NDArray = memory[self.name]
        return part

    def read(self, whole: Node) -> Node:
        dtype, inner = element_of(whole.dtype[self.name])
        if not inner:
            return elementwise(FIELD, [whole], (self.name,))
        chunks = (*whole.chunks, *grids.single(inner))
        return make(_FIELD_BLOCK, (whole,), (self.name,), whole.shape + inner, dtype, chunks)

    def write(self, whole: Node, part: Node) -> Node:
        _, inner = element_of(whole.dtype[self.name])
        if not inner:
            return elementwise(WITH_FIELD, [whole, part], (self.name,))
        part = rechunk(part, (*whole.chunks, *grids.single(inner)))
        chunks, given = whole.chunks, (self.name,)
        return make(_WITH_FIELD_BLOCK, (whole, part), given, whole.shape, whole.dtype, chunks)


@dataclass(frozen=True, slots=True)
class Fields:
    """Step to several fields of an array of records, as records."""

    names: tuple[str, ...]

    def see(self, memory: NDArray) -> NDArray:
        part: NDArray = memory[list(self.names)]
        return part

    def read(self, whole: Node) -> Node:
        return elementwise(FIELDS, [whole], (self.names,))

    def write(self, whole: Node, part: Node) -> Node:
        for name in self.names:
            whole = Field(name).write(whole, Field(name).read(part))
        return whole


def _reinterpret_kernel(xp: Any, x: Any, dtype: DType) -> Any:
    return x.view(dtype)


def _resize_kernel(xp: Any, x: Any, dtype: DType) -> Any:
    return xp.ascontiguousarray(x).view(dtype)


_REINTERPRET = Op("view", "map", _reinterpret_kernel)
_RESIZE = blockwise_op("view_resized", _resize_kernel)


def reinterpreted(node: Node, dtype: DType) -> Node:
    """Read the bytes as elements of ``dtype``; a whole number of them must fit in the last axis."""
    old, new = node.dtype.itemsize, dtype.itemsize
    if old == new:
        return elementwise(_REINTERPRET, [node], (dtype,))
    *others, lengths = node.chunks
    step = math.lcm(old, new) // old  # so many old elements are a whole number of new ones
    if any(length % step for length in lengths):
        lengths = grids.regular(node.shape[-1], -(-max(lengths) // step) * step)
        node = rechunk(node, (*others, lengths))
    chunks = (*others, tuple([length * old // new for length in lengths]))
    return make(_RESIZE, (node,), (dtype,), grids.shape_of(chunks), dtype, chunks)


@dataclass(frozen=True, slots=True)
class Reinterpreted:
    """Step to a view of the same bytes as another dtype."""

    dtype: DType

    def see(self, memory: NDArray) -> NDArray:
        return memory.view(self.dtype)

    def read(self, whole: Node) -> Node:
        return reinterpreted(whole, self.dtype)

    def write(self, whole: Node, part: Node) -> Node:
        return rechunk(reinterpreted(part, whole.dtype), whole.chunks)


@dataclass(frozen=True, slots=True)
class Broadcast:
    """Step that repeats along new axes and axes of length 1. Several elements are one in memory, so
    NumPy makes the view read-only."""

    shape: Shape

    def see(self, memory: NDArray) -> NDArray:
        return np.broadcast_to(memory, self.shape)

    def read(self, whole: Node) -> Node:
        skip = len(self.shape) - whole.ndim
        auto = grids.auto(self.shape, whole.dtype)
        chunks = tuple(
            whole.chunks[axis - skip]
            if axis >= skip and whole.shape[axis - skip] == length
            else auto[axis]
            for axis, length in enumerate(self.shape)
        )
        return broadcast(whole, self.shape, chunks)

    def write(self, whole: Node, part: Node) -> Node:
        raise ValueError("assignment destination is read-only: several elements are one here")


def unmade(shape: Shape, dtype: DType, *, is_fortran: bool = False) -> NDArray:
    """Make an array in C or Fortran order of which only strides are looked at: it has no memory of
    that size."""
    if is_fortran:
        return unmade(shape[::-1], dtype).T
    steps = np.cumprod([dtype.itemsize, *shape[:0:-1]])[::-1].tolist() if shape else ()
    return np.lib.stride_tricks.as_strided(np.empty(1, dtype), shape, tuple(steps))


def is_view(memory: NDArray, shape: Shape) -> bool:
    """Whether NumPy can give ``memory`` another shape without a copy."""
    try:
        memory.reshape(shape, copy=False)
    except ValueError:
        return False
    return True
