"""Graphs in small: stages and links."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from agentic_ray.graph import Codelet, Ref, Task, TaskGraph, shape
from agentic_ray.graph.shape import shape_of

CODELETS = [Codelet(name, cpu=lambda *values: sum(values)) for name in ("read", "add", "mean")]


@st.composite
def graphs(draw: st.DrawFn) -> TaskGraph:
    tasks: list[Task] = []
    for number in range(draw(st.integers(1, 20))):
        sources = draw(st.sets(st.integers(0, number - 1), max_size=3)) if number else set()
        codelet = CODELETS[draw(st.integers(0, 2))]
        arguments = [Ref(f"t{source}") for source in sorted(sources)]
        tasks.append(Task.of(codelet, *arguments, key=f"t{number}"))
    return TaskGraph(tasks, [task.key for task in tasks])


@given(graphs())
@settings(deadline=None)
def test_no_task_and_no_value_is_left_out(graph: TaskGraph) -> None:
    found = shape_of(graph)
    assert found.tasks == sum(stage.tasks for stage in found.stages) == len(graph)
    assert found.items == sum(stage.items for stage in found.stages)
    assert sum(link.count for link in found.links) == sum(len(t.dependencies) for t in graph)
    names = Counter(task.codelet.name for task in graph)
    for stage in found.stages:
        names[stage.name] -= stage.tasks
    assert not +names
    assert len({(stage.name, stage.depth) for stage in found.stages}) == len(found.stages)
    for link in found.links:
        assert found.stages[link.source].depth < found.stages[link.target].depth


def test_many_codelets_of_one_depth_are_one_stage() -> None:
    codelets = [Codelet(f"step {number}", cpu=abs) for number in range(300)]
    tasks = [Task.of(codelet, 1, key=codelet.name) for codelet in codelets]
    (stage,) = shape_of(tasks).stages
    assert (stage.name, stage.tasks) == ("300 codelets", 300)


def test_what_is_too_large_says_so() -> None:
    chain = [Task.of(CODELETS[0], Ref(f"{n - 1}") if n else 1, key=f"{n}") for n in range(201)]
    found = shape_of(chain)
    assert (found.stages, found.tasks) == ((), len(chain))
    assert "201 stages" in found.left_out
    tasks = [chain[0]] * (shape.MOST_TASKS + 1)
    assert "100,001 tasks" in shape_of(tasks).left_out
