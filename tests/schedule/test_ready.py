"""Queues of ready bundles: the most urgent first, however they came in; stale ones are dropped."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentic_ray.graph.task import Bundle, Codelet, Task
from agentic_ray.schedule.ready import Fresh, ReadyQueue
from agentic_ray.schedule.records import Graph, Record, Traits

GRAPH = Graph("g", frozenset(), 0)
WORK = Codelet("work", lambda: None)


def record(number: int, order: float = 0.0, key: str = "", graph: Graph = GRAPH) -> Record:
    task = Task.of(WORK, key=key or f"t{number}")
    bundle = Bundle(task.key, (task,))
    return Record(bundle, graph, number, (("cpu",), False), task.resources, order=order)


def taken(queue: ReadyQueue) -> list[int]:
    window: dict[str, Record] = {}
    return [found.bundle_id for found in iter(lambda: queue.take(window), None)]


def fresh(first_id: int, orders: list[float], name: str = "fresh") -> tuple[Graph, Fresh]:
    """Bundles that need no value, of a graph of their own."""
    tasks = [Task.of(WORK, key=f"{name}{first_id + i}") for i in range(len(orders))]
    bundles = [Bundle(task.key, (task,)) for task in tasks]
    graph = Graph(name, frozenset(), 0, first_id, bundles)
    graph.traits = [Traits((("cpu",), False), tasks[0].resources, order) for order in orders]
    graph.ended = bytearray(len(orders))
    return graph, Fresh(graph, list(range(first_id, first_id + len(orders))))


@given(st.lists(st.lists(st.sampled_from((-2.5, -1.0, 0.0)), max_size=8), max_size=8))
def test_they_are_taken_in_order_whether_they_came_together_or_singly(
    batches: list[list[float]],
) -> None:
    queue, made = ReadyQueue(), list[tuple[float, int]]()
    for orders in batches:
        first, together = len(made), orders[: len(orders) // 2]
        made += [(order, first + i) for i, order in enumerate(orders)]
        if together:
            queue.add(fresh(first, together)[1])
        for order, number in made[first + len(together) :]:
            queue.push(record(number, order))
    assert len(queue) == len(made)
    assert queue.head == min(made, default=None)
    assert taken(queue) == [number for _, number in sorted(made)]
    assert not queue


@given(
    st.lists(st.lists(st.sampled_from((-2.5, 0.0)), min_size=1, max_size=6), max_size=3),
    st.lists(st.integers(0, 9)),
    st.integers(0, 9),
)
def test_many_are_taken_as_one_after_the_other(
    batches: list[list[float]], done: list[int], most: int
) -> None:
    def made() -> ReadyQueue:
        queue, first = ReadyQueue(), 0
        for orders in batches:
            graph, ready = fresh(first, orders)
            queue.add(ready)
            for number in done:
                if first <= number < first + len(orders):
                    graph.record(number).done = True
            first += len(orders)
        return queue

    at_once, singly = made(), made()
    window: dict[str, Record] = {}
    found: dict[str, Record] = {}
    at_once.fill(window, most)
    for _ in range(most):
        singly.take(found)
    assert [(key, one.bundle_id) for key, one in window.items()] == [
        (key, one.bundle_id) for key, one in found.items()
    ]
    at_once.fill(window, 100)
    assert list(window) == list(found) + [
        one.bundle.key for one in iter(lambda: singly.take({}), None)
    ]
    assert len(at_once) == len(singly) == 0


def test_what_is_in_the_window_already_waits_for_the_next() -> None:
    _, ready = fresh(0, [0.0] * 4)
    queue = ReadyQueue()
    queue.add(ready)
    window = {"fresh2": record(9)}
    queue.fill(window, 10)
    assert list(window) == ["fresh2", "fresh0", "fresh1"]
    assert len(queue) == 2
    queue.fill(window := {}, 10)
    assert list(window) == ["fresh2", "fresh3"]


def test_what_is_ready_no_more_is_dropped_and_may_be_queued_again() -> None:
    queue = ReadyQueue()
    stale = [record(i) for i in range(3)]
    for one in [*stale, record(3)]:
        one.queued = True
        queue.push(one)
    stale[0].done = True
    stale[1].missing = 1
    stale[2].graph = Graph("other", frozenset(), 0, over=True)
    assert taken(queue) == [3]
    assert not any(one.queued for one in stale)


def test_the_same_work_of_another_graph_waits_for_the_next_window() -> None:
    queue = ReadyQueue()
    for one in (record(0, key="same"), record(1, key="same"), record(2)):
        queue.push(one)
    assert taken(queue) == [0]
    assert taken(queue) == [1, 2]


def test_the_bundles_of_a_graph_are_withdrawn_and_the_others_keep_their_order() -> None:
    queue, other = ReadyQueue(), Graph("other", frozenset(), 0)
    gone, kept = fresh(20, [0.0, -20.0], "gone"), fresh(30, [0.0, -7.0], "kept")
    for _, together in (gone, kept):
        queue.add(together)
    for i in range(6, 12):
        queue.push(record(i, order=-float(i), graph=(GRAPH, other)[i % 2]))
    assert queue.graphs == {GRAPH, other, gone[0], kept[0]}
    queue.withdraw(other)
    queue.withdraw(gone[0])
    assert len(queue) == 5
    assert taken(queue) == [10, 8, 31, 6, 30]
    assert queue.head is None


def test_a_bundle_has_a_record_from_when_it_is_taken_until_it_is_done() -> None:
    graph, together = fresh(5, [0.0, 0.0, 0.0])
    queue = ReadyQueue()
    queue.add(together)
    assert not graph.records
    first, second = queue.take({}), queue.take({})
    assert first is not None
    assert second is not None
    assert (first.bundle, first.done, first.attempts) == (graph.bundles[0], False, 0)
    assert graph.records == {5: first, 6: second}
    first.queued = second.queued = False
    first.done, first.attempts = True, 1
    graph.forget(first)
    assert graph.records.keys() == {6}
    third = queue.take({})
    assert third is not None
    assert (third.bundle_id, third.done, third.attempts) == (7, False, 0)  # nothing is left over
    again = graph.record(5)  # its value was lost: what is known of it is there again
    assert (again.bundle, again.done, again.attempts) == (graph.bundles[0], True, 1)
    assert not again.queued


def test_the_record_of_a_bundle_that_did_not_go_well_at_once_is_kept() -> None:
    graph, together = fresh(0, [0.0, 0.0])
    queue = ReadyQueue()
    queue.add(together)
    for change in ({"attempts": 2}, {"bundle": record(9).bundle}):
        one = queue.take({})
        assert one is not None
        one.done, one.queued, one.attempts = True, False, 1
        for name, value in change.items():
            setattr(one, name, value)
        graph.forget(one)
        assert graph.records[one.bundle_id] is one
