"""Ray's own memory monitor kills what takes too much: fewer at once, halves, or a clear error.

Its threshold is set to 2 GB above what the machine uses now, so nothing else may run beside this.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import psutil
import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif("AGENTIC_RAY_LONG" not in os.environ, reason="set AGENTIC_RAY_LONG=1"),
    pytest.mark.skipif(psutil.virtual_memory().available < 6e9, reason="needs 6 GB of memory"),
]
Make = Callable[[str], Any]

START = """
    import operator, os, time, psutil
    memory = psutil.virtual_memory()
    limit = memory.total - memory.available + 2e9
    os.environ["RAY_memory_usage_threshold"] = str(round(limit / memory.total, 4))
    os.environ["RAY_memory_monitor_refresh_ms"] = "100"
    import numpy as np
    import agentic_ray as ar
    from agentic_ray.errors import OutOfHostMemoryError
    from agentic_ray.mapreduce import map_reduce_job
    ar.init(num_cpus=4)
    def kinds(job):
        return [event.kind for event in job.events()]
"""
END = """
    ar.shutdown()
    print("fine")
"""


def check(program: Make, source: str) -> None:
    """Run ``source`` in a program that starts and ends like all of these."""
    assert "fine" in program(START + source + END).run(timeout=300)


def test_too_many_at_once_become_fewer_at_once(program: Make) -> None:
    check(
        program,
        """
    def heavy(i):
        taken = np.ones(90_000_000)  # 0.72 GB: two fit, four do not
        time.sleep(1.0)
        return int(taken[i]) + i
    job = map_reduce_job(heavy, range(12), operator.add, chunk_size=1)
    assert job.result(timeout=200) == sum(range(12)) + 12
    assert "failed: pressure" in kinds(job), kinds(job)
    assert kinds(job).count("failed: pressure") <= 12, kinds(job)
    assert job.metrics.recovery == 1.0
    """,
    )


def test_a_chunk_that_takes_too_much_is_run_in_halves(program: Make) -> None:
    check(
        program,
        """
    held = []  # of the process that runs a chunk: it grows with the chunk's length
    def hold(i):
        if os.getpid() != (held[0][0] if held else None):
            held[:] = []
        held.append((os.getpid(), np.ones(40_000_000)))  # 0.32 GB
        if len(held) > 4:
            time.sleep(3.0)  # for the monitor to see it
        return i
    job = map_reduce_job(hold, range(16), operator.add, chunk_size=16)
    try:
        assert job.result(timeout=200) == sum(range(16))
    finally:
        print([(e.kind, e.bundle, e.text[:80]) for e in job.events()])
    assert "split" in kinds(job), kinds(job)
    """,
    )


def test_one_that_takes_too_much_alone_fails_with_its_name(program: Make) -> None:
    check(
        program,
        """
    def enormous(i):
        taken = np.ones(500_000_000)  # 4 GB
        time.sleep(5.0)
        return int(taken[i])
    job = map_reduce_job(enormous, range(1), operator.add)
    try:
        job.result(timeout=200)
    except OutOfHostMemoryError as error:
        assert "enormous" in str(error), error
    else:
        raise AssertionError("it had room")
    assert ar.map_reduce(abs, range(10), operator.add) == 45
    """,
    )
