"""Joins or starts Ray, lets every node read itself, and compares the nodes."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from agentic_ray.diagnosis.findings import (
    Check,
    judge_autoscaling,
    judge_clock,
    judge_reach,
    judge_versions,
)
from agentic_ray.diagnosis.machine import COMPARED, check_machine, version
from agentic_ray.mapreduce import map_reduce
from agentic_ray.runtime import Session, init, shutdown
from agentic_ray.runtime.autoscaling import autoscaling
from agentic_ray.runtime.everywhere import (
    Heard,
    addresses_of_nodes,
    call_everywhere,
    unreached,
)
from agentic_ray.telemetry import NodeState

_NODE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class SelfExamination:
    """The findings of a node about itself, at ``at`` seconds since the epoch by its clock."""

    at: float
    versions: dict[str, str | None]
    checks: tuple[Check, ...]


def examine_self() -> SelfExamination:
    """Examine this node; runs there."""
    versions = {"python": platform.python_version(), **{name: version(name) for name in COMPARED}}
    return SelfExamination(time.time(), versions, tuple(check_machine()))


def check_cluster(address: str | None, num_cpus: int | None) -> Iterator[Check]:
    """Yield the findings of a whole cluster: an answer of the session, then of each node."""
    try:
        began = time.monotonic()
        try:
            session = init(address, num_cpus=num_cpus)
            yield _try(session, began)
        except Exception as error:  # any error that keeps Ray from working is the finding
            yield Check("ray", "fail", f"{type(error).__name__}: {error}", _advice(address))
            return
        yield from _nodes(session)
    finally:
        shutdown()


def _try(session: Session, began: float) -> Check:
    ready = time.monotonic() - began
    answer = map_reduce(_square, range(100), _add)
    took = time.monotonic() - began - ready
    nodes = len(session.cluster().alive_nodes)
    found = f"ready in {ready:.1f} s with {nodes} node(s), first answer after {took:.2f} s"
    if answer != sum(x * x for x in range(100)):
        return Check("ray", "fail", f"wrong result {answer}", "please report this")
    return Check("ray", "ok", found)


def _advice(address: str | None) -> str:
    if address is None:
        return "the reason is in the log under /tmp/ray/session_latest/logs"
    return (
        f"run `ray status --address {address}` on the head; its logs are in "
        "/tmp/ray/session_latest/logs there"
    )


def _nodes(session: Session) -> Iterator[Check]:
    nodes = {node.node_id: node for node in session.cluster().alive_nodes}
    if not any(node.cpus_total for node in nodes.values()):
        yield Check(
            "nodes",
            "warn",
            "no node has a CPU, so work waits for ever",
            "start workers, or let the autoscaler: look at `ray status`",
        )
    yield from _autoscaler()
    heard = call_everywhere(examine_self, list(nodes), _NODE_SECONDS)
    names = {node_id: _name(node, nodes) for node_id, node in nodes.items()}
    versions = {}
    for node_id, answer in heard.items():
        name = names[node_id]
        if answer.error:
            yield Check("node", "fail", answer.error.strip().splitlines()[-1], _SILENT, name)
            continue
        found: SelfExamination = answer.value
        versions[name] = found.versions
        if len(nodes) > 1:
            yield from (replace(c, node=name) for c in found.checks if c.level != "ok")
        clock = _clock(name, answer)
        if clock is not None:
            yield clock
    if len(nodes) > 1:
        yield from _ports(names)
    differing = judge_versions(versions)
    yield from differing
    if len(versions) > 1 and not differing:
        yield Check("versions", "ok", f"the same on {len(versions)} nodes")


def _autoscaler() -> Iterator[Check]:
    try:
        found = autoscaling()
    except Exception as error:  # whatever it is, it is the finding
        text = f"{type(error).__name__}: {error}"
        yield Check("autoscaler", "warn", text, "look at monitor.log of the head")
        return
    if found.runs:
        yield judge_autoscaling(found.pending, found.failures, found.demands)


def _ports(names: Mapping[str, str]) -> Iterator[Check]:
    """Let each node try the ports of its next neighbours, in a ring: all are tried by some."""
    addresses = addresses_of_nodes()
    ring = [node_id for node_id in names if node_id in addresses]
    found = []
    for at, node_id in enumerate(ring):
        others = [ring[(at + step) % len(ring)] for step in range(1, min(_NEIGHBOURS, len(ring)))]
        targets = [address for other in others for address in addresses[other]]
        answer = call_everywhere(_trying(targets), [node_id], _NODE_SECONDS)[node_id]
        check = None if answer.error else judge_reach(names[node_id], answer.value)
        if check is not None:
            found.append(check)
    yield from found or [Check("ports", "ok", f"{len(ring)} nodes reach each other")]


def _trying(targets: list[tuple[str, int]]) -> Callable[[], list[str]]:
    def try_them() -> list[str]:  # Ray takes nothing but functions
        return unreached(targets)

    return try_them


_NEIGHBOURS: Final = 5
_SILENT: Final = "is its raylet overloaded? Look at `ray status` and at the node's logs"


def _name(node: NodeState, nodes: dict[str, NodeState]) -> str:
    alike = [other for other in nodes.values() if other.host == node.host]
    return node.host if len(alike) == 1 else f"{node.host} ({node.node_id[:6]})"


def _clock(name: str, answer: Heard) -> Check | None:
    """Compare the node's clock with ours; it was read some time between asking and hearing."""
    middle = (answer.sent_at + answer.received_at) / 2
    error = (answer.received_at - answer.sent_at) / 2
    return judge_clock(name, middle - answer.value.at, error)


def _square(x: int) -> int:
    return x * x


def _add(a: int, b: int) -> int:
    return a + b
