"""The contract of a device, the CPU's device, and the search for a device class by name.

Imports no GPU library. ``cupy_device`` is the device with memory of its own.
"""

from __future__ import annotations

import importlib
import types
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.graph.task import is_named_tuple


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Memory of a device in bytes.

    Parameters
    ----------
    total_bytes, free_bytes : int
        Memory as the driver sees it, whoever uses it.
    held_bytes : int
        Memory taken from the driver by this process's pool, in use or cached.
    used_bytes : int
        Part of ``held_bytes`` in use by live arrays.
    """

    total_bytes: int
    free_bytes: int
    held_bytes: int
    used_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class Upload:
    """A value on its way to the device; `Device.arrived` returns it."""

    value: Any
    nbytes: int
    done: Any = None


class Device(Protocol):
    """Interface of a device to its executor. Methods may be called from several threads.

    "Arrays" are those in a value or in its lists, tuples and dicts; everything else in it, and
    arrays of a type that the device does not have, stay as they are.
    """

    name: str
    kind: str
    xp: Any

    def upload(self, value: Any) -> Upload:
        """Begin to copy NumPy arrays to the device, beside the computation there.

        Raises an error that `is_out_of_memory` recognises when the device has no room.
        """
        ...

    def arrived(self, upload: Upload) -> Any:
        """Return the uploaded value; this thread's next computation waits for the copy."""
        ...

    def to_device(self, value: Any) -> Any:
        """Move the NumPy arrays in ``value`` to the device."""
        ...

    def to_host(self, value: Any) -> Any:
        """Move the device arrays in ``value`` to NumPy, complete when this returns."""
        ...

    def device_bytes(self, value: Any) -> int:
        """Return the bytes of the device arrays in ``value``."""
        ...

    def computing(self) -> AbstractContextManager[Any]:
        """Run this thread's kernels in order on a stream of its own while entered."""
        ...

    def synchronize(self) -> None:
        """Wait until this thread's kernels have ended, so that times measured are true."""
        ...

    def memory(self) -> DeviceMemory:
        """Return the device's memory now."""
        ...

    def set_memory_limit(self, limit_bytes: int) -> None:
        """Let this process's pool take no more than this from the device."""
        ...

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether ``error`` says that the device's memory did not suffice."""
        ...

    def is_lost(self, error: BaseException) -> bool:
        """Whether after ``error`` this process can no longer use the device."""
        ...

    def free_pool(self) -> None:
        """Give cached memory back to the device."""
        ...


class HostDevice:
    """The CPU: arrays are NumPy's and never move."""

    name = "cpu"
    kind = "cpu"
    xp: types.ModuleType = np

    def upload(self, value: Any) -> Upload:
        return Upload(value, 0)

    def arrived(self, upload: Upload) -> Any:
        return upload.value

    def to_device(self, value: Any) -> Any:
        return value

    def to_host(self, value: Any) -> Any:
        return value

    def device_bytes(self, value: Any) -> int:
        return 0

    def computing(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def synchronize(self) -> None:
        return None

    def memory(self) -> DeviceMemory:
        return DeviceMemory(0, 0, 0, 0)

    def set_memory_limit(self, limit_bytes: int) -> None:
        return None

    def is_out_of_memory(self, error: BaseException) -> bool:
        return isinstance(error, MemoryError)

    def is_lost(self, error: BaseException) -> bool:
        return False

    def free_pool(self) -> None:
        return None


def device_factory(path: str) -> Callable[[str], Device]:
    """Return the device class (or function) at ``package.module:name``; called with a GPU's UUID.

    Raises
    ------
    InvalidArgumentError
        There is no class or function at this path.
    """
    module, _, name = path.partition(":")
    try:
        factory = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidArgumentError(f"no device class at {path!r}: {error}") from error
    if not callable(factory):
        raise InvalidArgumentError(f"{path!r} is not callable")
    made: Callable[[str], Device] = factory
    return made


def map_leaves(value: Any, is_leaf: Callable[[Any], bool], convert: Callable[[Any], Any]) -> Any:
    """Apply ``convert`` to the leaves in ``value``; containers are rebuilt."""
    if is_leaf(value):
        return convert(value)
    if type(value) in (list, tuple):
        return type(value)(map_leaves(element, is_leaf, convert) for element in value)
    if type(value) is dict:
        return {name: map_leaves(element, is_leaf, convert) for name, element in value.items()}
    if is_named_tuple(value):
        return type(value)._make(map_leaves(element, is_leaf, convert) for element in value)
    return value
