"""Values that stay on a device between bundles; the least recently used go to the host first.

The table lives in the device's executor. The loop and the Dispatcher decide who may use a value,
and what follows from its loss.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from agentic_ray.runtime.devices import Device

Key = tuple[str, str]
"""Graph id and key of the value."""


class ValueAbsentError(Exception):
    """Internal: a value was asked for that this executor does not hold (any more)."""


@dataclass(slots=True)
class _Entry:
    value: Any
    nbytes: int
    on_device: bool = True
    users: int = 0


class ValueTable:
    """Table of the values that one executor keeps. Safe to use from several threads."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._lock = threading.RLock()

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    @property
    def device_bytes(self) -> int:
        """Device memory of the values, in bytes."""
        with self._lock:
            return sum(entry.nbytes for entry in self._entries.values() if entry.on_device)

    def keep(self, key: Key, value: Any) -> int:
        """Take a value that is on the device; return its size in bytes."""
        nbytes = self._device.device_bytes(value)
        with self._lock:
            self._entries[key] = _Entry(value, nbytes)
        return nbytes

    def absent(self, keys: Iterable[Key]) -> tuple[Key, ...]:
        """Return the ``keys`` whose values are not here."""
        with self._lock:
            return tuple(key for key in keys if key not in self._entries)

    @contextmanager
    def using(self, keys: Iterable[Key]) -> Iterator[Mapping[Key, Any]]:
        """Yield the values as they are, on the device or spilled; inside, none of them is moved.

        Raises
        ------
        ValueAbsentError
            A value is not here.
        """
        wanted = list(keys)
        with self._lock:
            absent = self.absent(wanted)
            if absent:
                raise ValueAbsentError(absent)
            entries = {key: self._entries[key] for key in wanted}
            for key, entry in entries.items():
                entry.users += 1
                self._entries.move_to_end(key)
        try:
            yield {key: entry.value for key, entry in entries.items()}
        finally:
            with self._lock:
                for entry in entries.values():
                    entry.users -= 1

    def host_copy(self, key: Key) -> Any:
        """Return the value on the host; a value on the device stays there.

        Raises
        ------
        ValueAbsentError
            The value is not here.
        """
        with self.using([key]) as values, self._device.computing():
            return self._device.to_host(values[key])

    def spill(self, wanted_bytes: int | None = None) -> int:
        """Move values that nobody uses to the host, the least recently used first.

        Parameters
        ----------
        wanted_bytes : int, optional
            Stop when so much device memory was freed; default: move all.

        Returns
        -------
        int
            Bytes freed on the device.
        """
        freed = 0
        with self._lock, self._device.computing():
            for entry in self._entries.values():
                if wanted_bytes is not None and freed >= wanted_bytes:
                    break
                if entry.on_device and not entry.users:
                    entry.value = self._device.to_host(entry.value)
                    entry.on_device = False
                    freed += entry.nbytes
        return freed

    def drop(self, keys: Iterable[Key]) -> None:
        """Forget values; keys that are not here are passed over."""
        with self._lock:
            for key in keys:
                self._entries.pop(key, None)
