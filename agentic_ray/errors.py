"""Errors that this package raises on purpose, each also the built-in that a user would catch.

No other module defines a public exception; none of these carries behaviour beyond its message and
its display.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable
from concurrent.futures import BrokenExecutor

from agentic_ray.tracebacks import render_in_ipython


class AgenticRayError(Exception):
    """Base of all errors raised by agentic_ray."""

    def _render_traceback_(self) -> list[str]:
        """Render for IPython, which looks for this method, without this package's frames."""
        return render_in_ipython(self)


class InvalidArgumentError(AgenticRayError, ValueError):
    """An argument has the right type and an unusable value."""


class InvalidTypeError(AgenticRayError, TypeError):
    """An argument has an unusable type."""


class EmptyInputError(AgenticRayError, ValueError, TypeError):
    """A reduction has neither elements nor ``initial`` (`functools.reduce` raises `TypeError`)."""


class GraphError(AgenticRayError, ValueError):
    """A task graph is not valid. ``keys`` names the tasks at fault."""

    def __init__(self, message: str, keys: Iterable[str] = ()) -> None:
        self.keys = tuple(keys)
        super().__init__(message)


class CycleError(GraphError):
    """Tasks depend on each other in a circle; ``keys`` is the circle in order."""


class MissingKeyError(GraphError, LookupError):
    """A task or an output needs a key that no task makes."""


class DuplicateKeyError(GraphError):
    """Two different tasks claim the same key."""


class SourceError(AgenticRayError, ValueError):
    """A file is damaged, has changed, or does not hold the data that was declared or inferred."""


class StorageError(AgenticRayError, OSError):
    """An object store cannot be reached, refuses the credentials, or has no such bucket."""


class SumOverflowError(AgenticRayError, OverflowError):
    """A sum of integers or decimals is larger than its type can hold."""


class StreamStateError(AgenticRayError, MemoryError):
    """Open windows of a stream hold more rows than they may."""


class CheckpointError(AgenticRayError, ValueError):
    """A checkpoint is damaged, in use, or of another stream or training."""


class CheckpointFolderError(AgenticRayError, OSError):
    """The folder for checkpoints cannot be written to."""


class SkippedDataWarning(UserWarning):
    """Some files, or parts of them, could not be read and were left out, as was asked for."""


class TargetExistsError(AgenticRayError, FileExistsError):
    """There is data where a table is to be written, and it was not said to replace it."""


class SerializationError(AgenticRayError, TypeError):
    """A function or a value cannot be sent to another process."""


class BlockResultError(AgenticRayError, ValueError, TypeError):
    """A user's function returned a block of a wrong shape, dtype or number."""


class SessionError(AgenticRayError, RuntimeError):
    """Ray could not be started, reached, or is gone."""


class MasterDiffersError(SessionError, ValueError):
    """A master of this name runs already, with another journal, other workloads or options."""


class InternalError(SessionError):
    """A fault of this package; ``__cause__`` is the raised exception. Only the named work fails."""


class LostDataError(SessionError):
    """Data kept in the cluster was lost with its only node, and cannot be made again because its
    inputs are not known any more."""


class PlacementError(AgenticRayError, RuntimeError):
    """Work cannot be placed anywhere in this cluster."""


class NoSuitableDeviceError(PlacementError, ValueError):
    """No device of the wanted kind exists and the codelet has no other implementation."""


class NoNodeError(PlacementError):
    """The cluster had no node that takes work for longer than ``no_node_seconds``."""


class ImpossibleResourcesError(PlacementError, ValueError):
    """A task asks for more than any node of the cluster has."""


class PolicyError(AgenticRayError, RuntimeError):
    """A placement policy raised, or answered with placements that cannot be carried out."""


class TaskError(AgenticRayError, RuntimeError):
    """User code failed and its own exception could not be brought back; the text tells it."""


class ExecutorLostError(AgenticRayError, RuntimeError):
    """A bundle lost its executor more often than its retry budget allows."""


class PoisonTaskError(ExecutorLostError):
    """A task ended every process that it ran in, the last time under watch.

    Attributes
    ----------
    task : str
        Name of its codelet.
    element_index, chunk_index : int or None
        Element of a map-reduce's input that it was at, and the chunk; None if it was not at an
        element (in the reduce function, or in other work).
    exit_signal : str or None
        Signal that killed the process, e.g. ``"SIGKILL"``; None if it ended by itself.
    exit_code : int
        Exit code as in `subprocess.Popen.returncode`: negative for a signal.
    inputs : tuple of str
        Type, dtype and shape of its arguments.
    """

    def __init__(
        self,
        message: str,
        *,
        task: str = "",
        element_index: int | None = None,
        chunk_index: int | None = None,
        exit_signal: str | None = None,
        exit_code: int = 0,
        inputs: Iterable[str] = (),
    ) -> None:
        self.task = task
        self.element_index = element_index
        self.chunk_index = chunk_index
        self.exit_signal = exit_signal
        self.exit_code = exit_code
        self.inputs = tuple(inputs)
        super().__init__(message)


class BrokenExecutorError(ExecutorLostError, BrokenExecutor):
    """A call ended every process that it ran in, or the initializer of an executor raised.

    ``__cause__`` is the exception that says more: `PoisonTaskError`, `InterruptedJobError`, or the
    initializer's own.
    """


class OutOfHostMemoryError(AgenticRayError, MemoryError):
    """A bundle that cannot be made smaller needs more memory than its node has."""


class PlanTooLargeError(AgenticRayError, MemoryError):
    """An expression has so many chunks that planning its tasks would fill this process."""


class OutOfDeviceMemoryError(AgenticRayError, MemoryError):
    """A device has not enough memory for a bundle."""


class LeaseTimeoutError(AgenticRayError, TimeoutError):
    """A lease of GPUs was not granted in time; the text says what each card lacked."""


class LeaseLostError(AgenticRayError, RuntimeError):
    """A lease of GPUs has ended: it was released, or its node or card was lost."""


class TrainingError(AgenticRayError, RuntimeError):
    """Workers of a training died more often than it may be begun again, or could not be started."""


class JobCancelledError(AgenticRayError, RuntimeError):
    """The job was cancelled before it had a result."""


class JobTimeoutError(AgenticRayError, TimeoutError):
    """A result was not there in the time the caller gave."""


class PoolTimeoutError(JobTimeoutError, multiprocessing.TimeoutError):
    """A result of `agentic_ray.Pool` was not there in the time the caller gave."""


class PoolClosedError(SessionError, ValueError):
    """The pool was closed or terminated, and takes no more calls."""


class NothingRanError(AgenticRayError, LookupError):
    """There is no record of work that has run, so there is nothing to draw."""


class UnknownJobError(AgenticRayError, LookupError):
    """No job has this identifier."""


class UnknownWorkloadError(AgenticRayError, LookupError):
    """No workload is registered under this name."""


class WorkloadFileError(AgenticRayError, ImportError):
    """A file of workloads cannot be loaded, or registers none."""


class QueueFullError(AgenticRayError, RuntimeError):
    """The master's queue is full. ``retry_after_seconds`` says when to try again."""

    def __init__(self, message: str, retry_after_seconds: float = 1.0) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(message)


class IdempotencyError(AgenticRayError, ValueError):
    """The idempotency key was used before, for another job."""


class JournalError(AgenticRayError, OSError):
    """The journal cannot be read or written; the message says why and what to do."""


class JournalCorruptError(JournalError):
    """The journal's file is damaged; it was set aside, never overwritten."""


class JournalLockedError(JournalError):
    """Another master, which is alive, has the journal."""


class JournalFencedError(JournalError):
    """Another master took the journal over; this one may no longer write and has stopped."""


class JournalUnavailableError(JournalError):
    """The database of the journal cannot be reached, or the connection was cut."""


class JournalTimeoutError(JournalUnavailableError, TimeoutError):
    """The database of the journal did not answer in time.

    A submit that raises this is withdrawn: the job is cancelled if it turns out to be written.
    Submitting again with the same idempotency key is safe.
    """


class ResultCorruptError(AgenticRayError, OSError):
    """A stored result is missing, or differs from the result that was stored (by its checksum)."""


class InterruptedJobError(AgenticRayError, RuntimeError):
    """A process died while it ran a job or a task whose effects forbid to run it again."""


class PoisonJobError(AgenticRayError, RuntimeError):
    """A job ended every process that it ran in; the message says how, and how often."""


class JobMemoryError(AgenticRayError, MemoryError):
    """A job took more memory than it may."""


class InvalidParametersError(AgenticRayError, ValueError, TypeError):
    """A workload refused its parameters."""


class ServiceError(AgenticRayError, RuntimeError):
    """The HTTP service answered with an error, or could not be reached."""


class CheckFailedError(AgenticRayError, AssertionError):
    """A result differs from its single-process recomputation."""
