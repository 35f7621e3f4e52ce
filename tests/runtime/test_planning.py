"""A session that runs nothing: programs go on until they need a value. No Ray is started."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray.config import Settings
from agentic_ray.errors import SerializationError
from agentic_ray.graph.task import Codelet, Task, TaskGraph
from agentic_ray.runtime.current import current_session
from agentic_ray.runtime.planning import PlanningSession, planning
from agentic_ray.schedule.described import describe_cluster
from agentic_ray.schedule.forecast import forecast
from agentic_ray.unknown import NeedsValue, NotSendable, Unknown


def _bomb(_: Any) -> Any:
    raise AssertionError("nothing runs here")


@pytest.fixture
def session() -> Iterator[PlanningSession]:
    before = current_session()
    settings = Settings.resolve(keep_costs=False)
    with planning(PlanningSession(describe_cluster("nodes=2,cpus=4"), settings)) as made:
        assert ar.get_session() is made
        yield made
    assert current_session() is before


def _names(session: PlanningSession) -> set[str]:
    return {
        task.codelet.name.partition("[")[0] for graph in session.graphs for task in graph.part.tasks
    }


def test_a_map_reduce_is_planned_to_its_end(session: PlanningSession) -> None:
    total = ar.map_reduce(_bomb, range(5000), operator.add)
    assert isinstance(total, Unknown)
    assert _names(session) >= {"map", "reduce"}
    items = sum(
        task.cost.items
        for graph in session.graphs
        for task in graph.part.tasks
        if task.codelet.pieces
    )
    assert items == 5000
    found = forecast(session.work(), describe_cluster("nodes=8,cpus=4").cluster(1e9))
    assert found.seconds > 0
    assert any("never ran here" in note for note in found.notes)


def test_lists_of_unknown_values_have_their_length(session: PlanningSession) -> None:
    assert len(ar.map_reduce(_bomb, range(70))) == 70
    assert len(list(ar.map(_bomb, range(70)))) == 70


def test_arrays_go_on_until_a_value_is_used(session: PlanningSession) -> None:
    x = xp.random.default_rng(0).random((40_000, 1_000), chunks=(2_000, 1_000)).persist()
    y = (x - x.mean(axis=0)).persist()
    assert y.shape == (40_000, 1_000)
    before = len(session.graphs)
    assert before >= 2
    assert [graph.after_others for graph in session.graphs[:2]] == [False, True]
    with pytest.raises(NeedsValue):
        np.asarray(y)
    # Small arrays are computed at once: their values are there.
    assert int(xp.arange(10).sum()) == 45
    assert len(session.graphs) == before


def test_large_arrays_of_the_caller_are_sent_nowhere(session: PlanningSession) -> None:
    x = xp.asarray(np.ones((6_000, 1_000)), chunks=(1_000, 1_000))
    y = xp.map_blocks(_bomb, x, dtype=x.dtype).persist()
    assert y.shape == x.shape
    assert len(session.graphs) == 1


def test_calls_of_an_executor_are_planned(session: PlanningSession) -> None:
    with ar.Executor() as executor:
        futures = [executor.submit(_bomb, i) for i in range(9)]
    assert sum(len(graph.part.tasks) for graph in session.graphs) == 9
    with pytest.raises(NeedsValue):
        futures[3].result()


def test_a_master_is_not_made(session: PlanningSession) -> None:
    with pytest.raises(NeedsValue, match="jobs"):
        ar.Master()


def test_the_programs_own_settings_are_taken(session: PlanningSession) -> None:
    ar.init(num_cpus=3)
    assert session.slots == 3
    assert len(ar.cluster().nodes) == 1


def test_a_value_for_a_task_is_needed(session: PlanningSession) -> None:
    total = ar.map_reduce(_bomb, range(100), operator.add)
    with pytest.raises(SerializationError) as caught:
        ar.map_reduce(lambda x: x + total, range(10), operator.add)
    error: BaseException | None = caught.value
    while error is not None and not isinstance(error, NotSendable):
        error = error.__cause__ or error.__context__
    assert error is not None


def test_a_program_without_an_end_is_stopped(
    session: PlanningSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentic_ray.runtime.planning.MOST_GRAPHS", 3)
    graph = TaskGraph([Task("t", Codelet("step", _bomb))], ["t"])
    for _ in range(3):
        session.submit(graph)
    with pytest.raises(NeedsValue, match="graphs"):
        session.submit(graph)


@pytest.mark.parametrize(
    "use",
    [
        bool, int, float, str, repr, iter, len, hash, abs, np.asarray, "{:.2f}".format,
        lambda v: v + 1, lambda v: 1 + v, lambda v: v == 1, lambda v: v < 1, lambda v: v[0],
        lambda v: v(), lambda v: v.shape, lambda v: 1 in v, lambda v: np.float64(1) * v,
        lambda v: setattr(v, "x", 1), lambda v: [1, 2][v], lambda v: np.sqrt(v),
    ],
)  # fmt: skip
def test_every_use_of_an_unknown_value_is_noticed(use: Callable[[Any], Any]) -> None:
    with pytest.raises(NeedsValue, match="the total"):
        use(Unknown("the total"))


def test_programs_that_catch_errors_do_not_catch_the_lack_of_a_value() -> None:
    def careful() -> None:
        with contextlib.suppress(Exception):
            float(Unknown("x"))

    with pytest.raises(NeedsValue):
        careful()
