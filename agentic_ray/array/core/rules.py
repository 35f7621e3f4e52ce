"""The table of rewrite rules: less is read, made and moved, and nothing else changes.

These keep every bit of a result, none reorders arithmetic; other modules add rules of their own.
"""

from __future__ import annotations

from agentic_ray.array.core.assignment import selected
from agentic_ray.array.core.chunks import Chunks, Shape
from agentic_ray.array.core.node import Node, make
from agentic_ray.array.core.rewrite import optimize, rule
from agentic_ray.array.core.views import AxisIndex, permuted, rechunk, sliced, squeezed

__all__ = ["optimize"]


def _composed(outer: AxisIndex, inner: AxisIndex) -> AxisIndex:
    """The index of one axis that does ``inner`` first and then ``outer``."""
    _, start, _, step = inner
    if outer[0] == "i":
        return ("i", start + outer[1] * step)
    _, begin, count, stride = outer
    return ("s", start + begin * step, count, step * stride)


@rule("slice of a slice", "slice")
def slice_of_slice(node: Node) -> Node | None:
    (source,) = node.inputs
    if source.op.name != "slice" or source.value is not None:
        return None
    outer = iter(node.params[0])
    index = tuple(
        [entry if entry[0] == "i" else _composed(next(outer), entry) for entry in source.params[0]]
    )
    found = sliced(source.inputs[0], index)
    return rechunk(found, node.chunks)


@rule("slice before elementwise", "slice", most_share=0.5)
def slice_of_map(node: Node) -> Node | None:
    """Slice the operands of an elementwise operation, so that it computes the slice alone."""
    (source,) = node.inputs
    if source.op.kind != "map" or source.value is not None:
        return None
    index: tuple[AxisIndex, ...] = node.params[0]
    if not node.ndim:  # one axis stays: NumPy rounds some float16 otherwise if there is none
        kept = sliced(source, (*index[:-1], ("s", index[-1][1], 1, 1)))
        return None if kept is source else squeezed(kept, (0,))
    inputs: list[Node] = []
    for operand in source.inputs:
        if operand.op.kind == "literal":
            inputs.append(operand)
            continue
        skip = source.ndim - operand.ndim
        own = tuple(
            [_of_one(index[skip + a]) if n == 1 != source.shape[skip + a] else index[skip + a]
             for a, n in enumerate(operand.shape)]
        )  # fmt: skip
        inputs.append(sliced(operand, own))
    return make(
        source.op, tuple(inputs), source.params, node.shape, node.dtype, node.chunks, node.device
    )


def _of_one(entry: AxisIndex) -> AxisIndex:
    """The index of an axis of length 1 that is broadcast where ``entry`` applies."""
    return ("i", 0) if entry[0] == "i" else ("s", 0, 1, 1)


@rule("slice of a constant", "slice")
def slice_of_full(node: Node) -> Node | None:
    (source,) = node.inputs
    if source.op.name != "full" or source.value is not None:
        return None
    return make(source.op, (), source.params, node.shape, node.dtype, node.chunks, node.device)


@rule("slice of a range", "slice")
def slice_of_arange(node: Node) -> Node | None:
    (source,) = node.inputs
    if source.op.name != "arange" or source.value is not None or source.ndim != 1:
        return None
    first, step, dtype, axis = source.params
    (entry,) = node.params[0]
    if entry[0] == "i" or dtype.kind not in "iu" or not (
        isinstance(first, int) and isinstance(step, int)):  # fmt: skip
        return None  # floating ranges are made from their own start: the bits would change
    _, start, _, stride = entry
    params = (first + start * step, step * stride, dtype, axis)
    return make(source.op, (), params, node.shape, node.dtype, node.chunks, node.device)


@rule("slice of an assignment", "slice")
def slice_of_assignment(node: Node) -> Node | None:
    (source,) = node.inputs
    if source.op.name != "assign" or source.value is not None:
        return None
    found = selected(source, node.params[0])
    return None if found is node else rechunk(found, node.chunks)


@rule("permutation of a permutation", "permute_dims")
def permute_of_permute(node: Node) -> Node | None:
    (source,) = node.inputs
    if source.op.name != "permute_dims" or source.value is not None:
        return None
    inner = source.params[0]
    return permuted(source.inputs[0], tuple([inner[axis] for axis in node.params[0]]))


@rule("rechunk of what is cut so already", "rechunk")
def rechunk_of_same(node: Node) -> Node | None:
    (source,) = node.inputs
    if source.chunks == node.chunks:
        return source
    if source.op.name == "rechunk" and source.value is None and not _is_step(source):
        return rechunk(source.inputs[0], node.chunks)
    if source.op.kind in ("create", "data") and source.value is None:
        return rechunk(source, node.chunks)
    return None


@rule("cut before elementwise", "rechunk")
def rechunk_of_map(node: Node) -> Node | None:
    """Cut what is in the caller's memory, which is free, rather than what is computed of it."""
    (source,) = node.inputs
    if source.op.kind != "map" or source.value is not None or _is_step(node):
        return None
    if not _is_cut_freely(source, node.chunks):
        return None
    inputs = [
        operand
        if operand.op.kind == "literal"
        else rechunk(operand, _fitting(operand, node.shape, node.chunks))
        for operand in source.inputs
    ]
    return make(
        source.op, tuple(inputs), source.params, node.shape, node.dtype, node.chunks, node.device
    )


MOST_OPERATIONS = 64
"""So many operations are looked through for what they are computed of."""


def _fitting(operand: Node, shape: Shape, chunks: Chunks) -> Chunks:
    """The cut of an operand that is broadcast to this shape, cut so."""
    skip = len(shape) - operand.ndim
    return tuple(
        [
            chunks[skip + axis] if length == shape[skip + axis] else (length,)
            for axis, length in enumerate(operand.shape)
        ]
    )


def _is_cut_freely(node: Node, chunks: Chunks) -> bool:
    """Whether elementwise operations have operands only in the caller's memory, or such as need no
    other cut to be cut so."""
    stack, seen = [node], 0
    while stack:
        current = stack.pop()
        seen += 1
        if seen > MOST_OPERATIONS:
            return False
        for operand in current.inputs:
            if operand.op.kind == "literal":
                continue
            kind, known = operand.op.kind, operand.value is not None
            is_free = kind == "data" or (kind == "create" and not known)
            if kind == "map" and operand.shape == node.shape and not known:
                stack.append(operand)
            elif not is_free and operand.chunks != _fitting(operand, node.shape, chunks):
                return False
    return True


def _is_step(node: Node) -> bool:
    """Whether a rechunk is one step of a plan of two."""
    return bool(node.params)
