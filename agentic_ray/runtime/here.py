"""Last steps of a reduction, done in the master's process: sending them would cost far more.

Only steps of this package, NumPy and the standard library over small values: code of the user's
could crash or block the process that all others depend on. Nothing that calls BLAS or LAPACK, which
use more threads here than on an executor and may round otherwise.
"""

from __future__ import annotations

import functools
import operator
import os
import queue
import threading
import types
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
import ray

from agentic_ray.graph.task import Bundle
from agentic_ray.runtime.execute import Payload, Report, run_payload
from agentic_ray.schedule.placement import Placement

MOST_SECONDS = 5e-4
"""What is predicted to take longer is sent to an executor."""
MOST_BYTES = 512 * 1024
_PRODUCTS = (operator.matmul, operator.imatmul)


def fits_here(bundle: Bundle, placement: Placement, payload: Payload) -> bool:
    """Whether a bundle is so quick, and its steps so well known, that it is better done here."""
    predicted = placement.predicted_seconds
    if predicted is None or predicted > MOST_SECONDS or placement.device != "cpu":
        return False
    if payload.inputs or not payload.inline:
        return False
    if sum(len(inline.data) for inline in payload.inline.values()) > MOST_BYTES:
        return False
    return all(
        not task.codelet.opaque
        and not task.codelet.has_effects
        and is_of_libraries(task.codelet.cpu)
        and all(map(is_of_libraries, _callables([*task.args, dict(task.kwargs)])))
        for task in bundle.tasks
    )


def is_of_libraries(function: Any) -> bool:
    """Whether a function, and every function that it holds, comes with one of the libraries and
    gives the same bits however many threads BLAS has."""
    if isinstance(function, np.ufunc):
        return function.signature is None  # the others are products
    if isinstance(function, type) and issubclass(function, np.generic):
        return True
    if not isinstance(function, functools.partial):
        module = getattr(function, "__module__", None) or type(function).__module__
        package, _, rest = module.partition(".")
        if package == "agentic_ray":
            if rest.startswith("array.linalg"):
                return False
        elif package not in ("operator", "_operator", "math") or function in _PRODUCTS:
            return False
    return all(map(is_of_libraries, _callables(_held(function))))


def _held(function: Any) -> list[Any]:
    """What is bound to a function, or to an object that can be called."""
    if isinstance(function, functools.partial):
        return [function.func, *function.args, *function.keywords.values()]
    if isinstance(function, types.FunctionType):
        return [cell.cell_contents for cell in function.__closure__ or ()]
    slots = [name for kind in type(function).__mro__ for name in vars(kind).get("__slots__", ())]
    held = [getattr(function, name, None) for name in slots]
    return [*held, *getattr(function, "__dict__", {}).values()]


def _callables(value: Any) -> Iterator[Any]:
    """Everything that can be called in lists, tuples and dicts."""
    if isinstance(value, list | tuple | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _callables(part)
    elif callable(value):
        yield value


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
