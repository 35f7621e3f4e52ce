"""A recording, read again, gives the same decisions event by event, and holds nothing of a user."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import simulation

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.graph.task import Bundle, Codelet, Task
from agentic_ray.schedule import events as ev
from agentic_ray.schedule.cost_model import CostModel
from agentic_ray.schedule.dispatcher import Dispatcher
from agentic_ray.schedule.policies import LoadBalance, get_policy
from agentic_ray.schedule.recording import PLAIN, Recorder
from agentic_ray.schedule.replaying import Replay, Summary, cluster_of
from agentic_ray.schedule.simulate import simulate
from agentic_ray.telemetry.state import NodeState
from tests.support.noted import Noted

BUILT_IN = {"predictive", "load_balance", "priority"}


def recorded(dispatcher: Dispatcher, write: Callable[[str], None], about: dict[str, str]) -> Noted:
    """The Dispatcher, with a recorder that writes down its events and commands."""
    return Noted(dispatcher, Recorder(write, dispatcher, about).note)


def _recorded(seed: int) -> tuple[list[str], str]:
    """The lines of a simulated run with faults, and the name of its policy."""
    run = simulation.Simulation(seed)
    lines: list[str] = []
    run.dispatcher = recorded(  # type: ignore[assignment]
        run.dispatcher, lines.append, {"session": "test"}
    )
    run.run()
    return lines, run.policy.name


@pytest.mark.parametrize("first", range(0, 120, 20))
def test_a_replay_gives_the_same_decisions(first: int) -> None:
    steps = 0
    for seed in range(first, first + 20):
        lines, policy = _recorded(seed)
        if policy not in BUILT_IN:
            continue  # it draws at random
        for step in Replay(lines):
            assert step.same, (seed, step)
            steps += 1
    assert steps > 200


def test_another_policy_is_seen_to_decide_otherwise() -> None:
    found = 0
    for seed in range(30):
        lines, policy = _recorded(seed)
        if policy == "predictive":
            found += any(not step.same for step in Replay(lines, LoadBalance()))
    assert found


def _one_graph(write: Callable[[str], None], fail: bool = False) -> None:
    dispatcher = Dispatcher(get_policy("predictive"), CostModel())
    recorder = recorded(dispatcher, write, {"host": "here"})
    state = NodeState("n0", "n0", 2.0, 2.0)
    recorder.handle(ev.NodeUp(0.0, state, (ev.DeviceSlots("cpu", "cpu", 2),)))
    code = Codelet("secret_free", cpu=lambda data: data)
    first = Task.of(code, "password of a user", key="a")
    second = Task(key="b", codelet=code, dependencies=("a",))
    bundles = (Bundle("a", (first,), (), ("a",)), Bundle("b", (second,), ("a",), ("b",)))
    recorder.call_took(0.004)
    recorder.handle(ev.GraphSubmitted(1.0, "g", bundles, ("b",)))
    value = ev.ValueInfo("a", 100, "n0")
    recorder.handle(ev.BundleFinished(3.0, 0, 0, 2.0, (2.0,), (value,)))
    if fail:
        secret = ValueError("cannot read row 7")
        recorder.handle(ev.BundleFailed(4.0, 1, 0, "user", secret))
        return
    value = ev.ValueInfo("b", 8, None)
    recorder.handle(ev.BundleFinished(4.0, 1, 0, 1.0, (1.0,), (value,)))


def test_a_recording_holds_no_data_of_a_user() -> None:
    lines: list[str] = []
    _one_graph(lines.append, fail=True)
    text = "".join(lines)
    assert "secret_free" in text
    assert "cannot read row 7" in text
    assert "password" not in text
    assert all(step.same for step in Replay(lines))


def test_what_ran_is_summed_up_and_simulated() -> None:
    lines: list[str] = []
    _one_graph(lines.append)
    summary = Summary()
    replay = Replay(lines)
    for step in replay:
        summary.add(step)
    assert replay.about == {"host": "here"}
    assert [(span.task, span.start_seconds, span.finish_seconds) for span in summary.spans] == [
        ("a", 1.0, 3.0),
        ("b", 3.0, 4.0),
    ]
    graph = summary.graphs["g"]
    assert graph.finished_seconds == 3.0
    workload = graph.workload()
    assert workload is not None
    for policy in ("predictive", "load_balance", "round_robin"):
        assert simulate(workload, cluster_of(summary), policy).makespan_seconds == pytest.approx(3)


def test_a_line_that_was_cut_off_at_the_end_is_ignored() -> None:
    lines: list[str] = []
    _one_graph(lines.append)
    assert len(list(Replay([*lines, lines[-1][:20]]))) == len(list(Replay(lines)))
    with pytest.raises(InvalidArgumentError, match="is not JSON"):
        list(Replay([lines[0], lines[1][:20], *lines[2:]]))


@pytest.mark.parametrize(
    "line",
    ["", "[]", "{}", "null", '{"format": 999}', '{"format": 1}', '{"format": 1, "about": 3}'],
)
def test_what_is_no_recording_is_refused(line: str) -> None:
    with pytest.raises(InvalidArgumentError):
        Replay([line])


@pytest.mark.parametrize(
    "data",
    [
        {"@": "Popen", "args": "id"},
        {"@": "NodeLost", "time": 1.0},
        {"@": "NodeLost", "time": 1.0, "node_id": "a", "reason": "b", "more": 1},
        {"@": "CostModel", "__class__": "x"},
        {"@": "list"},
        {"@": ["dict"]},
        {},
    ],
)
def test_a_recording_makes_nothing_but_what_recordings_hold(data: Any) -> None:
    with pytest.raises(InvalidArgumentError):
        PLAIN.decode(data)


def test_any_change_of_a_line_is_an_error_or_a_difference_but_no_crash() -> None:
    lines: list[str] = []
    _one_graph(lines.append)
    for number in range(len(lines)):
        row = json.loads(lines[number])
        for name in row:
            for wrong in (None, "x", [], {}, -1):
                changed = [*lines[:number], json.dumps({**row, name: wrong}), *lines[number + 1 :]]
                try:
                    list(Replay(changed))
                except InvalidArgumentError:
                    continue
