"""The steps of a fused program as straight-line source, for whichever compiler takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def statements(
    program: Any, inputs: Sequence[str], forms: Mapping[str, str], cast: str, statement: str
) -> tuple[list[str], list[str]] | None:
    """The program's steps, one a line, and the names of what they give.

    Parameters
    ----------
    program : Program
    inputs : sequence of str
        What its input blocks are called; the constants follow them among its registers.
    forms : mapping of str to str
        Expressions with the operands as ``{0}``, ``{1}``, by the name of the kernel.
    cast : str
        Put before each constant, in brackets.
    statement : str
        Gives register ``{0}`` the value ``{1}``.

    Returns
    -------
    tuple or None
        The names are of what the reduction at the end takes, or of the program's value. None if a
        step has no such form or a constant is no finite number.
    """
    names = list(inputs)
    for kind, text, value in program.constants:
        if kind not in ("int", "float") or not np.isfinite(value):
            return None
        names.append(f"{cast}({text})")
    lines: list[str] = []
    for step in program.steps:
        form = forms.get(getattr(step.kernel, "name", ""))
        if form is None or step.params:
            return None
        name = f"v{len(names)}"
        lines.append(statement.format(name, form.format(*[names[i] for i in step.registers])))
        names.append(name)
    if program.reducing is None:
        return lines, names[-1:]
    return lines, [names[i] for i in program.reducing.registers]
