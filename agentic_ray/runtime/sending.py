"""Sends bundles: to the loop itself, over a line or through Ray; holds their values meanwhile.

Used by the loop's thread alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import ray

from agentic_ray.runtime.calls import Call, look_at, send_by_ray, stored_keys, token_of
from agentic_ray.runtime.handed import Handed
from agentic_ray.runtime.here import fits_here, run_now
from agentic_ray.runtime.lines import Lines
from agentic_ray.runtime.outcomes import Inline
from agentic_ray.runtime.payloads import Resident, make_payload
from agentic_ray.runtime.run import Run
from agentic_ray.runtime.transfers import Copies
from agentic_ray.runtime.values import CodeletTable, of_other_cluster
from agentic_ray.schedule.events import GpuLost, Location, Start
from agentic_ray.schedule.metrics import CALLER

_HERE = "quicker than a call: done in the master's process"


class Sender:
    """Sends bundles, and holds the values between them.

    Parameters
    ----------
    executor : callable
        ``(node_id, device) -> actor handle``: returns the executor there.
    later : callable
        Makes the loop's thread call something; may itself be called from anywhere.
    value_info : callable
        ``(graph_id, key) -> Location``: returns where a value is, None if it is not known.
    """

    def __init__(
        self,
        codelets: CodeletTable,
        executor: Callable[[str, str], Any],
        later: Callable[[Callable[[], None]], None],
        value_info: Callable[[str, str], Location | None],
    ) -> None:
        self.values: dict[tuple[str, str], Inline | Any] = {}
        self._sizes: dict[tuple[str, str], int] = {}
        self._codelets = codelets
        self.executor = executor
        self._later = later
        self._value_info = value_info
        self._own_node: str | None = None
        self._begin()

    def _begin(self) -> None:
        self._copies = Copies()
        self.handed = Handed(self._later)
        self.lines = Lines(self._later)
        self._own_node = None

    def begin_anew(self) -> None:
        """Drop everything but the values in this process: Ray has died and was started anew."""
        self.lines.close()
        self.values = {k: value for k, value in self.values.items() if isinstance(value, Inline)}
        self._sizes = {key: self._sizes[key] for key in self.values}
        self._begin()

    def send(self, command: Start, run: Run | None, now: float, *, alone: bool) -> tuple[Call, Any]:
        """Send a bundle the shortest way; return the call, and the future of its report."""
        call, future = self._sent(command, run, now)
        placement = command.placement
        if call.inputs:
            keys = stored_keys(command, call.inputs)
            known = ((key, self._value_info(*key)) for key in keys)
            infos = [(key, info) for key, info in known if info is not None]
            call.moved_bytes = self._copies.missing_bytes(placement.node_id, infos)
            if call.executor is not None and placement.device == "cpu":
                call.moved = self._copies.send(placement.node_id, infos)
        call.alone = alone and not call.inputs
        return call, future

    def _sent(self, command: Start, run: Run | None, now: float) -> tuple[Call, Any]:
        bundle, placement, graph_id = command.bundle, command.placement, command.graph_id
        executor = None
        if command.process == "function":
            executor = self.executor(placement.node_id, placement.device)
        elif command.process == "shared":
            executor = self.executor(placement.node_id, placement.device)
            given = {key: self.values[graph_id, key] for key in bundle.inputs}
            if fits_here(bundle, placement, given.values()):
                future, refs = run_now(bundle, given, self.node_of_caller())
                reason = f"{placement.reason}; {_HERE}"
                placement = placement._replace(node_id=CALLER, reason=reason)
                return Call(command, None, placement, refs, {}, now, None), future
        wanted = frozenset(bundle.outputs if run is None else run.outputs)
        payload, inputs, own = make_payload(command, executor, self.values, self._codelets, wanted)
        if executor is not None and placement.device == "cpu":
            payload = self.handed.arranged(payload, bundle, executor, own)
            token = token_of(command.bundle_id, command.attempt)
            lined = self.lines.send(executor, token, payload, bundle)
            if lined is not None:
                future, refs = lined
                call = Call(command, payload, placement, refs, inputs, now, executor, on_line=True)
                return call, future
        try:
            refs = send_by_ray(command, executor, payload, inputs)
        except ValueError as error:  # Ray says so that it does not know the owner of an ObjectRef
            raise of_other_cluster(" or ".join(map(str, inputs.values()))) from error
        return Call(command, payload, placement, refs, inputs, now, executor), refs[0].future()

    def node_of_caller(self) -> str:
        """Return the node that this process is on."""
        if self._own_node is None:
            self._own_node = str(ray.get_runtime_context().get_node_id())
        return self._own_node

    def send_again(self, call: Call, *, after_death: bool) -> Any:
        """Send a call with all its inputs and through Ray, because its executor does not keep an
        array that the call named, or has died with the call on the line. Return the future of its
        report."""
        self.handed.lost(call.executor)
        look_at(call)
        assert call.payload is not None
        whole = replace(call.payload, held=())
        refs = send_by_ray(call.command, call.executor, whole, call.inputs)
        call.refs, call.payload, call.on_line, call.resent = refs, whole, False, after_death
        return refs[0].future()

    def keep(self, graph_id: str, key: str, value: Any, size_bytes: int) -> None:
        """Hold a value of this size."""
        self._sizes[graph_id, key] = size_bytes
        self.values[graph_id, key] = value

    def size_of(self, graph_id: str, key: str) -> int:
        """Return the bytes of a value that is held; 0 if there is none."""
        return self._sizes.get((graph_id, key), 0)

    def forget(self, keys: Sequence[tuple[str, str]]) -> None:
        """Drop values; executors of GPUs are told which of theirs they need not keep."""
        kept: dict[Any, list[tuple[str, str]]] = {}
        for key in keys:
            value = self.values.pop(key, None)
            self._sizes.pop(key, None)
            self._copies.forget(key)
            if isinstance(value, Resident):
                kept.setdefault(value.executor, []).append(key)
        for executor, there in kept.items():
            executor.drop.remote(tuple(there))

    def forget_graph(self, graph_id: str) -> None:
        """Drop all values of a graph."""
        self.forget([key for key in self.values if key[0] == graph_id])

    def restored(self, event: GpuLost) -> GpuLost:
        """Use the host copies of values on a lost GPU; return the event with their keys."""
        copied: set[tuple[str, str]] = set()
        for key, value in self.values.items():
            if not isinstance(value, Resident) or value.device != event.device:
                continue
            if value.copy() == "there":
                self.values[key] = value.ref
                copied.add(key)
        return replace(event, copied=frozenset(copied))
