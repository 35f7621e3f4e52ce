"""Last steps of a reduction, done in the master's process: sending them would cost far more.

Only steps of this package, NumPy and the standard library over small values: code of the user's
could crash or block the process that all others depend on.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import ray

from agentic_ray.graph.task import Bundle
from agentic_ray.runtime.execute import INLINE_BYTES, Payload, Report, run_payload
from agentic_ray.schedule.placement import Placement

MOST_SECONDS = 5e-4
"""What is predicted to take longer is sent to an executor."""
_LIBRARIES = frozenset({"agentic_ray", "numpy", "operator", "_operator", "math"})


def fits_here(bundle: Bundle, placement: Placement, payload: Payload) -> bool:
    """Whether a bundle is so quick, and its steps so well known, that it is better done here."""
    predicted = placement.predicted_seconds
    if predicted is None or predicted > MOST_SECONDS or placement.device != "cpu":
        return False
    if payload.inputs or not payload.inline:
        return False
    if sum(len(inline.data) for inline in payload.inline.values()) > INLINE_BYTES:
        return False
    return all(
        not task.codelet.opaque
        and not task.codelet.has_effects
        and not any(map(callable, (*task.args, *dict(task.kwargs).values())))
        and is_of_libraries(task.codelet.cpu)
        for task in bundle.tasks
    )


def is_of_libraries(function: Any) -> bool:
    """Whether a function, and every function that it holds, comes with one of the libraries."""
    if isinstance(function, functools.partial):
        parts = (function.func, *function.args, *function.keywords.values())
        return all(is_of_libraries(part) for part in parts if callable(part))
    module = getattr(function, "__module__", None) or type(function).__module__
    if module.partition(".")[0] not in _LIBRARIES:
        return False
    if dataclasses.is_dataclass(function):
        parts = tuple(getattr(function, one.name) for one in dataclasses.fields(function))
        return all(is_of_libraries(part) for part in parts if callable(part))
    return True


class Here:
    """One thread of this process that runs such bundles, one after the other."""

    def __init__(self) -> None:
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._main, name="agentic-ray-here", daemon=True).start()

    def run(self, payload: Payload) -> tuple[Future[Report], list[Any]]:
        """Run a bundle. In the list there are, when the report is, None and an ObjectRef of each
        large value."""
        answer: Future[Report] = Future()
        refs: list[Any] = [None]

        def work() -> None:
            try:
                node_id = ray.get_runtime_context().get_node_id()
                report, *large = run_payload(payload, (), node_id=node_id, pid=os.getpid())
                refs.extend(None if value is None else ray.put(value) for value in large)
            except BaseException as error:  # the Dispatcher is to hear of whatever it is
                answer.set_exception(error)
            else:
                answer.set_result(report)

        self._inbox.put(work)
        return answer, refs

    def close(self) -> None:
        """End the thread after what it was given."""
        self._inbox.put(None)

    def _main(self) -> None:
        while (work := self._inbox.get()) is not None:
            work()
