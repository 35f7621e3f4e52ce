"""Arguments and results of a call on their way: plain, pickled, or in the object store."""

from __future__ import annotations

import io
import pickle
import threading
import weakref
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

import cloudpickle
import numpy as np

from agentic_ray.errors import SerializationError
from agentic_ray.runtime import Inline, Stored, pack, put, writable

SHARED_BYTES: Final = 1 << 20
"""Arrays of at least this size are put in the object store once, however many calls get them."""
_LITERALS: Final = frozenset({type(None), bool, int, float, complex, str, bytes})
_LITERAL_CHARACTERS: Final = 1 << 12

Packed = Any
"""Arguments as they are sent: a tuple of literals, `Inline`, `Stored`, or a `Parcel` as a tuple."""


def is_literal(value: Any) -> bool:
    """Whether a value cannot change and is small, so that nobody need pickle it by itself."""
    kind = type(value)
    if kind not in _LITERALS:
        return False
    return (kind is not str and kind is not bytes) or len(value) <= _LITERAL_CHARACTERS


@dataclass(slots=True)
class SharedArrays:
    """Arrays that many calls get, each put in the object store once.

    An array is known by its identity while it lives. Whoever shares arrays promises not to change
    them meanwhile.
    """

    _known: dict[int, tuple[weakref.ref[Any], Stored]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def stored(self, array: np.ndarray) -> Stored:
        """Return where ``array`` is in the object store; put it there the first time."""
        with self._lock:
            found = self._known.get(id(array))
            if found is not None and found[0]() is array:
                return found[1]
            made: Stored = put(array)
            number = id(array)
            gone = weakref.ref(array, lambda _: self._known.pop(number, None))
            self._known[number] = (gone, made)
            return made


def is_shareable(value: Any) -> bool:
    """Whether a value is a large array of numbers."""
    return (
        isinstance(value, np.ndarray)
        and not value.dtype.hasobject
        and (value.nbytes >= SHARED_BYTES)
    )


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """Pickler that leaves large arrays out and puts them in the object store.

    (It has no ``persistent_id``, which pickle would call for every string and number.)
    """

    def __init__(self, file: io.BytesIO, shared: SharedArrays) -> None:
        super().__init__(file)
        self._shared = shared
        self.arrays: list[Stored] = []

    def reducer_override(self, value: Any) -> Any:
        if type(value) not in (np.ndarray, np.memmap) or not is_shareable(value):
            return super().reducer_override(value)
        self.arrays.append(self._shared.stored(value))
        return _array, (len(self.arrays) - 1,)


_arrays: ContextVar[tuple[Any, ...]] = ContextVar("agentic_ray_arrays_of_a_parcel")
"""The arrays of the parcel that is unpickled now."""


def _array(number: int) -> Any:
    return _arrays.get()[number]


def _load(content: bytes, arrays: tuple[Any, ...]) -> Any:
    before = _arrays.set(arrays)
    try:
        return pickle.loads(content)
    finally:
        _arrays.reset(before)


_PARCEL: Final = "agentic_ray.parcel"


def pack_arguments(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], shared: SharedArrays | None = None
) -> Packed:
    """Pack the arguments of a call as they are now.

    Parameters
    ----------
    args, kwargs
    shared : SharedArrays, optional
        Large arrays travel through it; the function gets them read-only.

    Raises
    ------
    SerializationError
        An argument cannot be pickled.
    """
    if not kwargs and all(map(is_literal, args)) and (not args or args[0] is not _PARCEL):
        return args
    if shared is None:
        return pack((args, dict(kwargs)))
    content = io.BytesIO()
    pickler = _Pickler(content, shared)
    try:
        pickler.dump((args, dict(kwargs)))
    except Exception as error:  # pickle raises anything that the objects' hooks raise
        raise SerializationError(f"arguments cannot be sent: {error}") from error
    return (_PARCEL, put(content.getvalue()), *pickler.arrays)


def unpack_arguments(packed: Packed) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """Return arguments that were packed, in the process that calls the function.

    Raises whatever the arguments' own hooks raise.
    """
    if isinstance(packed, Inline):
        args, kwargs = packed.load()
        return args, kwargs
    if type(packed) is tuple and packed and packed[0] == _PARCEL:
        args, kwargs = _load(packed[1], packed[2:])
        return args, kwargs
    if type(packed) is tuple and all(map(is_literal, packed)):
        return packed, {}
    args, kwargs = writable(packed)  # from the object store
    return args, kwargs


def pack_result(value: Any) -> Any:
    """Pack a result for `unpack_result`: a literal as it is, anything else pickled, its large
    buffers apart.

    Raises
    ------
    SerializationError
        It cannot be pickled.
    """
    if is_literal(value):
        return value
    buffers: list[pickle.PickleBuffer] = []
    try:
        data = cloudpickle.dumps(value, protocol=5, buffer_callback=buffers.append)
        return data_and_buffers(data, buffers)
    except Exception as error:  # pickle raises anything that the object's hooks raise
        raise SerializationError(
            f"a result of type {type(value).__name__} cannot be sent to another process: {error}"
        ) from error


def data_and_buffers(data: bytes, buffers: list[pickle.PickleBuffer]) -> tuple[Any, ...]:
    """Return a pickle and its buffers, these as arrays, which the object store takes whole."""
    return (data, *(np.frombuffer(buffer.raw(), np.uint8) for buffer in buffers))


def unpack_result(packed: Any) -> Any:
    """Return a result that was packed; arrays in it can be written to."""
    if type(packed) is not tuple:
        return packed
    data, *buffers = packed
    return pickle.loads(data, buffers=[bytearray(buffer) for buffer in buffers])
