"""Who called: a Python statement that assigns, or a function of NumPy's that looks at memory."""

from __future__ import annotations

import dis
import sys

from numpy.lib.stride_tricks import as_strided

_STATEMENTS = frozenset({"STORE_SUBSCR", "STORE_SLICE"})


def is_statement(depth: int) -> bool:
    """Whether the function ``depth`` frames up was called by a statement ``x[i] = v``.

    If not it was called as a function, by Python or by native code, which has no frame: the frame
    above is then of whoever called that.
    """
    frame = sys._getframe(depth + 1)
    return dis.opname[frame.f_code.co_code[frame.f_lasti]] in _STATEMENTS


def is_as_strided(depth: int) -> bool:
    """Whether the function ``depth`` frames up was called by NumPy's ``as_strided``: by way of
    native code, which has no frame, and perhaps of a wrapper of this package, which has one."""
    frame = sys._getframe(depth + 1)
    wanted = as_strided.__code__
    return frame.f_code is wanted or (
        frame.f_back is not None and frame.f_back.f_code is wanted
    )  # fmt: skip
