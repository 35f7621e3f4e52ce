"""The steps of a fused program as straight-line source, for whichever compiler takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def statements(
    program: Any, operands: Sequence[str], forms: Mapping[str, str], statement: str
) -> tuple[list[str], list[str]] | None:
    """The program's steps, one a line, and the names of what they give.

    Parameters
    ----------
    program : Program
    operands : sequence of str
        What its blocks, and then its scalars, are called.
    forms : mapping of str to str
        Expressions with the operands as ``{0}``, ``{1}``, by the name of the kernel.
    statement : str
        Gives register ``{0}`` the value ``{1}``.

    Returns
    -------
    tuple or None
        The names are of what the reduction at the end takes, or of the program's value. None if a
        step has no such form, or takes other parameters.
    """
    names = list(operands)
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


def as_floats(scalars: Sequence[Any], dtype: np.dtype[Any]) -> list[Any] | None:
    """Python scalars as numbers of ``dtype`` (float32 or float64), as NumPy takes them beside
    arrays of it; None if one of them is no such number there."""
    if not all(type(scalar) in (bool, int, float) for scalar in scalars):
        return None
    try:
        # By way of float, because NumPy rounds a large integer twice, too.
        return [dtype.type(float(scalar)) for scalar in scalars]
    except OverflowError:
        return None
