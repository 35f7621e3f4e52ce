"""The device seam: where a bundle's arrays live while it runs, and the namespace over them.

The CPU's device is the identity; a GPU's is CuPy, imported only in the executor of that GPU.
"""

from __future__ import annotations

import types
from typing import Any, Protocol

import numpy as np

from agentic_ray.errors import NoSuitableDeviceError


class Device(Protocol):
    """What `execute` needs of a device."""

    name: str
    kind: str
    xp: Any

    def to_device(self, value: Any) -> Any:
        """``value`` with NumPy arrays (also in lists, tuples, dicts) moved to the device."""
        ...

    def to_host(self, value: Any) -> Any:
        """``value`` with device arrays moved to NumPy."""
        ...

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether ``error`` says that the device's memory did not suffice."""
        ...

    def free_pool(self) -> None:
        """Give cached memory back to the device."""
        ...


class HostDevice:
    """The CPU: arrays are NumPy's and never move."""

    name = "cpu"
    kind = "cpu"
    xp: types.ModuleType = np

    def to_device(self, value: Any) -> Any:
        return value

    def to_host(self, value: Any) -> Any:
        return value

    def is_out_of_memory(self, error: BaseException) -> bool:
        return isinstance(error, MemoryError)

    def free_pool(self) -> None:
        return None


class CupyDevice:
    """The one GPU that this process sees (Ray sets ``CUDA_VISIBLE_DEVICES``).

    Raises
    ------
    NoSuitableDeviceError
        CuPy is missing, or finds no usable device; the message says why.
    """

    kind = "gpu"

    def __init__(self) -> None:
        try:
            import cupy
        except ImportError as error:
            raise NoSuitableDeviceError(
                f"cupy is not installed on this node ({error}); "
                "install agentic-ray[cuda12] or agentic-ray[cuda13] there"
            ) from error
        try:
            if cupy.cuda.runtime.getDeviceCount() < 1:
                raise NoSuitableDeviceError("CUDA finds no device")
            properties = cupy.cuda.runtime.getDeviceProperties(0)
        except cupy.cuda.runtime.CUDARuntimeError as error:
            raise NoSuitableDeviceError(f"CUDA is not usable on this node: {error}") from error
        raw = bytes(properties["uuid"]).hex()
        self.name = "GPU-" + "-".join((raw[:8], raw[8:12], raw[12:16], raw[16:20], raw[20:]))
        self.xp = cupy

    def to_device(self, value: Any) -> Any:
        return _mapped(value, lambda leaf: isinstance(leaf, np.ndarray), self.xp.asarray)

    def to_host(self, value: Any) -> Any:
        return _mapped(value, lambda leaf: isinstance(leaf, self.xp.ndarray), self.xp.asnumpy)

    def is_out_of_memory(self, error: BaseException) -> bool:
        return isinstance(error, self.xp.cuda.memory.OutOfMemoryError | MemoryError)

    def free_pool(self) -> None:
        self.xp.get_default_memory_pool().free_all_blocks()
        self.xp.get_default_pinned_memory_pool().free_all_blocks()


def _mapped(value: Any, is_leaf: Any, convert: Any) -> Any:
    if is_leaf(value):
        return convert(value)
    if type(value) in (list, tuple):
        return type(value)(_mapped(element, is_leaf, convert) for element in value)
    if type(value) is dict:
        return {name: _mapped(element, is_leaf, convert) for name, element in value.items()}
    return value
