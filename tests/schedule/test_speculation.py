"""Second copies of bundles that are late, one event at a time."""

from __future__ import annotations

import pytest
from test_dispatcher import Bench, bundle_of, only, pick, work

from agentic_ray.graph import Bundle, Codelet
from agentic_ray.schedule import Dispatcher, LoadBalance
from agentic_ray.schedule import events as ev
from agentic_ray.schedule.cost_model import Prediction
from agentic_ray.schedule.dispatcher import SpeculationRules

RULES = SpeculationRules(floor_seconds=2.0, factor=2.0, deviations=3.0)
EFFECTS = Codelet("pay", work, has_effects=True)


def late_bench(late: Bundle, *, nodes: int = 2) -> tuple[Bench, ev.Start]:
    """``late`` under way alone, its codelet known to take 0.1 s, ten seconds after its start."""
    bench = Bench(nodes=[f"n{i}" for i in range(1, nodes + 1)])
    for i in range(3):
        known = bundle_of(f"known{i}", codelet=late.tasks[0].codelet)
        start = only(bench.submit(known, graph=known.key), ev.Start)
        bench.finish(start, start.placement.node_id)
        bench.send(ev.GraphReleased, known.key)
    start = only(bench.submit(late), ev.Start)
    bench.now += 10.0
    return bench, start


def test_a_late_bundle_gets_one_copy_elsewhere_and_the_first_result_wins() -> None:
    bench, first = late_bench(bundle_of("a"))
    copy = only(bench.send(ev.Tick), ev.Start)
    assert copy.copy
    assert (copy.bundle_id, copy.attempt, copy.bundle) == (first.bundle_id, 1, first.bundle)
    assert copy.placement.node_id != first.placement.node_id
    assert "10 s" in copy.placement.reason
    bench.now += 60.0
    assert bench.send(ev.Tick) == [], "no third copy"
    commands = bench.finish(copy, copy.placement.node_id)
    assert commands == [ev.Cancel(first.bundle_id, 0), ev.FinishGraph("g")]
    assert not bench.dispatcher.expects(first.bundle_id, 0)
    assert bench.finish(first) == [], "what comes late changes nothing"
    assert bench.dispatcher.idle


def test_the_first_attempt_may_win_all_the_same() -> None:
    bench, first = late_bench(bundle_of("a"))
    copy = only(bench.send(ev.Tick), ev.Start)
    assert bench.finish(first) == [ev.Cancel(copy.bundle_id, 1), ev.FinishGraph("g")]
    assert bench.fail(copy, "system") == [], "the cancelled copy ends as it likes"
    assert bench.dispatcher.next_wakeup_seconds is None


def test_a_wakeup_is_asked_for_while_a_copy_could_be_made() -> None:
    bench, _ = late_bench(bundle_of("a"))
    assert bench.dispatcher.next_wakeup_seconds is not None
    alone, _ = late_bench(bundle_of("a"), nodes=1)
    assert alone.dispatcher.next_wakeup_seconds is None
    assert alone.send(ev.Tick) == []


OPAQUE = Codelet("opaque", work, opaque=True)


def test_on_one_node_only_a_process_of_its_own_is_copied_and_later() -> None:
    bench, first = late_bench(bundle_of("a", codelet=OPAQUE), nodes=1)
    assert first.process == "own"
    bench.now -= 7.0  # 3 s: late, but that may be the work itself
    assert bench.send(ev.Tick) == []
    bench.now += 7.0
    copy = only(bench.send(ev.Tick), ev.Start)
    assert copy.copy
    assert copy.placement.device == first.placement.device == "cpu"
    assert bench.finish(copy) == [ev.Cancel(first.bundle_id, 0), ev.FinishGraph("g")]
    assert bench.fail(first, "system") == []
    assert bench.dispatcher.next_wakeup_seconds is None, "nothing is under way"


def test_what_has_effects_is_never_copied() -> None:
    bench, _ = late_bench(bundle_of("a", codelet=EFFECTS))
    assert bench.send(ev.Tick) == []


def test_nothing_younger_than_the_floor_is_copied() -> None:
    bench, _ = late_bench(bundle_of("a"))
    bench.now -= 10.0 - 1.9
    assert bench.send(ev.Tick) == []


def test_what_was_never_seen_is_not_late() -> None:
    bench = Bench(nodes=("n1", "n2"))
    bench.submit(bundle_of("a"))
    bench.now += 1000.0
    assert pick(bench.send(ev.Tick), ev.Start) == []


def test_a_copy_needs_an_idle_device() -> None:
    bench, first = late_bench(bundle_of("a"))
    other = "n2" if first.placement.node_id == "n1" else "n1"
    bench.node_up(other, slots=0)
    assert bench.send(ev.Tick) == []
    bench.now += 1.0
    assert only(bench.node_up(other, slots=1), ev.Start).copy


def test_a_copy_that_fails_leaves_the_other_alone() -> None:
    bench, first = late_bench(bundle_of("a"))
    copy = only(bench.send(ev.Tick), ev.Start)
    assert bench.fail(copy, "system") == []
    assert bench.finish(first) == [ev.FinishGraph("g")]


def test_an_error_of_the_user_in_one_copy_is_final() -> None:
    bench, first = late_bench(bundle_of("a"))
    copy = only(bench.send(ev.Tick), ev.Start)
    error = ValueError("user")
    assert bench.fail(copy, "user", error) == [
        ev.Cancel(first.bundle_id, 0),
        ev.FailGraph("g", error, first.bundle),
    ]


def test_a_lost_node_leaves_the_copy_that_runs_elsewhere() -> None:
    bench, first = late_bench(bundle_of("a"))
    copy = only(bench.send(ev.Tick), ev.Start)
    lost = bench.send(ev.NodeLost, first.placement.node_id, "unplugged")
    assert pick(lost, ev.Start) == []
    assert ev.FinishGraph("g") in bench.finish(copy)


def test_a_cancelled_copy_counts_again_when_the_value_of_the_other_is_lost() -> None:
    bench, first = late_bench(bundle_of("a"))
    copy = only(bench.send(ev.Tick), ev.Start)
    bench.finish(copy, "n2")
    assert bench.send(ev.ValueLost, "g", "a") == [ev.Recompute("g", ("a",))]
    assert bench.dispatcher.expects(first.bundle_id, 0)
    assert bench.finish(first, "n1") == [ev.FinishGraph("g")]


def test_a_device_that_always_loses_is_known_to_be_slow() -> None:
    bench, first = late_bench(bundle_of("a"))
    place = (first.placement.node_id, "cpu")
    before = bench.dispatcher.model.slowness(place, "cpu")
    copy = only(bench.send(ev.Tick), ev.Start)
    bench.finish(copy, copy.placement.node_id)
    assert bench.dispatcher.model.slowness(place, "cpu") > 2 * before


def test_it_can_be_turned_off() -> None:
    dispatcher = Dispatcher(LoadBalance(), speculation=SpeculationRules(enabled=False))
    bench = Bench(nodes=())
    bench.dispatcher = dispatcher
    bench.node_up("n1")
    bench.node_up("n2")
    bench.finish(only(bench.submit(bundle_of("k"), graph="k"), ev.Start))
    bench.submit(bundle_of("a"))
    bench.now += 1000.0
    assert bench.send(ev.Tick) == []


@pytest.mark.parametrize(
    ("expected", "limit"),
    [
        (Prediction(0.1, 0.1), 2.0),  # the floor
        (Prediction(10.0, 0.0), 20.0),  # the factor
        (Prediction(10.0, 5.0), 25.0),  # the deviations
    ],
)
def test_the_limit_is_the_largest_of_three(expected: Prediction, limit: float) -> None:
    assert RULES.limit_seconds(expected) == limit


def test_a_device_known_to_be_slow_is_measured_by_the_other_one() -> None:
    there = Prediction(10.0, 0.0)
    assert RULES.copy_after_seconds(Prediction(100.0, 0.0), there) == 20.0
    assert RULES.copy_after_seconds(Prediction(29.0, 0.0), there) == 58.0, "it would be in time"
