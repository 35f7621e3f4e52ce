"""What can come of a bundle that was called, as its executor or process reports it.

`Report` says where, how long and with which side effects it ran; its outcome is one of the classes
of `Outcome`. (A call that brings no report at all, since its process or node has died, ends with
an exception of Ray's instead; ``verdicts`` judges those.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from ray import cloudpickle

from agentic_ray.runtime.failures import PackedError
from agentic_ray.runtime.printed import Piece


@dataclass(frozen=True, slots=True)
class Inline:
    """Pickled bytes of a small value; the caller holds them, so no node's death loses the value.

    ``plain`` says that neither unpickling nor computing with the value runs code of the user's.
    """

    data: bytes
    plain: bool = False

    def load(self) -> Any:
        return cloudpickle.loads(self.data)


@dataclass(frozen=True, slots=True)
class Output:
    """A value that leaves the bundle. ``inline`` None: the value is a return value of the call or,
    with ``on_device``, kept by the executor."""

    key: str
    size_bytes: int
    inline: Inline | None
    on_device: bool = False


@dataclass(frozen=True, slots=True)
class Finished:
    """All tasks of the bundle have run; these are the values that leave it, in order."""

    outputs: tuple[Output, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """A task raised, or its value cannot be sent."""

    error: PackedError


@dataclass(frozen=True, slots=True)
class OutOfDeviceMemory:
    """A task found too little memory on its GPU, also in the smallest parts."""

    error: PackedError


@dataclass(frozen=True, slots=True)
class CardFull:
    """A function was not called, since others hold the memory that it was admitted for; ``holders``
    says who."""

    holders: str


@dataclass(frozen=True, slots=True)
class DeviceLost:
    """The executor can no longer use its device."""

    reason: str


@dataclass(frozen=True, slots=True)
class InputsMissing:
    """The executor does not hold inputs of these keys that it was thought to keep on its GPU."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The bundle was told to stop, and has."""


@dataclass(frozen=True, slots=True)
class Died:
    """A watched process has died: the task and element it was at, the exit code as `subprocess`
    gives it, and descriptions of the inputs (see `describe`). ``out_of_memory``: the kernel counts
    a process that it killed for want of memory."""

    codelet: str
    chunk: int | None
    element: int | None
    exit_code: int
    inputs: tuple[str, ...]
    out_of_memory: bool = False


Outcome: TypeAlias = (
    Finished | Failed | OutOfDeviceMemory | CardFull | DeviceLost | InputsMissing | Cancelled | Died
)


@dataclass(frozen=True, slots=True)
class Report:
    """A bundle that was called, and its outcome.

    Parameters
    ----------
    node_id : str
        Node on which it ran.
    pid : int
        Process in which it ran.
    seconds : float
        Without waiting and transport.
    task_seconds : tuple of float
        Seconds of each task that ended well.
    outcome : Outcome
    ray_attempt : int
        How often Ray had run the call before.
    notes : tuple of (str, str)
        Steps for the events of the run, each a kind and a text.
    kept : tuple of str
        Inputs that the executor keeps from now on.
    waited_seconds : float
        How long the bundle waited for a slot when its inputs were there.
    printed : tuple of Piece
        Text that the tasks wrote to the streams.
    device_peaks : tuple of (int, int)
        Numbers of items that a function was called with on a card, each with the bytes that its
        process came to hold there, as far as NVML tells.
    """

    node_id: str
    pid: int
    seconds: float
    task_seconds: tuple[float, ...]
    outcome: Outcome
    ray_attempt: int = 0
    notes: tuple[tuple[str, str], ...] = ()
    kept: tuple[str, ...] = ()
    waited_seconds: float = 0.0
    printed: tuple[Piece, ...] = ()
    device_peaks: tuple[tuple[int, int], ...] = ()

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Values that leave the bundle; none unless it has finished."""
        return self.outcome.outputs if isinstance(self.outcome, Finished) else ()

    @property
    def is_small(self) -> bool:
        """Whether all values that leave the bundle are in the report itself."""
        return all(output.inline is not None for output in self.outputs)
