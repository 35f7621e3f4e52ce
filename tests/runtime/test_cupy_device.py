"""`CupyDevice` over a stand-in for the CuPy calls it makes, whose streams are really late.

Work on a stream is only done when something waits for it, and then only up to what was waited
for: a copy used too early, or a staging buffer refilled too early, gives wrong bytes here.
"""

from __future__ import annotations

import ctypes
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
import pytest

from agentic_ray.errors import NoSuitableDeviceError
from agentic_ray.runtime.devices import CupyDevice, cupy_device


class Event:
    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.place = len(stream.work)

    def synchronize(self) -> None:
        self.stream.catch_up(self.place)


class Stream:
    current: ClassVar[list[Stream]] = []

    def __init__(self, non_blocking: bool = False) -> None:
        assert non_blocking
        self.work: list[Callable[[], None]] = []
        self.done = 0

    def __enter__(self) -> Stream:
        Stream.current.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        Stream.current.pop()

    def catch_up(self, place: int) -> None:
        while self.done < place:
            self.done += 1
            self.work[self.done - 1]()

    def record(self) -> Event:
        return Event(self)

    def wait_event(self, event: Event) -> None:
        self.work.append(event.synchronize)

    def synchronize(self) -> None:
        self.catch_up(len(self.work))


class Pointer:
    def __init__(self, address: int) -> None:
        self.address = address

    def __add__(self, offset: int) -> Pointer:
        return Pointer(self.address + offset)

    def copy_from_host_async(self, mem: int, size: int, stream: Stream) -> None:
        stream.work.append(lambda: ctypes.memmove(self.address, mem, size) and None)

    def copy_to_host_async(self, mem: int, size: int, stream: Stream) -> None:
        stream.work.append(lambda: ctypes.memmove(mem, self.address, size) and None)


class Array:
    """Device memory: garbage until a copy has really been done."""

    def __init__(self, memory: np.ndarray) -> None:
        self.memory = memory
        self.shape, self.dtype, self.nbytes = memory.shape, memory.dtype, memory.nbytes

    @property
    def data(self) -> Pointer:
        return Pointer(self.memory.ctypes.data)


class OutOfMemoryError(MemoryError):
    pass


class CUDARuntimeError(RuntimeError):
    status = 0


class Pool:
    limit = 0

    def set_limit(self, size: int) -> None:
        self.limit = size

    def total_bytes(self) -> int:
        return 30

    def used_bytes(self) -> int:
        return 20

    def free_all_blocks(self) -> None:
        return None


def _empty(shape: Any, dtype: Any) -> Array:
    memory = np.empty(shape, dtype)
    memory.reshape(-1).view(np.uint8)[...] = 0xAA
    return Array(memory)


def _current() -> Stream:
    return Stream.current[-1]


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    module: Any = types.ModuleType("cupy")
    module.ndarray = Array
    module.empty = _empty
    module.ascontiguousarray = lambda array: array
    pool = Pool()
    module.get_default_memory_pool = lambda: pool
    module.cuda = types.SimpleNamespace(
        Stream=Stream,
        Device=lambda number: types.SimpleNamespace(use=lambda: None, pci_bus_id="0000:01:00.0"),
        alloc_pinned_memory=bytearray,
        get_current_stream=_current,
        memory=types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
        runtime=types.SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError,
            getDeviceCount=lambda: 1,
            memGetInfo=lambda: (60, 100),
        ),
    )
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setattr(cupy_device, "STAGING_BYTES", 64)
    yield module
    assert not Stream.current, "a stream was left entered"


@pytest.mark.parametrize(
    "array",
    [
        np.arange(100.0).reshape(10, 10),
        np.asfortranarray(np.arange(60, dtype=np.int32).reshape(6, 10)),
        np.arange(300.0)[::3],
        np.array(2.5),
        np.zeros((0, 3)),
        np.arange(7, dtype=np.uint8),
    ],
    ids=["C", "F", "strided", "0-d", "empty", "bytes"],
)
def test_there_and_back(cupy: Any, array: np.ndarray) -> None:
    device = CupyDevice()
    with device.computing():
        there = device.to_device([array, {"same": array}])
        device.synchronize()
        assert np.array_equal(there[0].memory, array)
        back = device.to_host(there)
    assert np.array_equal(back[0], array)
    assert np.array_equal(back[1]["same"], array)
    assert back[0].shape == array.shape
    assert device.device_bytes(there) == 2 * array.nbytes


def test_an_upload_is_waited_for_by_who_computes_next(cupy: Any) -> None:
    device = CupyDevice("GPU-name")
    assert device.name == "GPU-name"
    array = np.arange(20.0)
    with device.computing():
        upload = device.upload(array)
        assert upload.nbytes == array.nbytes
        assert not np.array_equal(upload.value.memory, array), "nothing was waited for yet"
        value = device.arrived(upload)
        device.synchronize()
        assert np.array_equal(value.memory, array)


def test_a_copy_to_the_host_waits_for_what_is_being_computed(cupy: Any) -> None:
    device = CupyDevice()
    array = np.arange(20.0)
    with device.computing() as stream:
        value = _empty(array.shape, array.dtype)
        stream.work.append(lambda: np.copyto(value.memory, array))  # a kernel under way
        assert np.array_equal(device.to_host(value), array)


def test_what_cuda_does_not_know_stays_on_the_host(cupy: Any) -> None:
    device = CupyDevice()
    odd = ["text", np.array(["a"]), np.array([None]), np.arange(3).astype(">i4"), np.longdouble(1)]
    with device.computing():
        moved = device.to_device(odd)
    assert all(one is other for one, other in zip(moved, odd, strict=True))


def test_errors_are_told_apart(cupy: Any) -> None:
    device = CupyDevice()
    allocation, broken = CUDARuntimeError("memory"), CUDARuntimeError("illegal address")
    allocation.status, broken.status = 2, 700
    blas = type("CUBLASError", (RuntimeError,), {"__module__": "cupy_backends.cuda.libs.cublas"})
    assert device.is_out_of_memory(OutOfMemoryError("full"))
    assert device.is_out_of_memory(allocation)
    assert device.is_out_of_memory(blas("CUBLAS_STATUS_ALLOC_FAILED"))
    assert not device.is_out_of_memory(MemoryError("of the host"))
    assert not device.is_out_of_memory(broken)
    assert device.is_lost(broken)
    assert not device.is_lost(allocation)


def test_memory(cupy: Any) -> None:
    device = CupyDevice()
    memory = device.memory()
    assert (memory.total_bytes, memory.free_bytes) == (100, 60)
    assert (memory.held_bytes, memory.used_bytes) == (30, 20)
    device.set_memory_limit(0)
    assert cupy.get_default_memory_pool().limit == 1  # 0 would mean no limit to CuPy


def test_no_device_is_a_typed_error(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cupy.cuda.runtime.getDeviceCount = lambda: 0
    with pytest.raises(NoSuitableDeviceError, match="no device"):
        CupyDevice()
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(NoSuitableDeviceError, match="not installed"):
        CupyDevice()
