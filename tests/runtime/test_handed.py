"""Arrays that executors keep at hand: when, how much, and what happens when they are gone."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import psutil
import pytest
import ray

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray.graph.task import Bundle, Codelet, CostHint, Ref, Task
from agentic_ray.runtime import handed
from agentic_ray.runtime.execute import Payload
from agentic_ray.runtime.failures import NotKeptError, is_of_an_input
from agentic_ray.runtime.handed import Handed, KeptArrays
from agentic_ray.runtime.outcomes import Finished, Report
from agentic_ray.runtime.values import Stored


class _Drop:
    def __init__(self) -> None:
        self.names: list[str] = []

    def remote(self, names: list[str]) -> None:
        self.names += names


class _Executor:
    def __init__(self) -> None:
        self.drop = _Drop()


def _bundle(written_bytes: int = 8) -> Bundle:
    cost = CostHint(written_bytes=written_bytes)
    task = Task.of(Codelet("sum", np.sum), Ref("@a"), key="s", cost=cost)
    return Bundle("s", (task,), (), ("s",))


def _payload(*inputs: str) -> Payload:
    return Payload(b"", {}, inputs, {}, ("s",))


def _frozen(*values: float) -> np.ndarray[Any, Any]:
    array = np.array(values)
    array.flags.writeable = False
    return array


# --- the caller's side -----------------------------------------------------------------------


def test_what_is_handed_over_twice_is_kept_and_then_only_named() -> None:
    posted: list[Callable[[], None]] = []
    known, executor, other = Handed(posted.append), _Executor(), _Executor()
    stored = {"@a": Stored(None, 0)}
    payload = _payload("@a", "x")
    assert known.arranged(payload, _bundle(), executor, stored) is payload
    again = known.arranged(payload, _bundle(), executor, stored)
    assert (again.held, again.keep) == ((), ("@a",))
    known.keeps(executor, ["@a"])
    named = known.arranged(payload, _bundle(), executor, stored)
    assert (named.held, named.keep, named.inputs) == (("@a",), (), ("@a", "x"))
    assert known.arranged(payload, _bundle(), other, stored) is payload

    del stored
    gc.collect()
    (forget,) = posted
    forget()
    assert executor.drop.names == ["@a"]
    assert other.drop.names == []


def test_what_the_caller_has_dropped_meanwhile_is_not_kept() -> None:
    posted: list[Callable[[], None]] = []
    known, executor = Handed(posted.append), _Executor()
    stored = {"@a": Stored(None, 0)}
    for _ in range(2):
        known.arranged(_payload("@a"), _bundle(), executor, stored)
    del stored
    gc.collect()
    posted[0]()
    known.keeps(executor, ["@a"])
    assert executor.drop.names == ["@a"]


def test_a_new_process_is_handed_everything() -> None:
    known, executor = Handed(lambda call: None), _Executor()
    stored = {"@a": Stored(None, 0)}
    for _ in range(2):
        known.arranged(_payload("@a"), _bundle(), executor, stored)
    known.keeps(executor, ["@a"])
    known.lost(executor)
    payload = _payload("@a")
    assert known.arranged(payload, _bundle(), executor, stored) is payload


def test_nothing_is_only_named_where_ray_may_run_the_call_again() -> None:
    known, executor = Handed(lambda call: None), _Executor()
    stored = {"@a": Stored(None, 0)}
    for _ in range(3):
        payload = _payload("@a")
        assert known.arranged(payload, _bundle(1 << 20), executor, stored) is payload


# --- the executor's --------------------------------------------------------------------------


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> KeptArrays:
    monkeypatch.setattr(handed, "_store_bytes", lambda: 4 * 48.0)  # a quarter: two arrays of 24
    return KeptArrays()


_REPORT = Report("node", 1, 0.0, (), Finished())


def test_inputs_are_in_order_wherever_they_come_from(kept: KeptArrays) -> None:
    a, b = _frozen(1, 2, 3), _frozen(4, 5, 6)
    payload = replace(_payload("@a", "x", "@b"), keep=("@a", "@b"))
    assert kept.keep(payload, [a, "x", b], _REPORT).kept == ("@a", "@b")
    found = kept.inputs("1.0", replace(payload, keep=(), held=("@a", "@b")), ["y"])
    assert found[0] is a
    assert found[1] == "y"
    assert found[2] is b
    kept.drop(["@a", "@never"])
    with pytest.raises(NotKeptError) as caught:
        kept.inputs("1.0", replace(payload, held=("@a",)), ["x", b])
    assert caught.value.args == ("1.0",)


def test_only_so_much_is_kept(kept: KeptArrays) -> None:
    names = ("@a", "@b", "@c")
    payload = replace(_payload(*names), keep=names)
    arrays = [_frozen(1, 2, 3) for _ in names]
    assert kept.keep(payload, arrays, _REPORT).kept == ("@a", "@b")
    kept.drop(["@a"])
    assert kept.keep(payload, arrays, _REPORT).kept == ("@a", "@b")


def test_what_could_be_written_to_is_not_kept(kept: KeptArrays) -> None:
    payload = replace(_payload("@a", "@b"), keep=("@a", "@b"))
    assert kept.keep(payload, [np.zeros(3), {"a": 1}], _REPORT).kept == ()


def test_a_value_that_ray_could_not_make_again_is_a_lost_input() -> None:
    error = ray.exceptions.RayTaskError("run", "", NotKeptError("1.0"))
    assert is_of_an_input(error)


# --- on Ray ----------------------------------------------------------------------------------

_CHUNKS, _LENGTH = 4, 1_500_000


def _persisted(seed: int) -> xp.Array:
    values = np.random.default_rng(seed).random(_CHUNKS * _LENGTH)
    return xp.from_numpy(values, chunks=_LENGTH).persist()


def _sums(x: xp.Array) -> list[float]:
    """From four graphs, which are handed the same chunks."""
    with xp.config(seconds_here=0):
        return [float((x * factor).sum()) for factor in (1.5, 2.0, 2.5, 3.0)]


def _executor(session: ar.Session) -> tuple[Any, Any]:
    """What the caller knows of its one executor, and the executor."""
    (pair,) = [(at, found) for found, at in session._loop.sender.handed._at.items() if at.kept]
    return pair


def _until(condition: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


def _used_bytes() -> int:
    return sum(node.store_used_bytes or 0 for node in ar.cluster().alive_nodes)


def test_chunks_are_kept_until_the_array_is_gone(ray_session: ar.Session) -> None:
    x = _persisted(0)
    expected = _sums(x)
    at, _ = _executor(ray_session)
    assert len(at.kept) == _CHUNKS
    assert expected == _sums(x)
    size = x.nbytes
    _until(lambda: _used_bytes() >= size)
    del x
    gc.collect()
    _until(lambda: not at.kept)
    _until(lambda: _used_bytes() < size)  # the executor has let go of them too


def test_an_executor_that_was_killed_is_handed_its_chunks_again(ray_session: ar.Session) -> None:
    x = _persisted(1)
    expected = _sums(x)
    at, executor = _executor(ray_session)
    assert len(at.kept) == _CHUNKS
    pid = ray.get(executor.pid.remote())
    os.kill(pid, signal.SIGKILL)
    _until(lambda: not psutil.pid_exists(pid))
    assert _sums(x) == expected
    assert len(_executor(ray_session)[0].kept) == _CHUNKS
