"""A bundle that hangs on one node is run a second time on another; the job does not wait."""

from __future__ import annotations

import operator
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

import agentic_ray as ar

pytestmark = pytest.mark.slow
Make = Callable[[str], Any]


def test_a_bundle_that_hangs_is_copied_to_another_node(program: Make, tmp_path: Any) -> None:
    one = program(
        """
    import operator, pathlib, time
    import ray
    from tests.support.clusters import start_head
    import agentic_ray as ar

    cluster = start_head(1)
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False)
    session = ar.init(poll_seconds=0.3)
    hung = pathlib.Path(__file__).parent / "hung"

    def nap(x):
        if x == 11.0 and not hung.exists():
            hung.touch()
            time.sleep(600)
        time.sleep(0.05)
        return x * 0.1

    data = [float(i) for i in range(40)]
    job = ar.map_reduce_job(nap, data, operator.add, chunk_size=2)
    found = job.result(timeout=60)
    assert hung.exists()
    copies = [event for event in job.events() if event.kind == "second copy"]
    assert copies, job.events()
    assert any("second copy" in p.reason for p in job.placements())
    assert len({p.bundle for p in job.placements()}) == len(job.placements())
    again = ar.map_reduce(nap, data, operator.add, chunk_size=2)
    assert found.hex() == again.hex()

    @ar.codelet(has_effects=True)
    def once(block):
        (hung.parent / f"once-{int(block[0])}").write_text("")
        time.sleep(4.0 if block[0] == 0.0 else 0.05)
        return 1

    import numpy as np
    job = ar.map_reduce_job(once, np.arange(40.0), operator.add, chunk_size=2)
    assert job.result(timeout=60) == 20
    assert not [event for event in job.events() if event.kind == "second copy"]
    print("done")
    """
    )
    assert "done" in one.run(timeout=150)


def test_a_stopped_process_is_passed_by_on_one_machine(
    ray_session: ar.Session, tmp_path: Any
) -> None:
    stopped = tmp_path / "stopped"

    def nap(x: float) -> float:
        if x == 11.0 and not stopped.exists():
            stopped.touch()
            os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(0.05)
        return x * 0.1

    data = [float(i) for i in range(40)]
    job = ar.map_reduce_job(nap, data, operator.add, chunk_size=2)
    found = job.result(timeout=120)
    assert stopped.exists()
    assert [event for event in job.events() if event.kind == "second copy"]
    assert found.hex() == ar.map_reduce(nap, data, operator.add, chunk_size=2).hex()
