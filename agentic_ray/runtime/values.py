"""Values on the caller's side: what was put in the object store, and how codelets are sent."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray
from ray import cloudpickle

from agentic_ray.errors import SerializationError
from agentic_ray.graph.keys import content_key
from agentic_ray.graph.task import Codelet
from agentic_ray.recent import Recent
from agentic_ray.runtime.execute import INLINE_BYTES, Inline, pack_value

_NEVER_READ_ONLY = frozenset({type(None), bool, int, float, complex, str, bytes})


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Stored:
    """A value in the object store, to be used as a task's argument.

    The caller owns it and holds the only reference that counts: it lives as long as this does.
    """

    ref: Any
    size_bytes: int
    node_id: str | None = None

    def __content_key__(self) -> str:
        return str(self.ref.hex())


def is_object_ref(value: Any) -> bool:
    """Whether ``value`` is a Ray ObjectRef."""
    return isinstance(value, ray.ObjectRef)


def stored(ref: Any) -> tuple[Stored, Any]:
    """A user's ObjectRef as an argument, and the value it holds (without a copy if an array)."""
    value = ray.get(ref)
    return Stored(ref, int(getattr(value, "nbytes", 0))), value


def writable(value: Any) -> Any:
    """``value``, or a copy of it where it holds arrays that are read-only.

    Large values come mapped from the object store, which nobody may write to; small ones do not.
    """
    kind = type(value)
    if kind in _NEVER_READ_ONLY:
        return value
    if kind is np.ndarray and not value.dtype.hasobject:
        return value if value.flags.writeable else value.copy(order="K")
    if kind is list or kind is tuple:
        return kind([writable(element) for element in value])
    content = io.BytesIO()
    try:
        pickler = _Copying(content)
        pickler.dump(value)
        if not pickler.copies:
            return value
        content.seek(0)
        return _Copied(content, pickler.copies).load()
    except Exception:  # it can be sent but once: then it stays as it came
        return value


class _Copying(cloudpickle.Pickler):  # type: ignore[misc]  # Ray has no types
    """Leaves read-only arrays out, wherever they are in a value, and copies them."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.copies: list[Any] = []

    def persistent_id(self, value: Any) -> int | None:
        if not isinstance(value, np.ndarray) or value.flags.writeable:
            return None
        self.copies.append(value.copy(order="K"))
        return len(self.copies) - 1


class _Copied(pickle.Unpickler):
    """Puts the copies in."""

    def __init__(self, file: io.BytesIO, copies: list[Any]) -> None:
        super().__init__(file)
        self._copies = copies

    def persistent_load(self, number: int) -> Any:
        return self._copies[number]


def put(value: Any) -> Any:
    """``value`` itself if it is small, else as `Stored` in the object store.

    Raises
    ------
    SerializationError
        The value cannot be pickled.
    """
    packed = pack(value)
    return value if isinstance(packed, Inline) else packed


def pack(value: Any) -> Inline | Stored:
    """``value`` as bytes if it is small, else in the object store: nothing looks into it.

    Raises
    ------
    SerializationError
        The value cannot be pickled.
    """
    inline, size = pack_value(value)
    if inline is not None:
        return inline
    try:
        ref = ray.put(value)
    except (TypeError, ValueError) as error:
        raise SerializationError(
            f"a value of type {type(value).__name__} cannot be put in the object store: {error}"
        ) from error
    return Stored(ref, size, ray.get_runtime_context().get_node_id())


class CodeletTable:
    """Pickles each codelet object once; a large one goes to the object store once.

    By identity: what codelets hold of the user's was captured before. Remembers those used last
    only, because they hold what their functions see.
    """

    _KEPT = 256
    _KEPT_BYTES = 1 << 30

    def __init__(self) -> None:
        self._known: Recent[int, tuple[Codelet, str, Any, int]] = Recent(
            self._KEPT, self._KEPT_BYTES, lambda entry: entry[3]
        )

    def source(self, codelet: Codelet) -> tuple[str, Any]:
        """The token executors know the codelet by, and its pickle or an ObjectRef of it.

        Raises
        ------
        SerializationError
            The function, or something it captures, cannot be pickled.
        """
        _, token, source, _ = self._known.get_or_make(id(codelet), lambda: self._entry(codelet))
        return token, source

    def _entry(self, codelet: Codelet) -> tuple[Codelet, str, Any, int]:
        data = self._pickle(codelet)
        token = content_key(codelet.name, data)
        # The codelet is kept, so that nothing else takes its identity.
        return codelet, token, data if len(data) <= INLINE_BYTES else ray.put(data), len(data)

    def _pickle(self, codelet: Codelet) -> bytes:
        try:
            data: bytes = cloudpickle.dumps(replace(codelet, halve=None))  # that is for here
        except Exception as error:  # pickle raises whatever the captured objects' hooks raise
            raise SerializationError(
                f"{codelet.name} cannot be sent to another process: {error}. Functions are sent "
                "with everything they capture; open files, locks, sockets and generators must be "
                "made inside the function instead."
            ) from error
        return data
