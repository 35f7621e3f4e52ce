"""Work far larger than memory runs in a bounded working set."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
