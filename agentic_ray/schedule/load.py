"""The three parts of an `Executor`: the device of its node, the load of our work, and the plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from agentic_ray.graph.task import Resources

if TYPE_CHECKING:
    from agentic_ray.schedule.records import Record

MOST_PROCESSES: Final = 16
"""Most calls of functions on a card at once, whatever their memory: each has a CUDA context and
computes in its own time slices."""
ROUNDING: Final = 1e-9
"""Custom resources may be fractions; the rounding error of their sums is below this."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A device as its node offers it.

    Parameters
    ----------
    slots : int
        Number of bundles that run there at once.
    speed : float
        Speed relative to the cost model's reference device.
    memory_bytes : int, optional
        Memory that our bundles may hold together; None: it is not known.
    memory_total_bytes : int, optional
        Memory of the whole device.
    labels, custom : mapping
        Labels and custom resources of its node.
    """

    slots: int
    speed: float = 1.0
    memory_bytes: int | None = None
    memory_total_bytes: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    custom: Mapping[str, float] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Plan:
    """Bundles that a policy placed on a device and that have not been sent, most urgent first, and
    the seconds that they count for."""

    bundles: list[Record] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(slots=True, eq=False)
class Load:
    """The part of a device that our work there holds.

    Attributes
    ----------
    in_flight : int
        Slots of the bundles sent there: as many as its CPUs for a bundle on a CPU device, one on a
        GPU.
    wide : int
        Those of ``in_flight`` that belong to bundles of several slots.
    memory_bytes : int
        Memory admitted for bundles, calls and leases.
    backlog_seconds : float
        Predicted work in flight, divided by nothing.
    free_at_seconds : float
        Time at which a slot is predicted to be free.
    custom : dict
        Custom resources of the node that our bundles use; its executors share the object.
    processes : int
        Calls of functions on a card, which are not in ``in_flight``.
    unknown : int
        Those of ``processes`` whose memory is not known.
    share : float
        Fraction of the card that the calls were declared to take.
    warm : dict
        Processes without calls that the executor may keep, by function.
    """

    in_flight: int = 0
    wide: int = 0
    memory_bytes: int = 0
    backlog_seconds: float = 0.0
    free_at_seconds: float = 0.0
    custom: dict[str, float] = field(default_factory=dict)
    processes: int = 0
    unknown: int = 0
    share: float = 0.0
    warm: dict[str, int] = field(default_factory=dict)

    def count(self, width: int, memory_bytes: int, custom: Mapping[str, float], sign: int) -> None:
        """Count a bundle of ``width`` slots that was sent (``sign`` 1) or has ended (-1)."""
        self.in_flight += sign * width
        self.memory_bytes += sign * memory_bytes
        if width > 1:
            self.wide += sign * width
        self._count_custom(custom, sign)

    def _count_custom(self, custom: Mapping[str, float], sign: int) -> None:
        for name, amount in custom.items():
            left = self.custom.get(name, 0.0) + sign * amount
            self.custom[name] = left if left > ROUNDING else 0.0

    def predict_free(self, now: float, slots: int) -> None:
        """Predict when a slot is free: of ``slots`` bundles under way the first ends after a (slots
        + 1)-th of their mean."""
        if self.in_flight < slots or not slots:
            self.free_at_seconds = now
            return
        mean = self.backlog_seconds / self.in_flight
        waiting = self.in_flight - slots
        self.free_at_seconds = now + mean / (slots + 1) + waiting * mean / slots

    def takes_process(self, need_bytes: int, share: float) -> bool:
        """Whether a card takes another call of a function, apart from its memory. A call whose
        memory is not known runs there without other calls, unless it was declared to take a
        share."""
        if self.processes >= MOST_PROCESSES or self.share + share > 1.0 + ROUNDING:
            return False
        alone = not (need_bytes or share)
        return not (self.unknown or (alone and self.processes))

    def take_process(self, function: str, resources: Resources) -> None:
        """Count a call of a function that was sent to a card."""
        self._count_process(resources, 1)
        self.warm[function] = self.warm.get(function, 0) - 1
        if self.warm[function] <= 0:
            del self.warm[function]

    def let_process_go(self, function: str, resources: Resources) -> None:
        """Count a call of a function that has ended; its process stays warm for a while."""
        self._count_process(resources, -1)
        self.warm = {function: self.warm.pop(function, 0) + 1, **self.warm}
        if len(self.warm) > MOST_PROCESSES:
            self.warm.popitem()

    def _count_process(self, resources: Resources, sign: int) -> None:
        self.processes += sign
        self.memory_bytes += sign * resources.gpu_memory_bytes
        self.unknown += sign * (not (resources.gpu_memory_bytes or resources.gpus))
        self.share += sign * resources.gpus
        if not self.processes:
            self.share = 0.0  # no drift from rounding
        self._count_custom(resources.custom, sign)
