"""What is kept of a job's work on the cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agentic_ray as ar
from agentic_ray.errors import InvalidArgumentError, UnknownJobError
from agentic_ray.master import JobEvent, Master, Registry, traces
from agentic_ray.master.runners.assignment import Assignment
from agentic_ray.master.traces import Trace, TraceShelf, columns
from agentic_ray.runtime.scope import JobScope
from agentic_ray.schedule.metrics import PlacementRecord

RECORDS = st.builds(
    PlacementRecord,
    st.sampled_from(["map[f]-0a/1", "map[f]-0a/2", "plain", "-x"]),
    st.sampled_from(["node1", "node2"]),
    st.sampled_from(["cpu", "GPU-1"]),
    st.none() | st.floats(0, 10),
    st.floats(0, 10),
    st.sampled_from(["first free", "fewest bytes"]),
    st.floats(0, 1e6),
    st.floats(0, 1e6),
    st.integers(1, 9),
    st.integers(1, 9),
    st.booleans(),
)


class UnderWay:
    """A job that did something."""

    def __init__(self, records: list[PlacementRecord], events: list[JobEvent]) -> None:
        self.items_done = self.items_total = sum(record.items for record in records)
        self._records, self._events = records, events

    def cancel(self) -> None:
        raise AssertionError

    def events(self) -> list[JobEvent]:
        return self._events

    def placements(self) -> list[PlacementRecord]:
        return self._records

    def placements_by_graph(self) -> list[list[PlacementRecord]]:
        return [self._records]

    def graphs(self) -> list[dict[str, Any]]:
        return []


@given(st.lists(RECORDS, max_size=20))
@settings(deadline=None)
def test_columns_say_what_records_say(records: list[PlacementRecord]) -> None:
    found = columns(records)
    for number, record in enumerate(records):
        name, label = found["names"][found["name"][number]], found["label"][number]
        assert record.bundle.removeprefix("-") == (f"{name}-{label}" if label else name)
        assert found["nodes"][found["node"][number]] == record.node_id
        assert found["devices"][found["device"][number]] == record.device
        assert found["reasons"][found["reason"][number]] == record.reason
        assert found["actual"][number] == pytest.approx(record.actual_seconds, abs=1e-6)
        assert (number in found["retried"]) == record.retried
    if records:
        assert min(found["start"]) == 0
    assert found["dropped"] == 0


def test_a_shelf_in_a_folder_outlives_its_master(tmp_path: Path) -> None:
    record = PlacementRecord("a-1", "n", "cpu", None, 1.0, "first free", 5.0, 6.0)
    kept = TraceShelf(tmp_path / "traces")
    kept.again("job", UnderWay([], [JobEvent(1.0, "began")]), JobEvent(2.0, "run again", "it died"))
    kept.keep("job", UnderWay([record], [JobEvent(3.0, "finished")]))
    found = TraceShelf(tmp_path / "traces").get("job")
    assert found == kept.get("job")
    assert [event[1] for event in found.events] == ["began", "run again", "finished"]
    assert found.placements["end"] == [1.0]
    assert kept.before("job") == []
    (file,) = (tmp_path / "traces").iterdir()
    file.write_bytes(b"damaged")
    assert TraceShelf(tmp_path / "traces").get("job") == Trace()
    assert TraceShelf().get("job") == Trace()


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "_ALL_BYTES", 2_000)
    monkeypatch.setattr(traces, "MOST_PLACEMENTS", 3)
    shelf = TraceShelf()
    records = [PlacementRecord(f"a-{n}", "n", "cpu", None, 1, "", n, n + 1) for n in range(5)]
    for number in range(50):
        shelf.keep(f"{number}", UnderWay(records, []))
    assert shelf._bytes <= 2_000
    assert shelf.get("0") == Trace()
    assert shelf.get("49").placements["dropped"] == 2
    assert shelf.get("49").placements["label"] == ["2", "3", "4"]


@pytest.mark.parametrize("runners", [0, 1])
def test_the_trace_of_a_job(ray_session: ar.Session, runners: int) -> None:
    workloads = Registry()

    def squares(params: int) -> int:
        return int(ar.map_reduce(lambda x: x * x, range(params), lambda a, b: a + b, initial=0))

    workloads.register("squares", squares)
    workloads.register("nothing", lambda params: params)
    told = []
    with Master(workloads=workloads, runners=runners) as master:
        master.watch(lambda record: told.append((record.id, record.state.value)))
        job = master.submit("squares", 50)
        assert job.result(120) == sum(n * n for n in range(50))
        assert told == [(job.id, state) for state in ("queued", "running", "succeeded")]
        found = master.trace(job.id)
        assert (found.items_done, found.items_total) == (50, 50)
        assert sum(found.placements["items"]) == 50
        assert set(found.placements["devices"]) <= {"cpu", "caller"}
        assert all(found.placements["reasons"])
        assert sum(stage["items"] for graph in found.graphs for stage in graph["stages"]) == 50
        assert {event[1] for event in found.events} >= {"finished"}
        assert master.progress() == {}
        other = master.submit("nothing", 1)
        other.result(60)
        assert master.trace(other.id) == Trace()
        with pytest.raises(UnknownJobError):
            master.trace("unknown")


def test_records_are_told_once_also_after_a_run_began_anew() -> None:
    scope = JobScope("job")
    records = [PlacementRecord(f"a-{n}", "n", "cpu", None, 1.0, "", n, n + 1.0) for n in range(4)]
    scope._folded = {0: records[:2], 1: records[2:3]}
    seen: dict[int, int] = {}

    def news() -> list[tuple[int, int, int]]:
        fresh = scope.fresh(seen)
        for one in fresh:
            seen[one.run] = one.first + len(one.records)
        return [(one.run, one.first, len(one.records)) for one in fresh]

    assert news() == [(0, 0, 2), (1, 0, 1)]
    assert news() == []
    scope._folded[0].append(records[3])
    assert news() == [(0, 2, 1)]
    scope._folded[0] = [records[3]]  # as when its session was lost
    assert news() == [(0, 0, 1)]
    assert scope.items_total == 0
    scope.expect(7)
    assert scope.items_total == 7


def test_what_a_runner_tells_is_checked() -> None:
    assignment = Assignment.__new__(Assignment)
    assignment._placements, assignment._graphs = {}, []
    row = ["a-1", "n", "cpu", None, 1.0, "why", 0.0, 1.0, 1, 1, False]
    assignment._hear({"items": 1, "total": 2, "fresh": [[0, 0, [row, row]]], "graphs": []})
    assignment._hear({"items": 1, "total": 2, "fresh": [[0, 0, [row]]]})
    assert len(assignment.placements()) == 1
    stage = {"name": "s", "depth": 0, "tasks": 1, "items": 1}
    link = {"source": 0, "target": 3, "count": 1}
    graph = {"tasks": 1, "items": 1, "stages": [stage], "links": [link], "left_out": ""}
    for bad in (
        {"fresh": [[0, 5, [row]]]},
        {"fresh": [[0, 0, [["a"]]]]},
        {"fresh": [[0, 0, [[1, *row[1:]]]]]},
        {"graphs": [graph]},
        {"total": -1},
    ):
        with pytest.raises((InvalidArgumentError, TypeError)):
            assignment._hear(bad)
