"""Last steps of reductions in the master's process: which are, which are not, what is told."""

from __future__ import annotations

import functools
import math
import operator
import os
import pickle
from typing import Any

import numpy as np
import pytest
import ray
from ray import cloudpickle

import agentic_ray as ar
from agentic_ray.array.core.program import Call
from agentic_ray.array.linalg.tall import _stacked_qr
from agentic_ray.graph.reduce import Fold
from agentic_ray.graph.task import Bundle, Codelet, Ref, Task
from agentic_ray.mapreduce import map_reduce_job
from agentic_ray.mapreduce.kernels import Optional
from agentic_ray.runtime.execute import is_plain, pack_value
from agentic_ray.runtime.here import fits_here, is_of_libraries, run_now
from agentic_ray.runtime.outcomes import Failed, Inline
from agentic_ray.runtime.values import Stored
from agentic_ray.schedule.metrics import CALLER
from agentic_ray.schedule.placement import Placement


def own(left: Any, right: Any) -> Any:
    return left + right


@pytest.mark.parametrize(
    "function",
    [
        operator.add,
        np.add,
        math.hypot,
        Optional(operator.add),
        functools.partial(np.add, dtype="f8"),
    ],
)
def test_functions_of_libraries(function: Any) -> None:
    assert is_of_libraries(function)


@pytest.mark.parametrize(
    "function",
    [
        *(own, lambda a, b: a, Optional(own), Fold(own), functools.partial(own, 1), os._exit),
        *(np.matmul, operator.matmul, np.dot, Call(_stacked_qr, ())),
        *(operator.iadd, operator.ior, Fold(operator.__imul__)),
    ],
)
def test_functions_of_others(function: Any) -> None:
    assert not is_of_libraries(function)


class _Users:
    def __add__(self, other: Any) -> Any:
        return self


def _bundle(codelet: Codelet, *more: Any) -> Bundle:
    task = Task.of(codelet, Ref("a"), Ref("b"), *more, key="c")
    return Bundle("c", (task,), ("a", "b"), ("c",))


def _inputs(size: int = 1) -> list[Any]:
    value = Inline(pickle.dumps(np.ones(size)), plain=True)
    return [value, value]


def _placement(seconds: float | None = 1e-4, device: str = "cpu") -> Placement:
    return Placement("c", "node", device, None if seconds is None else 0.0, seconds, "")


def test_only_quick_steps_of_libraries_on_small_values_fit() -> None:
    add = _bundle(Codelet("add", operator.add))
    assert fits_here(add, _placement(), _inputs())
    assert not fits_here(add, _placement(1.0), _inputs())
    assert not fits_here(add, _placement(None), _inputs())
    assert not fits_here(add, _placement(device="GPU-0"), _inputs())
    assert not fits_here(add, _placement(), _inputs(50_000)), "800 kB in all"
    assert not fits_here(add, _placement(), [*_inputs(), "an ObjectRef"])
    assert not fits_here(add, _placement(), []), "whatever it reads comes from elsewhere"
    users = Inline(cloudpickle.dumps(_Users()))
    assert not fits_here(add, _placement(), [*_inputs(), users])
    for more in (own, [own], _Users(), np.array([_Users()]), Stored(None, 0)):
        assert not fits_here(_bundle(Codelet("f", operator.add), more), _placement(), _inputs())
    for more in (1.0, "name", np.dtype("f8"), [np.ones(3), None], {"a": np.float32(1)}):
        assert fits_here(_bundle(Codelet("f", operator.add), more), _placement(), _inputs())
    assert not fits_here(_bundle(Codelet("add", own)), _placement(), _inputs())
    opaque = Codelet("add", operator.add, opaque=True)
    assert not fits_here(_bundle(opaque), _placement(), _inputs())
    effects = Codelet("add", operator.add, has_effects=True)
    assert not fits_here(_bundle(effects), _placement(), _inputs())


def test_what_is_plain_holds_no_objects_of_users() -> None:
    structured = np.zeros(2, [("a", "i4"), ("b", "O")])
    for value in (1, 1.5, 2j, True, None, np.float32(1), np.ones(3), (1, [np.zeros((2, 2))])):
        assert is_plain(value)
        assert pack_value(value)[0].plain
    round_and_round: list[Any] = []
    round_and_round.append(round_and_round)
    for value in (
        round_and_round,
        _Users(),
        np.array([None]),
        structured,
        np.ma.ones(3),
        {"a": 1},
        [_Users()],
    ):
        assert not is_plain(value)


@ar.codelet
def squares(block: Any, *, xp: Any) -> Any:
    return xp.sum(block * block)


@ar.codelet
def plus(left: Any, right: Any) -> Any:
    return left + right


def _done_by_the_master(job: Any) -> int:
    found = [p for p in job.placements() if "in the master's process" in p.reason]
    assert {p.node_id for p in found} <= {CALLER}
    return len(found)


def test_the_last_addition_is_done_by_the_master_with_the_same_bits(ray_session: Any) -> None:
    data = np.random.default_rng(3).random(2_000_000)
    values, done = set(), {operator.add: 0, plus: 0}
    for _ in range(10):  # how long it takes is to be learnt first, on a busy machine more than once
        for combine in done:
            job = map_reduce_job(squares, data, combine, chunk_size=100_000)
            values.add(job.result())
            done[combine] += _done_by_the_master(job)
    assert len(values) == 1
    assert done[operator.add]
    assert not done[plus], "the user's own function"


def test_an_error_there_is_the_users(ray_session: Any) -> None:
    @ar.codelet
    def either(block: Any) -> Any:
        return "text" if block[0] else 1

    data = np.zeros(400_000)
    data[300_000:] = 1.0
    with pytest.raises(TypeError, match="unsupported operand"):
        map_reduce_job(either, data, operator.add, chunk_size=100_000).result()


def test_a_large_value_made_here_goes_to_the_object_store(ray_session: Any) -> None:
    wide = Codelet("wide", functools.partial(np.resize, new_shape=20_000))
    bundle = Bundle("c", (Task.of(wide, Ref("a"), key="c"),), ("a",), ("c", "a"))
    future, refs = run_now(bundle, {"a": _inputs()[0]}, "node")
    large, small = future.result(timeout=0).outputs
    assert (large.size_bytes, large.inline) == (160_000, None)
    assert small.inline is not None
    assert ray.get(refs[1]).sum() == 20_000
    assert refs[2] is None


def test_what_a_step_raises_here_is_in_the_report() -> None:
    bundle = _bundle(Codelet("add", operator.add), "text")
    future, _ = run_now(bundle, dict(zip("ab", _inputs(), strict=True)), "node")
    outcome = future.result(timeout=0).outcome
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error.rebuild(), TypeError)


@pytest.mark.parametrize("again", range(3))
def test_functions_of_the_user_never_run_here_however_quick(ray_session: Any, again: int) -> None:
    @ar.codelet
    def where(block: Any, *, xp: Any) -> list[int]:
        return [os.getpid()]

    # After the first time it is known how quick it is.
    found = ar.map_reduce(where, np.arange(4.0), plus, chunk_size=1)
    assert len(found) == 4
    assert os.getpid() not in found
