"""Queues of ready bundles: the most urgent first, however they came in; stale ones are dropped."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentic_ray.graph.task import Bundle, Codelet, Task
from agentic_ray.schedule.ready import ReadyQueue
from agentic_ray.schedule.records import Graph, Record

GRAPH = Graph("g", frozenset(), 0)
WORK = Codelet("work", lambda: None)


def record(number: int, order: float = 0.0, key: str = "", graph: Graph = GRAPH) -> Record:
    task = Task.of(WORK, key=key or f"t{number}")
    bundle = Bundle(task.key, (task,))
    return Record(bundle, graph, number, (("cpu",), False), task.resources, order=order)


def taken(queue: ReadyQueue) -> list[int]:
    keys: set[str] = set()
    return [found.bundle_id for found in iter(lambda: queue.take(keys), None)]


@given(st.lists(st.lists(st.sampled_from((-2.5, -1.0, 0.0)), max_size=8), max_size=8))
def test_they_are_taken_in_order_whether_they_came_together_or_singly(
    batches: list[list[float]],
) -> None:
    queue, made = ReadyQueue(), list[Record]()
    for orders in batches:
        fresh = [record(len(made) + i, order) for i, order in enumerate(orders)]
        made += fresh
        queue.extend(fresh[: len(fresh) // 2])
        for one in fresh[len(fresh) // 2 :]:
            queue.push(one)
    assert len(queue) == len(list(queue)) == len(made)
    urgent = sorted(made, key=lambda one: (one.order, one.bundle_id))
    assert queue.head is (urgent[0] if urgent else None)
    assert taken(queue) == [one.bundle_id for one in urgent]
    assert not queue


def test_what_is_ready_no_more_is_dropped_and_may_be_queued_again() -> None:
    queue = ReadyQueue()
    stale = [record(i) for i in range(3)]
    for one in stale:
        one.queued = True
    queue.extend([*stale, record(3)])
    stale[0].done = True
    stale[1].missing = 1
    stale[2].graph = Graph("other", frozenset(), 0, over=True)
    assert taken(queue) == [3]
    assert not any(one.queued for one in stale)


def test_the_same_work_of_another_graph_waits_for_the_next_window() -> None:
    queue = ReadyQueue()
    queue.extend([record(0, key="same"), record(1, key="same"), record(2)])
    assert taken(queue) == [0]
    assert taken(queue) == [1, 2]


def test_the_bundles_of_a_graph_are_withdrawn_and_the_others_keep_their_order() -> None:
    queue, other = ReadyQueue(), Graph("other", frozenset(), 0)
    queue.extend([record(i, graph=(GRAPH, other)[i % 2]) for i in range(6)])
    for i in range(6, 12):
        queue.push(record(i, order=-float(i), graph=(GRAPH, other)[i % 2]))
    queue.withdraw(other)
    assert taken(queue) == [10, 8, 6, 0, 2, 4]
    queue.push(record(12))
    queue.clear()
    assert not queue
    assert queue.head is None
