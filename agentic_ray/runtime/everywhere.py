"""Calls one function on every node of the cluster, past executors and scheduler."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


@dataclass(frozen=True, slots=True)
class Heard:
    """The answer of a node.

    Attributes
    ----------
    value : object
        Return value of the function there; None if it returned none.
    error : str
        Reason why there is no value; empty if there is one.
    sent_at, received_at : float
        When the node was asked and when its answer was there, in seconds since the epoch by the
        clock of this process.
    """

    value: Any
    error: str
    sent_at: float
    received_at: float


def call_everywhere(
    function: Callable[[], Any], node_ids: list[str], timeout_seconds: float
) -> dict[str, Heard]:
    """Call ``function`` on nodes; return the answers by node id. No CPU of Ray's is taken, so busy
    nodes answer too.

    Parameters
    ----------
    function : callable
        A function written in Python that every node can import.
    node_ids : list of str
        Ray's ids, in hexadecimal.
    timeout_seconds : float
        A node that is silent for so long has an error instead of a value.
    """
    remote = ray.remote(num_cpus=0, max_retries=0)(function)
    refs = {}
    for node_id in node_ids:
        strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
        refs[remote.options(scheduling_strategy=strategy).remote()] = (node_id, time.time())
    heard: dict[str, Heard] = {}
    until = time.monotonic() + timeout_seconds
    waiting = list(refs)
    while waiting and (left := until - time.monotonic()) > 0:
        done, waiting = ray.wait(waiting, num_returns=1, timeout=left)
        received_at = time.time()
        for ref in done:
            node_id, sent_at = refs[ref]
            try:
                heard[node_id] = Heard(ray.get(ref), "", sent_at, received_at)
            except Exception as error:  # any error is this node's answer
                heard[node_id] = Heard(None, str(error), sent_at, received_at)
    for ref in waiting:
        node_id, sent_at = refs[ref]
        silent = f"no answer within {timeout_seconds:g} s"
        heard[node_id] = Heard(None, silent, sent_at, time.time())
        ray.cancel(ref, force=True)
    return heard


def addresses_of_nodes() -> dict[str, list[tuple[str, int]]]:
    """Return the addresses at which other nodes must reach each living node, by node id: those of
    its raylet and its object manager."""
    return {
        row["NodeID"]: [
            (row["NodeManagerAddress"], row["NodeManagerPort"]),
            (row["NodeManagerAddress"], row["ObjectManagerPort"]),
        ]
        for row in ray.nodes()
        if row["Alive"]
    }


def unreached(targets: Sequence[tuple[str, int]], timeout_seconds: float = 2.0) -> list[str]:
    """Try to connect from this machine; return those addresses at which nobody answers."""
    found = []
    for host, port in targets:
        try:
            socket.create_connection((host, port), timeout_seconds).close()
        except OSError as error:
            found.append(f"{host}:{port} ({error})")
    return found
