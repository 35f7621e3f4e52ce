"""GPU admission: the device memory that a bundle will need, and the decision if it is not there.

Pure functions over figures; the Dispatcher acts on the answers, the executor measures memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from agentic_ray.graph.task import Bundle
from agentic_ray.telemetry.state import format_bytes

if TYPE_CHECKING:
    from agentic_ray.schedule.view import Executor

HINT_FACTOR: Final = 1.5
"""Working set over the bytes that a cost hint names: kernels make temporaries."""
INPUT_FACTOR: Final = 3.0
"""Working set over the bytes of the inputs when nothing else is known: the inputs, as much
again as result, as much again as temporaries."""
RESERVE_FRACTION: Final = 0.05
RESERVE_MOST_BYTES: Final = 2**30
"""Memory left free on a device for other programs: this fraction of it, at most this much."""
MOST_PARTS: Final = 64
"""A bundle that would have to be cut into more parts than this does not belong on the GPU."""


class Fit(Enum):
    """Whether a GPU has the memory that a bundle needs, now or later."""

    NOW = "fits now"
    LATER = "fits when bundles in flight have ended"
    BLOCKED = "would fit if other processes freed memory"
    NEVER = "is larger than the device"


@dataclass(frozen=True, slots=True)
class Admission:
    """Decision about a bundle that a policy placed on a GPU.

    Parameters
    ----------
    executor : Executor or None
        Executor on which the bundle may start now; None: it waits, or goes to the CPU.
    parts : int
        Number of parts, along its chunk axis, in which the bundle runs.
    to_cpu : bool
        Whether the bundle is placed again, on CPUs only.
    reason : str
        A clause for the user where the policy's placement was not simply followed.
    """

    executor: Executor | None
    parts: int = 1
    to_cpu: bool = False
    reason: str = ""


def reserve_bytes(total_bytes: int) -> int:
    """Return the bytes of a device of this size that are never planned for."""
    return min(int(total_bytes * RESERVE_FRACTION), RESERVE_MOST_BYTES)


def budget_bytes(total_bytes: int, free_bytes: int, held_bytes: int) -> int:
    """Return the bytes of memory that bundles in flight on a device may use together.

    Parameters
    ----------
    total_bytes, free_bytes : int
        Memory of the device, as the driver reports it.
    held_bytes : int
        Memory that the executor's own pool has taken from the device: it is used by bundles that
        count as in flight, cached, or holds values that can be moved to the host.
    """
    there = min(total_bytes, max(0, free_bytes) + max(0, held_bytes))
    return max(0, there - reserve_bytes(total_bytes))


def working_set_bytes(bundle: Bundle, sizes: Mapping[str, int]) -> int:
    """Predict the device memory of ``bundle`` at its peak; 0 when nothing is known of it.

    The tasks' declaration counts first, then the bytes that they are hinted to read and write, then
    the bytes of the inputs.

    Parameters
    ----------
    sizes : mapping of key to int
        Bytes of the values made by other bundles, as far as they are known.
    """
    tasks = bundle.tasks
    alone = tasks[0] if len(tasks) == 1 else None
    declared = (alone or bundle).resources.gpu_memory_bytes
    if declared:
        return int(declared)
    if alone is not None and not (bundle.inputs or alone.args or alone.cost.read_bytes):
        return int(alone.cost.written_bytes * HINT_FACTOR)
    moved = [task for task in bundle.tasks if not task.codelet.host_inputs]
    inputs = sum(sizes.get(key, 0) for key in bundle.inputs) if moved else 0
    inputs += sum(dict(_arrays(task.args for task in moved)).values())
    read = max(task.cost.read_bytes for task in bundle.tasks)
    written = sum(task.cost.written_bytes for task in bundle.tasks)
    if read or written:
        return int((max(inputs, read) + written) * HINT_FACTOR)
    return int(inputs * INPUT_FACTOR)


def _arrays(value: Any) -> Iterator[tuple[int, int]]:
    """Yield identity and bytes of each array and stored value in arguments, repeats included."""
    if isinstance(value, list | tuple) or (
        not isinstance(value, str | bytes | dict) and isinstance(value, Iterator)
    ):
        for element in value:
            yield from _arrays(element)
    elif isinstance(value, dict):
        yield from _arrays(list(value.values()))
    else:
        size = getattr(value, "size_bytes", None) or getattr(value, "nbytes", None)
        if isinstance(size, int):
            yield id(value), size


def can_split(bundle: Bundle) -> bool:
    """Whether the bundle can run in parts: several tasks, or one with a chunk axis."""
    return len(bundle.tasks) > 1 or bundle.tasks[0].codelet.chunk_axis is not None


def fit(need_bytes: int, executor: Executor) -> Fit:
    """Compare ``need_bytes`` with the memory of a GPU executor.

    If nothing is known of the device's memory, everything fits: the executor finds out.
    """
    budget = executor.offer.memory_bytes
    if budget is None or need_bytes <= budget - executor.held.memory_bytes:
        return Fit.NOW
    if need_bytes <= budget:
        return Fit.LATER
    capacity = executor.offer.memory_total_bytes
    if capacity is not None and need_bytes <= capacity - reserve_bytes(capacity):
        return Fit.BLOCKED
    return Fit.NEVER


def admit(
    need_bytes: int,
    wanted: Executor,
    gpus: Iterable[Executor],
    *,
    split: bool,
    cpu: bool,
) -> Admission:
    """Decide on a bundle placed on the GPU ``wanted``, given all usable ``gpus``.

    Parameters
    ----------
    split : bool
        Whether the bundle can run in parts.
    cpu : bool
        Whether it can run on a CPU at all.

    Notes
    -----
    A bundle that does not fit on ``wanted`` now moves to a GPU on which it fits. If there is none,
    it waits for bundles of ours to end. If the memory is taken by others or too small altogether,
    the bundle runs in parts where that helps, goes to the CPU where it can, and waits where it
    cannot. A bundle that fits nowhere and has no other way is tried alone: predictions can be
    wrong.
    """
    if fit(need_bytes, wanted) is Fit.NOW:
        return Admission(wanted)
    usable = [gpu for gpu in gpus if gpu.healthy]
    fits = {gpu: fit(need_bytes, gpu) for gpu in usable}
    free = [gpu for gpu in usable if fits[gpu] is Fit.NOW and gpu.room() > 0]
    if free:
        chosen = min(free, key=lambda gpu: (gpu.load, gpu.order))
        return Admission(chosen, reason=f"moved from {wanted.device}, whose memory is taken")
    if Fit.LATER in fits.values() or Fit.NOW in fits.values():
        return Admission(None, reason="waits for memory of bundles in flight")
    needs = f"needs about {format_bytes(need_bytes)} of GPU memory"
    if Fit.BLOCKED in fits.values():
        least = f"{format_bytes(wanted.offer.memory_bytes)} can be had on {wanted.device} now"
        reason = f"{needs}, {least}, other processes hold the rest"
        return Admission(None, to_cpu=cpu, reason=reason)
    return _too_large(need_bytes, usable, needs, split=split, cpu=cpu)


def _too_large(
    need_bytes: int, usable: Sequence[Executor], needs: str, *, split: bool, cpu: bool
) -> Admission:
    """Decide on a bundle that needs more memory than the largest GPU has."""
    largest = max(usable, key=lambda gpu: (gpu.offer.memory_bytes or 0, -gpu.order))
    budget = largest.offer.memory_bytes or 0
    reason = f"{needs}, more than the {format_bytes(budget)} of the largest GPU"
    parts = math.ceil(need_bytes / budget) if budget else MOST_PARTS + 1
    if split and parts <= MOST_PARTS:
        if largest.in_flight:
            return Admission(None, reason=f"{reason}; waits for it to be idle")
        return Admission(largest, parts, reason=f"{reason}; runs in {parts} parts")
    if cpu:
        return Admission(None, to_cpu=True, reason=reason)
    if largest.in_flight:
        return Admission(None, reason=f"{reason}; waits to be tried alone")
    return Admission(largest, reason=f"{reason}; tried alone, there is no other way")
