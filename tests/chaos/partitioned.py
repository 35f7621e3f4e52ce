"""The network between two nodes is cut while a master on one of them runs jobs on both.

Run by ``test_partition.py`` within the first node's network namespace:
``python partitioned.py ADDRESS LINK FOLDER``.
"""

from __future__ import annotations

import operator
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray

import agentic_ray as ar
import agentic_ray.array as xp

ADDRESS, LINK, FOLDER = sys.argv[1], sys.argv[2], Path(sys.argv[3])


def until(condition: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def link(state: str) -> None:
    subprocess.run(["ip", "link", "set", LINK, state], check=True)


@ar.workload("wave", cache=False)
def wave(seed: int) -> str:
    def slowly(x: float) -> float:
        time.sleep(0.05)
        return x * 0.1

    data = [float(seed + i) for i in range(200)]
    total: float = ar.map_reduce(slowly, data, operator.add, chunk_size=4)
    return total.hex()


@ar.workload("blocks", cache=False)
def blocks(seed: int) -> str:
    def rows(block: Any) -> Any:
        time.sleep(0.2)
        return np.sqrt(block)

    x = xp.random.default_rng(seed).random((8_000_000,), chunks=200_000)
    y = xp.map_blocks(rows, x, dtype="float64")
    return float(xp.sum(y)).hex()


def main() -> None:
    own = ADDRESS.partition(":")[0]
    ray.init(address=ADDRESS, _node_ip_address=own, log_to_driver=False, logging_level="ERROR")
    session = ar.init(poll_seconds=0.3)
    here = ray.get_runtime_context().get_node_id()
    until(lambda: session.slots == 2)
    with ar.Master(journal=FOLDER / "journal", cache_bytes=0, max_running=2) as master:

        def both() -> list[ar.Job]:
            return [master.submit("wave", 1), master.submit("blocks", 1)]

        expected = [job.result(120) for job in both()]
        jobs = both()
        until(lambda: all({p.node_id for p in job.placements()} - {here} for job in jobs))
        link("down")
        assert [job.result(120) for job in jobs] == expected
        until(lambda: session.slots == 1)
        placements = [job.placements() for job in jobs]
        for done in placements:
            assert len({p.bundle for p in done}) == len(done), "a bundle was completed twice"
            assert {p.node_id for p in done} >= {here}
        print("lost", [job.metrics["failed"] for job in jobs if job.metrics], flush=True)
        assert all(job.metrics is not None and job.metrics["recovery"] == 1.0 for job in jobs)
        ended = [job.record for job in jobs]
        link("up")
        time.sleep(5)  # whatever the other side still has to say, it says now
        assert [job.placements() for job in jobs] == placements
        assert [job.record for job in jobs] == ended
        assert [job.result(120) for job in both()] == expected
    rows = sqlite3.connect(FOLDER / "journal").execute("SELECT finished, record FROM jobs")
    told = [(finished, '"attempts":1' in record.replace(" ", "")) for finished, record in rows]
    assert told == [(1, True)] * 6, told
    ar.shutdown()
    ray.shutdown()
    print("fine", flush=True)


if __name__ == "__main__":
    main()
