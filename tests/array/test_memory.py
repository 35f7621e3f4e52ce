"""Work far larger than memory runs in a bounded working set."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray.array.core import evaluate, lower, memory
from agentic_ray.array.core.lower import Lowering
from agentic_ray.errors import InvalidArgumentError, PlanTooLargeError
from agentic_ray.graph import Ref, TaskGraph

GIB = 1 << 30


def _need(array: xp.Array) -> memory.PlanMemory:
    tasks, blocks = evaluate.plan([array._node])
    keys = [block.key for block in blocks[0] if isinstance(block, Ref)]
    return memory.predict(TaskGraph(tasks, keys))


def test_the_peak_of_a_plan_is_predicted() -> None:
    x = xp.ones((1 << 27,), chunks=1 << 22)  # 1 GiB in 32 chunks
    assert _need(x * 2).result_bytes == pytest.approx(GIB, rel=1e-3)
    assert _need((x * 2).sum()).live_bytes < GIB // 16
    sorted_ = _need(xp.sort(x * 2))
    assert sorted_.live_bytes >= 2 * GIB  # runs and the result
    assert sorted_.task_bytes < GIB // 4


def test_what_fits_nowhere_is_refused_with_sizes() -> None:
    need = memory.PlanMemory(50, 100, 10)
    assert memory.refusal(need, [60, 40], 0) is None
    assert memory.refusal(need, [30, 30], 20) is None
    assert memory.refusal(need, [30, None], 0) is None
    assert memory.refusal(need, [], 0) is None
    text = memory.refusal(need, [30, 30], 10)
    assert text is not None
    assert "100 bytes" in text
    assert "60 and" in text


def test_a_plan_that_cannot_fit_fails_at_once(ray_session: ar.Session) -> None:
    huge = xp.ones((10**13,), chunks=10**9) * 2
    with pytest.raises(MemoryError, match="80,000,000"):
        huge.persist()
    assert "held at a time" in huge.explain()


@pytest.mark.parametrize(
    "call",
    [
        lambda x: xp.sort(x).persist(),
        lambda x: xp.argsort(x).persist(),
        lambda x: xp.sort(x)[:10].compute(),
        lambda x: xp.median(x).compute(),
        lambda x: xp.partition(x, 5).persist(),
        lambda x: xp.lexsort((x, x)).persist(),
        lambda x: xp.isin(x, x).persist(),
        lambda x: (x + 1).persist(),
        lambda x: x.rechunk(10**8).persist(),
    ],
)
def test_what_cannot_fit_is_refused_before_it_is_planned(
    ray_session: ar.Session, call: Callable[[xp.Array], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks: list[object] = []
    monkeypatch.setattr(Lowering, "emit", lambda *args, **kwargs: tasks.append(args))
    huge = xp.random.default_rng(0).random((10**13,), chunks=10**9)  # 80 TB
    with pytest.raises(MemoryError, match=r"80,000,000,000,000|160,000,000,000,000"):
        call(huge)
    assert not tasks


def test_plans_of_millions_of_tasks_are_refused() -> None:
    x = xp.ones((10**9,), chunks=300)
    for expression in (x + 1, x.sum(), xp.sort(x)):
        with pytest.raises(PlanTooLargeError, match="larger chunks"):
            evaluate.plan([expression._node])
    with pytest.raises(InvalidArgumentError, match="use larger chunks"):
        xp.ones((10**12,), chunks=100)


def test_a_plan_is_refused_while_it_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lower, "MOST_TASKS", 100)
    many = xp.sort(xp.asarray(np.arange(700.0), chunks=10))
    with pytest.raises(PlanTooLargeError, match="more than 100 tasks"):
        evaluate.plan([many._node])
    monkeypatch.setattr(lower, "MOST_TASKS", 10_000)
    monkeypatch.setattr(lower, "MOST_EDGES", 500)
    with pytest.raises(PlanTooLargeError, match="more than 500 values"):
        evaluate.plan([many._node])


_PROGRAM = """
import ray, agentic_ray as ar, agentic_ray.array as xp
ar.init(num_cpus=2, object_store_memory_bytes=1 << 30)
x = xp.random.default_rng(0).random((1_500_000_000,))
assert x.nbytes == 12_000_000_000
mean = float(((x - 0.5) * 2).mean())
assert abs(mean) < 1e-4, mean
from ray._private.internal_api import memory_summary
text = memory_summary(ray.get_runtime_context().gcs_address, stats_only=True)
assert "Spilled" not in text, text
"""


@pytest.mark.slow
def test_twelve_gigabytes_reduce_under_a_store_of_one() -> None:
    subprocess.run([sys.executable, "-c", _PROGRAM], check=True, timeout=170)
