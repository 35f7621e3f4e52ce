"""Optimisation as a table of small rewrite rules over expressions; each step can be printed.

A rule looks at one node, whose inputs are rewritten already, and returns a better one or None.
Sharing of equal expressions needs no rule: equal nodes are one node.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agentic_ray.array.core.node import Node, make, strong, topological


@dataclass(frozen=True, slots=True)
class Rule:
    """A rewrite. ``op`` names the nodes it looks at.

    ``most_share``: the rewrite makes a part of the node's input by itself. That saves work only if
    little else of the input is needed, so the rule is not asked where all who use the input need
    more than this share of its elements together.
    """

    name: str
    op: str
    apply: Callable[[Node], Node | None]
    most_share: float = math.inf


@dataclass(frozen=True, slots=True)
class Applied:
    """A rule that was applied: what it made of what."""

    rule: str
    before: Node
    after: Node

    def __str__(self) -> str:
        return f"{self.rule}: {self.before!r} -> {self.after!r}"


MOST_PASSES = 64
"""A pass moves a slice down by one operation; deeper than this it stays where it is."""

_rules: dict[str, list[Rule]] = {}


def rule(
    name: str, op: str, *, most_share: float = math.inf
) -> Callable[[Callable[[Node], Node | None]], Rule]:
    """Decorator: add a rule for nodes of operation ``op`` to the table."""

    def add(apply: Callable[[Node], Node | None]) -> Rule:
        made = Rule(name, op, apply, most_share)
        _rules.setdefault(op, []).append(made)
        return made

    return add


def optimize(roots: Sequence[Node], trace: list[Applied] | None = None) -> list[Node]:
    """``roots`` rewritten bottom-up until no rule applies; then reductions of the same input
    share their partial values.

    Parameters
    ----------
    trace : list, optional
        Every step is appended to it.
    """
    current = [strong(root) for root in roots]
    for _ in range(MOST_PASSES):
        steps: list[Applied] = []
        current = _passed(current, steps, {})
        if trace is not None:
            trace.extend(steps)
        if not steps:
            break
    shared = _shared(current)
    if shared:
        if trace is not None:
            trace.extend(Applied("one pass for both", *pair) for pair in shared.items())
        current = _passed(current, [], shared)
    return current


def _shared(roots: Sequence[Node]) -> dict[Node, Node]:
    """Reductions that another one of the same input over the same axes makes in passing."""
    groups: dict[tuple[tuple[Node, ...], tuple[int, ...]], list[Node]] = {}
    for node in topological(roots):
        if node.op.kind == "reduce" and node.value is None:
            groups.setdefault((node.inputs, node.params[0]), []).append(node)
    found: dict[Node, Node] = {}
    for group in groups.values():
        for node in group:
            also = node.op.reduction.also if node.op.reduction is not None else None
            if also is None:
                continue
            for other in group:
                made = None if other is node or other in found else also(node, other)
                if made is not None:
                    found[other] = made
    return found


def _passed(
    roots: Sequence[Node], trace: list[Applied], replaced: Mapping[Node, Node]
) -> list[Node]:
    """Every node looked at once, inputs first; without recursion, as expressions may be deep."""
    better: dict[Node, Node] = {}
    nodes = list(topological(roots))
    needed = _needed_elements(nodes, roots)
    for node in nodes:
        current = replaced.get(node, node)
        if node.value is None:
            inputs = tuple([better[source] for source in current.inputs])
            if inputs != current.inputs:
                current = make(
                    current.op, inputs, current.params, node.shape, node.dtype, node.chunks,
                    node.device,
                )  # fmt: skip
            for candidate in _rules.get(current.op.name, ()):
                if candidate.most_share < math.inf:
                    (source,) = node.inputs
                    if needed[source] > candidate.most_share * source.size:
                        continue
                found = candidate.apply(current)
                if found is not None and found is not current:
                    trace.append(Applied(candidate.name, current, found))
                    current = found
                    break
        better[node] = current
    return [better[root] for root in roots]


def _needed_elements(nodes: Sequence[Node], roots: Sequence[Node]) -> Counter[Node]:
    """Count the elements of each node that others need: slices need those they take."""
    needed = Counter[Node]()
    for root in roots:
        needed[root] += root.size
    for node in nodes:
        if node.value is None:
            for source in node.inputs:
                needed[source] += node.size if node.op.name == "slice" else source.size
    return needed
