"""NVIDIA GPU through CuPy: streams, pinned staging buffers, the memory pool and its limit.

CuPy is imported when a `CupyDevice` is made and nowhere else. Nothing here decides.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

import numpy as np

from agentic_ray.errors import NoSuitableDeviceError
from agentic_ray.runtime.devices.base import DeviceMemory, Upload, map_leaves

STAGING_BYTES: Final = 16 * 2**20
"""Bytes of a pinned buffer. There are two each way: one is filled while the other is on the bus."""

_OUT_OF_MEMORY: Final = 2  # cudaErrorMemoryAllocation
_CONTEXT_LOST: Final = {
    46,  # devices unavailable
    100,  # no device
    214,  # uncorrectable ECC error
    220,  # uncorrectable NVLink error
    700,  # illegal address
    702,  # launch timed out
    710,  # device-side assert
    714,  # hardware stack error
    715,  # illegal instruction
    716,  # misaligned address
    717,  # invalid address space
    718,  # invalid program counter
    719,  # unspecified launch failure
    999,  # unknown
}
"""CUDA runtime errors after which every later call in the process fails (CUDA Runtime API,
"Data types used by CUDA Runtime", ``cudaError``)."""


class _Staging:
    """Two pinned buffers used in turn for one direction of copying."""

    def __init__(self, cupy: Any) -> None:
        self.lock = threading.Lock()
        # The allocations are kept: the arrays do not own the pinned memory.
        self._allocations = [cupy.cuda.alloc_pinned_memory(STAGING_BYTES) for _ in range(2)]
        self._buffers = [
            np.frombuffer(memory, np.uint8, STAGING_BYTES) for memory in self._allocations
        ]
        self._events: list[Any] = [None, None]
        self._next = 0

    def take(self) -> tuple[int, Any]:
        """Return number and memory of the buffer whose turn it is, once its last copy has ended."""
        number = self._next
        self._next = 1 - number
        event = self._events[number]
        if event is not None:
            event.synchronize()
        return number, self._buffers[number]

    def mark(self, number: int, event: Any) -> None:
        """Note that the copy which uses this buffer has ended when ``event`` has."""
        self._events[number] = event


class CupyDevice:
    """The GPU, or MIG instance, that this process sees as ordinal 0.

    Parameters
    ----------
    name : str, optional
        UUID as NVML gives it; ``CUDA_VISIBLE_DEVICES`` must name it. Default: its place on the PCI
        bus. (CuPy cuts the UUID in ``getDeviceProperties`` off at a zero byte.)

    Raises
    ------
    NoSuitableDeviceError
        CuPy is missing, or finds no usable device; the message says why.

    Notes
    -----
    Each computing thread has a stream of its own; copies to the device and copies to the host
    have one each, so that both overlap with kernels. The pool keeps blocks apart by the stream
    they were allocated on. A block is reused as soon as its array is dropped, so arrays that
    were uploaded must be kept until `synchronize` says that no kernel reads them any more.
    """

    kind = "gpu"

    def __init__(self, name: str | None = None) -> None:
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
            device = cupy.cuda.Device(0)
            device.use()
            self.name = name or f"GPU at {device.pci_bus_id}"
            self._inward = cupy.cuda.Stream(non_blocking=True)
            self._outward = cupy.cuda.Stream(non_blocking=True)
            self._staging_in = _Staging(cupy)
            self._staging_out = _Staging(cupy)
        except cupy.cuda.runtime.CUDARuntimeError as error:
            raise NoSuitableDeviceError(f"CUDA is not usable on this node: {error}") from error
        self.xp = cupy
        self._pool = cupy.get_default_memory_pool()
        self._streams = threading.local()

    # --- copies ------------------------------------------------------------------------

    def upload(self, value: Any) -> Upload:
        arrays: list[Any] = []

        def copy(leaf: Any) -> Any:
            array = self._copy_in(leaf)
            arrays.append(array)
            return array

        with self._staging_in.lock, self._inward:
            try:
                moved = map_leaves(value, _can_move, copy)
            except BaseException:
                # Buffers copied so far are dropped on return: no copy may still be writing.
                self._inward.synchronize()
                raise
            done = self._inward.record()
        return Upload(moved, sum(array.nbytes for array in arrays), done)

    def arrived(self, upload: Upload) -> Any:
        self.xp.cuda.get_current_stream().wait_event(upload.done)
        return upload.value

    def to_device(self, value: Any) -> Any:
        found = False

        def note(leaf: Any) -> Any:
            nonlocal found
            found = True
            return leaf

        map_leaves(value, _can_move, note)
        return self.arrived(self.upload(value)) if found else value

    def to_host(self, value: Any) -> Any:
        return map_leaves(value, self._is_mine, self._copy_out)

    def device_bytes(self, value: Any) -> int:
        sizes: list[int] = []
        map_leaves(value, self._is_mine, lambda leaf: sizes.append(leaf.nbytes))
        return sum(sizes)

    def _is_mine(self, leaf: Any) -> bool:
        return isinstance(leaf, self.xp.ndarray)

    def _copy_in(self, array: np.ndarray[Any, Any]) -> Any:
        source = np.asarray(array, order="C")
        target = self.xp.empty(source.shape, source.dtype)
        flat = source.reshape(-1).view(np.uint8)
        for start in range(0, source.nbytes, STAGING_BYTES):
            piece = flat[start : start + STAGING_BYTES]
            number, buffer = self._staging_in.take()
            buffer[: piece.size] = piece  # NumPy lets other threads run meanwhile
            (target.data + start).copy_from_host_async(buffer.ctypes.data, piece.size, self._inward)
            self._staging_in.mark(number, self._inward.record())
        return target

    def _copy_out(self, array: Any) -> np.ndarray[Any, Any]:
        source = self.xp.ascontiguousarray(array)
        result: np.ndarray[Any, Any] = np.empty(array.shape, array.dtype)
        flat = result.reshape(-1).view(np.uint8)
        ready = self.xp.cuda.get_current_stream().record()
        with self._staging_out.lock:
            self._outward.wait_event(ready)
            last: Callable[[], None] | None = None
            for start in range(0, result.nbytes, STAGING_BYTES):
                size = min(STAGING_BYTES, result.nbytes - start)
                number, buffer = self._staging_out.take()
                (source.data + start).copy_to_host_async(buffer.ctypes.data, size, self._outward)
                event = self._outward.record()
                self._staging_out.mark(number, event)
                if last is not None:
                    last()
                last = _emptier(event, buffer, flat[start : start + size])
            if last is not None:
                last()
        return result

    # --- computing and memory ------------------------------------------------------------

    def computing(self) -> AbstractContextManager[Any]:
        stream: AbstractContextManager[Any] = self._stream()
        return stream

    def synchronize(self) -> None:
        self._stream().synchronize()

    def _stream(self) -> Any:
        stream = getattr(self._streams, "compute", None)
        if stream is None:
            stream = self._streams.compute = self.xp.cuda.Stream(non_blocking=True)
        return stream

    def memory(self) -> DeviceMemory:
        free, total = self.xp.cuda.runtime.memGetInfo()
        return DeviceMemory(total, free, self._pool.total_bytes(), self._pool.used_bytes())

    def set_memory_limit(self, limit_bytes: int) -> None:
        self._pool.set_limit(size=max(1, limit_bytes))  # 0 would mean no limit

    def free_pool(self) -> None:
        self._pool.free_all_blocks()

    # --- errors --------------------------------------------------------------------------

    def is_out_of_memory(self, error: BaseException) -> bool:
        if isinstance(error, self.xp.cuda.memory.OutOfMemoryError):
            return True
        if isinstance(error, self.xp.cuda.runtime.CUDARuntimeError):
            return bool(error.status == _OUT_OF_MEMORY)
        # cuBLAS, cuFFT and cuSOLVER have error classes of their own, which name the status
        return type(error).__module__.startswith("cupy") and "ALLOC_FAILED" in str(error)

    def is_lost(self, error: BaseException) -> bool:
        return (
            isinstance(error, self.xp.cuda.runtime.CUDARuntimeError)
            and error.status in _CONTEXT_LOST
        )


def _emptier(event: Any, buffer: Any, target: Any) -> Callable[[], None]:
    def empty() -> None:
        event.synchronize()
        target[:] = buffer[: target.size]

    return empty


def _can_move(leaf: Any) -> bool:
    """Whether a leaf is an array of numbers that CUDA knows."""
    if not isinstance(leaf, np.ndarray):
        return False
    dtype = leaf.dtype
    return (
        dtype.kind in "biufc"
        and dtype.isnative
        and dtype not in (np.dtype(np.longdouble), np.dtype(np.clongdouble))
    )
