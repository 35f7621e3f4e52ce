"""Arrays that a CPU executor keeps at hand, so that later calls only name them.

To hand an array in the object store to an actor takes Ray about 0.1 ms before the call begins and
as much after it has ended, which is a tenth of a pass over a few hundred megabytes. Arrays that a
caller hands to one executor again and again (the chunks of a persisted array) are therefore kept
there, mapped as they are, until the caller drops them. `Handed` is the caller's side, `KeptArrays`
the executor's.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray

from agentic_ray.graph.task import Bundle
from agentic_ray.runtime.execute import Payload
from agentic_ray.runtime.failures import NotKeptError
from agentic_ray.runtime.outcomes import Report
from agentic_ray.runtime.values import Stored
from agentic_ray.schedule.events import INLINE_BYTES

STORE_SHARE = 0.25
"""Share of a node's object store that may be kept: Ray cannot move kept arrays to disk."""
_STORE_BYTES = 1 << 30
"""Size assumed for the store where Ray does not say it."""


@dataclass(slots=True)
class _At:
    """Arrays that one executor was handed once, and those that it keeps."""

    seen: set[str]
    kept: set[str]


class Handed:
    """Record of the arrays that each executor keeps. Used by the loop's thread alone.

    Parameters
    ----------
    later : callable
        Makes the loop's thread call something; may itself be called from anywhere, also while
        garbage is collected.
    """

    def __init__(self, later: Callable[[Callable[[], None]], None]) -> None:
        self._later = later
        self._at: weakref.WeakKeyDictionary[Any, _At] = weakref.WeakKeyDictionary()
        self._followed: set[str] = set()

    def arranged(
        self, payload: Payload, bundle: Bundle, executor: Any, stored: Mapping[str, Stored]
    ) -> Payload:
        """Return ``payload`` with the inputs that need not be handed over, and those to be kept
        from now on.

        It names none if the bundle's values may go to the object store: Ray itself may run such a
        call again to make a lost value anew, when nothing is kept any more.
        """
        if not stored or sum(bundle.output_bytes) > INLINE_BYTES:
            return payload
        at = self._at.setdefault(executor, _At(set(), set()))
        held = tuple(name for name in stored if name in at.kept)
        keep = tuple(name for name in stored if name in at.seen and name not in at.kept)
        for name, value in stored.items():
            at.seen.add(name)
            if name not in self._followed:
                self._followed.add(name)
                forget = functools.partial(self._forget, name)
                weakref.finalize(value, self._later, forget).atexit = False
        return replace(payload, held=held, keep=keep) if held or keep else payload

    def keeps(self, executor: Any, names: Sequence[str]) -> None:
        """Record that the executor has answered that it keeps these arrays."""
        at = self._at.get(executor)
        gone = [name for name in names if at is None or name not in self._followed]
        if at is not None:
            at.kept.update(name for name in names if name in self._followed)
        if gone:
            executor.drop.remote(gone)

    def lost(self, executor: Any) -> None:
        """Record that the executor's process is another one now, or gone."""
        self._at.pop(executor, None)

    def _forget(self, name: str) -> None:
        """Forget an array that the caller has dropped."""
        self._followed.discard(name)
        for executor, at in self._at.items():
            at.seen.discard(name)
            if name in at.kept:
                at.kept.discard(name)
                executor.drop.remote([name])


class KeptArrays:
    """Arrays that one executor keeps. Safe to use from several threads."""

    def __init__(self) -> None:
        self._arrays: dict[str, Any] = {}
        self._bytes = 0
        self._most: int | None = None
        self._lock = threading.Lock()

    def inputs(self, token: str, payload: Payload, handed: Sequence[Any]) -> Sequence[Any]:
        """Return the inputs of the bundle in order: arrays handed over, and arrays kept.

        Raises
        ------
        NotKeptError
            An array is not here.
        """
        if not payload.held:
            return handed
        rest = iter(handed)
        held = frozenset(payload.held)
        try:
            return [self._arrays[n] if n in held else next(rest) for n in payload.inputs]
        except KeyError:
            raise NotKeptError(token) from None

    def keep(self, payload: Payload, inputs: Sequence[Any], report: Report) -> Report:
        """Keep the arrays that the caller asked for, while there is room; the report names them."""
        if not payload.keep:
            return report
        wanted = frozenset(payload.keep)
        with self._lock:
            for name, value in zip(payload.inputs, inputs, strict=True):
                if name in wanted and name not in self._arrays and self._may_keep(value):
                    self._arrays[name] = value
                    self._bytes += value.nbytes
            return replace(report, kept=tuple(n for n in payload.keep if n in self._arrays))

    def _may_keep(self, value: Any) -> bool:
        # Every call gets the same object, so nobody may be able to write to it.
        if type(value) is not np.ndarray or value.flags.writeable or value.dtype.hasobject:
            return False
        if self._most is None:
            self._most = int(STORE_SHARE * _store_bytes())
        return self._bytes + value.nbytes <= self._most

    def drop(self, names: Sequence[str]) -> None:
        """Forget arrays; names that are not here are passed over."""
        with self._lock:
            for name in names:
                value = self._arrays.pop(name, None)
                if value is not None:
                    self._bytes -= value.nbytes


def _store_bytes() -> float:
    """Return the size of the object store of this process's node."""
    here = ray.get_runtime_context().get_node_id()
    for node in ray.nodes():
        if node["NodeID"] == here:
            return float(node["Resources"].get("object_store_memory", _STORE_BYTES))
    return _STORE_BYTES
