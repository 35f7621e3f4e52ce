"""Failures of bundles: exceptions of the user's, packed for the caller, and failures of Ray's."""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass
from typing import Final, Literal

from ray import exceptions as ray_errors

from agentic_ray.errors import InternalError
from agentic_ray.runtime.carried import Carried, add_note, make, take
from agentic_ray.tracebacks import set_member, shows_all, text_of, trim

_DIGEST: Final = re.compile(r"-[0-9a-f]{12}$")
"""Digest at the end of names that `content_key` made."""

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
"""Errors that Ray raises for calls that were lost through no fault of the work they ran."""


NODE_LOST = (
    ray_errors.NodeDiedError,
    ray_errors.LocalRayletDiedError,
    ray_errors.TaskUnschedulableError,
    ray_errors.ActorUnschedulableError,
)
"""Errors of these that say that the node is gone, perhaps before the node table does."""


def is_of_an_input(error: BaseException) -> bool:
    """Whether the failure of a call says that an input of the call is gone.

    The death of the call's own process comes bare. Wrapped as an error of the call it is the death
    of another call, which had made an input and was asked by Ray to make it again.
    """
    if not isinstance(error, ray_errors.RayTaskError):
        return isinstance(error, INPUT_LOST)
    return isinstance(error.cause, (*INPUT_LOST, *SYSTEM, NotKeptError))


def cause_of(
    error: BaseException,
) -> Literal["system", "crash", "pressure", "node_lost"] | None:
    """Return the cause that a failure of a call stands for, if Ray raised it; else None."""
    if isinstance(error, ray_errors.OutOfMemoryError):
        return "pressure"
    if isinstance(error, ray_errors.RayActorError | ray_errors.WorkerCrashedError):
        return "crash"  # also "unavailable": Ray calls an actor so that died and is restarted
    if isinstance(error, NODE_LOST):
        return "node_lost"
    return "system" if isinstance(error, SYSTEM) else None


class NotKeptError(Exception):
    """Internal: a call (of this token) named an array that its executor does not keep."""


class ElementFailure(Exception):
    """Internal: names the element of a chunk that raised. The cause is the user's exception."""

    def __init__(self, chunk: int | None, element: int | None) -> None:
        super().__init__(chunk, element)
        self.chunk = chunk
        self.element = element


class BundleCancelled(BaseException):
    """Internal: raised inside a bundle that must stop; no user code should swallow it."""


def internal_error(doing: str, error: BaseException, note: str = "") -> InternalError:
    """Make the error for a fault of this package, caused by the raised exception. ``note``: a
    sentence that ends its text."""
    failure = InternalError(
        f"internal error of agentic_ray when {doing}: {type(error).__name__}: {text_of(error)}. "
        "Other work of the session goes on. Please report this with its traceback"
        f"{'. ' if note else ''}{note}"
    )
    failure.__cause__ = error
    return failure


@dataclass(frozen=True, slots=True)
class PackedError:
    """An exception of a task as it crosses processes, with the chunk and element at which it was
    raised.

    ``traceback`` is the whole text, as Python prints it.
    """

    carried: Carried
    traceback: str
    codelet: str
    chunk: int | None = None
    element: int | None = None

    @classmethod
    def pack(cls, error: BaseException, codelet: str) -> PackedError:
        chunk = element = None
        if isinstance(error, ElementFailure) and error.__cause__ is not None:
            chunk, element = error.chunk, error.element
            error = error.__cause__
        text = "".join(traceback.format_exception(error))
        return cls(take(error), text, codelet, chunk, element)

    def rebuild(self) -> BaseException:
        """Make the user's own exception with the lines that it passed through, and a note on where.

        Sets ``chunk_index``, ``element_index`` and ``remote_traceback`` (the whole text) on it.
        """
        error = make(self.carried)
        if not shows_all():
            trim(error)
        place = f"while running {_DIGEST.sub('', self.codelet)!r}"
        if self.chunk is not None:
            place += f" on chunk {self.chunk}"
        if self.element is not None:
            place += f" (element {self.element} of the input)"
        add_note(error, place)
        set_member(error, "chunk_index", self.chunk)
        set_member(error, "element_index", self.element)
        set_member(error, "remote_traceback", self.traceback)
        return error
