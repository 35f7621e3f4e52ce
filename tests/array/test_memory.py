"""Work far larger than memory runs in a bounded working set."""

from __future__ import annotations

import subprocess
import sys

import pytest

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray.array.core import evaluate, memory
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
