"""Last steps of a reduction, done by the loop itself: to send them would cost far more.

The steps are only those of this package, NumPy and the standard library, over small plain values:
code of the user's could crash or block the process that all others depend on. No step calls BLAS or
LAPACK, which use more threads here than on an executor and may round otherwise. No step writes to
its arguments, which here are the caller's own.
"""

from __future__ import annotations

import functools
import operator
import os
import time
import types
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future
from typing import Any

import numpy as np
import ray

from agentic_ray.graph.captured import Captured
from agentic_ray.graph.task import Bundle, Ref, replace_refs
from agentic_ray.runtime.execute import HOST, call_codelet, is_plain, pack_outputs
from agentic_ray.runtime.failures import PackedError
from agentic_ray.runtime.outcomes import Failed, Finished, Inline, Outcome, Report
from agentic_ray.schedule.placement import Placement

MOST_SECONDS = 5e-4
"""Bundles predicted to take longer are sent to an executor."""
MOST_BYTES = 512 * 1024
_IN_PLACE = [
    function
    for name, function in vars(operator).items()
    if name.startswith("__i") and f"__{name[3:]}" in vars(operator)  # as __iadd__ beside __add__
]
_UNFIT = frozenset([operator.matmul, *_IN_PLACE])


def fits_here(bundle: Bundle, placement: Placement, inputs: Collection[Any]) -> bool:
    """Whether a bundle is so quick, and its steps so well known, that it is better done here.

    Parameters
    ----------
    inputs : collection
        Values held here that the bundle takes from other bundles.
    """
    predicted = placement.predicted_seconds
    if predicted is None or predicted > MOST_SECONDS or placement.device != "cpu" or not inputs:
        return False
    if not all(isinstance(value, Inline) and value.plain for value in inputs):
        return False
    if bundle.resources.where or sum(len(inline.data) for inline in inputs) > MOST_BYTES:
        return False
    return all(
        not task.codelet.opaque
        and not task.codelet.has_effects
        and is_of_libraries(task.codelet.cpu)
        and all(map(_is_harmless, _leaves([*task.args, dict(task.kwargs)])))
        for task in bundle.tasks
    )


def _is_harmless(value: Any) -> bool:
    if callable(value):
        return is_of_libraries(value)
    return isinstance(value, Ref | str | slice | np.dtype) or is_plain(value)


def is_of_libraries(function: Any) -> bool:
    """Whether a function, and every function that it holds, comes with one of the libraries and
    gives the same bits however many threads BLAS has."""
    if isinstance(function, Captured):
        return False
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
        elif package not in ("operator", "_operator", "math") or function in _UNFIT:
            return False
    return all(map(is_of_libraries, filter(callable, _leaves(_held(function)))))


def _held(function: Any) -> list[Any]:
    """Return the objects bound to a function, or to an object that can be called."""
    if isinstance(function, functools.partial):
        return [function.func, *function.args, *function.keywords.values()]
    if isinstance(function, types.FunctionType):
        return [cell.cell_contents for cell in function.__closure__ or ()]
    slots = [name for kind in type(function).__mro__ for name in vars(kind).get("__slots__", ())]
    held = [getattr(function, name, None) for name in slots]
    return [*held, *getattr(function, "__dict__", {}).values()]


def _leaves(value: Any) -> Iterator[Any]:
    """Yield everything in lists, tuples and dicts."""
    if isinstance(value, list | tuple | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _leaves(part)
    else:
        yield value


def run_now(
    bundle: Bundle, inputs: Mapping[str, Inline], node_id: str
) -> tuple[Future[Report], list[Any]]:
    """Run such a bundle. Return a future that holds its report already, and a list with an
    ObjectRef of each large value (None for the others)."""
    started = time.perf_counter()
    answer: Future[Report] = Future()
    refs: list[Any] = [None]
    outcome: Outcome
    name = "?"
    try:
        values = {key: inline.load() for key, inline in inputs.items()}
        for task in bundle.tasks:
            name = task.codelet.name
            args = replace_refs(task.args, values.__getitem__)
            kwargs = replace_refs(dict(task.kwargs), values.__getitem__)
            values[task.key] = call_codelet(task.codelet, HOST, args, kwargs)
        outputs, large = pack_outputs(bundle.outputs, values)
        refs.extend(None if value is None else ray.put(value) for value in large)
        outcome = Finished(tuple(outputs))
    except Exception as raised:
        outcome = Failed(PackedError.pack(raised, name))
    seconds = time.perf_counter() - started
    answer.set_result(Report(node_id, os.getpid(), seconds, (), outcome))
    return answer, refs
