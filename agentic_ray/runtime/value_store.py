"""Values between bundles and results of graphs, as the session holds them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import ray
from ray import exceptions as ray_errors

from agentic_ray.runtime.outcomes import Inline
from agentic_ray.schedule.events import GpuLost


@dataclass(slots=True)
class Resident:
    """A value that the executor of a GPU keeps there, and its copy on the host if one was made.

    ``copied`` is True's ObjectRef once the copy ``ref`` is there, an error's if it cannot be.
    """

    node_id: str
    device: str
    executor: Any
    copied: Any = None
    ref: Any = None

    def copy(self) -> Literal["none", "coming", "there", "broken"]:
        """Return the state of the host copy."""
        if self.copied is None:
            return "none"
        if not ray.wait([self.copied], timeout=0)[0]:
            return "coming"
        try:
            ray.get(self.copied)
        except ray_errors.RayError:
            return "broken"
        return "there"


Key: TypeAlias = tuple[str, str]
"""A value's graph id and key."""
HeldValue: TypeAlias = Inline | Resident | Any
"""`Inline`: the bytes of a small value, in this process. `Resident`: an executor keeps it on its
GPU. Else an ObjectRef: it is stored in Ray's object store."""


class ValueStore:
    """Holds every value that a graph under way or its caller may still want. Used by the loop's
    thread alone, but for `get`."""

    def __init__(self) -> None:
        self._values: dict[Key, HeldValue] = {}
        self._sizes: dict[Key, int] = {}

    def __getitem__(self, key: Key) -> HeldValue:
        return self._values[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._values)

    def get(self, key: Key) -> HeldValue | None:
        """Return a value as it is held; None if it is not."""
        return self._values.get(key)

    def size_of(self, key: Key) -> int:
        """Return the bytes of a value that is held; 0 if there is none."""
        return self._sizes.get(key, 0)

    def keep(self, key: Key, value: HeldValue, size_bytes: int) -> None:
        """Hold a value of this size."""
        self._sizes[key] = size_bytes
        self._values[key] = value

    def forget(self, keys: Sequence[Key]) -> None:
        """Drop values; executors of GPUs are told which of theirs they need not keep."""
        kept: dict[Any, list[Key]] = {}
        for key in keys:
            value = self._values.pop(key, None)
            self._sizes.pop(key, None)
            if isinstance(value, Resident):
                kept.setdefault(value.executor, []).append(key)
        for executor, there in kept.items():
            executor.drop.remote(tuple(there))

    def of_graph(self, graph_id: str) -> list[Key]:
        """Return the keys of all values of a graph."""
        return [key for key in self._values if key[0] == graph_id]

    def ray_died(self) -> None:
        """Drop everything but the values in this process."""
        self._values = {k: value for k, value in self._values.items() if isinstance(value, Inline)}
        self._sizes = {key: self._sizes[key] for key in self._values}

    def restored(self, event: GpuLost) -> GpuLost:
        """Use the host copies of values on a lost GPU; return the event with their keys."""
        copied: set[Key] = set()
        for key, value in self._values.items():
            if not isinstance(value, Resident) or value.device != event.device:
                continue
            if value.copy() == "there":
                self._values[key] = value.ref
                copied.add(key)
        return replace(event, copied=frozenset(copied))
