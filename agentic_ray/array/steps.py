"""Describes each kind of task of a plan, in lines for people. Computes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from agentic_ray.array.core.program import Call, Program
from agentic_ray.array.core.windows import is_reading
from agentic_ray.graph import Task


def task_lines(tasks: Sequence[Task]) -> Iterator[str]:
    """For each codelet of a plan: how many tasks call it, what they are given, what they do."""
    groups: dict[str, list[Task]] = {}
    for task in tasks:
        groups.setdefault(task.codelet.name, []).append(task)
    for name, group in groups.items():
        yield f"{len(group)} × {name}"
        given = Counter(_argument(argument) for task in group for argument in task.args)
        yield "  is given: " + ", ".join(f"{count} × {what}" for what, count in given.items())
        for line in _function_lines(group[0].codelet.cpu):
            yield f"  {line}"


def _argument(argument: Any) -> str:
    if is_reading(argument):
        count = len(argument) - 1
        return f"a view of {count} blocks" if count > 1 else "a view of a block"
    if type(argument) is list:
        return "a list of blocks"
    kind = type(argument).__name__
    return {"Ref": "another task's value", "ndarray": "a block of the caller's"}.get(kind, kind)


def _function_lines(function: Callable[..., Any] | None) -> Iterator[str]:
    if isinstance(function, Program):
        yield from _program_lines(function)
    elif isinstance(function, Call):
        yield f"calls {_name(function.kernel)}"
        for side in ("left", "right"):
            program = getattr(function.kernel, side, None)
            if isinstance(program, Program):
                yield f"{side} operand, some rows at a time:"
                for line in _program_lines(program):
                    yield f"  {line}"


def _program_lines(program: Program) -> Iterator[str]:
    """The steps of a program, a register a line."""
    names = [f"place{i}" if made else f"block{i}" for i, made in enumerate(program.located)]
    names += [f"number{i}" for i in range(program.scalars)]
    if not program.steps and program.reducing is None:
        yield f"takes {names[0]} as it is seen"
    for step in program.steps:
        made = f"r{len(names)}"
        operands = ", ".join(names[i] for i in step.registers)
        yield f"{made} = {_name(step.kernel)}({operands})"
        names.append(made)
    if program.reducing is not None:
        operands = ", ".join(names[i] for i in program.reducing.registers)
        left = "partial value" if program.reducing.count is None else "result"
        kind = _name(program.reducing.steps.partial).removesuffix("_partial")
        yield f"{left} of {kind}({operands}) over axes {program.reducing.axes}"


def _name(function: Any) -> str:
    found = getattr(function, "name", None) or getattr(function, "__name__", None)
    return str(found or type(function).__name__).strip("_")
