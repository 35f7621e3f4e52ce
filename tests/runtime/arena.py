"""A second, honest device for tests: process-private memory with a budget, and no way around it.

Arrays live in one anonymous mapping, carved up by a first-fit allocator that raises when the
budget is spent. Kernels see the namespace of ``array_api_strict``, so what is not in the array
API standard fails; mixing host and device arrays is an error, as it is in CuPy.
"""

from __future__ import annotations

import json
import mmap
import os
import threading
import time
import weakref
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import array_api_strict as strict
import numpy as np

from agentic_ray.errors import OutOfDeviceMemoryError
from agentic_ray.runtime.devices import DeviceMemory, Upload, map_leaves

_Strict = type(strict.asarray(0))
_ALIGNMENT = 64


class DeviceGoneError(RuntimeError):
    """What every call raises once the device is lost."""


class Arena:
    """Bytes of one mapping, handed out first fit."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.limit_bytes = budget_bytes
        self.lost = False
        self._memory = mmap.mmap(-1, max(budget_bytes, _ALIGNMENT))
        self._free: list[tuple[int, int]] = [(0, budget_bytes)]  # (start, size), by start
        self._lock = threading.RLock()
        self.used_bytes = 0
        self.peak_bytes = 0

    def store(self, array: np.ndarray) -> tuple[np.ndarray, int, int]:
        """A copy of ``array`` in the arena, and where it lies."""
        if self.lost:
            raise DeviceGoneError("the arena device is lost")
        size = -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
        with self._lock:
            if self.used_bytes + size > self.limit_bytes:
                raise OutOfDeviceMemoryError(
                    f"arena: {size} bytes wanted, {self.limit_bytes - self.used_bytes} left"
                )
            start = self._take(size)
            self.used_bytes += size
            self.peak_bytes = max(self.peak_bytes, self.used_bytes)
        copy = np.frombuffer(self._memory, array.dtype, array.size, start).reshape(array.shape)
        copy[...] = array
        return copy, start, size

    def _take(self, size: int) -> int:
        for number, (start, room) in enumerate(self._free):
            if room >= size:
                rest = [(start + size, room - size)] if room > size else []
                self._free[number : number + 1] = rest
                return start
        raise OutOfDeviceMemoryError(f"arena: no {size} bytes in one piece")

    def release(self, start: int, size: int) -> None:
        with self._lock:
            self.used_bytes -= size
            merged: list[tuple[int, int]] = []
            for piece in sorted([*self._free, (start, size)]):
                if merged and sum(merged[-1]) == piece[0]:
                    merged[-1] = (merged[-1][0], merged[-1][1] + piece[1])
                elif piece[1]:
                    merged.append(piece)
            self._free = merged


class DeviceArray:
    """An array in an arena. Its operators are array_api_strict's; their results are arrays in
    the same arena."""

    __array_priority__ = 1000  # NumPy leaves binary operators to us, and we refuse

    def __init__(self, arena: Arena, host: np.ndarray) -> None:
        memory, start, size = arena.store(host)
        self.arena = arena
        self.data = strict.asarray(memory, copy=False)
        self.memory = memory
        weakref.finalize(self, arena.release, start, size)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("a device array is not converted to NumPy implicitly")

    __array_ufunc__ = None

    @property
    def nbytes(self) -> int:
        return int(self.memory.nbytes)

    def __getattr__(self, name: str) -> Any:  # shape, dtype, ndim, T, ...
        if name in {"data", "arena", "memory"}:
            raise AttributeError(name)
        return _into(self.arena, getattr(self.data, name))

    def __getitem__(self, key: Any) -> Any:
        return _into(self.arena, self.data[_out(key)])

    def __setitem__(self, key: Any, value: Any) -> None:
        self.data[_out(key)] = _out(value)

    def __bool__(self) -> bool:
        return bool(self.data)

    def __int__(self) -> int:
        return int(self.data)

    def __float__(self) -> float:
        return float(self.data)

    def __len__(self) -> int:
        return int(self.data.shape[0])

    def __repr__(self) -> str:
        return f"DeviceArray({self.data!r})"

    __hash__ = None  # type: ignore[assignment]


def _forward(name: str) -> Any:
    def operator(self: DeviceArray, *others: Any) -> Any:
        return _into(self.arena, getattr(self.data, name)(*map(_out, others)))

    return operator


for _name in [
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "matmul",
    "and",
    "or",
    "xor",
    "lshift",
    "rshift",
    "radd",
    "rsub",
    "rmul",
    "rtruediv",
    "rfloordiv",
    "rmod",
    "rpow",
    "rmatmul",
    "rand",
    "ror",
    "rxor",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "neg",
    "pos",
    "abs",
    "invert",
]:
    setattr(DeviceArray, f"__{_name}__", _forward(f"__{_name}__"))


def _out(value: Any) -> Any:
    """Arguments for array_api_strict; host arrays are refused."""
    if isinstance(value, DeviceArray):
        return value.data
    if isinstance(value, np.ndarray | _Strict):
        raise TypeError(f"a host array ({type(value).__name__}) was given to the device")
    if type(value) in (list, tuple):
        return type(value)(_out(element) for element in value)
    return value


def _into(arena: Arena, value: Any) -> Any:
    """Results of array_api_strict, copied to the arena."""
    if isinstance(value, _Strict):
        return DeviceArray(arena, np.asarray(value._array))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_into(arena, element) for element in value))
    if type(value) in (list, tuple):
        return type(value)(_into(arena, element) for element in value)
    return value


class Namespace:
    """array_api_strict, or a part of it, over one arena."""

    def __init__(self, arena: Arena, source: Any = strict) -> None:
        self._arena = arena
        self._source = source

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._source, name)
        if name in ("linalg", "fft"):
            return Namespace(self._arena, found)
        if (
            isinstance(found, type)
            or not callable(found)
            or isinstance(found, strict._dtypes.DType)
        ):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            if name == "asarray" and args and isinstance(args[0], np.ndarray):
                return DeviceArray(self._arena, args[0])  # asked for: that is a copy, as in CuPy
            if self._arena.lost:
                raise DeviceGoneError("the arena device is lost")
            kwargs = {key: _out(value) for key, value in kwargs.items()}
            return _into(self._arena, found(*map(_out, args), **kwargs))

        return call


class ArenaDevice:
    """The device of one arena.

    A file that ``ARENA_SETTINGS`` in the environment names is read when a device is made: JSON with
    ``budget_bytes``, and with ``copy_seconds``, which each upload takes beside other work.
    """

    kind = "gpu"

    def __init__(self, name: str = "GPU-arena", budget_bytes: int | None = None) -> None:
        self.name = name
        path = os.environ.get("ARENA_SETTINGS")
        settings = json.loads(Path(path).read_text()) if path else {}
        self.arena = Arena(budget_bytes or settings.get("budget_bytes", 64 * 2**20))
        self._copy_seconds: float = settings.get("copy_seconds", 0.0)
        self.xp = Namespace(self.arena)
        self.log: list[tuple[str, float, float]] = []
        self.frees = 0

    def upload(self, value: Any) -> Upload:
        self._check()
        sizes: list[int] = []
        before = time.perf_counter()

        def copy(leaf: np.ndarray) -> DeviceArray:
            sizes.append(leaf.nbytes)
            return DeviceArray(self.arena, leaf)

        moved = map_leaves(value, _can_move, copy)
        if sizes:
            time.sleep(self._copy_seconds)
            self.log.append(("copy", before, time.perf_counter()))
        return Upload(moved, sum(sizes))

    def arrived(self, upload: Upload) -> Any:
        return upload.value

    def to_device(self, value: Any) -> Any:
        return self.upload(value).value

    def to_host(self, value: Any) -> Any:
        self._check()
        return map_leaves(value, _is_mine, lambda leaf: leaf.memory.copy())

    def device_bytes(self, value: Any) -> int:
        sizes: list[int] = []
        map_leaves(value, _is_mine, lambda leaf: sizes.append(leaf.nbytes))
        return sum(sizes)

    def computing(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def synchronize(self) -> None:
        self._check()

    def memory(self) -> DeviceMemory:
        arena = self.arena
        free = arena.budget_bytes - arena.used_bytes
        return DeviceMemory(arena.budget_bytes, free, arena.used_bytes, arena.used_bytes)

    def set_memory_limit(self, limit_bytes: int) -> None:
        self.arena.limit_bytes = min(limit_bytes, self.arena.budget_bytes)

    def is_out_of_memory(self, error: BaseException) -> bool:
        return isinstance(error, OutOfDeviceMemoryError)

    def is_lost(self, error: BaseException) -> bool:
        return isinstance(error, DeviceGoneError)

    def free_pool(self) -> None:
        self.frees += 1

    def _check(self) -> None:
        if self.arena.lost:
            raise DeviceGoneError("the arena device is lost")


def _is_mine(leaf: Any) -> bool:
    return isinstance(leaf, DeviceArray)


def _can_move(leaf: Any) -> bool:
    return isinstance(leaf, np.ndarray) and leaf.dtype.kind in "biufc"
