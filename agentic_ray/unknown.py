"""Values that nobody computes, and the error that a program meets when it uses one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NoReturn


class NeedsValue(BaseException):
    """The program uses a value that nobody computes. (No `Exception`, so that the program's own
    handlers of errors let it pass.)"""


class NotSendable(TypeError):
    """A value that nobody computes was to be pickled: for a task, or to be written to a file."""


class Unknown:
    """Stands for a value that nobody computes; all that is done with it raises `NeedsValue`.

    Parameters
    ----------
    what : str
        The value, in words.
    count : int, optional
        Number of its elements, if it is a list: it may be iterated over, for as many unknowns.
    """

    __slots__ = ("_count", "_what")

    def __init__(self, what: str, count: int | None = None) -> None:
        object.__setattr__(self, "_what", what)
        object.__setattr__(self, "_count", count)

    def __iter__(self) -> Iterator[Unknown]:
        if self._count is None:
            needs(self._what)
        return iter([Unknown(self._what) for _ in range(self._count)])

    def __len__(self) -> int:
        if self._count is None:
            needs(self._what)
        return int(self._count)

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise NotSendable(self._what)

    def __getattr__(self, name: str) -> NoReturn:
        needs(self._what)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        needs(self._what)


def _refused(self: Unknown, *arguments: Any, **named: Any) -> NoReturn:
    needs(self._what)


_BINARY = "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift divmod"
_OTHER = (
    "abs neg pos invert bool int float complex index round trunc floor ceil str repr format bytes "
    "hash eq ne lt le gt ge call contains getitem setitem delitem enter exit await aiter next "
    "reversed fspath array array_ufunc array_function dlpack length_hint copy deepcopy"
)
for _name in (
    *itertools.chain(*((n, f"r{n}", f"i{n}") for n in _BINARY.split())),
    *_OTHER.split(),
):
    setattr(Unknown, f"__{_name}__", _refused)


def needs(what: str) -> NoReturn:
    raise NeedsValue(what)


_is_planned = False


def set_planned(planned: bool) -> bool:
    """Say whether programs in this process are only looked at; return what was said before."""
    global _is_planned
    before, _is_planned = _is_planned, planned
    return before


def stop_if_planned(what: str) -> None:
    """Raise `NeedsValue` where a program is only looked at; otherwise do nothing."""
    if _is_planned:
        needs(what)
