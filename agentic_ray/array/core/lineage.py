"""Persisted values: where their blocks are, and what they can be computed from again.

A cluster of one node takes all that was persisted with it when it dies. What the caller still
holds is then put again, and the rest computed again from its expression, with the same bits.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from agentic_ray.array.core.node import DATA, Held, Node, Op, make, topological
from agentic_ray.errors import LostDataError

_logger = logging.getLogger("agentic_ray")

MOST_NODES = 10_000
"""An expression of more steps is not kept: a loop that persists its state would keep all of its
past."""
MOST_BYTES = 64 << 20
"""Nor is one with more than this in known values and small arrays of the caller's."""
SMALL_BYTES = 1 << 20
"""Larger arrays of the caller's are kept for this only as long as the caller keeps them."""


class Kept(Held):
    """The blocks of a persisted array.

    Attributes
    ----------
    origin : Node or None
        The expression they were computed from, without any persisted array in it; None where it
        is not kept.
    steps, bytes : int
        How many nodes that has, and the bytes of values in them.
    """

    __slots__ = ("bytes", "origin", "steps")

    def __init__(
        self, blocks: Sequence[Any], origin: Node | None = None, steps: int = 0, bytes: int = 0
    ) -> None:
        super().__init__(list(blocks))
        self.origin = origin
        self.steps = steps
        self.bytes = bytes


def _stored_kernel(xp: Any, held: Held) -> Any:
    return held.value[0]


def _absent_kernel(xp: Any, held: Held) -> Any:
    raise AssertionError("an array of the caller's is put in before this is computed")


STORED = Op("stored", "stored", _stored_kernel)
_ABSENT = Op("absent", "data", _absent_kernel)


def kept(root: Node, blocks: Sequence[Any]) -> Kept:
    """The blocks of ``root``, with what it was computed from."""
    steps = size = 0
    origins: dict[Node, Node] = {}
    for node in topological([root]):
        steps += 1
        if node.op is STORED:
            held = node.params[0]
            steps += held.steps
            size += held.bytes
            if held.origin is None:
                return Kept(blocks)
            origins[node] = held.origin
        elif node.op is DATA and node.nbytes > SMALL_BYTES:
            held = Held(weakref.ref(node))
            origins[node] = Node(
                _ABSENT, (), (held,), node.shape, node.dtype, node.chunks, node.device
            )
        else:
            size += node.nbytes if node.op is DATA or node.value is not None else 0
            origins[node] = _with_inputs(node, origins)
        if steps > MOST_NODES or size > MOST_BYTES:
            return Kept(blocks)
    return Kept(blocks, origins[root], steps, size)


def origin_of(node: Node) -> Node:
    """The expression of a persisted array that was lost.

    Raises
    ------
    LostDataError
        It is not kept, or an array of the caller's that it needs is not there any more.
    """
    held: Kept = node.params[0]
    what = f"the persisted array of shape {node.shape}, dtype {node.dtype}"
    if held.origin is None:
        raise LostDataError(
            f"{what} was lost with its only node, and what it was computed from is not kept (it "
            f"came of more than {MOST_NODES:,} steps or {MOST_BYTES:,} bytes of values, or of what "
            "others had put in the object store). Make it again: run the lines (the notebook cell) "
            "that made it"
        )
    present: dict[Node, Node] = {}
    for one in topological([held.origin]):
        if one.op is _ABSENT:
            found = one.params[0].value()
            if found is None:
                raise LostDataError(
                    f"{what} was lost with its only node. It was computed from an array of "
                    f"{one.nbytes:,} bytes in the caller's memory, which is not there any more. "
                    "Make both again: run the lines (the notebook cell) that made them"
                )
            present[one] = found
        else:
            present[one] = _with_inputs(one, present)
    _logger.warning("%s was lost with its node; it is computed again", what)
    return present[held.origin]


def _with_inputs(node: Node, others: dict[Node, Node]) -> Node:
    """``node`` over what takes the place of its inputs."""
    if node.value is not None:
        return node  # it is known, so nothing below it is asked for
    inputs = tuple([others[source] for source in node.inputs])
    if inputs == node.inputs:
        return node
    return make(node.op, inputs, node.params, node.shape, node.dtype, node.chunks, node.device)


def is_here(blocks: Sequence[Any]) -> bool:
    """Whether all blocks of a persisted array are in this process."""
    return all(isinstance(block, np.ndarray) for block in blocks)
