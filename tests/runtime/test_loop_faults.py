"""A fault in dealing with one graph fails that graph; the loop and all others go on."""

from __future__ import annotations

import operator
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

import agentic_ray as ar
from agentic_ray.errors import ExecutorLostError, InternalError, SessionError
from agentic_ray.graph.task import Ref
from agentic_ray.runtime import Run, Stored
from agentic_ray.schedule.events import BundleFinished, Command, Event, GraphSubmitted
from agentic_ray.schedule.replaying import Replay

WAIT_SECONDS = 90


def graph_of(codelet: ar.Codelet, *args: Any) -> ar.TaskGraph:
    return ar.TaskGraph([ar.Task.of(codelet, *args, key="out")], ["out"])


def slow_graph(seconds: float = 1.0) -> ar.TaskGraph:
    return graph_of(ar.Codelet("slow", lambda s: time.sleep(s) or 7), seconds)


def begun_graph(session: ar.Session, seconds: float, mark: Path) -> Run:
    """A run of a task that takes so long, and has begun. (Tests before may have left calls that
    run to their end.)"""

    def begin(seconds: float) -> int:
        mark.touch()
        time.sleep(seconds)
        return 7

    run = session.submit(graph_of(ar.Codelet("slow", begin), seconds))
    deadline = time.monotonic() + WAIT_SECONDS
    while not mark.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return run


@pytest.fixture(autouse=True)
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder in which sessions write their last events after an internal error."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches" / "agentic_ray" / "faults"


def works(session: ar.Session) -> None:
    """New work gets an answer, more than once."""
    for _ in range(2):
        run = session.submit(slow_graph(0.0))
        assert run.result(timeout=WAIT_SECONDS) == [7]
    assert ar.map_reduce(abs, range(-5, 0), operator.add) == 15


def boom(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError("injected")


def internal(run: Any) -> InternalError:
    """The error of a run that failed by a fault of ours."""
    with pytest.raises(InternalError, match="injected") as raised:
        run.result(timeout=WAIT_SECONDS)
    assert isinstance(raised.value, SessionError)
    assert isinstance(raised.value.__cause__, ZeroDivisionError)
    assert raised.value.__cause__.__traceback__ is not None
    return raised.value


def test_sending_one_graph_raises(ray_session: ar.Session, monkeypatch: Any) -> None:
    sender = ray_session._loop.sender
    send = sender.send

    def only_the_bad(command: Any, *rest: Any, **options: Any) -> Any:
        if any(task.codelet.name == "bad" for task in command.bundle.tasks):
            boom()
        return send(command, *rest, **options)

    monkeypatch.setattr(sender, "send", only_the_bad)
    beside = ray_session.submit(slow_graph())
    internal(ray_session.submit(graph_of(ar.Codelet("bad", lambda: 1))))
    assert beside.result(timeout=WAIT_SECONDS) == [7]
    works(ray_session)


def test_devices_that_go_before_a_bundle_is_sent_cost_it_little(
    ray_session: ar.Session, monkeypatch: Any
) -> None:
    """It had no part in that, however often it meets one."""
    sender = ray_session._loop.sender
    send, refused = sender.send, []

    def gone_at_first(command: Any, *rest: Any, **options: Any) -> Any:
        if len(refused) < 2 * ray_session.settings.max_failures:
            refused.append(command)
            raise ExecutorLostError("the device is gone")
        return send(command, *rest, **options)

    monkeypatch.setattr(sender, "send", gone_at_first)
    assert ray_session.submit(slow_graph(0.0)).result(timeout=WAIT_SECONDS) == [7]


def test_reading_an_answer_raises(ray_session: ar.Session, monkeypatch: Any) -> None:
    loop = ray_session._loop._answering
    finished = loop._finished

    def only_the_bad(answer: Any, call: Any, *rest: Any) -> Any:
        if any(task.codelet.name == "bad" for task in call.bundle.tasks):
            boom()
        return finished(answer, call, *rest)

    monkeypatch.setattr(loop, "_finished", only_the_bad)
    beside = ray_session.submit(slow_graph())
    internal(ray_session.submit(graph_of(ar.Codelet("bad", lambda: 1))))
    assert beside.result(timeout=WAIT_SECONDS) == [7]
    works(ray_session)


def number_of(what: Any) -> int:
    """Which graph of the session a run or a command is of."""
    return int(getattr(what, "graph_id", "-0").rpartition("-")[2])


@pytest.mark.parametrize("command", ["Release", "FinishGraph", "Cancel"])
def test_carrying_out_a_command_raises(
    ray_session: ar.Session, monkeypatch: Any, command: str
) -> None:
    commands = ray_session._loop._commands
    carry_out = commands._carried_out
    armed = True

    def once(what: Any) -> Any:
        nonlocal armed
        later = command == "Cancel" or number_of(what) > number_of(beside)
        if armed and later and type(what).__name__ == command:
            armed = False
            boom()
        return carry_out(what)

    beside = ray_session.submit(slow_graph(2.0))
    monkeypatch.setattr(commands, "_carried_out", once)
    if command == "Cancel":
        bad = ray_session.submit(slow_graph(3.0))
        bad.cancel()
        assert bad.wait(WAIT_SECONDS)
        with pytest.raises(ar.errors.AgenticRayError):
            bad.result()
    else:
        one, two = ar.Codelet("one", lambda: 1), ar.Codelet("two", lambda x: x + 1)
        tasks = [ar.Task.of(one, key="a"), ar.Task.of(two, Ref("a"), key="out")]
        internal(ray_session.submit(ar.TaskGraph(tasks, ["out"]), target_seconds=0.0))
    assert not armed
    assert beside.result(timeout=WAIT_SECONDS) == [7]
    works(ray_session)


@pytest.mark.parametrize("kind", [GraphSubmitted, BundleFinished, object])
def test_the_dispatcher_itself_raises(
    ray_session: ar.Session, monkeypatch: Any, kind: type, tmp_path: Path, faults: Path
) -> None:
    """What it remembers is in doubt: all under way fails, and a new one takes over."""
    loop = ray_session._loop
    broken = loop.dispatcher
    under_way = begun_graph(ray_session, 10.0, tmp_path / "begun")
    whole = broken.handle

    def handle(event: Event) -> list[Command]:
        """Raise after the decision about an event of this kind."""
        commands = whole(event)
        return boom() if isinstance(event, kind) else commands

    monkeypatch.setattr(broken, "handle", handle)
    bad = ray_session.submit(slow_graph(0.0))
    if kind is object:  # any other event may come first: then the new one has the graph
        bad.wait(WAIT_SECONDS)
        bad.release()
    else:
        internal(bad)
    failure = internal(under_way)
    assert loop.dispatcher is not broken
    works(ray_session)
    written = sorted(faults.glob("*.jsonl"))
    assert any(str(path) in str(failure) for path in written)
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in written)
    with written[0].open(encoding="utf-8") as lines:
        steps = list(Replay(lines))
    assert steps[-1].recorded_raised == "ZeroDivisionError: injected"


def test_asking_the_dispatcher_for_its_next_wakeup_raises(
    ray_session: ar.Session, monkeypatch: Any, tmp_path: Path
) -> None:
    loop = ray_session._loop
    under_way = begun_graph(ray_session, 10.0, tmp_path / "begun")
    monkeypatch.setattr(type(loop.dispatcher), "next_wakeup_seconds", property(boom), raising=True)
    internal(under_way)
    monkeypatch.undo()
    works(ray_session)


def test_a_callback_that_raises_keeps_nobody_waiting(ray_session: ar.Session) -> None:
    heard: list[str] = []
    run = ray_session.submit(slow_graph(0.3))
    run.on_done(boom)
    run.on_done(lambda: heard.append("second"))
    run.listen(boom) if run.done else run._listeners.append(boom)
    assert run.result(timeout=WAIT_SECONDS) == [7]
    deadline = time.monotonic() + WAIT_SECONDS  # those who wait are woken before these are called
    while heard != ["second"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    works(ray_session)


def test_what_is_put_off_raises(ray_session: ar.Session) -> None:
    ray_session._loop._inbox.put(boom)
    works(ray_session)


def test_objects_of_another_cluster_are_refused_by_name(ray_session: ar.Session) -> None:
    strange = ray.ObjectRef(b"\x07" * 28)
    run = ray_session.submit(graph_of(ar.Codelet("take", lambda x: x), Stored(strange, 8)))
    with pytest.raises(SessionError, match="not of the cluster"):
        run.result(timeout=WAIT_SECONDS)
    with pytest.raises(SessionError, match="put it again"):
        ar.map_reduce(abs, [strange], operator.add)
    with pytest.raises(SessionError, match="put it again"):
        ar.map_reduce(abs, strange, operator.add)
    works(ray_session)


def test_many_threads_while_graphs_go_wrong(ray_session: ar.Session, monkeypatch: Any) -> None:
    """Each of many callers hears of its own graph."""
    sender = ray_session._loop.sender
    send = sender.send

    def sometimes(command: Any, *rest: Any, **options: Any) -> Any:
        if command.bundle.tasks[0].args and command.bundle.tasks[0].args[0] % 3 == 0:
            boom()
        return send(command, *rest, **options)

    monkeypatch.setattr(sender, "send", sometimes)
    found: dict[int, Any] = {}

    def call(number: int) -> None:
        run = ray_session.submit(graph_of(ar.Codelet("square", lambda x: x * x), number))
        try:
            found[number] = run.result(timeout=WAIT_SECONDS)
        except InternalError:
            found[number] = "internal"

    def each(function: Callable[[int], None]) -> None:
        threads = [threading.Thread(target=function, args=(n,)) for n in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_SECONDS)

    each(call)
    assert found == {n: "internal" if n % 3 == 0 else [n * n] for n in range(12)}
    monkeypatch.undo()
    works(ray_session)
