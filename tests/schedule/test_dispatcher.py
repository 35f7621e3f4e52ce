"""Each transition of the Dispatcher, one at a time: events by hand, commands looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from simulation import kept_by

from agentic_ray.errors import (
    ExecutorLostError,
    ImpossibleResourcesError,
    JobCancelledError,
    NoSuitableDeviceError,
    PolicyError,
)
from agentic_ray.graph import Bundle, Codelet, Ref, Resources, Task
from agentic_ray.schedule import Dispatcher, LoadBalance, Placement, Policy, RetryRules
from agentic_ray.schedule import events as ev
from agentic_ray.schedule.policies import get_policy
from agentic_ray.telemetry.state import ClusterState, NodeState

C = TypeVar("C")
BACK_OFF = RetryRules(max_failures=2, max_losses=3, base_seconds=1.0, cap_seconds=8.0)


def work(*_: Any) -> None: ...


ADD = Codelet("add", work)
GPU_ONLY = Codelet("warp", None, work)
EITHER = Codelet("both", work, work)


def bundle_of(key: str, *inputs: str, codelet: Codelet = ADD, **options: Any) -> Bundle:
    task = Task.of(codelet, *map(Ref, inputs), key=key, **options)
    return Bundle(key, (task,), inputs, (key,))


class Bench:
    """A Dispatcher with a clock, and short names for what an adapter would report."""

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        nodes: Sequence[str] = ("n1",),
        retry: RetryRules = BACK_OFF,
    ) -> None:
        self.now = 0.0
        self.dispatcher = Dispatcher(policy or LoadBalance(), retry=retry)
        for node in nodes:
            self.node_up(node)

    def send(self, kind: Callable[..., ev.Event], *fields: Any) -> list[ev.Command]:
        return self.dispatcher.handle(kind(self.now, *fields))

    def node_up(self, name: str, slots: int = 4, gpus: Sequence[str] = ()) -> list[ev.Command]:
        devices = [ev.DeviceSlots("cpu", "cpu", slots)]
        devices += [ev.DeviceSlots(gpu, "gpu", 1) for gpu in gpus]
        return self.send(ev.NodeUp, node_state(name, slots), tuple(devices))

    def submit(
        self, *bundles: Bundle, outputs: Sequence[str] | None = None, graph: str = "g", **rest: Any
    ) -> list[ev.Command]:
        wanted = (bundles[-1].key,) if outputs is None else tuple(outputs)
        return self.dispatcher.handle(
            ev.GraphSubmitted(self.now, graph, tuple(bundles), wanted, **rest)
        )

    def finish(self, start: ev.Start, node: str | None = "n1") -> list[ev.Command]:
        values = tuple(ev.ValueInfo(key, 8, node) for key in start.bundle.outputs)
        return self.send(
            ev.BundleFinished, start.bundle_id, start.attempt, 0.1, (0.1,) * len(values), values
        )

    def fail(
        self, start: ev.Start, cause: str = "system", error: BaseException | None = None
    ) -> list[ev.Command]:
        reported = error or RuntimeError(f"{cause} failure")
        return self.send(ev.BundleFailed, start.bundle_id, start.attempt, cause, reported)

    def tick_until_due(self) -> list[ev.Command]:
        wakeup = self.dispatcher.next_wakeup_seconds
        assert wakeup is not None
        self.now = wakeup
        return self.send(ev.Tick)

    def in_flight(self, node: str = "n1", device: str = "cpu") -> int:
        return self.dispatcher.view.executors[node, device].in_flight


def node_state(name: str, cpus: float = 4.0, memory_bytes: int | None = None) -> NodeState:
    return NodeState(name, name, cpus, cpus, memory_bytes)


def only(commands: list[ev.Command], kind: type[C]) -> C:
    found = pick(commands, kind)
    assert len(found) == 1, f"expected one {kind.__name__} in {commands}"
    return found[0]


def pick(commands: list[ev.Command], kind: type[C]) -> list[C]:
    return [command for command in commands if isinstance(command, kind)]


def started(commands: list[ev.Command]) -> list[str]:
    return [start.bundle.key for start in pick(commands, ev.Start)]


# --- the plain way -----------------------------------------------------------------------


def test_a_chain_runs_in_order_and_finishes() -> None:
    bench = Bench()
    first = only(bench.submit(bundle_of("a"), bundle_of("b", "a")), ev.Start)
    assert (first.bundle.key, first.attempt, first.placement.node_id) == ("a", 0, "n1")
    assert bench.send(ev.BundleStarted, first.bundle_id, 0) == []
    second = only(bench.finish(first), ev.Start)
    assert second.bundle.key == "b"
    assert bench.finish(second) == [ev.Release("g", ("a",)), ev.FinishGraph("g")]
    assert bench.dispatcher.idle


def test_an_empty_graph_is_finished_at_once() -> None:
    assert Bench().dispatcher.handle(ev.GraphSubmitted(0.0, "g", (), ())) == [ev.FinishGraph("g")]


def test_a_graph_waits_for_the_first_node() -> None:
    bench = Bench(nodes=())
    assert bench.submit(bundle_of("a")) == []
    assert not bench.dispatcher.idle
    assert started(bench.node_up("n1")) == ["a"]


def test_a_bundle_starts_only_when_all_its_inputs_are_there() -> None:
    bench = Bench()
    a, b = pick(bench.submit(bundle_of("a"), bundle_of("b"), bundle_of("c", "a", "b")), ev.Start)
    assert started(bench.finish(a)) == []
    assert started(bench.finish(b)) == ["c"]


def test_measured_seconds_are_learnt_per_task() -> None:
    bench = Bench()
    bench.finish(only(bench.submit(bundle_of("a")), ev.Start))
    predicted = bench.dispatcher.model.predict_bundle(bundle_of("z"), "cpu")
    assert predicted is not None
    assert predicted.seconds == pytest.approx(0.1)


def test_values_are_released_exactly_when_the_last_consumer_is_done() -> None:
    bench = Bench()
    a = only(
        bench.submit(
            bundle_of("a"), bundle_of("b", "a"), bundle_of("c", "a"), outputs=("b", "c", "a")
        ),
        ev.Start,
    )
    b, c = pick(bench.finish(a), ev.Start)
    assert pick(bench.finish(b) + bench.finish(c), ev.Release) == [], "a is an output itself"

    bench = Bench()
    a = only(
        bench.submit(bundle_of("a"), bundle_of("b", "a"), bundle_of("c", "a"), outputs=("b", "c")),
        ev.Start,
    )
    b, c = pick(bench.finish(a), ev.Start)
    assert pick(bench.finish(b), ev.Release) == []
    assert only(bench.finish(c), ev.Release).keys == ("a",)


def test_a_value_that_nobody_asked_for_is_released_as_it_comes() -> None:
    bench = Bench()
    both = Bundle("b", bundle_of("a").tasks + bundle_of("b").tasks, (), ("a", "b"))
    start = only(bench.submit(both, outputs=("b",)), ev.Start)
    assert bench.finish(start) == [ev.Release("g", ("a",)), ev.FinishGraph("g")]


def test_releasing_a_graph_gives_up_its_values_and_forgets_it() -> None:
    bench = Bench()
    bench.finish(only(bench.submit(bundle_of("a")), ev.Start))
    assert bench.send(ev.GraphReleased, "g") == [ev.Release("g", ("a",))]
    assert bench.send(ev.GraphReleased, "g") == []
    assert bench.send(ev.ValueLost, "g", "a") == []


def test_releasing_a_graph_under_way_cancels_what_runs_and_drops_what_waits() -> None:
    bench = Bench()
    bench.node_up("n1", slots=1)
    starts = pick(bench.submit(*(bundle_of(f"b{i}") for i in range(9)), outputs=("b0",)), ev.Start)
    cancels = pick(bench.send(ev.GraphReleased, "g"), ev.Cancel)
    assert [c.bundle_id for c in cancels] == [s.bundle_id for s in starts]
    assert all(bench.fail(start) == [] for start in starts)
    assert bench.in_flight() == 0


def test_two_graphs_of_equal_bundles_do_not_disturb_each_other() -> None:
    bench = Bench()
    one = only(bench.submit(bundle_of("a"), bundle_of("b", "a"), graph="g1"), ev.Start)
    two = only(bench.submit(bundle_of("a"), bundle_of("b", "a"), graph="g2"), ev.Start)
    assert one.bundle_id != two.bundle_id
    after = only(bench.finish(one), ev.Start)
    assert after.graph_id == "g1"
    assert only(bench.finish(after), ev.FinishGraph).graph_id == "g1"
    assert only(bench.fail(two, "user"), ev.FailGraph).graph_id == "g2"


def test_equal_bundles_of_two_graphs_are_never_offered_together() -> None:
    bench = Bench(policy := Recording(), nodes=())
    bench.submit(bundle_of("a"), bundle_of("b"), outputs=("a", "b"), graph="g1")
    bench.submit(bundle_of("a"), bundle_of("b"), outputs=("a", "b"), graph="g2")
    assert sorted(started(bench.node_up("n1"))) == ["a", "a", "b", "b"]
    assert all(len(set(offered)) == len(offered) for offered in policy.offered)


# --- room, priorities, devices -----------------------------------------------------------


def test_no_more_is_sent_than_the_slots_and_as_many_ahead() -> None:
    bench = Bench()
    bench.node_up("n1", slots=2)
    commands = bench.submit(*(bundle_of(f"b{i}") for i in range(9)), outputs=())
    assert len(started(commands)) == 4
    assert len(started(bench.finish(pick(commands, ev.Start)[0]))) == 1


def test_opaque_bundles_are_not_sent_ahead() -> None:
    opaque = Codelet("user", work, opaque=True)
    bench = Bench()
    bench.node_up("n1", slots=2)
    commands = bench.submit(*(bundle_of(f"b{i}", codelet=opaque) for i in range(9)), outputs=())
    assert len(started(commands)) == 2


def test_a_bundle_of_several_cpus_waits_until_they_are_free() -> None:
    bench = Bench()
    small = [bundle_of("s1"), bundle_of("s2")]
    wide = bundle_of("wide", resources=Resources(cpus=3), priority=-1)
    s1, s2 = pick(bench.submit(*small, wide, outputs=()), ev.Start)
    assert {s1.bundle.key, s2.bundle.key} == {"s1", "s2"}
    assert started(bench.finish(s1)) == ["wide"]
    assert bench.in_flight() == 4


def test_the_slots_of_a_wide_bundle_are_given_back() -> None:
    bench = Bench()
    wide = [bundle_of(f"w{i}", resources=Resources(cpus=2.5)) for i in range(2)]
    first = only(bench.submit(*wide, outputs=()), ev.Start)
    assert bench.in_flight() == 3
    assert started(bench.finish(first)) == ["w1"]


def test_small_bundles_do_not_overtake_a_wide_one_for_ever() -> None:
    bench = Bench()
    running = pick(bench.submit(*(bundle_of(f"r{i}") for i in range(4)), outputs=()), ev.Start)
    wide = bundle_of("wide", resources=Resources(cpus=4), priority=1)
    small = [bundle_of(f"s{i}") for i in range(9)]
    assert started(bench.submit(wide, *small, outputs=(), graph="h")) == []
    commands = [command for start in running for command in bench.finish(start)]
    assert started(commands) == ["wide"]


def test_a_bundle_larger_than_every_executor_runs_alone() -> None:
    bench = Bench()
    bench.send(ev.Telemetry, ClusterState((node_state("n1", cpus=16),), 0.0))
    wide = bundle_of("wide", resources=Resources(cpus=9))
    start = only(bench.submit(bundle_of("a"), wide, outputs=()), ev.Start)
    assert start.bundle.key == "a"
    assert started(bench.finish(start)) == ["wide"]
    assert started(bench.submit(bundle_of("b"), outputs=(), graph="h")) == []


def test_the_memory_of_a_device_is_not_overcommitted() -> None:
    bench = Bench(nodes=())
    slots = ev.DeviceSlots("cpu", "cpu", 4, memory_bytes=100)
    bench.send(ev.NodeUp, node_state("n1"), (slots,))
    large = [bundle_of(f"b{i}", resources=Resources(memory_bytes=60)) for i in range(2)]
    first = only(bench.submit(*large, outputs=()), ev.Start)
    assert started(bench.finish(first)) == ["b1"]


def test_the_most_urgent_bundle_starts_first() -> None:
    bench = Bench(nodes=())
    bench.submit(bundle_of("low"), bundle_of("high", priority=3), outputs=(), graph="g1")
    bench.submit(bundle_of("urgent"), outputs=(), graph="g2", priority=9)
    assert started(bench.node_up("n1", slots=4)) == ["urgent", "high", "low"]


def test_fewer_slots_do_not_disturb_what_runs() -> None:
    bench = Bench()
    starts = pick(bench.submit(*(bundle_of(f"b{i}") for i in range(9)), outputs=()), ev.Start)
    assert len(starts) == 8
    assert bench.node_up("n1", slots=1) == []
    for start in starts[:6]:
        assert started(bench.finish(start)) == []
    assert started(bench.finish(starts[6])) == ["b8"]


def test_a_gpu_bundle_without_a_gpu_is_refused_at_once() -> None:
    bench = Bench()
    commands = bench.submit(bundle_of("a"), bundle_of("b", "a", codelet=GPU_ONLY, tag="gpu"))
    failed = only(commands, ev.FailGraph)
    assert isinstance(failed.error, NoSuitableDeviceError)
    assert "warp" in str(failed.error)
    assert failed.bundle is not None
    assert failed.bundle.key == "b"
    assert started(commands) == []


def test_a_gpu_tag_falls_back_to_the_cpu_version() -> None:
    start = only(Bench().submit(bundle_of("a", codelet=EITHER, tag="gpu")), ev.Start)
    assert start.placement.device == "cpu"
    assert "no usable GPU" in start.placement.reason


def test_a_task_that_no_device_can_run_is_refused_even_before_the_first_node() -> None:
    failed = only(Bench(nodes=()).submit(bundle_of("a", codelet=GPU_ONLY, tag="cpu")), ev.FailGraph)
    assert isinstance(failed.error, NoSuitableDeviceError)


def test_work_for_a_gpu_that_went_away_fails_after_some_patience() -> None:
    bench = Bench()
    bench.node_up("n1", gpus=["GPU-1"])
    start = only(bench.submit(bundle_of("a", codelet=GPU_ONLY)), ev.Start)
    commands = bench.send(ev.GpuLost, "n1", "GPU-1", "XID 79")
    assert commands == [
        ev.Cancel(start.bundle_id, 0),
        ev.Quarantine("n1", "GPU-1", "XID 79"),
    ]
    assert bench.tick_until_due() == [ev.RequestResources(0, 1)], "the retry finds no GPU"
    failed = only(bench.tick_until_due(), ev.FailGraph)
    assert isinstance(failed.error, NoSuitableDeviceError)
    assert bench.now >= BACK_OFF.patience_seconds


def test_a_gpu_is_waited_for_where_an_autoscaler_may_bring_one() -> None:
    bench = Bench(retry=replace(BACK_OFF, may_grow=True, no_node_seconds=100.0))
    assert bench.submit(bundle_of("a", codelet=GPU_ONLY)) == []
    assert bench.send(ev.Tick) == [ev.RequestResources(0, 1)]
    assert "no node has GPU; the autoscaler was asked" in str(bench.dispatcher.obstacle)
    bench.node_up("n1", gpus=["GPU-1"])
    assert bench.dispatcher.obstacle is None


def test_a_gpu_that_no_autoscaler_brings_is_an_error_in_the_end() -> None:
    bench = Bench(retry=replace(BACK_OFF, may_grow=True, no_node_seconds=100.0))
    bench.submit(bundle_of("a", codelet=GPU_ONLY))
    begun = bench.now
    bench.send(ev.Tick)
    failed = only(bench.tick_until_due(), ev.FailGraph)
    assert isinstance(failed.error, NoSuitableDeviceError)
    assert bench.now - begun >= 100


def test_what_needs_a_gpu_waits_while_others_hold_one() -> None:
    bench = Bench(nodes=())
    cpu = ev.DeviceSlots("cpu", "cpu", 1)
    gpu = ev.DeviceSlots("GPU-1", "gpu", 1)
    bench.send(ev.NodeUp, node_state("n1"), (cpu,), 1)
    assert not bench.submit(bundle_of("a", codelet=GPU_ONLY))
    bench.now += 1000.0
    assert not pick(bench.send(ev.Tick), ev.FailGraph)
    assert started(bench.send(ev.NodeUp, node_state("n1"), (cpu, gpu))) == ["a"]
    bench.send(ev.NodeUp, node_state("n1"), (cpu,))  # nobody else has it: it is gone
    refused = only(bench.submit(bundle_of("b", codelet=GPU_ONLY), graph="h"), ev.FailGraph)
    assert isinstance(refused.error, NoSuitableDeviceError)


def test_a_gpu_that_comes_back_in_time_takes_the_waiting_work() -> None:
    bench = Bench()
    bench.node_up("n1", gpus=["GPU-1"])
    bench.submit(bundle_of("a", codelet=GPU_ONLY))
    bench.send(ev.GpuLost, "n1", "GPU-1", "XID 79")
    bench.tick_until_due()
    assert started(bench.node_up("n1", gpus=["GPU-1"])) == ["a"]
    assert bench.dispatcher.next_wakeup_seconds is None


def test_too_little_memory_on_a_gpu_sends_the_bundle_to_the_cpu() -> None:
    bench = Bench(nodes=())
    bench.node_up("n1", gpus=["GPU-1"])
    fill = bundle_of("fill", priority=1)
    on_cpu, on_gpu = pick(bench.submit(fill, bundle_of("a", codelet=EITHER)), ev.Start)
    assert on_gpu.placement.device == "GPU-1"
    assert bench.fail(on_gpu, "memory") == []
    bench.finish(on_cpu)
    again = only(bench.tick_until_due(), ev.Start)
    assert (again.bundle.key, again.placement.device) == ("a", "cpu")


@pytest.mark.parametrize(
    "resources", [Resources(cpus=5), Resources(memory_bytes=2_000)], ids=["cpus", "memory"]
)
def test_what_no_node_has_is_refused(resources: Resources) -> None:
    bench = Bench()
    bench.send(ev.Telemetry, ClusterState((node_state("n1", 4, 1_000),), 0.0))
    failed = only(bench.submit(bundle_of("a", resources=resources)), ev.FailGraph)
    assert isinstance(failed.error, ImpossibleResourcesError)
    assert "add" in str(failed.error)


def test_waiting_work_is_told_to_the_autoscaler_once() -> None:
    bench = Bench(nodes=())
    bench.submit(bundle_of("a"), bundle_of("b"), outputs=())
    assert bench.send(ev.Tick) == [ev.RequestResources(2, 0)]
    assert bench.send(ev.Tick) == []
    bench.node_up("n1")
    assert bench.send(ev.Tick) == [ev.RequestResources(0, 0)]


# --- failures ----------------------------------------------------------------------------


def test_a_user_error_fails_the_graph_and_cancels_the_rest() -> None:
    bench = Bench()
    a, b = pick(bench.submit(bundle_of("a"), bundle_of("b"), outputs=("a", "b")), ev.Start)
    error = ZeroDivisionError("user")
    cancel, failed = bench.fail(a, "user", error)
    assert cancel == ev.Cancel(b.bundle_id, 0)
    assert failed == ev.FailGraph("g", error, a.bundle)
    assert bench.finish(b) == [], "the cancelled one finished all the same"
    assert bench.dispatcher.idle


def test_a_system_failure_is_retried_after_the_back_off_and_not_before() -> None:
    bench = Bench()
    start = only(bench.submit(bundle_of("a")), ev.Start)
    assert bench.fail(start) == []
    due = bench.dispatcher.next_wakeup_seconds
    assert due == BACK_OFF.delay_seconds("a", 1)
    bench.now = due - 0.01
    assert bench.send(ev.Tick) == []
    again = only(bench.tick_until_due(), ev.Start)
    assert again.attempt == 1
    assert bench.finish(again) == [ev.FinishGraph("g")]


def test_the_back_off_doubles_up_to_its_cap_with_bounded_jitter() -> None:
    for failures, plain in [(1, 1.0), (2, 2.0), (4, 8.0), (5, 8.0), (5_000, 8.0)]:
        assert plain <= BACK_OFF.delay_seconds("a", failures) <= 1.5 * plain
    assert BACK_OFF.delay_seconds("a", 1) != BACK_OFF.delay_seconds("b", 1)


def test_a_spent_budget_fails_the_graph_and_names_the_codelet() -> None:
    bench = Bench()
    commands = bench.submit(bundle_of("a"))
    for _ in range(BACK_OFF.max_failures):
        assert bench.fail(only(commands, ev.Start)) == []
        commands = bench.tick_until_due()
    cause = OSError("killed by signal 9")
    failed = only(bench.fail(only(commands, ev.Start), error=cause), ev.FailGraph)
    assert isinstance(failed.error, ExecutorLostError)
    assert failed.error.__cause__ is cause
    assert "add" in str(failed.error)
    assert "signal 9" in str(failed.error)


def test_a_dead_node_that_is_not_known_to_be_is_no_fault_of_the_bundle() -> None:
    bench = Bench()
    start = only(bench.submit(bundle_of("a")), ev.Start)
    for _ in range(BACK_OFF.max_losses):
        assert pick(bench.fail(start, "node_lost"), ev.FailGraph) == []
        start = only(bench.tick_until_due(), ev.Start)
    for _ in range(BACK_OFF.max_failures):
        assert pick(bench.fail(start, "system"), ev.FailGraph) == []
        start = only(bench.tick_until_due(), ev.Start)
    assert pick(bench.finish(start), ev.FinishGraph)


def test_losses_have_a_budget_of_their_own() -> None:
    bench = Bench()
    commands = bench.submit(bundle_of("a"))
    for _ in range(BACK_OFF.max_losses):
        bench.send(ev.NodeLost, "n1", "unplugged")
        bench.node_up("n1")
        commands = bench.tick_until_due()
        assert started(commands) == ["a"]
    failed = only(bench.send(ev.NodeLost, "n1", "unplugged"), ev.FailGraph)
    assert isinstance(failed.error, ExecutorLostError)


def test_cancelling_stops_what_runs_and_nothing_new_starts() -> None:
    bench = Bench()
    a = only(bench.submit(bundle_of("a"), bundle_of("b", "a")), ev.Start)
    cancel, failed = bench.send(ev.CancelRequested, "g")
    assert cancel == ev.Cancel(a.bundle_id, 0)
    assert isinstance(failed, ev.FailGraph)
    assert isinstance(failed.error, JobCancelledError)
    assert bench.send(ev.CancelRequested, "g") == []
    assert bench.finish(a) == []
    assert bench.in_flight() == 0


def test_cancelling_a_finished_or_unknown_graph_changes_nothing() -> None:
    bench = Bench()
    bench.finish(only(bench.submit(bundle_of("a")), ev.Start))
    assert bench.send(ev.CancelRequested, "g") == []
    assert bench.send(ev.CancelRequested, "nobody") == []


def test_a_failure_that_no_output_waits_for_does_not_undo_a_finished_graph() -> None:
    bench = Bench()
    a, b = pick(bench.submit(bundle_of("a"), bundle_of("b"), outputs=("a",)), ev.Start)
    assert bench.finish(a) == [ev.FinishGraph("g")]
    assert bench.fail(b, "user") == []


def test_late_and_repeated_reports_are_ignored() -> None:
    bench = Bench()
    a = only(bench.submit(bundle_of("a"), bundle_of("b", "a")), ev.Start)
    assert bench.dispatcher.expects(a.bundle_id, a.attempt)
    b = only(bench.finish(a), ev.Start)
    assert not bench.dispatcher.expects(a.bundle_id, a.attempt)
    assert bench.finish(a) == []
    assert bench.fail(a, "user") == []
    assert bench.send(ev.BundleStarted, a.bundle_id, a.attempt) == []
    assert bench.in_flight() == 1
    assert pick(bench.finish(b), ev.FinishGraph)


def test_a_report_from_a_node_that_was_given_up_is_ignored() -> None:
    bench = Bench(nodes=("n1", "n2"))
    start = only(bench.submit(bundle_of("a")), ev.Start)
    bench.send(ev.NodeLost, start.placement.node_id, "silent")
    assert bench.finish(start, start.placement.node_id) == []
    again = only(bench.tick_until_due(), ev.Start)
    assert again.placement.node_id != start.placement.node_id


# --- losses ------------------------------------------------------------------------------


def test_a_node_lost_while_it_runs_a_bundle() -> None:
    bench = Bench()
    start = only(bench.submit(bundle_of("a")), ev.Start)
    assert bench.send(ev.NodeLost, "n1", "unplugged") == [ev.Cancel(start.bundle_id, 0)]
    bench.now = 100.0
    assert bench.send(ev.Tick) == [ev.RequestResources(1, 0)]
    assert started(bench.node_up("n2")) == ["a"]


def test_exactly_the_lost_values_are_made_again_released_inputs_included() -> None:
    """a -> b -> d and c -> d; b and its released input a are needed again, c is elsewhere."""
    bench = Bench(nodes=("n1", "n2"))
    graph = [bundle_of("a"), bundle_of("b", "a"), bundle_of("c"), bundle_of("d", "b", "c")]
    a, c = pick(bench.submit(*graph), ev.Start)
    bench.finish(c, "n2")
    b = only(bench.finish(a, "n1"), ev.Start)
    commands = bench.finish(b, "n1")
    assert only(commands, ev.Release).keys == ("a",)
    d = only(commands, ev.Start)

    commands = bench.send(ev.NodeLost, "n1", "unplugged")
    assert only(commands, ev.Recompute).keys == ("b",)
    again = pick(commands, ev.Start)
    assert [start.bundle.key for start in again] == ["a"]
    assert d.placement.node_id == "n1", "d ran there: it is retried when b is there again"
    b = only(bench.finish(again[0], "n2"), ev.Start)
    assert b.bundle.key == "b"
    commands = bench.finish(b, "n2")
    assert only(commands, ev.Release).keys == ("a",)
    d = only(bench.tick_until_due(), ev.Start)
    commands = bench.finish(d, "n2")
    assert set(only(commands, ev.Release).keys) == {"b", "c"}
    assert pick(commands, ev.FinishGraph)


def test_values_in_the_callers_memory_survive_every_node() -> None:
    bench = Bench(nodes=("n1", "n2"))
    a = only(bench.submit(bundle_of("a"), outputs=("a",)), ev.Start)
    bench.finish(a, None)
    assert bench.send(ev.NodeLost, "n1", "") + bench.send(ev.NodeLost, "n2", "") == []


def test_an_input_lost_under_a_running_bundle() -> None:
    bench = Bench()
    a = only(bench.submit(bundle_of("a"), bundle_of("b", "a")), ev.Start)
    b = only(bench.finish(a), ev.Start)
    recompute, again = bench.send(ev.ValueLost, "g", "a")
    assert recompute == ev.Recompute("g", ("a",))
    assert isinstance(again, ev.Start)
    assert bench.fail(b, "input_lost") == []
    assert bench.tick_until_due() == [], "it waits for its input, not only for the back-off"
    b = only(bench.finish(again), ev.Start)
    assert (b.bundle.key, b.attempt) == ("b", 1)


def test_a_lost_value_is_not_made_again_when_nobody_needs_it_any_more() -> None:
    """a -> b -> c: a and b are to be made again for c, which then finishes by itself."""
    bench = Bench()
    bench.node_up("n1", slots=1)
    graph = [bundle_of("a"), bundle_of("b", "a"), bundle_of("c", "b")]
    a = only(bench.submit(*graph), ev.Start)
    b = only(bench.finish(a), ev.Start)
    c = only(bench.finish(b), ev.Start)
    urgent = only(bench.submit(bundle_of("u"), graph="h", outputs=("u",)), ev.Start)
    assert bench.send(ev.ValueLost, "g", "b") == [ev.Recompute("g", ("b",))]
    assert bench.finish(c) == [ev.FinishGraph("g")]
    assert bench.finish(urgent) == [ev.FinishGraph("h")]


def test_a_bundle_that_fails_while_nobody_needs_it_any_more_lets_go_of_its_inputs() -> None:
    """a -> b -> c: b runs again for c, which then finishes by itself; only then b fails."""
    bench = Bench()
    graph = [bundle_of("x"), bundle_of("a"), bundle_of("b", "a"), bundle_of("c", "b")]
    x, a = pick(bench.submit(*graph, outputs=("c", "x")), ev.Start)
    c = only(bench.finish(only(bench.finish(a), ev.Start)), ev.Start)
    a = only(bench.send(ev.ValueLost, "g", "b"), ev.Start)
    b = only(bench.finish(a), ev.Start)
    assert bench.finish(c) == []
    assert bench.fail(b, "user") == [ev.Release("g", ("a",))], "neither an error nor a retry"
    assert bench.dispatcher.next_wakeup_seconds is None
    assert bench.finish(x) == [ev.FinishGraph("g")]


def test_an_output_lost_after_the_graph_was_finished() -> None:
    bench = Bench()
    a = only(bench.submit(bundle_of("a"), bundle_of("b", "a")), ev.Start)
    assert pick(bench.finish(only(bench.finish(a), ev.Start)), ev.FinishGraph)
    commands = bench.send(ev.ValueLost, "g", "b")
    assert only(commands, ev.Recompute).keys == ("b",)
    assert started(commands) == ["a"], "the released input comes first"
    assert not bench.dispatcher.idle
    b = only(bench.finish(only(commands, ev.Start)), ev.Start)
    assert pick(bench.finish(b), ev.FinishGraph)


def test_losing_what_is_unknown_or_not_made_yet_changes_nothing() -> None:
    bench = Bench()
    a = only(bench.submit(bundle_of("a"), bundle_of("b", "a")), ev.Start)
    assert bench.send(ev.ValueLost, "g", "b") == []
    assert bench.send(ev.ValueLost, "g", "nothing") == []
    assert bench.send(ev.ValueLost, "nobody", "a") == []
    assert started(bench.finish(a)) == ["b"]


def test_a_device_that_a_node_no_longer_has_is_given_up() -> None:
    bench = Bench()
    bench.node_up("n1", gpus=["GPU-1"])
    start = only(bench.submit(bundle_of("a", codelet=GPU_ONLY)), ev.Start)
    assert bench.node_up("n1") == [ev.Cancel(start.bundle_id, 0)]
    assert ("n1", "GPU-1") not in bench.dispatcher.view.executors


# --- policies ----------------------------------------------------------------------------


class Recording(LoadBalance):
    """Keeps the keys it was offered."""

    def __init__(self) -> None:
        self.offered: list[list[str]] = []

    def place(self, ready: Any, cluster: Any, model: Any) -> Sequence[Placement]:
        self.offered.append([offered.key for offered in ready])
        return super().place(ready, cluster, model)


class Wrong(LoadBalance):
    """Does ``wrong`` to the placements when a bundle called "bad" is among them."""

    name = "my_policy"

    def __init__(self, wrong: Callable[[list[Placement]], Any]) -> None:
        self._wrong = wrong

    def place(self, ready: Any, cluster: Any, model: Any) -> Sequence[Placement]:
        placements = list(super().place(ready, cluster, model))
        is_bad = any(offered.key == "bad" for offered in ready)
        answer: Sequence[Placement] = self._wrong(placements) if is_bad else placements
        return answer


def raises(_: Any) -> Any:
    raise ZeroDivisionError("oops")


def placement(bundle: str, node: str, device: str = "cpu") -> Placement:
    return Placement(bundle, node, device, None, None, "")


WRONGS = {
    "raises": raises,
    "unknown node": lambda placements: [placement("bad", "nowhere")],
    "unknown device": lambda placements: [placement("bad", "n1", "GPU-9")],
    "unknown bundle": lambda placements: [*placements, placement("nobody", "n1")],
    "twice": lambda placements: [*placements, placements[0]],
    "nothing": lambda placements: [],
    "no sequence": lambda placements: None,
    "no placement": lambda placements: ["bad"],
    "wrong kind": lambda placements: [placement("bad", "n1", "GPU-1")],
}


@pytest.mark.parametrize("wrong", WRONGS.values(), ids=WRONGS.keys())
def test_a_wrong_policy_fails_its_graph_by_name_and_the_others_go_on(
    wrong: Callable[[list[Placement]], Any],
) -> None:
    bench = Bench(Wrong(wrong), nodes=())
    bench.submit(bundle_of("bad"), bundle_of("idle"), outputs=("bad",), graph="g1")
    bench.submit(bundle_of("good"), graph="g2")
    gpus = ["GPU-1"] if wrong is WRONGS["wrong kind"] else []
    commands = bench.node_up("n1", gpus=gpus)
    failed = only(commands, ev.FailGraph)
    assert failed.graph_id == "g1"
    assert isinstance(failed.error, PolicyError)
    assert "'my_policy'" in str(failed.error)
    good = [start for start in pick(commands, ev.Start) if start.graph_id == "g2"]
    assert pick(bench.finish(good[0]), ev.FinishGraph) == [ev.FinishGraph("g2")]


def test_the_error_of_a_policy_is_kept_as_the_cause() -> None:
    failed = only(Bench(Wrong(raises)).submit(bundle_of("bad")), ev.FailGraph)
    assert isinstance(failed.error.__cause__, ZeroDivisionError)


def test_a_graph_behind_an_equal_one_that_the_policy_fails_still_runs() -> None:
    """Both graphs have the bundle "a"; the second is offered after the first has failed."""
    answers = iter([raises, raises])
    policy = Wrong(lambda placements: next(answers, list)(placements))
    bench = Bench(policy, nodes=())
    bench.submit(bundle_of("bad"), graph="g1")
    bench.submit(bundle_of("bad"), graph="g2")
    answers = iter([raises])
    commands = bench.node_up("n1")
    assert only(commands, ev.FailGraph).graph_id == "g1"
    assert only(commands, ev.Start).graph_id == "g2"


def test_a_policy_may_leave_bundles_for_later_while_something_runs() -> None:
    bench = Bench(Wrong(lambda placements: []))
    running = only(bench.submit(bundle_of("a"), graph="g1"), ev.Start)
    assert bench.submit(bundle_of("bad"), graph="g2") == []
    failed = only(bench.finish(running), ev.FailGraph)
    assert failed.graph_id == "g2", "now nothing runs, and it still places nothing"


def test_a_policy_cannot_overfill_an_executor() -> None:
    class Greedy(LoadBalance):
        def place(self, ready: Any, cluster: Any, model: Any) -> Sequence[Placement]:
            return [placement(offered.key, "n1") for offered in ready]

    bench = Bench(Greedy(), nodes=("n1", "n2"))
    commands = bench.submit(*(bundle_of(f"b{i}") for i in range(30)), outputs=())
    assert len(started(commands)) == 8
    assert bench.in_flight() == 8


# --- bookkeeping -------------------------------------------------------------------------


def test_nothing_is_kept_of_graphs_that_were_released() -> None:
    bench = Bench()
    for i in range(3):
        graph = f"g{i}"
        a = only(bench.submit(bundle_of("a"), bundle_of("b", "a"), graph=graph), ev.Start)
        b = only(bench.finish(a), ev.Start)
        if i == 1:
            bench.send(ev.CancelRequested, graph)
        bench.send(ev.GraphReleased, graph)
        bench.fail(b)
    assert not kept_by(bench.dispatcher)
    assert bench.dispatcher.idle
    assert not bench.dispatcher.under_way


def test_a_released_graph_is_not_kept_for_its_delayed_retry() -> None:
    bench = Bench()
    bench.fail(only(bench.submit(bundle_of("a")), ev.Start))
    assert [graph.graph_id for graph in kept_by(bench.dispatcher)] == ["g"]
    bench.send(ev.GraphReleased, "g")
    assert not kept_by(bench.dispatcher)


def test_the_same_events_give_the_same_commands() -> None:
    def run() -> list[str]:
        bench = Bench(nodes=("n1", "n2", "n3"))
        commands = bench.submit(*(bundle_of(f"b{i}") for i in range(40)))
        for start in pick(commands, ev.Start):
            commands += bench.fail(start)
        commands += bench.tick_until_due()
        return list(map(repr, commands))

    assert run() == run()


# --- silence -----------------------------------------------------------------------------


def test_a_silent_node_gets_no_new_work_until_it_reports_again() -> None:
    bench = Bench(nodes=("n1", "n2"))

    def heard(**ages: float) -> list[ev.Command]:
        nodes = tuple(
            replace(node_state(name), heartbeat_age_seconds=age) for name, age in ages.items()
        )
        return bench.send(ev.Telemetry, ClusterState(nodes, 0.0))

    heard(n1=0.5, n2=60.0)
    bundles = [bundle_of(f"b{i}") for i in range(12)]
    commands = bench.submit(*bundles, outputs=[b.key for b in bundles])
    assert {start.placement.node_id for start in pick(commands, ev.Start)} == {"n1"}
    assert len(started(commands)) == 8  # four slots and as many ahead
    back = heard(n1=0.5, n2=0.1)
    assert {start.placement.node_id for start in pick(back, ev.Start)} == {"n2"}
    assert len(started(back)) == 4


@pytest.mark.parametrize("policy", ["load_balance", "predictive"])
def test_when_every_node_is_silent_work_waits(policy: str) -> None:
    bench = Bench(get_policy(policy))
    earlier = bench.submit(bundle_of("a"), bundle_of("b", "a"))
    bench.finish(only(bench.finish(only(earlier, ev.Start)), ev.Start))
    silent = replace(node_state("n1"), heartbeat_age_seconds=60.0)
    bench.send(ev.Telemetry, ClusterState((silent,), 0.0))
    urgent = bench.submit(bundle_of("c"), graph="second", priority=1)
    assert urgent == []
    spoken = replace(silent, heartbeat_age_seconds=0.0)
    assert started(bench.send(ev.Telemetry, ClusterState((spoken,), 0.0))) == ["c"]


def test_user_errors_that_are_to_be_retried_have_a_budget_of_their_own() -> None:
    flaky = Codelet("flaky", work, retry_on=(ConnectionError,))
    bench = Bench()
    start = only(bench.submit(bundle_of("a", codelet=flaky)), ev.Start)
    for _ in range(2):  # as many deaths as are survived, which cost the user nothing
        assert bench.fail(start) == []
        start = only(bench.tick_until_due(), ev.Start)
    for attempt in range(3, 6):
        assert bench.fail(start, "user", ConnectionResetError()) == []
        start = only(bench.tick_until_due(), ev.Start)
        assert start.attempt == attempt
    last = ConnectionResetError()
    assert bench.fail(start, "user", last) == [ev.FailGraph("g", last, start.bundle)]


def test_a_user_error_of_another_type_is_final_at_once() -> None:
    flaky = Codelet("flaky", work, retry_on=(ConnectionError,))
    bench = Bench()
    start = only(bench.submit(bundle_of("a", codelet=flaky)), ev.Start)
    assert pick(bench.fail(start, "user", OSError()), ev.FailGraph)
