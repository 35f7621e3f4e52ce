"""Processes killed by SIGKILL while they work: the job finishes, with the same bits."""

from __future__ import annotations

import operator
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

import agentic_ray as ar
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("ray_session")


def pid_in(folder: Path) -> int:
    """The process that has said in ``folder`` that it works."""
    return int(until(lambda: [f.name for f in folder.iterdir() if f.name.isdigit()])[0])


def run_and_kill(job: Any, folder: Path) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(job.result()))
    thread.start()
    pid = pid_in(folder)
    assert pid != os.getpid()
    os.kill(pid, signal.SIGKILL)
    thread.join(60)
    assert found, "the job did not finish"
    return found[0]


def check_recovery(job: Any) -> None:
    assert job.metrics.failed >= 1
    assert job.metrics.recovery == 1.0
    assert job.metrics.decomposition == 1.0
    kinds = {event.kind for event in job.events()}
    assert kinds & {"recovered", "retry", "failed: crash"}
    assert any(placement.retried for placement in job.placements())


def test_a_worker_killed_in_a_bundle_of_a_function(tmp_path: Path) -> None:
    def work(x: float) -> float:
        if x == 30.0 and not (tmp_path / "once").exists():
            (tmp_path / "once").touch()
            (tmp_path / str(os.getpid())).touch()
            time.sleep(60)
        return x * 0.1

    data = [float(i) for i in range(60)]
    job = ar.map_reduce_job(work, data, operator.add)
    found = run_and_kill(job, tmp_path)
    check_recovery(job)
    assert found.hex() == ar.map_reduce(lambda x: x * 0.1, data, operator.add).hex()


def test_an_executor_killed_in_a_bundle_of_a_codelet(tmp_path: Path) -> None:
    @ar.codelet
    def work(block: Any, *, xp: Any) -> float:
        if block[0] == 512 and not (tmp_path / "once").exists():
            (tmp_path / "once").touch()
            (tmp_path / str(os.getpid())).touch()
            time.sleep(60)
        return float(xp.sum(block * 0.1))

    plain = ar.codelet(lambda block, *, xp: float(xp.sum(block * 0.1)))
    data = np.arange(4096.0)
    job = ar.map_reduce_job(work, data, operator.add, chunk_size=256)
    found = run_and_kill(job, tmp_path)
    check_recovery(job)
    assert found.hex() == ar.map_reduce(plain, data, operator.add, chunk_size=256).hex()
    # and the executor is back, with its slots
    assert ar.map_reduce(plain, data, operator.add, chunk_size=64) == pytest.approx(
        data.sum() * 0.1
    )


def test_several_kills_in_one_job(tmp_path: Path) -> None:
    def work(x: int) -> int:
        marker = tmp_path / f"done-{x}"
        if x % 10 == 5 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    job = ar.map_reduce_job(work, range(30), operator.add, chunk_size=5)
    assert job.result() == sum(range(30))
    check_recovery(job)


def test_an_executor_that_ray_does_not_bring_back_is_made_anew(tmp_path: Path) -> None:
    session = ar.get_session()
    node_id = ray.nodes()[0]["NodeID"]
    executor = session._nodes.executor(node_id, "cpu")

    @ar.codelet
    def work(block: Any, *, xp: Any) -> float:
        if not (tmp_path / "once").exists():
            (tmp_path / "once").touch()
            (tmp_path / "started").touch()
            time.sleep(60)
        return float(xp.sum(block * 0.1))

    plain = ar.codelet(lambda block, *, xp: float(xp.sum(block * 0.1)))
    data = np.arange(4096.0)
    job = ar.map_reduce_job(work, data, operator.add, chunk_size=256)
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(job.result()))
    thread.start()
    until(lambda: (tmp_path / "started").exists())
    ray.kill(executor, no_restart=True)
    thread.join(60)
    assert found[0].hex() == ar.map_reduce(plain, data, operator.add, chunk_size=256).hex()
    assert session._nodes.executor(node_id, "cpu") is not executor
    # and when nothing ran that could have told
    ray.kill(session._nodes.executor(node_id, "cpu"), no_restart=True)
    again = ar.map_reduce(plain, data, operator.add, chunk_size=256)
    assert again.hex() == found[0].hex()
