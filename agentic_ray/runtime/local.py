"""Small work stays local: a graph quicker than one call runs in the caller's process."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from agentic_ray.blas import one_thread
from agentic_ray.graph.task import TaskGraph, replace_refs
from agentic_ray.runtime.devices import HostDevice
from agentic_ray.runtime.execute import call_codelet
from agentic_ray.runtime.failures import PackedError
from agentic_ray.runtime.run import Run
from agentic_ray.runtime.values import holds_stored
from agentic_ray.schedule.cost_model import CostModel
from agentic_ray.schedule.metrics import CALLER, PlacementRecord


class _Nowhere:
    """Backend of a run that was over before it began."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def fetch(self, graph_id: str, key: str) -> Any:
        return self._values[key]

    def held(self, graph_id: str, key: str) -> Any:
        return self._values[key]

    def request_cancel(self, graph_id: str) -> None:
        return None

    def release(self, graph_id: str) -> None:
        return None


def run_locally(
    graph: TaskGraph, predicted: Mapping[str, float], model: CostModel, slots: int
) -> Run | None:
    """The finished run of ``graph`` if it is predicted to be quicker here than on ``slots``
    executors, even if all of them shared its work; else None.

    Opaque callables never run in the caller's process, nor does work of unknown cost, nor work
    on values that are in the object store, nor what could get other bits there (see `blas`).
    """
    total = 0.0
    for task in graph:
        seconds = predicted[task.key]
        codelet = task.codelet
        if seconds < 0 or codelet.opaque or codelet.cpu is None or task.tag == "gpu":
            return None
        if codelet.retry_on:
            return None  # only the Dispatcher retries
        if model.predict_size(codelet.name, "cpu", 1.0) is None and task.cost.items:
            return None  # only guessed at so far
        if holds_stored(task.args):
            return None
        total += seconds
    if total >= model.call_overhead_seconds + total / max(slots, 2):
        return None
    with one_thread() as same_bits:
        return _run(graph, total, model) if same_bits else None


def _run(graph: TaskGraph, total: float, model: CostModel) -> Run:
    values: dict[str, Any] = {}
    run = Run(_Nowhere(values), "local", graph.outputs, (), asked=1, slots={})
    device = HostDevice()
    lookup = values.__getitem__
    started = before = time.monotonic()
    for task in graph:
        try:
            args = replace_refs(task.args, lookup) if task.dependencies else task.args
            kwargs = replace_refs(dict(task.kwargs), lookup)
            values[task.key] = call_codelet(task.codelet, device, args, kwargs)
        except Exception as error:  # user code; reported as from anywhere else
            run.settle(PackedError.pack(error, task.codelet.name).rebuild())
            return run
        after = time.monotonic()
        model.observe(task, "cpu", after - before)
        before = after
    run.record(
        PlacementRecord(
            graph.outputs[-1] if graph.outputs else "",
            CALLER,
            "cpu",
            total,
            before - started,
            f"predicted {total * 1e3:.2g} ms, less than with calls: done in the caller's process",
            started,
            before,
            sum(task.cost.items for task in graph),
            len(graph),
        )
    )
    run.settle(None)
    return run
