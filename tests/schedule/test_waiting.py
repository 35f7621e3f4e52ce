"""Memory that others hold, and a cluster without nodes: what waits, how long, and what it says."""

from __future__ import annotations

from typing import Any

import pytest
from test_dispatcher import ADD, Bench, bundle_of, node_state, only, pick, started

from agentic_ray.errors import NoNodeError, OutOfHostMemoryError, PoisonTaskError
from agentic_ray.graph import Codelet
from agentic_ray.schedule import Dispatcher, LoadBalance, RetryRules
from agentic_ray.schedule import events as ev
from agentic_ray.schedule.scarcity import (
    FIRST_TRY_SECONDS,
    LAST_TRY_SECONDS,
    STALE_SECONDS,
    Scarcity,
    is_held_by_others,
    who_holds,
)
from agentic_ray.telemetry.state import ClusterState, NodeState

GIB = 2**30
BROWSER = ev.Holder("browser --tabs=900", 4711, 20 * GIB)


def use(own: int = 0, others: int = 20, free: int = 1, total: int = 24) -> ev.MemoryUse:
    """Who holds a node's memory, in GiB."""
    return ev.MemoryUse(total * GIB, free * GIB, own * GIB, others * GIB, (BROWSER,))


class WaitingBench(Bench):
    """A bench with waits of 100 s for memory and 50 s for a node."""

    def __init__(self, *, nodes: tuple[str, ...] = ("n1",), **rules: float) -> None:
        super().__init__(nodes=())
        waits = {"memory_wait_seconds": 100.0, "no_node_seconds": 50.0, **rules}
        retry = RetryRules(base_seconds=1.0, max_failures=1, **waits)  # type: ignore[arg-type]
        self.dispatcher = Dispatcher(LoadBalance(), retry=retry)
        for node in nodes:
            self.node_up(node)

    def kill(self, start: ev.Start, held: ev.MemoryUse | None, cause: Any = "pressure") -> Any:
        error = MemoryError("killed by Ray")
        ids = (start.bundle_id, start.attempt)
        return self.send(ev.BundleFailed, *ids, cause, error, held)

    def report(self, free: int, node: str = "n1") -> list[ev.Command]:
        """Telemetry with so many GiB free."""
        state = NodeState(node, node, 4.0, 4.0, 24 * GIB, free * GIB)
        return self.send(ev.Telemetry, ClusterState((state,), 0.0))

    def until(self, kind: type, seconds: float = 1000.0) -> list[Any]:
        """Let time pass until a command of this kind comes; the commands of that kind."""
        end = self.now + seconds
        while self.now < end:
            wakeup = self.dispatcher.next_wakeup_seconds
            assert wakeup is not None, "nothing would ever happen"
            self.now = max(self.now, wakeup)
            found = pick(self.send(ev.Tick), kind)
            if found:
                return found
        raise AssertionError(f"no {kind.__name__} in {seconds} s")


@pytest.mark.parametrize(
    ("held", "theirs"),
    [
        (use(own=2, others=20), True),
        (use(own=12, others=10), False),
        (use(own=20, others=3), False),
        (use(own=0, others=20), True),  # own not known: what others do not hold
        (use(own=0, others=8), False),
    ],
)
def test_who_is_to_blame(held: ev.MemoryUse, theirs: bool) -> None:
    assert is_held_by_others(held) is theirs


def test_it_is_said_who_holds_it() -> None:
    text = who_holds(use())
    assert "browser --tabs=900 (process 4711) 20.0 GiB" in text
    assert "20.0 GiB of 24.0 GiB" in text


def test_a_bundle_waits_while_others_hold_the_memory_and_costs_nothing() -> None:
    bench = WaitingBench()
    start = only(bench.submit(bundle_of("a")), ev.Start)
    for attempt in range(4):  # more often than the budget of failures allows
        assert pick(bench.kill(start, use(own=1)), ev.FailGraph) == []
        assert "browser" in (bench.dispatcher.obstacle or "")
        killed_at = bench.now
        assert started(bench.report(free=1)) == [], "nothing has come free"
        if attempt < 3:
            start = bench.until(ev.Start)[0]
            assert bench.now >= killed_at + FIRST_TRY_SECONDS - 1e-9
    bench.now += STALE_SECONDS
    again = only(bench.report(free=20), ev.Start)
    assert bench.finish(again) == [ev.FinishGraph("g")]
    assert bench.dispatcher.obstacle is None
    assert bench.dispatcher.idle


def test_a_report_of_before_the_kill_frees_nothing() -> None:
    bench = WaitingBench()
    start = only(bench.submit(bundle_of("a")), ev.Start)
    bench.kill(start, use(own=1))
    assert started(bench.report(free=20)) == []
    bench.now += STALE_SECONDS
    assert started(bench.report(free=20)) == ["a"]


def test_the_pauses_grow_up_to_a_limit_and_begin_anew_after_success() -> None:
    scarcity = Scarcity()
    pauses = []
    for number in range(8):
        scarcity.killed("n", use(), now=1000.0 * number)
        assert scarcity.until_seconds is not None
        pauses.append(scarcity.until_seconds - 1000.0 * number)
    assert pauses == [5.0, 10.0, 20.0, 40.0, *[LAST_TRY_SECONDS] * 4]
    scarcity.went_well("n")
    scarcity.killed("n", use(), now=0.0)
    assert scarcity.until_seconds == FIRST_TRY_SECONDS


def test_nothing_else_is_sent_there_and_other_nodes_are_used() -> None:
    bench = WaitingBench()
    start = only(bench.submit(bundle_of("a")), ev.Start)
    bench.kill(start, use(own=1))
    assert started(bench.submit(bundle_of("b"), graph="h")) == []
    commands = bench.node_up("n2")
    assert [s.placement.node_id for s in pick(commands, ev.Start)] == ["n2"]
    commands += bench.until(ev.Start) if "a" not in started(commands) else []
    assert {s.placement.node_id for s in pick(commands, ev.Start)} == {"n2"}
    assert set(started(commands)) == {"a", "b"}


def test_after_the_wait_the_error_names_who_holds_it() -> None:
    bench = WaitingBench()
    start = only(bench.submit(bundle_of("a")), ev.Start)
    failed: list[ev.FailGraph] = []
    while not failed:
        failed = pick(bench.kill(start, use(own=1)), ev.FailGraph)
        while not failed:
            wakeup = bench.dispatcher.next_wakeup_seconds
            assert wakeup is not None
            bench.now = max(bench.now, wakeup)
            commands = bench.send(ev.Tick)
            failed = pick(commands, ev.FailGraph)
            if pick(commands, ev.Start):
                start = only(commands, ev.Start)
                break
        assert bench.now < 200, "it waits for ever"
    error = failed[0].error
    assert isinstance(error, OutOfHostMemoryError)
    assert not isinstance(error, PoisonTaskError)
    assert all(word in str(error) for word in ("browser", "4711", "memory_wait_seconds", "add"))
    assert bench.now >= 100


def test_one_that_takes_the_memory_itself_is_told_so_at_once() -> None:
    bench = WaitingBench()
    start = only(bench.submit(bundle_of("a")), ev.Start)
    assert bench.kill(start, use(own=20, others=2)) == []
    start = bench.until(ev.Start)[0]
    failed = only(bench.kill(start, use(own=20, others=2)), ev.FailGraph)
    assert "more memory than a node has" in str(failed.error)
    assert bench.now < 10


@pytest.mark.parametrize("opaque", [False, True])
def test_the_kernels_killer_does_not_make_it_poison(opaque: bool) -> None:
    """A death by SIGKILL on a node whose memory others hold is no fault of the bundle."""
    bench = WaitingBench()
    codelet = Codelet("mine", ADD.cpu, opaque=True) if opaque else ADD
    start = only(bench.submit(bundle_of("a", codelet=codelet)), ev.Start)
    for _ in range(4):
        assert pick(bench.kill(start, use(own=0), "crash"), ev.FailGraph) == []
        start = bench.until(ev.Start)[0]
        assert start.process != "watched"
    assert bench.finish(start) == [ev.FinishGraph("g")]


def test_work_waits_for_a_node_and_not_for_ever() -> None:
    bench = WaitingBench(nodes=())
    assert bench.submit(bundle_of("a")) == []
    assert "no node" in (bench.dispatcher.obstacle or "")
    bench.now = 40.0
    assert pick(bench.send(ev.Tick), ev.FailGraph) == []
    failed = bench.until(ev.FailGraph)
    assert bench.now == 50.0
    assert isinstance(failed[0].error, NoNodeError)
    assert "no_node_seconds" in str(failed[0].error)
    assert bench.dispatcher.obstacle is None
    bench.now = 1000.0  # the next has a wait of its own
    assert bench.submit(bundle_of("b"), graph="h") == []
    assert started(bench.node_up("n1")) == ["b"]
    assert bench.dispatcher.obstacle is None


def test_the_wait_begins_when_the_last_node_goes_and_ends_when_one_comes() -> None:
    bench = WaitingBench()
    start = only(bench.submit(bundle_of("a")), ev.Start)
    bench.now = 30.0
    bench.send(ev.NodeLost, "n1", "unplugged")
    bench.now = 70.0
    assert pick(bench.send(ev.Tick), ev.FailGraph) == []
    commands = bench.node_up("n2")
    again = only(commands or bench.until(ev.Start), ev.Start)
    assert (again.bundle_id, again.placement.node_id) == (start.bundle_id, "n2")
    bench.now += 100.0
    assert pick(bench.send(ev.Tick), ev.FailGraph) == []
    bench.send(ev.NodeLost, "n2", "unplugged")
    assert isinstance(bench.until(ev.FailGraph)[0].error, NoNodeError)


def test_an_idle_cluster_without_nodes_waits_for_nothing() -> None:
    bench = WaitingBench()
    start = only(bench.submit(bundle_of("a")), ev.Start)
    bench.finish(start)
    bench.send(ev.NodeLost, "n1", "unplugged")
    lost = bench.dispatcher.obstacle
    bench.send(ev.GraphReleased, "g")
    assert bench.dispatcher.obstacle is None, lost
    assert node_state("n1").alive


def test_a_cancelled_graph_does_not_wait() -> None:
    bench = WaitingBench()
    start = only(bench.submit(bundle_of("a")), ev.Start)
    bench.kill(start, use(own=1))
    bench.send(ev.CancelRequested, "g")
    bench.send(ev.GraphReleased, "g")
    bench.now += 1.0
    bench.send(ev.Tick)
    assert bench.dispatcher.obstacle is None
    assert bench.dispatcher.idle
