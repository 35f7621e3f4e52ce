"""Sends bundles by the transport that is quickest for each.

Used by the loop's thread alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray

from agentic_ray.runtime.calls import Call, look_at, send_by_ray, stored_keys
from agentic_ray.runtime.handed import Handed
from agentic_ray.runtime.lines import Lines
from agentic_ray.runtime.payloads import make_payload
from agentic_ray.runtime.run import Run
from agentic_ray.runtime.transfers import Copies
from agentic_ray.runtime.transports import ByRay, BySocket, InProcess, Packed, Parcel, Transport
from agentic_ray.runtime.value_store import Key, ValueStore
from agentic_ray.runtime.values import CodeletTable
from agentic_ray.schedule.events import Location, Start
from agentic_ray.schedule.metrics import CALLER

_HERE = "quicker than a call: done in the master's process"


@dataclass(frozen=True, slots=True)
class Switches:
    """Which transports beside Ray may be used."""

    in_process: bool = True
    socket: bool = True


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
    switches : Switches
    """

    def __init__(
        self,
        codelets: CodeletTable,
        executor: Callable[[str, str], Any],
        later: Callable[[Callable[[], None]], None],
        value_info: Callable[[str, str], Location | None],
        switches: Switches,
    ) -> None:
        self.values = ValueStore()
        self._codelets = codelets
        self.executor = executor
        self._later = later
        self._value_info = value_info
        self._switches = switches
        self._own_node: str | None = None
        self._begin()

    def _begin(self) -> None:
        self._copies = Copies()
        self.handed = Handed(self._later)
        self.lines = Lines(self._later)
        self._own_node = None
        self._transports: list[Transport] = [ByRay()]
        if self._switches.socket:
            self._transports.insert(0, BySocket(self.lines))
        if self._switches.in_process:
            self._transports.insert(0, InProcess(self.node_of_caller))

    def begin_anew(self) -> None:
        """Drop everything but the values in this process: Ray has died and was started anew."""
        self.lines.close()
        self.values.ray_died()
        self._begin()

    def send(self, command: Start, run: Run | None, now: float, *, alone: bool) -> tuple[Call, Any]:
        """Send a bundle the shortest way; return the call, and the future of its report."""
        parcel = self._parcel(command, run)
        sent = next(filter(None, (transport.send(parcel) for transport in self._transports)))
        placement = command.placement
        if isinstance(sent.by, InProcess):
            reason = f"{placement.reason}; {_HERE}"
            placement = placement._replace(node_id=CALLER, reason=reason)
            call = Call(command, None, placement, sent.refs, {}, now, None)
        else:
            packed, on_line = parcel.packed, isinstance(sent.by, BySocket)
            call = Call(
                *(command, packed.payload, placement, sent.refs, packed.inputs, now),
                parcel.executor,
                on_line=on_line,
            )
        if call.inputs:
            keys = stored_keys(command, call.inputs)
            known = ((key, self._value_info(*key)) for key in keys)
            infos = [(key, info) for key, info in known if info is not None]
            call.moved_bytes = self._copies.missing_bytes(placement.node_id, infos)
            if call.executor is not None and placement.device == "cpu":
                call.moved = self._copies.send(placement.node_id, infos)
        call.alone = alone and not call.inputs
        return call, sent.answer

    def _parcel(self, command: Start, run: Run | None) -> Parcel:
        bundle, placement, graph_id = command.bundle, command.placement, command.graph_id
        executor = None
        if command.process in ("function", "shared"):
            executor = self.executor(placement.node_id, placement.device)

        def pack() -> Packed:
            wanted = frozenset(bundle.outputs if run is None else run.outputs)
            payload, inputs, own = make_payload(
                command, executor, self.values, self._codelets, wanted
            )
            if executor is not None and placement.device == "cpu":
                payload = self.handed.arranged(payload, bundle, executor, own)
            return Packed(payload, inputs)

        held = {key: self.values[graph_id, key] for key in bundle.inputs}
        return Parcel(command, executor, held, pack)

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

    def forget(self, keys: Sequence[Key]) -> None:
        """Drop values."""
        self.values.forget(keys)
        for key in keys:
            self._copies.forget(key)

    def forget_graph(self, graph_id: str) -> None:
        """Drop all values of a graph."""
        self.forget(self.values.of_graph(graph_id))
