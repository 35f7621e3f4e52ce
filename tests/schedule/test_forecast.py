"""Predictions for other clusters: chunks are cut anew, and the very Dispatcher runs the graphs."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentic_ray.errors import AgenticRayError
from agentic_ray.graph.task import Bundle, Codelet, CostHint, Resources, Task
from agentic_ray.schedule import events as ev
from agentic_ray.schedule.cost_model import CostModel
from agentic_ray.schedule.described import describe_cluster
from agentic_ray.schedule.dispatcher import Dispatcher
from agentic_ray.schedule.forecast import Forecast, Together, Work, forecast, recorded_work
from agentic_ray.schedule.noting import Noter
from agentic_ray.schedule.policies import get_policy
from agentic_ray.schedule.recording import Recorder
from agentic_ray.schedule.recutting import Costs, Part, recut
from agentic_ray.schedule.replaying import Replay
from agentic_ray.schedule.virtual import SentGraph, Stage, VirtualRun
from agentic_ray.telemetry.state import NodeState
from tests.support.noted import Noted


def _nothing(*_: Any) -> None:
    """Stand in for work that is only simulated."""


CHUNK = Codelet("chunk", _nothing, pieces="one", opaque=True)
STEP = Codelet("step", _nothing)
JOIN = Codelet("join", _nothing)


def chunks(lengths: list[tuple[int, float]], name: str = "g", codelet: Codelet = CHUNK) -> Part:
    """Chunks of items and seconds, joined by one task that takes 10 ms."""
    keys = [f"c{i}" for i in range(len(lengths))]
    tasks = [
        Task(key, codelet, cost=CostHint(items=items))
        for key, (items, _) in zip(keys, lengths, strict=True)
    ]
    tasks.append(Task("join", JOIN, dependencies=tuple(keys), cost=CostHint(items=0)))
    costs = {key: Costs(seconds) for key, (_, seconds) in zip(keys, lengths, strict=True)}
    sizes = dict.fromkeys(keys, 1000) | {"join": 8}
    return Part(name, tuple(tasks), ("join",), costs | {"join": Costs(0.01)}, sizes)


def steps(seconds: list[float], name: str = "g") -> Part:
    """Tasks that wait for nothing."""
    tasks = tuple(Task(f"t{i}", STEP) for i in range(len(seconds)))
    costs = {task.key: Costs(one) for task, one in zip(tasks, seconds, strict=True)}
    return Part(name, tasks, tuple(task.key for task in tasks), costs, {}, alone=True)


def on(text: str, *parts: Part, **options: Any) -> Forecast:
    work = Work((Together(parts),), call_seconds=1e-3, process_seconds=2e-3, **options)
    return forecast(work, describe_cluster(text).cluster(1e9))


def test_equal_tasks_take_their_share_of_the_slots() -> None:
    found = on("nodes=4,cpus=2", steps([1.0] * 16))
    assert found.seconds == pytest.approx(2.0, abs=0.05)
    assert found.work_seconds == pytest.approx(16)
    assert (found.tasks, found.bundles, found.slots) == (16, 16, 8)
    assert found.devices == {"cpu": 16}
    assert found.graphs["g"] == (0.0, found.seconds)
    assert found.utilization == pytest.approx(1.0, abs=0.05)
    assert not found.notes
    assert "<svg" in found.picture("x").svg()


@pytest.mark.parametrize("part", [steps([0.5] * 64), chunks([(500, 20.0), (500, 20.0)])])
def test_more_nodes_never_take_longer(part: Part) -> None:
    seconds = [on(f"nodes={n},cpus=1", part).seconds for n in (1, 2, 4, 8, 16, 32)]
    assert all(more <= fewer + 1e-9 for fewer, more in pairwise(seconds))
    assert seconds[3] < seconds[0] / 5


def test_a_faster_node_takes_less_time() -> None:
    part = steps([1.0] * 8)
    slow, fast = on("cpus=2", part).seconds, on("cpus=2,speed=4", part).seconds
    assert fast == pytest.approx(slow / 4, rel=0.02)


def test_chunks_of_a_small_cluster_are_cut_for_a_large_one() -> None:
    """Two chunks of 20 s each could not be done sooner than in 20 s."""
    part = chunks([(500, 20.0), (500, 20.0)])
    found = on("nodes=16,cpus=1", part)
    assert 40 / 16 < found.seconds < 40 / 16 * 1.3
    assert found.work_seconds == pytest.approx(40.01, rel=0.01)
    fixed = chunks([(500, 20.0), (500, 20.0)], codelet=Codelet("fixed", _nothing, opaque=True))
    assert on("nodes=16,cpus=1", fixed).seconds > 20


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.integers(1, 400), st.floats(0.001, 30.0)), min_size=1, max_size=12),
    st.integers(1, 64),
)
def test_cutting_anew_keeps_items_seconds_and_order(
    lengths: list[tuple[int, float]], slots: int
) -> None:
    half = len(lengths) // 2
    first, second = chunks(lengths[:half], "a"), chunks(lengths[half:], "b")
    second = Part(
        "b",
        tuple(
            Task(f"b{t.key}", t.codelet, dependencies=tuple(f"b{k}" for k in t.dependencies),
                 cost=t.cost)
            for t in second.tasks
        ),
        ("bjoin",),
        {f"b{key}": one for key, one in second.costs.items()},
        {},
    )  # fmt: skip
    parts, joined = recut([first, second], slots, 1e-3)
    tasks = {task.key: task for part in parts for task in part.tasks}
    costs = {key: one for part in parts for key, one in part.costs.items()}
    cut = [task for task in tasks.values() if task.codelet is CHUNK]
    assert sum(task.cost.items for task in cut) == sum(items for items, _ in lengths)
    seconds = sum(costs[task.key].cpu or 0.0 for task in cut)
    assert seconds == pytest.approx(sum(one for _, one in lengths))
    for part in parts:
        known = {task.key for task in part.tasks}
        assert set(part.outputs) <= known
        assert all(set(task.dependencies) <= known for task in part.tasks)
    if half:
        assert joined == {"b": "a"}
        assert len(parts) == 1
        taken = [key for name in ("join", "bjoin") for key in tasks[name].dependencies]
        # Each join takes its own chunks; one chunk may lie across the border.
        assert len(set(taken)) == len(cut)
        assert len(taken) - len(cut) <= 1


def test_graphs_after_each_other_and_the_callers_own_time_add_up() -> None:
    work = Work((Together((steps([1.0], "a"),)), Together((steps([2.0], "b"),), 0.5)))
    found = forecast(work, describe_cluster("nodes=8,cpus=1").cluster(1e9))
    assert found.seconds == pytest.approx(3.5, abs=0.02)
    assert found.caller_seconds == 0.5
    assert found.graphs["b"][0] == pytest.approx(1.5, abs=0.02)
    together = Work((Together((steps([1.0], "a"), steps([2.0], "b"))),))
    found = forecast(together, describe_cluster("nodes=8,cpus=1").cluster(1e9))
    assert found.seconds == pytest.approx(2.0, abs=0.02)


def test_values_are_moved_at_the_rate_of_the_links() -> None:
    tasks = [Task("a", STEP), Task("b", STEP)]
    tasks.append(Task("c", JOIN, dependencies=("a", "b")))
    costs = dict.fromkeys(("a", "b", "c"), Costs(1.0))
    part = Part("g", tuple(tasks), ("c",), costs, {"a": 10**8, "b": 10**8, "c": 8}, alone=True)
    slow, fast = on("nodes=2,link=100MB", part), on("nodes=2,link=10GB", part)
    assert slow.moved_bytes == fast.moved_bytes == 10**8
    assert slow.seconds - fast.seconds == pytest.approx(1.0, abs=0.05)
    assert slow.held_bytes == 2 * 10**8


def test_a_gpu_is_used_and_what_is_not_measured_is_said() -> None:
    code = Codelet("dense", _nothing, _nothing)
    tasks = tuple(Task(f"t{i}", code, cost=CostHint(flops=1e11)) for i in range(32))
    part = Part("g", tasks, tuple(t.key for t in tasks), {t.key: Costs(20.0) for t in tasks}, {})
    found = on("cpus=1,gpus=4", part)
    assert found.devices["gpu"] > 16
    assert found.seconds < on("cpus=1", part).seconds / 10
    assert any("rates of a typical GPU" in note for note in found.notes)
    unknown = Part("g", tasks[:2], ("t0", "t1"), {}, {})
    assert any("never ran here" in note for note in on("cpus=1", unknown).notes)


def test_what_cannot_run_there_is_an_error() -> None:
    task = Task("t", Codelet("card", None, _nothing), tag="gpu")
    part = Part("g", (task,), ("t",), {"t": Costs(None, 1.0)}, {})
    with pytest.raises(AgenticRayError):
        on("nodes=2,cpus=4", part)
    assert on("nodes=2,cpus=4,gpus=1", part).seconds == pytest.approx(1.0, abs=0.01)
    large = Task("t", STEP, resources=Resources(memory_bytes=10**12))
    part = Part("g", (large,), ("t",), {"t": Costs(1.0)}, {})
    with pytest.raises(AgenticRayError):
        on("memory=64GB", part)


def test_tasks_of_several_cpus_take_as_many_slots() -> None:
    wide = tuple(Task(f"t{i}", STEP, resources=Resources(cpus=2)) for i in range(4))
    part = Part("g", wide, tuple(t.key for t in wide), dict.fromkeys(("t0", "t1", "t2", "t3"),
                Costs(1.0)), {}, alone=True)  # fmt: skip
    assert on("cpus=4", part).seconds == pytest.approx(2.0, abs=0.05)
    assert on("cpus=2", part).seconds == pytest.approx(4.0, abs=0.05)


# --- from a recording ----------------------------------------------------------------------


class _Truth:
    """Tasks of 1 s each; values of 1 kB."""

    def times(self, bundle: Any, kind: str) -> tuple[float, ...]:
        return tuple(1.0 for _ in bundle.tasks)

    def size(self, graph_id: str, key: str) -> int:
        return 1000

    def travels_inside(self, size: int) -> bool:
        return True

    def call_seconds(self, bundle: Any) -> float:
        return 0.01


def _recorded(nodes: str, *stages: Stage) -> tuple[list[str], float]:
    """The recording of a virtual run, and its seconds."""
    lines: list[str] = []
    cluster = describe_cluster(nodes).cluster(1e9)
    run = VirtualRun(stages, _Truth(), cluster, get_policy("predictive"), CostModel())
    recorder = Recorder(lines.append, run.dispatcher, {})
    run.dispatcher = Noted(run.dispatcher, recorder.note)  # type: ignore[assignment]
    run.run()
    return lines, run.now


def _sent(name: str, count: int) -> SentGraph:
    tasks = [Task(f"{name}{i}", STEP) for i in range(count)]
    bundles = tuple(Bundle(task.key, (task,), (), (task.key,)) for task in tasks)
    return SentGraph(name, bundles, tuple(task.key for task in tasks))


def test_a_recorded_run_is_predicted_where_it_ran_and_elsewhere() -> None:
    stages = (Stage((_sent("a", 8), _sent("b", 8))), Stage((_sent("c", 4),), 0.25))
    lines, seconds = _recorded("nodes=2,cpus=2", *stages)
    work = recorded_work(Replay(lines))
    assert [len(stage.graphs) for stage in work.stages] == [2, 1]
    assert work.stages[1].after_seconds == pytest.approx(0.25)
    same = forecast(work, describe_cluster("nodes=2,cpus=2").cluster(1e9))
    assert same.seconds == pytest.approx(seconds, rel=0.03)
    larger = forecast(work, describe_cluster("nodes=4,cpus=4").cluster(1e9))
    _, truth = _recorded("nodes=4,cpus=4", *stages)
    assert larger.seconds == pytest.approx(truth, rel=0.03)
    assert math.isclose(larger.work_seconds, same.work_seconds)


def test_a_graph_that_failed_is_left_out_and_told() -> None:
    lines: list[str] = []
    dispatcher = Dispatcher(get_policy("predictive"), CostModel())
    recorder = Noter(dispatcher, [Recorder(lines.append, dispatcher, {}).note])
    slots = (ev.DeviceSlots("cpu", "cpu", 2),)
    recorder.handle(ev.NodeUp(0.0, NodeState("n0", "n0", 2.0, 2.0), slots))
    graph = _sent("a", 1)
    recorder.handle(ev.GraphSubmitted(1.0, "a", graph.bundles, graph.outputs))
    recorder.handle(ev.BundleFailed(2.0, 0, 0, "user", ValueError("no")))
    work = recorded_work(Replay(lines))
    assert not work.stages
    assert work.left_out == 1
