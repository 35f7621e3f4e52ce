"""What each built-in policy chooses, one decision at a time."""

from __future__ import annotations

from typing import Any

import pytest

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.graph import Bundle, Codelet, Ref, Resources, Task
from agentic_ray.schedule import CostModel, Dispatcher, Placement, get_policy
from agentic_ray.schedule import events as ev
from agentic_ray.schedule.calibration import Calibration
from agentic_ray.schedule.contract import Offers
from agentic_ray.schedule.policies import AGEING_SECONDS
from agentic_ray.schedule.ranks import upward_ranks
from agentic_ray.telemetry.state import ClusterState, NodeState


def work(*_: Any) -> None: ...


CPU = Codelet("on_cpu", work)
BOTH = Codelet("both", work, work)


def bundle(key: str, *inputs: str, codelet: Codelet = CPU, **options: Any) -> Bundle:
    task = Task.of(codelet, *map(Ref, inputs), key=key, **options)
    return Bundle(key, (task,), inputs, (key,))


class Session:
    """A Dispatcher with a policy, a taught cost model and a clock."""

    def __init__(self, policy: str = "predictive", **calibration: float) -> None:
        self.now = 0.0
        self.model = CostModel(Calibration(**calibration))
        self.dispatcher = Dispatcher(get_policy(policy), self.model)

    def node(
        self, name: str, speed: float = 1.0, slots: int = 1, gpus: int = 0, **more: Any
    ) -> None:
        devices = [ev.DeviceSlots("cpu", "cpu", slots, speed, **more)]
        devices += [ev.DeviceSlots(f"{name}-gpu{i}", "gpu", 1) for i in range(gpus)]
        state = NodeState(name, name, slots, slots)
        self.starts(ev.NodeUp(self.now, state, tuple(devices)))

    def starts(self, event: ev.Event) -> dict[str, ev.Start]:
        commands = self.dispatcher.handle(event)
        return {c.bundle.key: c for c in commands if isinstance(c, ev.Start)}

    def submit(self, *bundles: Bundle, graph: str = "g", priority: int = 0) -> dict[str, ev.Start]:
        outputs = tuple(one.key for one in bundles)
        return self.starts(ev.GraphSubmitted(self.now, graph, bundles, outputs, priority))

    def finish(self, start: ev.Start, seconds: float, size: int = 0) -> dict[str, ev.Start]:
        node = start.placement.node_id
        values = tuple(ev.ValueInfo(key, size, node) for key in start.bundle.outputs)
        ids = (start.bundle_id, start.attempt)
        return self.starts(ev.BundleFinished(self.now, *ids, seconds, (seconds,), values))


def places(starts: dict[str, ev.Start]) -> dict[str, str]:
    return {key: start.placement.node_id for key, start in starts.items()}


# --- predictive ----------------------------------------------------------------------------


def test_a_bundle_goes_where_it_is_finished_first() -> None:
    session = Session()
    session.model.observe_size("on_cpu", "cpu", 1, 1.0)
    session.node("slow")
    session.node("fast", 4.0)
    started = session.submit(bundle("a"))
    assert places(started) == {"a": "fast"}
    placement = started["a"].placement
    assert placement.predicted_finish_seconds == pytest.approx(0.25)
    assert "finish first" in placement.reason


def test_it_waits_for_a_fast_node_rather_than_start_on_a_slow_one() -> None:
    session = Session()
    session.model.observe_size("on_cpu", "cpu", 1, 1.0)
    session.node("slow")
    session.node("fast", 8.0)
    started = session.submit(*(bundle(f"b{i}") for i in range(6)))
    assert set(places(started).values()) == {"fast"}
    started = session.submit(*(bundle(f"c{i}") for i in range(6)), graph="h")
    assert "slow" in places(started).values()  # now the fast one has more than a second to do


def test_the_highest_rank_gets_the_fastest_device() -> None:
    session = Session()
    session.model.observe_size("on_cpu", "cpu", 1, 1.0)
    session.node("slow")
    session.node("fast", 1.5)
    started = session.submit(bundle("short"), bundle("long"), bundle("after", "long"))
    assert places(started) == {"long": "fast", "short": "slow"}


def test_a_large_input_keeps_a_bundle_where_it_is() -> None:
    for size, expected in ((10, "fast"), (10_000_000, "slow")):
        session = Session(store_bytes_per_second=1e6)
        session.model.observe_size("on_cpu", "cpu", 1, 1.0)
        session.node("slow")
        first = session.submit(bundle("a"), bundle("b", "a"))
        session.node("fast", 4.0)
        session.now = 1.0
        assert places(session.finish(first["a"], 1.0, size)) == {"b": expected}


def test_cpu_or_gpu_by_the_predicted_finish() -> None:
    session = Session()
    session.model.observe_size("both", "cpu", 1, 0.1)
    session.model.observe_size("both", "gpu", 1, 0.04)
    session.node("n", slots=1, gpus=1)
    started = session.submit(*(bundle(f"b{i}", codelet=BOTH) for i in range(3)))
    devices = sorted(start.placement.device for start in started.values())
    assert devices == ["cpu", "n-gpu0", "n-gpu0"]
    session = Session()
    session.model.observe_size("both", "cpu", 1, 0.1)
    session.model.observe_size("both", "gpu", 1, 4.0)
    session.node("n", slots=2, gpus=1)
    started = session.submit(*(bundle(f"b{i}", codelet=BOTH) for i in range(2)))
    assert [start.placement.device for start in started.values()] == ["cpu", "cpu"]


def test_unknown_costs_are_tried_on_every_kind_of_device() -> None:
    session = Session()
    session.node("n", slots=2, gpus=1)
    started = session.submit(*(bundle(f"b{i}", codelet=BOTH) for i in range(3)))
    assert {start.placement.device for start in started.values()} == {"cpu", "n-gpu0"}
    for start in started.values():
        assert start.placement.predicted_seconds is None
        assert "not known yet" in start.placement.reason


def test_a_bundle_goes_to_a_node_whose_memory_holds_it() -> None:
    session = Session()
    session.model.observe_size("on_cpu", "cpu", 1, 1.0)
    session.node("small", 8.0, memory_bytes=100)
    session.node("large", 1.0, memory_bytes=1000)
    started = session.submit(bundle("a", resources=Resources(memory_bytes=500)))
    assert places(started) == {"a": "large"}
    started = session.submit(bundle("b", resources=Resources(memory_bytes=50)), graph="h")
    assert places(started) == {"b": "small"}


def test_planned_bundles_go_elsewhere_when_their_node_dies() -> None:
    session = Session()
    session.model.observe_size("on_cpu", "cpu", 1, 1.0)
    session.node("fast", 8.0)
    session.node("slow")
    started = session.submit(*(bundle(f"b{i}") for i in range(6)))
    assert set(places(started).values()) == {"fast"}
    after = session.starts(ev.NodeLost(0.0, "fast", "unplugged"))
    assert set(places(after).values()) == {"slow"}


def test_a_silent_node_gets_nothing_and_loses_its_plans() -> None:
    session = Session()
    session.model.observe_size("on_cpu", "cpu", 1, 1.0)
    session.node("fast", 8.0)
    session.node("slow")
    first = session.submit(*(bundle(f"b{i}") for i in range(6)))
    silent = NodeState("fast", "fast", 1.0, 1.0, heartbeat_age_seconds=1e6)
    well = NodeState("slow", "slow", 1.0, 1.0, heartbeat_age_seconds=0.0)
    after = session.starts(ev.Telemetry(0.0, ClusterState((silent, well), 0.0)))
    assert set(places(after).values()) == {"slow"}
    assert not session.finish(first["b0"], 0.125)


def test_a_node_that_joins_takes_over_what_was_planned() -> None:
    session = Session()
    session.model.observe_size("on_cpu", "cpu", 1, 1.0)
    session.node("slow")
    assert places(session.submit(*(bundle(f"b{i}") for i in range(4)))) == {"b0": "slow"}
    state = NodeState("fast", "fast", 1.0, 1.0)
    joined = ev.NodeUp(0.1, state, (ev.DeviceSlots("cpu", "cpu", 1, 8.0),))
    assert "fast" in places(session.starts(joined)).values()


# --- priority ------------------------------------------------------------------------------


def test_a_higher_class_goes_first_whatever_came_before() -> None:
    session = Session("priority")
    session.node("n")
    held = session.submit(bundle("held", resources=Resources(cpus=1)), graph="held")
    session.submit(*(bundle(f"low{i}") for i in range(3)), graph="low", priority=0)
    session.now = 1.0
    session.submit(*(bundle(f"high{i}") for i in range(2)), graph="high", priority=1)
    order = []
    running = session.finish(held["held"], 1.0)
    while running:
        key = next(iter(running))
        order.append(key)
        session.now += 1.0
        start = running.pop(key)
        running |= session.finish(start, 1.0)
    waited = [key for key in order if key != "low0"]  # sent ahead before the others came
    assert waited == ["high0", "high1", "low1", "low2"]


def test_nothing_starves() -> None:
    """A step of priority is worth a minute of waiting, so old work is overtaken only so long."""
    session = Session("priority")
    session.node("n")
    running = session.submit(bundle("held"), bundle("ahead"), graph="held", priority=9)
    session.submit(bundle("old"), graph="old", priority=0)
    order: list[str] = []
    for i in range(200):
        session.now += 1.0
        running |= session.submit(bundle(f"new{i}"), graph=f"new{i}", priority=1)
        key = next(iter(running))
        order.append(key)
        running |= session.finish(running.pop(key), 1.0)
    assert "old" in order
    assert AGEING_SECONDS * 0.9 <= order.index("old") <= AGEING_SECONDS * 1.1


# --- names and ranks -----------------------------------------------------------------------


def test_policies_have_names() -> None:
    for name in ("predictive", "priority", "load_balance"):
        assert get_policy(name).name == name
    with pytest.raises(InvalidArgumentError, match="load_balance, predictive, priority"):
        get_policy("heft")
    with pytest.raises(InvalidArgumentError, match="needs a name and place"):
        get_policy(object())  # type: ignore[arg-type]


def test_upward_ranks_of_the_example_in_the_paper() -> None:
    """Figure 2 and table of Topcuoglu, Hariri, Wu (2002): ranks of ten tasks."""
    mean = dict(
        enumerate((13, 50 / 3, 43 / 3, 38 / 3, 12, 38 / 3, 11, 10, 50 / 3, 44 / 3), start=1)
    )
    edges = {
        (1, 2): 18, (1, 3): 12, (1, 4): 9, (1, 5): 11, (1, 6): 14, (2, 8): 19, (2, 9): 16,
        (3, 7): 23, (4, 8): 27, (4, 9): 23, (5, 9): 13, (6, 8): 15, (7, 10): 17, (8, 10): 11,
        (9, 10): 13,
    }  # fmt: skip
    # Our values have one size each, so every edge gets a bundle of its own that takes its time.
    bundles: list[Bundle] = []
    seconds: dict[str, float] = {}
    for task, own in mean.items():
        into = tuple(f"{a}-{b}" for a, b in edges if b == task)
        bundles.append(bundle(str(task), *into))
        seconds[str(task)] = own
        for (a, b), time in edges.items():
            if a == task:
                bundles.append(bundle(f"{a}-{b}", str(task)))
                seconds[f"{a}-{b}"] = time
    ranks = upward_ranks(bundles, lambda one: seconds[one.key], lambda _: 0.0)
    found = {one.key: rank for one, rank in zip(bundles, ranks, strict=True)}
    paper = (108, 77, 80, 80, 69.333, 63.333, 42.667, 35.667, 44.333, 14.667)
    for task, expected in enumerate(paper, start=1):
        assert found[str(task)] == pytest.approx(expected, abs=0.01)


class _Plain:
    """A policy that offers nothing but placements."""

    name = "plain"

    def place(self, ready: Any, cluster: Any, model: Any) -> list[Placement]:
        return []


class _Eager(_Plain):
    plans_ahead = True
    looks_ahead = False

    def order(self, priority: int, rank_seconds: float, submitted_seconds: float) -> float:
        return submitted_seconds


def test_the_optional_parts_of_a_policy_are_found_where_they_are() -> None:
    plain, eager, ours = map(Offers.of, (_Plain(), _Eager(), get_policy("predictive")))
    assert (plain.plans_ahead, plain.looks_ahead) == (False, False)
    assert (eager.plans_ahead, eager.looks_ahead) == (True, False)
    assert (ours.plans_ahead, ours.looks_ahead) == (True, True)
    assert eager.order(5, 1.0, 7.0) == 7.0
    # Without an order of its own: classes of priority first, then the highest rank.
    places = [(1, 0.0), (0, 9.0), (0, 1.0)]
    assert sorted(places, key=lambda one: plain.order(*one, 0.0)) == places
