"""Optimisation as a table of small rewrite rules over expressions; each step can be printed.

A rule looks at one node, whose inputs are rewritten already, and returns a better one or None.
Sharing of equal expressions needs no rule: equal nodes are one node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agentic_ray.array.core.node import Node, make, topological


@dataclass(frozen=True, slots=True)
class Rule:
    """One rewrite. ``op`` names the nodes it looks at."""

    name: str
    op: str
    apply: Callable[[Node], Node | None]


@dataclass(frozen=True, slots=True)
class Applied:
    """A rule that was applied: what it made of what."""

    rule: str
    before: Node
    after: Node

    def __str__(self) -> str:
        return f"{self.rule}: {self.before!r} -> {self.after!r}"


_rules: dict[str, list[Rule]] = {}


def rule(name: str, op: str) -> Callable[[Callable[[Node], Node | None]], Rule]:
    """Decorator: add a rule for nodes of operation ``op`` to the table."""

    def add(apply: Callable[[Node], Node | None]) -> Rule:
        made = Rule(name, op, apply)
        _rules.setdefault(op, []).append(made)
        return made

    return add


def optimize(roots: Sequence[Node], trace: list[Applied] | None = None) -> list[Node]:
    """``roots`` rewritten bottom-up until no rule applies.

    Parameters
    ----------
    trace : list, optional
        Every step is appended to it.
    """
    better: dict[Node, Node] = {}
    for node in topological(roots):
        if node.value is not None:
            better[node] = node
            continue
        inputs = tuple([better[source] for source in node.inputs])
        current = node
        if inputs != node.inputs:
            current = make(
                node.op, inputs, node.params, node.shape, node.dtype, node.chunks, node.device
            )
        better[node] = _rewritten(current, trace)
    return [better[root] for root in roots]


def _rewritten(node: Node, trace: list[Applied] | None) -> Node:
    """Apply rules to ``node`` and to what they make below it, to a fixed point."""
    for _ in range(64):  # rules shrink their input or push it down, so this is never reached
        for candidate in _rules.get(node.op.name, ()):
            found = candidate.apply(node)
            if found is not None and found is not node:
                if trace is not None:
                    trace.append(Applied(candidate.name, node, found))
                inputs = tuple([_rewritten(source, trace) for source in found.inputs])
                if inputs != found.inputs:
                    found = make(
                        found.op, inputs, found.params, found.shape, found.dtype,
                        found.chunks, found.device,
                    )  # fmt: skip
                node = found
                break
        else:
            return node
    return node
