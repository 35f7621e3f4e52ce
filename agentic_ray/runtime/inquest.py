"""Asks who held a node's memory when a process of ours was killed there."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from agentic_ray.runtime.memory_use import own_bytes
from agentic_ray.schedule.events import MemoryUse
from agentic_ray.telemetry.state import ClusterState

_ANSWER_SECONDS: Final = 5.0
SHORT_FRACTION: Final = 0.1
"""A node with less of its memory free may have lost a process to the kernel's OOM killer."""


def ask(
    executor: Any, error: BaseException, *, here: bool, told: Callable[[MemoryUse | None], None]
) -> None:
    """Have an executor look at its node. ``told`` is called once with the memory use, from any
    thread, or with None if the executor does not answer.

    Parameters
    ----------
    here : bool
        Whether the node is this process's; then this process is not counted among the others.
    """
    ours: Sequence[int] = (os.getpid(),) if here else ()
    waiting = [told]  # whoever takes it out of the list, calls it; taking is atomic

    def answer(use: MemoryUse | None) -> None:
        try:
            tell = waiting.pop()
        except IndexError:
            return  # the other was quicker
        tell(use)

    timer = threading.Timer(_ANSWER_SECONDS, answer, (None,))
    timer.daemon = True
    timer.start()

    def heard(future: Any) -> None:
        timer.cancel()
        answer(None if future.exception() is not None else future.result())

    executor.memory_use.remote(own_bytes(str(error)), ours).future().add_done_callback(heard)


def is_short(cluster: ClusterState, node_id: str) -> bool:
    """Whether a node had little memory left in its last report."""
    node = cluster.node(node_id)
    if node is None or node.memory_free_bytes is None or not node.memory_total_bytes:
        return False
    return node.memory_free_bytes < SHORT_FRACTION * node.memory_total_bytes
