"""A tiny evaluator of graphs and bundles in this process, and random graphs to feed it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

from agentic_ray.graph import Bundle, Codelet, Ref, Task, TaskGraph, replace_refs


def run_task(task: Task, values: Mapping[str, Any]) -> Any:
    """The value of ``task`` on the CPU; a KeyError if an input is not among ``values``."""
    function = task.codelet.cpu
    assert function is not None
    args = replace_refs(task.args, values.__getitem__)
    return function(*args, **replace_refs(dict(task.kwargs), values.__getitem__))


def evaluate(graph: TaskGraph) -> list[Any]:
    """The outputs of a graph, task by task."""
    values: dict[str, Any] = {}
    for task in graph:
        values[task.key] = run_task(task, values)
    return [values[key] for key in graph.outputs]


def evaluate_bundles(bundles: Sequence[Bundle], outputs: Sequence[str]) -> list[Any]:
    """The same through bundles: each sees its declared inputs only, gives its outputs only."""
    shared: dict[str, Any] = {}
    for bundle in bundles:
        local = {key: shared[key] for key in bundle.inputs}
        for task in bundle.tasks:
            local[task.key] = run_task(task, local)
        shared.update((key, local[key]) for key in bundle.outputs)
    return [shared[key] for key in outputs]


def _collect(name: str, *inputs: Any) -> tuple[Any, ...]:
    return (name, *inputs)


CODELETS = (
    Codelet("plain", _collect),
    Codelet("both", _collect, _collect),
    Codelet("opaque", _collect, opaque=True),
)


@st.composite
def graphs(draw: st.DrawFn, codelets: Sequence[Codelet] = CODELETS) -> TaskGraph:
    """Random acyclic graphs; a value is the nest of names it was made from."""
    tasks: list[Task] = []
    for i in range(draw(st.integers(1, 25))):
        earlier = st.sampled_from([task.key for task in tasks]) if tasks else st.nothing()
        inputs = draw(st.lists(earlier, max_size=3, unique=True)) if tasks else []
        codelet = draw(st.sampled_from(codelets))
        tag: Any = draw(st.sampled_from(("any", "cpu"))) if codelet.gpu else "any"
        tasks.append(Task.of(codelet, f"t{i}", *map(Ref, inputs), key=f"t{i}", tag=tag))
    outputs = draw(st.lists(st.sampled_from([t.key for t in tasks]), min_size=1, unique=True))
    return TaskGraph(draw(st.permutations(tasks)), outputs)
