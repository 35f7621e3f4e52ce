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


MOST_PASSES = 64
"""A pass moves a slice down by one operation; deeper than this it stays where it is."""

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
    current = list(roots)
    for _ in range(MOST_PASSES):
        steps: list[Applied] = []
        current = _passed(current, steps)
        if trace is not None:
            trace.extend(steps)
        if not steps:
            break
    return current


def _passed(roots: Sequence[Node], trace: list[Applied]) -> list[Node]:
    """Every node looked at once, inputs first; without recursion, as expressions may be deep."""
    better: dict[Node, Node] = {}
    for node in topological(roots):
        current = node
        if node.value is None:
            inputs = tuple([better[source] for source in node.inputs])
            if inputs != node.inputs:
                current = make(
                    node.op, inputs, node.params, node.shape, node.dtype, node.chunks, node.device
                )
            for candidate in _rules.get(current.op.name, ()):
                found = candidate.apply(current)
                if found is not None and found is not current:
                    trace.append(Applied(candidate.name, current, found))
                    current = found
                    break
        better[node] = current
    return [better[root] for root in roots]
