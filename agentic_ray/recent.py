"""Table of bounded size that forgets the entries used longest ago; threads may share it."""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")

_all: weakref.WeakSet[Recent[Any, Any]] = weakref.WeakSet()


class Recent(Generic[Key, Value]):
    """Table of the ``most`` entries that were read or written last.

    Parameters
    ----------
    most : int
        Number of entries kept.
    most_bytes : int, optional
        Bytes that the values may have together; a single value is kept however large.
    size_of : callable, optional
        Returns the bytes of a value, which do not change.
    """

    def __init__(
        self, most: int, most_bytes: int = 0, size_of: Callable[[Value], int] = lambda value: 0
    ) -> None:
        self.most = most
        self.most_bytes = most_bytes
        self._size_of = size_of
        self._bytes = 0
        self._entries: OrderedDict[Key, Value] = OrderedDict()
        self._lock = threading.RLock()
        _all.add(self)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: Key) -> bool:
        return key in self._entries

    def get(self, key: Key, default: Any = None) -> Value | Any:
        """Return the value of ``key``, which counts as used now; ``default`` if there is none."""
        with self._lock:
            if key not in self._entries:
                return default
            self._entries.move_to_end(key)
            return self._entries[key]

    def __setitem__(self, key: Key, value: Value) -> None:
        with self._lock:
            self.pop(key)
            self._entries[key] = value
            self._bytes += self._size_of(value)
            while len(self._entries) > 1 and (
                len(self._entries) > self.most or self._bytes > self.most_bytes
            ):
                self._bytes -= self._size_of(self._entries.popitem(last=False)[1])

    def add(self, key: Key, value: Value) -> bool:
        """Give ``key`` a value if it has none; return whether it had none."""
        with self._lock:
            if key in self._entries:
                return False
            self[key] = value
            return True

    def get_or_make(self, key: Key, make: Callable[[], Value]) -> Value:
        """Return the value of ``key``, made by ``make()`` if there is none; no other thread makes
        it, or reads the table, meanwhile."""
        with self._lock:
            if key not in self._entries:
                self[key] = make()
            self._entries.move_to_end(key)
            return self._entries[key]

    def pop(self, key: Key) -> Value | None:
        """Forget ``key``; return its value, if there was one."""
        with self._lock:
            if key not in self._entries:
                return None
            value = self._entries.pop(key)
            self._bytes -= self._size_of(value)
            return value

    def values(self) -> list[Value]:
        """Return all values, the one used longest ago first."""
        with self._lock:
            return list(self._entries.values())

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
            self._bytes = 0


def _unlock() -> None:
    """Renew the locks in a child process: the thread that held one may not be there any more."""
    for table in _all:
        table._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)
