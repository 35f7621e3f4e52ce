"""The last events that every session keeps: bounded, replayed, and holding nothing of a user."""

from __future__ import annotations

import gc
import weakref

import pytest
import simulation
from test_recording import BUILT_IN

from agentic_ray.graph.task import Bundle, Codelet, CostHint, Task
from agentic_ray.schedule import events as ev
from agentic_ray.schedule.cost_model import CostModel
from agentic_ray.schedule.dispatcher import Dispatcher
from agentic_ray.schedule.noting import BundleNote, EventNote, Noter
from agentic_ray.schedule.policies import get_policy
from agentic_ray.schedule.recording import Lines
from agentic_ray.schedule.replaying import Replay, Summary
from agentic_ray.schedule.ring import Ring
from agentic_ray.telemetry.state import NodeState
from tests.support.noted import Noted


def _simulated(seed: int, most: int) -> tuple[Ring, str]:
    """The ring of a simulated run with faults, and the name of its policy."""
    run = simulation.Simulation(seed)
    ring = Ring(run.dispatcher, most)
    run.dispatcher = Noted(run.dispatcher, ring.note)  # type: ignore[assignment]
    run.run()
    return ring, run.policy.name


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_what_no_event_is_missing_of_is_replayed_with_the_same_decisions(first: int) -> None:
    steps = 0
    for seed in range(first, first + 20):
        ring, policy = _simulated(seed, 1_000_000)
        if policy not in BUILT_IN:
            continue  # it draws at random
        replay = Replay(ring.copy().lines({"seed": str(seed)}))
        assert replay.dropped == 0
        for step in replay:
            assert step.same, (seed, step)
            steps += 1
    assert steps > 200


def test_a_ring_drops_the_oldest_and_shows_the_rest() -> None:
    seed = next(seed for seed in range(100) if _simulated(seed, 1)[1] == "predictive")
    whole, _ = _simulated(seed, 1_000_000)
    ring, _ = _simulated(seed, 30)
    last = ring.copy()
    assert 0 < len(last.notes) <= 30
    assert last.dropped + len(last.notes) == len(whole.copy().notes)
    replay = Replay(last.lines({}))
    assert replay.dropped == last.dropped
    steps, summary = list(replay), Summary()
    for step in steps:
        summary.add(step)
        assert step.same
    kept = [note for note in whole.copy().notes[-len(last.notes) :] if isinstance(note, EventNote)]
    assert [len(step.recorded) for step in steps] == [len(note.commands) for note in kept]


def test_a_graph_larger_than_the_ring_is_not_kept() -> None:
    dispatcher = Dispatcher(get_policy("predictive"), CostModel())
    ring = Ring(dispatcher, 50)
    noter = Noter(dispatcher, [ring.note])
    code = Codelet("one", cpu=lambda: 1)
    tasks = [Task(str(i), code) for i in range(100)]
    bundles = tuple(Bundle(task.key, (task,), (), (task.key,)) for task in tasks)
    noter.handle(ev.GraphSubmitted(1.0, "g", bundles, ()))
    assert ring.copy().notes == ()
    noter.handle(ev.Tick(2.0))
    assert len(ring.copy().notes) == 1


class _Data:
    """Something large that a user's function sees, or that a task is given."""


def test_a_ring_keeps_no_data_and_no_function_alive() -> None:
    dispatcher = Dispatcher(get_policy("predictive"), CostModel())
    ring = Ring(dispatcher, 1000)
    noter = Noter(dispatcher, [ring.note])
    seen, given, raised = _Data(), _Data(), _Data()

    class OwnError(Exception):
        data = raised

    alive = [weakref.ref(one) for one in (seen, given, raised)]
    code = Codelet("one", cpu=lambda _, data=seen: data)
    task = Task.of(code, given, key="a")
    noter.handle(ev.NodeUp(0.0, NodeState("n", "n", 2.0, 2.0), (ev.DeviceSlots("cpu", "cpu", 2),)))
    noter.handle(ev.GraphSubmitted(1.0, "g", (Bundle("a", (task,), (), ("a",)),), ("a",)))
    noter.handle(ev.BundleFailed(2.0, 0, 0, "user", OwnError("no")))
    noter.handle(ev.GraphReleased(3.0, "g"))
    del seen, given, raised, code, task, OwnError
    gc.collect()
    assert [one() for one in alive] == [None, None, None]
    steps = list(Replay(ring.copy().lines({})))
    assert [type(step.event).__name__ for step in steps] == [
        "NodeUp", "GraphSubmitted", "BundleFailed", "GraphReleased",
    ]  # fmt: skip
    assert all(step.same for step in steps)


def test_codelets_are_told_apart_although_none_is_kept() -> None:
    """Python gives the id of an object that is gone to the next one."""
    dispatcher = Dispatcher(get_policy("predictive"), CostModel())
    ring = Ring(dispatcher, 100_000)
    noter = Noter(dispatcher, [ring.note])
    for at in range(600):
        task = Task("a", Codelet(f"code{at}", cpu=lambda: 1))
        bundle = Bundle("a", (task,), (), ("a",))
        noter.handle(ev.GraphSubmitted(1.0, f"g{at}", (bundle,), ("a",)))
        noter.handle(ev.GraphReleased(1.0, f"g{at}"))
    names = [
        step.event.bundles[0].tasks[0].codelet.name
        for step in Replay(ring.copy().lines({}))
        if isinstance(step.event, ev.GraphSubmitted)
    ]
    assert names == [f"code{at}" for at in range(600)]


def test_two_bundles_that_one_event_cut_in_halves_are_read_again() -> None:
    """A Dispatcher may cut several; each may have costs that no other part of the line names."""
    dispatcher = Dispatcher(get_policy("predictive"), CostModel())
    noted = []
    noter = Noter(dispatcher, [noted.append])
    code = Codelet("one", cpu=lambda: 1)
    cost = CostHint(flops=7.0)

    def half(key: str) -> BundleNote:
        return noter._bundle(Bundle(key, (Task(key, code, cost=cost),), (), (key,)))

    ring = Ring(dispatcher, 100)
    splits = ((half("a1"), half("a2")), (half("b1"), half("b2")))
    ring.note(EventNote(ev.Tick(1.0), (), splits))
    lines = Lines().of(ring.copy().notes[0])
    assert len(lines) == 2  # the codelet's and the event's
    (step,) = Replay(ring.copy().lines({}))
    assert step.same
