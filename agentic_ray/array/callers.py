"""Finds out who called: a Python statement that assigns, or a NumPy function that reads memory."""

from __future__ import annotations

import dis
import sys
from types import FrameType

from numpy.lib.stride_tricks import as_strided

from agentic_ray import tracebacks

_STATEMENTS = frozenset({"STORE_SUBSCR", "STORE_SLICE"})


def is_statement(depth: int) -> bool:
    """Whether the function ``depth`` frames up was called by a statement ``x[i] = v``.

    If not, it was called as a function, by Python or by native code. Native code has no frame: the
    frame above then belongs to the caller of that code.
    """
    frame: FrameType | None = sys._getframe(depth + 1)
    while frame is not None and frame.f_code.co_filename == tracebacks.__file__:
        frame = frame.f_back  # of the wrapper that methods have (`tracebacks.entry_methods`)
    if frame is None:
        return False
    return dis.opname[frame.f_code.co_code[frame.f_lasti]] in _STATEMENTS


def is_as_strided(depth: int) -> bool:
    """Whether NumPy's ``as_strided`` called the function ``depth`` frames up: through native code,
    which has no frame, and perhaps through a wrapper of this package, which has one."""
    frame = sys._getframe(depth + 1)
    wanted = as_strided.__code__
    return frame.f_code is wanted or (
        frame.f_back is not None and frame.f_back.f_code is wanted
    )  # fmt: skip
