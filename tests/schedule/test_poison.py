"""Who is charged when a process dies, and how the guilty one is found, one event at a time."""

from __future__ import annotations

from test_dispatcher import EITHER, Bench, bundle_of, only, pick

from agentic_ray.errors import ExecutorLostError, PoisonTaskError
from agentic_ray.graph import Codelet
from agentic_ray.schedule import events as ev

MAX_FAILURES = 2  # of test_dispatcher.BACK_OFF


def crash(bench: Bench, start: ev.Start) -> list[ev.Command]:
    return bench.fail(start, "crash")


def crash_until_watched(bench: Bench, start: ev.Start) -> ev.Start:
    for _ in range(MAX_FAILURES + 1):
        assert start.process != "watched"
        assert crash(bench, start) == []
        while not (starts := pick(bench.tick_until_due(), ev.Start)):
            pass  # the Dispatcher also wakes to look for what is late
        start = only(starts, ev.Start)
    assert start.process == "watched"
    return start


def test_a_bundle_alone_in_its_process_is_charged_and_isolated() -> None:
    bench = Bench()
    start = only(bench.submit(bundle_of("a")), ev.Start)
    assert start.process == "shared"
    assert crash(bench, start) == []
    assert only(bench.tick_until_due(), ev.Start).process == "own"


def test_what_ran_beside_is_isolated_but_never_charged() -> None:
    """b dies with a, again and again; then b's own deaths are counted from the first on."""
    bench = Bench()
    a, b = pick(bench.submit(bundle_of("a"), bundle_of("b"), outputs=("a", "b")), ev.Start)
    assert crash(bench, a) == crash(bench, b) == []
    starts = []
    while len(starts) < 2:
        starts += pick(bench.tick_until_due(), ev.Start)
    assert {start.process for start in starts} == {"own"}
    guilty = next(start for start in starts if start.bundle.key == "a")
    innocent = next(start for start in starts if start.bundle.key == "b")
    watched = crash_until_watched(bench, guilty)
    assert bench.finish(innocent) == []
    assert bench.finish(watched) == [ev.FinishGraph("g")]


def test_the_watched_run_tells_who_and_how() -> None:
    bench = Bench()
    watched = crash_until_watched(bench, only(bench.submit(bundle_of("a")), ev.Start))
    told = PoisonTaskError("told", task="add", exit_signal="SIGKILL")
    assert bench.fail(watched, "crash", told) == [ev.FailGraph("g", told, watched.bundle)]


def test_a_watched_run_that_ends_well_saves_the_job() -> None:
    bench = Bench()
    watched = crash_until_watched(bench, only(bench.submit(bundle_of("a")), ev.Start))
    assert bench.finish(watched) == [ev.FinishGraph("g")]


def test_an_exception_under_watch_does_not_hide_the_deaths() -> None:
    """What needs Ray raises there, as it has no connection."""
    bench = Bench()
    watched = crash_until_watched(bench, only(bench.submit(bundle_of("a")), ev.Start))
    raised = RuntimeError("no Ray here")
    failed = only(bench.fail(watched, "user", raised), ev.FailGraph)
    assert isinstance(failed.error, ExecutorLostError)
    assert failed.error.__cause__ is raised


def test_a_watched_run_that_is_lost_is_repeated() -> None:
    bench = Bench()
    watched = crash_until_watched(bench, only(bench.submit(bundle_of("a")), ev.Start))
    bench.send(ev.NodeLost, "n1", "unplugged")
    bench.node_up("n2")
    again = only(bench.tick_until_due(), ev.Start)
    assert (again.process, again.attempt) == ("watched", watched.attempt + 1)


def test_opaque_bundles_have_their_own_process_from_the_first() -> None:
    bench = Bench()
    opaque = Codelet("f", lambda: None, opaque=True)
    a, b = pick(
        bench.submit(
            bundle_of("a", codelet=opaque), bundle_of("b", codelet=opaque), outputs=("a", "b")
        ),
        ev.Start,
    )
    assert a.process == b.process == "own"
    watched = crash_until_watched(bench, a)
    assert bench.finish(b) == []
    assert bench.finish(watched) == [ev.FinishGraph("g")]


def test_what_kills_gpus_is_watched_on_a_cpu() -> None:
    bench = Bench()
    bench.node_up("n1", gpus=["GPU-1"])
    start = only(bench.submit(bundle_of("a", codelet=EITHER, tag="gpu")), ev.Start)
    for _ in range(MAX_FAILURES + 1):
        assert (start.placement.device, start.process) == ("GPU-1", "shared")
        crash(bench, start)
        start = only(bench.tick_until_due(), ev.Start)
    assert (start.placement.device, start.process) == ("cpu", "watched")
