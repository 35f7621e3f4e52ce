"""Values on the caller's side: those put in the object store, and codelets as they are sent."""

from __future__ import annotations

import io
import itertools
import pickle
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import ray
from ray import cloudpickle
from ray._private import worker as ray_worker
from ray.exceptions import GetTimeoutError

from agentic_ray.errors import LostDataError, SerializationError, SessionError
from agentic_ray.graph.keys import content_key
from agentic_ray.graph.task import Codelet
from agentic_ray.recent import Recent
from agentic_ray.runtime.connection import Stay, await_ray, check_process, current
from agentic_ray.runtime.execute import pack_value
from agentic_ray.runtime.outcomes import Inline
from agentic_ray.schedule.events import INLINE_BYTES

_LOOK_SECONDS = 1.0
_NEVER_READ_ONLY = frozenset({type(None), bool, int, float, complex, str, bytes})
_CONTAINERS = frozenset({dict, set, frozenset, Counter, OrderedDict})
"""Types whose elements are all that they hold; there may be very many."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Stored:
    """A value in the object store, to be used as a task's argument.

    The caller owns it and holds the only reference that counts: it lives as long as this does,
    but no longer than ``stay``, in which it was made.
    """

    ref: Any
    size_bytes: int
    node_id: str | None = None
    stay: Stay | None = field(default_factory=current)

    def __content_key__(self) -> str:
        return f"{self.stay and self.stay.number}/{self.ref.hex()}"

    def check(self) -> None:
        """Check that the value can still be used.

        Raises
        ------
        LostDataError
            Ray has died since the value was made.
        SessionError
            The session in which the value was made has ended.
        """
        check_process()
        if self.stay is None or not self.stay.over:
            return
        if self.stay.lost:
            raise LostDataError(
                f"this was kept by {self.stay}, and what it was made from is not known any more. "
                "Make it again: run the lines (the notebook cell) that made it"
            )
        raise SessionError(
            f"this was kept by {self.stay}; what a session keeps ends with it. Make it again in "
            "the present session: run the lines (the notebook cell) that made it, or write it to "
            "a file before the session ends"
        )


_put_elsewhere: Callable[[Any], Stored] | None = None


def hold_elsewhere(put: Callable[[Any], Stored] | None) -> Callable[[Any], Stored] | None:
    """Let another process, which has lent its session, keep large values from now on: ``put`` hands
    it one. The references know how to get the values back. Return what was done before, None for
    Ray's object store."""
    global _put_elsewhere
    before, _put_elsewhere = _put_elsewhere, put
    return before


def is_object_ref(value: Any) -> bool:
    """Whether ``value`` is a Ray ObjectRef."""
    return isinstance(value, ray.ObjectRef)


def stored(ref: Any) -> tuple[Stored, Any]:
    """Return a user's ObjectRef as an argument, and the value it holds (without a copy if an
    array).

    Raises
    ------
    SessionError
        The ObjectRef is of a cluster that this process has left.
    """
    if _put_elsewhere is not None:
        value = ray.get(ref)  # of a cluster that this process has joined by itself
        return _put_elsewhere(value), value
    check_known(ref)
    value = get(ref)
    return Stored(ref, int(getattr(value, "nbytes", 0))), value


def is_held_elsewhere() -> bool:
    """Whether another process, which has lent its session, keeps large values for this one."""
    return _put_elsewhere is not None


def check_known(ref: Any) -> None:
    """Check that a user's ObjectRef is of the cluster that this process is on.

    Raises
    ------
    SessionError
        It is of a cluster that this process has left.
    """
    await_ray()
    try:
        # (`ray.get` waits for ever for some references that it does not know)
        ray_worker.global_worker.core_worker.get_owner_address(ref)
    except ValueError as error:
        raise of_other_cluster(ref) from error


def fetch(held: Stored) -> Any:
    """Return a value that a session keeps.

    Raises
    ------
    SessionError
        The session has ended.
    LostDataError
        The value was lost, and its session does not keep the inputs that it was made from.
    """
    held.check()
    return get(held.ref) if is_object_ref(held.ref) else held.ref.get()


def of_other_cluster(ref: object) -> SessionError:
    """Make the error for an ObjectRef whose owner Ray does not know (it raises ValueError)."""
    return SessionError(
        f"{ref} is not of the cluster that this process is on now; what was put in an object "
        "store ends with its cluster, so put it again"
    )


def get(ref: Any) -> Any:
    """Call `ray.get`, but end when Ray dies meanwhile.

    Raises
    ------
    LostDataError
        The session, or its Ray, is gone.
    """
    stay = current()
    while True:
        try:
            return ray.get(ref, timeout=_LOOK_SECONDS)
        except Exception as error:
            if stay is not None and stay.over:
                raise LostDataError(f"{ref} was in the object store of {stay}") from error
            if type(error) is not GetTimeoutError:  # (a task's own error is of a subclass)
                raise


def writable(value: Any) -> Any:
    """Return ``value``, or a copy of it where it holds arrays that are read-only.

    Large values come mapped from the object store, which nobody may write to; small ones do not.
    """
    kind = type(value)
    if kind in _NEVER_READ_ONLY:
        return value
    if kind is np.ndarray and not value.dtype.hasobject:
        return value if value.flags.writeable else value.copy(order="K")
    if kind is list or kind is tuple:
        return kind([writable(element) for element in value])
    if kind in _CONTAINERS and _NEVER_READ_ONLY.issuperset(map(type, _held_by(value))):
        return value
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


def _held_by(value: Any) -> Iterator[Any]:
    """Iterate over what a dict or a set holds."""
    return itertools.chain(value, value.values()) if isinstance(value, dict) else iter(value)


class _Copying(cloudpickle.Pickler):  # type: ignore[misc]  # Ray has no types
    """Pickler that leaves read-only arrays out, wherever they are in a value, and copies them."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.copies: list[Any] = []

    def persistent_id(self, value: Any) -> int | None:
        if not isinstance(value, np.ndarray) or value.flags.writeable:
            return None
        self.copies.append(value.copy(order="K"))
        return len(self.copies) - 1


class _Copied(pickle.Unpickler):
    """Unpickler that puts the copies in."""

    def __init__(self, file: io.BytesIO, copies: list[Any]) -> None:
        super().__init__(file)
        self._copies = copies

    def persistent_load(self, number: int) -> Any:
        return self._copies[number]


def put(value: Any) -> Any:
    """Return ``value`` itself if it is small, else as `Stored` in the object store.

    Raises
    ------
    SerializationError
        The value cannot be pickled.
    """
    packed = pack(value)
    return value if isinstance(packed, Inline) else packed


def pack(value: Any) -> Inline | Stored:
    """Return ``value`` as bytes if it is small, else in the object store: nothing looks into it.

    Raises
    ------
    SerializationError
        The value cannot be pickled.
    """
    inline, size = pack_value(value)
    if inline is not None:
        return inline
    if _put_elsewhere is not None:
        return _put_elsewhere(value)
    await_ray()
    try:
        ref = ray.put(value)
    except (TypeError, ValueError) as error:
        raise SerializationError(
            f"a value of type {type(value).__name__} cannot be put in the object store: {error}"
        ) from error
    return Stored(ref, size, ray.get_runtime_context().get_node_id())


@dataclass(frozen=True, slots=True)
class _Sendable:
    """A codelet, kept so that no other object takes its identity, and its pickle, or where
    that is."""

    codelet: Codelet
    token: str
    source: bytes | Stored
    size_bytes: int

    @property
    def is_lost(self) -> bool:
        """Whether the pickle is large and went with its Ray."""
        return isinstance(self.source, Stored) and self.source.stay is not current()


class CodeletTable:
    """Table that pickles each codelet object once; a large one goes to the object store once.

    Codelets are told apart by identity: user data that they hold was captured before. Only those
    used last are remembered, because they hold the data that their functions see.
    """

    _KEPT = 256
    _KEPT_BYTES = 1 << 30

    def __init__(self) -> None:
        self._known: Recent[int, _Sendable] = Recent(
            self._KEPT, self._KEPT_BYTES, lambda known: known.size_bytes
        )
        self._lock = threading.Lock()

    def source(self, codelet: Codelet) -> tuple[str, Any]:
        """Return the token by which executors know the codelet, and its pickle or an ObjectRef of
        it.

        Raises
        ------
        SerializationError
            The function, or something it captures, cannot be pickled.
        LostDataError
            Ray died, and the function cannot be sent again as it was.
        """
        with self._lock:
            known = self._known.get(id(codelet))
            if known is None or known.is_lost:
                known = self._known[id(codelet)] = self._sendable(codelet, known)
            source = known.source
            return known.token, source.ref if isinstance(source, Stored) else source

    def _sendable(self, codelet: Codelet, before: _Sendable | None) -> _Sendable:
        data = self._pickle(codelet)
        token = content_key(codelet.name, data)
        if before is not None and before.token != token:
            raise LostDataError(
                f"{codelet.name} was lost with the Ray that died, and what it captures has "
                "changed since; start the work again"
            )
        source = data if len(data) <= INLINE_BYTES else Stored(ray.put(data), len(data))
        return _Sendable(codelet, token, source, len(data))

    def _pickle(self, codelet: Codelet) -> bytes:
        try:
            data: bytes = cloudpickle.dumps(replace(codelet, halve=None))  # that is for here
        except Exception as error:  # pickle raises anything that the captured objects' hooks raise
            raise SerializationError(
                f"{codelet.name} cannot be sent to another process: {error}. Functions are sent "
                "with everything they capture; open files, locks, sockets and generators must be "
                "made inside the function instead."
            ) from error
        return data
