"""Who assigns: a Python statement, or native code on behalf of a call."""

from __future__ import annotations

import dis
import sys

_STATEMENTS = frozenset({"STORE_SUBSCR", "STORE_SLICE"})


def is_statement(depth: int) -> bool:
    """Whether the function ``depth`` frames up was called by a statement ``x[i] = v``.

    If not it was called as a function, by Python or by native code, which has no frame: the frame
    above is then of whoever called that.
    """
    frame = sys._getframe(depth + 1)
    return dis.opname[frame.f_code.co_code[frame.f_lasti]] in _STATEMENTS
