"""Direct lines to executors: what takes them, what comes back, and what happens when they break."""

from __future__ import annotations

import operator
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import ray

import agentic_ray as ar
from agentic_ray.errors import JobCancelledError
from agentic_ray.graph.task import Bundle, Codelet, CostHint, Ref, Task
from agentic_ray.runtime import lines
from agentic_ray.runtime.execute import Payload
from agentic_ray.runtime.lines import Line, LineBrokenError, LineEnd, Lines
from agentic_ray.runtime.outcomes import Finished, Inline, Output, Report

_REPORT = Report("node", 1, 0.0, (), Finished())


def _payload(*inputs: str, held: tuple[str, ...] = (), steps: bytes = b"") -> Payload:
    return Payload(steps, {"c": b"code"}, inputs, {}, ("s",), held=held)


def _bundle(written_bytes: int = 8) -> Bundle:
    cost = CostHint(written_bytes=written_bytes)
    task = Task.of(Codelet("sum", np.sum), Ref("@a"), key="s", cost=cost)
    return Bundle("s", (task,), (), ("s",))


@pytest.fixture
def end_of() -> Any:
    """Makes a line to a ``run`` of the test's."""
    made: list[Line] = []

    def make(run: Callable[[str, Payload], tuple[Any, ...]], threads: int = 2) -> Line:
        path = LineEnd(run, threads).open()
        assert path is not None
        made.append(Line(path))
        return made[-1]

    yield make
    for line in made:
        line.close()


def _sent(line: Line, token: str, payload: Payload) -> tuple[Any, list[Any]]:
    found = line.send(token, payload)
    assert found is not None
    return found


# --- one line --------------------------------------------------------------------------------


def test_a_call_goes_there_and_its_report_comes_back(end_of: Any) -> None:
    seen: list[Any] = []

    def run(token: str, payload: Payload) -> tuple[Any, ...]:
        seen.append((token, payload))
        return replace(_REPORT, seconds=1.5), None

    payload = _payload("@a", held=("@a",))
    future, refs = _sent(end_of(run), "7.1", payload)
    assert future.result(10).seconds == 1.5
    assert refs == [None, None]
    assert seen == [("7.1", payload)]


def test_calls_run_side_by_side_and_answers_find_their_own(end_of: Any) -> None:
    together = threading.Barrier(3, timeout=30)

    def run(token: str, payload: Payload) -> tuple[Any, ...]:
        together.wait()
        return (replace(_REPORT, node_id=token),)

    line = end_of(run, threads=3)
    futures = {token: _sent(line, token, _payload())[0] for token in ("1.0", "2.0", "3.0")}
    assert {token: f.result(30).node_id for token, f in futures.items()} == {t: t for t in futures}


def test_what_the_executor_raises_is_raised_here(end_of: Any) -> None:
    def run(token: str, payload: Payload) -> tuple[Any, ...]:
        raise LookupError(token)

    line = end_of(run)
    for token in ("1.0", "2.0"):
        with pytest.raises(LookupError, match=token):
            _sent(line, token, _payload())[0].result(10)


class _Unfit:
    """Can be pickled, but not unpickled."""

    def __reduce__(self) -> Any:
        return _refuse, ()


def _refuse() -> None:
    raise ZeroDivisionError("not here")


def test_a_value_that_cannot_be_unpickled_spoils_one_answer_only(end_of: Any) -> None:
    def run(token: str, payload: Payload) -> tuple[Any, ...]:
        return (_REPORT, _Unfit()) if token == "1.0" else (_REPORT,)

    line = end_of(run)
    with pytest.raises(ZeroDivisionError):
        _sent(line, "1.0", _payload())[0].result(10)
    assert _sent(line, "2.0", _payload())[0].result(10) == _REPORT


def test_a_value_that_is_large_after_all_ends_in_the_object_store(
    end_of: Any, ray_session: ar.Session
) -> None:
    values = np.random.default_rng(0).random(500_000)

    def run(token: str, payload: Payload) -> tuple[Any, ...]:
        return _REPORT, None, values  # 4 MB, in many packets

    future, refs = _sent(end_of(run), "1.0", _payload())
    assert future.result(30) == _REPORT
    assert refs[:2] == [None, None]
    assert np.array_equal(ray.get(refs[2]), values)


def test_nobody_else_may_look_at_a_line_and_nothing_is_left_of_it(end_of: Any) -> None:
    path = Path(LineEnd(lambda *_: (_REPORT,), 1).open() or "")
    assert path.parent.stat().st_mode & 0o777 == 0o700
    line = Line(str(path))
    deadline = time.monotonic() + 10
    while path.parent.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not path.parent.exists()
    with pytest.raises(FileNotFoundError):
        Line(str(path))
    line.close()


def test_a_line_that_nobody_takes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_ACCEPT_SECONDS", 0.1)
    path = Path(LineEnd(lambda *_: (_REPORT,), 1).open() or "")
    assert path.exists()
    deadline = time.monotonic() + 10
    while path.parent.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not path.parent.exists()


def test_without_such_sockets_there_is_no_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    deep = tmp_path / ("d" * 120)  # no address of a socket is that long
    deep.mkdir()
    monkeypatch.setattr(lines.tempfile, "tempdir", str(deep))
    assert LineEnd(lambda *_: (_REPORT,), 1).open() is None
    assert list(deep.iterdir()) == []
    monkeypatch.delattr(socket, "SOCK_SEQPACKET")
    assert LineEnd(lambda *_: (_REPORT,), 1).open() is None


def test_when_the_other_end_goes_waiting_calls_are_told(end_of: Any) -> None:
    free = threading.Event()

    def run(token: str, payload: Payload) -> tuple[Any, ...]:
        free.wait(30)
        return (_REPORT,)

    line = end_of(run)
    futures = [_sent(line, f"{i}.0", _payload())[0] for i in range(3)]
    line.close()
    for future in futures:
        with pytest.raises(LineBrokenError):
            future.result(10)
    free.set()
    assert line.broken
    assert line.send("9.0", _payload()) is None


def test_a_process_that_does_not_read_never_blocks_the_caller() -> None:
    """Nor does a call that is too long for one packet."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind("")  # Linux makes up a name
    listener.listen(1)
    line = Line(listener.getsockname())
    assert line.send("0.0", _payload(steps=bytes(lines.CALL_BYTES))) is None
    sent = 0
    while line.send(f"{sent}.0", _payload(steps=bytes(lines.CALL_BYTES // 4))) is not None:
        sent += 1
        assert sent < 1000
    assert sent
    assert len(line._waiting) == sent
    line.close()
    listener.close()


# --- which calls take it ---------------------------------------------------------------------


class _Opening:
    """An executor of which the test decides when its line is open."""

    def __init__(self, path: str | None) -> None:
        self.path = path
        self.asked = 0
        self.open_line = self

    def remote(self) -> Any:
        self.asked += 1
        return self

    def future(self) -> Any:
        return self

    def add_done_callback(self, done: Callable[[Any], None]) -> None:
        done(self)

    def exception(self) -> None:
        return None

    def result(self) -> str | None:
        return self.path


def _known(path: str | None) -> tuple[Lines, _Opening]:
    """Lines, and an executor whose line has been opened."""
    later: list[Callable[[], None]] = []
    known, executor = Lines(later.append), _Opening(path)
    assert known.send(executor, "0.0", _payload(), _bundle()) is None, "it is opened meanwhile"
    (connect,) = later
    connect()
    return known, executor


def test_only_calls_without_the_object_store_take_the_line() -> None:
    known, executor = _known(LineEnd(lambda *_: (_REPORT, None), 2).open())

    def takes(payload: Payload, bundle: Bundle | None = None) -> bool:
        found = known.send(executor, "1.0", payload, bundle or _bundle())
        return found is not None and found[0].result(10) == _REPORT

    assert takes(_payload())
    assert takes(_payload("@a", held=("@a",)))
    assert not takes(_payload("@a", "@b", held=("@a",))), "one is handed over"
    assert not takes(replace(_payload(), codelets={"c": "an ObjectRef"}))
    assert not takes(_payload(), _bundle(written_bytes=100_000))
    assert executor.asked == 1
    known.close()


def test_what_a_codelet_writes_is_learnt_where_nobody_said() -> None:
    known, executor = _known(LineEnd(lambda *_: (_REPORT, None), 2).open())
    unknown = _bundle(written_bytes=0)

    def takes() -> bool:
        return known.send(executor, "1.0", _payload(), unknown) is not None

    small = replace(_REPORT, outcome=Finished((Output("s", 8, Inline(b"")),)))
    large = replace(_REPORT, outcome=Finished((Output("s", 10**6, None),)))
    assert not takes()
    known.learn(_payload(), small)
    assert takes()
    known.learn(_payload(), large)
    assert not takes()
    known.close()


@pytest.mark.parametrize("path", [None, "/nowhere/line"])
def test_where_there_is_no_line_it_is_not_asked_for_all_the_time(path: str | None) -> None:
    known, executor = _known(path)
    for _ in range(10):
        assert known.send(executor, "1.0", _payload(), _bundle()) is None
    assert executor.asked == 1


# --- on Ray ----------------------------------------------------------------------------------


@ar.codelet
def squares(block: Any, *, xp: Any) -> Any:
    return xp.sum(block * block)


@ar.codelet
def slow_sum(block: Any) -> float:
    time.sleep(0.3)
    return float(block.sum())


def _until_on_line(session: ar.Session) -> None:
    deadline = time.monotonic() + 30
    while not any(call.on_line for call in list(session._loop.calls.values())):
        assert time.monotonic() < deadline, "the job did not take the line"
        time.sleep(0.001)


def _in_thread(work: Callable[[], Any]) -> Future[Any]:
    found: Future[Any] = Future()

    def run() -> None:
        try:
            found.set_result(work())
        except Exception as error:
            found.set_exception(error)

    threading.Thread(target=run).start()
    return found


def _line(session: ar.Session) -> tuple[Any, Line]:
    """The session's executor and the line to it, once there is one."""
    known = session._loop.sender.lines._lines
    deadline = time.monotonic() + 30
    while not any(not line.broken for line in list(known.values())):
        assert time.monotonic() < deadline, "no line was opened"
        ar.map_reduce(squares, np.arange(100.0), operator.add, chunk_size=50)
    return next((e, line) for e, line in list(known.items()) if not line.broken)


def test_small_jobs_take_the_line_and_give_the_same_bits(
    ray_session: ar.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = np.random.default_rng(1).random(1000)
    with monkeypatch.context() as without:
        without.setattr(Lines, "send", lambda *_: None)
        expected = ar.map_reduce(squares, data, operator.add, chunk_size=100)
    _, line = _line(ray_session)
    sent: list[str] = []
    send = Line.send

    def watched(self: Line, token: str, payload: Payload) -> Any:
        sent.append(token)
        return send(self, token, payload)

    monkeypatch.setattr(Line, "send", watched)
    assert ar.map_reduce(squares, data, operator.add, chunk_size=100) == expected
    assert sent
    assert not line.broken


def test_an_executor_killed_in_a_call_on_the_line_is_started_again_by_ray(
    ray_session: ar.Session,
) -> None:
    executor, line = _line(ray_session)
    data = np.arange(8.0)
    # what it writes is learnt
    assert ar.map_reduce(slow_sum, data, operator.add, chunk_size=2) == 28
    job = ar.map_reduce_job(slow_sum, data, operator.add, chunk_size=2)
    result = _in_thread(job.result)
    _until_on_line(ray_session)
    pid = ray.get(executor.pid.remote())
    os.kill(pid, signal.SIGKILL)
    assert result.result(60) == 28
    assert line.broken
    assert any(event.kind == "recovered" for event in job.events())
    assert job.metrics.failed > 0
    assert not psutil.pid_exists(pid)
    _line(ray_session)  # a new one


def test_a_job_on_the_line_is_cancelled(ray_session: ar.Session) -> None:
    _line(ray_session)
    ar.map_reduce(slow_sum, np.arange(4.0), operator.add, chunk_size=2)
    job = ar.map_reduce_job(slow_sum, np.arange(400.0), operator.add, chunk_size=1)
    result = _in_thread(job.result)
    _until_on_line(ray_session)
    job.cancel()
    with pytest.raises(JobCancelledError):
        result.result(30)
    deadline = time.monotonic() + 30
    while ray_session._loop.calls:
        assert time.monotonic() < deadline, "calls went on"
        time.sleep(0.05)
