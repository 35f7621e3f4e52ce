"""Finds the nodes that one program computes, and the windows through which it reads each one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from agentic_ray.array.core import windows
from agentic_ray.array.core.node import Node
from agentic_ray.array.core.windows import Window

Seen: TypeAlias = tuple[Node, Window | None]
"""An array, as it is cut or broadcast to the blocks of a program's grid, or through a window."""


@dataclass(slots=True)
class Walked:
    """The nodes of a program. A node may be in it several times, seen through several windows.

    Attributes
    ----------
    leaves : dict of Seen
        Arrays that the program's tasks take as arguments, in order.
    inside : list of Seen
        Arrays that the program computes, each after its operands.
    operands : dict of Seen to tuple of Seen
        Operands of each array in ``inside``.
    same : dict of Seen to Seen
        For each move the operand that stands for it, with the window on that operand.
    """

    leaves: dict[Seen, None] = field(default_factory=dict)
    inside: list[Seen] = field(default_factory=list)
    operands: dict[Seen, tuple[Seen, ...]] = field(default_factory=dict)
    same: dict[Seen, Seen] = field(default_factory=dict)


def walk(
    outputs: Sequence[Node],
    grid: Node,
    is_inside: Callable[[Node], bool],
    moves: Mapping[Node, Window],
) -> Walked:
    """Go down from ``outputs``, seen as the blocks of ``grid``.

    Parameters
    ----------
    is_inside : callable
        Whether an elementwise operation, or a move, is part of the program.
    moves : mapping
        The window of each move on its operand.
    """
    found = Walked()
    stack: list[tuple[Seen, bool]] = [((node, None), False) for node in reversed(outputs)]
    while stack:
        seen, ready = stack.pop()
        if ready:
            found.inside.append(seen)
            continue
        node, window = seen
        known = seen in found.operands or seen in found.same or seen in found.leaves
        if known or node.op.kind == "literal":
            continue
        if node.value is not None:
            found.leaves[seen] = None
        elif node.op.kind == "create" and window is None:
            found.leaves[seen] = None
            found.operands[seen] = (seen,)
            found.inside.append(seen)
        elif node in moves and is_inside(node):
            below = found.same[seen] = _below(node, moves[node], window, grid)
            stack.append((below, False))
        elif node.op.kind == "map" and is_inside(node):
            operands = tuple([(source, _at(source, node, window)) for source in node.inputs])
            found.operands[seen] = operands
            stack.append((seen, True))
            stack.extend((source, False) for source in reversed(operands))
        else:
            found.leaves[seen] = None
    return found


def _below(node: Node, own: Window, window: Window | None, grid: Node) -> Seen:
    """Return a move's operand and the window on it, for a move that is seen through ``window``."""
    (source,) = node.inputs
    if window is not None:
        own = window.on(own)
    elif node.shape != grid.shape:
        own = windows.broadcast(node.shape, grid.shape).on(own)
    unmoved = source.shape == grid.shape and source.chunks == grid.chunks
    return source, None if unmoved and own == windows.broadcast(grid.shape, grid.shape) else own


def _at(source: Node, node: Node, window: Window | None) -> Window | None:
    """The window through which an operand is seen, if ``node`` is seen through ``window``."""
    if window is None or source.op.kind == "literal":
        return None
    if source.shape == node.shape:
        return window
    return window.on(windows.broadcast(source.shape, node.shape))
