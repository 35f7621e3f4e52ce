"""User exceptions on their way home: packed on the executor, rebuilt for the caller."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import Any, Literal

from ray import cloudpickle
from ray import exceptions as ray_errors

from agentic_ray.errors import InternalError, TaskError

INPUT_LOST = (
    ray_errors.ObjectLostError,  # also: owner died, reconstruction failed, fetch timed out
    ray_errors.ReferenceCountingAssertionError,
)
SYSTEM = (
    ray_errors.RayActorError,
    ray_errors.WorkerCrashedError,
    ray_errors.OutOfMemoryError,
    ray_errors.NodeDiedError,
    ray_errors.LocalRayletDiedError,
    ray_errors.TaskCancelledError,
    ray_errors.TaskUnschedulableError,
    ray_errors.ActorUnschedulableError,
)
"""What Ray raises of calls that were lost through no fault of what they ran."""


NODE_LOST = (
    ray_errors.NodeDiedError,
    ray_errors.LocalRayletDiedError,
    ray_errors.TaskUnschedulableError,
    ray_errors.ActorUnschedulableError,
)
"""Of these, what says that the node is gone. It may be told before the node table says so."""


def is_of_an_input(error: BaseException) -> bool:
    """Whether the failure of a call says that an input of it is gone.

    The death of the call's own process comes bare; wrapped as an error of the call it is that of
    another, which made an input and was asked by Ray to make it again.
    """
    if not isinstance(error, ray_errors.RayTaskError):
        return isinstance(error, INPUT_LOST)
    return isinstance(error.cause, (*INPUT_LOST, *SYSTEM, NotKeptError))


def cause_of(
    error: BaseException,
) -> Literal["system", "crash", "pressure", "node_lost"] | None:
    """What the failure of a call means, when it is Ray that raised it; None: it is not."""
    if isinstance(error, ray_errors.OutOfMemoryError):
        return "pressure"
    if isinstance(error, ray_errors.RayActorError | ray_errors.WorkerCrashedError):
        return "crash"  # also "unavailable": so Ray calls an actor that died and is restarted
    if isinstance(error, NODE_LOST):
        return "node_lost"
    return "system" if isinstance(error, SYSTEM) else None


class NotKeptError(Exception):
    """Internal: a call (of this token) named an array that its executor does not keep."""


class ElementFailure(Exception):
    """Internal: tells which element of a chunk raised. The cause is the user's exception."""

    def __init__(self, chunk: int, element: int | None) -> None:
        super().__init__(chunk, element)
        self.chunk = chunk
        self.element = element


class BundleCancelled(BaseException):
    """Internal: raised inside a bundle that is to stop; no user code should swallow it."""


class RemoteTraceback(Exception):
    """The cause of a rebuilt exception: its text is the traceback on the executor."""

    def __str__(self) -> str:
        return "\n" + str(self.args[0])


def internal_error(doing: str, error: BaseException) -> InternalError:
    """The error for a fault of this package: its cause is what was raised, with its traceback."""
    failure = InternalError(
        f"internal error of agentic_ray when {doing}: {type(error).__name__}: {text_of(error)}. "
        "Other work of the session goes on. Please report this with its traceback"
    )
    failure.__cause__ = error
    return failure


def text_of(error: BaseException) -> str:
    """``str(error)``, also where the user's ``__str__`` raises."""
    try:
        return str(error)
    except Exception as raised:
        return f"(its text cannot be made: {raised!r})"


@dataclass(frozen=True, slots=True)
class PackedError:
    """A user's exception as it crosses processes. ``pickled`` None: it cannot be pickled."""

    type_name: str
    message: str
    traceback: str
    codelet: str
    pickled: bytes | None
    chunk: int | None = None
    element: int | None = None

    @classmethod
    def pack(cls, error: BaseException, codelet: str) -> PackedError:
        chunk = element = None
        if isinstance(error, ElementFailure) and error.__cause__ is not None:
            chunk, element = error.chunk, error.element
            error = error.__cause__
        text = "".join(traceback.format_exception(error))
        pickled: bytes | None
        try:
            pickled = cloudpickle.dumps(error)
            cloudpickle.loads(pickled)
        except Exception:  # whatever the exception's own hooks raise; its text still travels
            pickled = None
        message = text_of(error)
        if isinstance(error, SystemExit | KeyboardInterrupt | GeneratorExit):
            pickled = None  # raised in the caller it would end their program
        name = f"{type(error).__module__}.{type(error).__qualname__}"
        return cls(name, message, text, codelet, pickled, chunk, element)

    def rebuild(self) -> BaseException:
        """The user's own exception, with the remote traceback as cause and a note on where.

        Sets ``chunk_index`` and ``element_index`` on it where it takes attributes.
        """
        error: BaseException
        try:
            if self.pickled is None:
                raise TypeError("not picklable")
            error = cloudpickle.loads(self.pickled)
        except Exception:
            error = TaskError(f"{self.type_name}: {self.message}")
        error.__cause__ = RemoteTraceback(self.traceback)
        place = f"while running {self.codelet!r}"
        if self.chunk is not None:
            place += f" on chunk {self.chunk}"
        if self.element is not None:
            place += f" (element {self.element} of the input)"
        error.add_note(place)
        for name, value in (("chunk_index", self.chunk), ("element_index", self.element)):
            _set_if_possible(error, name, value)
        return error


def _set_if_possible(error: BaseException, name: str, value: Any) -> None:
    try:
        setattr(error, name, value)
    except (AttributeError, TypeError):
        return  # an exception with __slots__: the note says it too
