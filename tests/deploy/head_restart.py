"""A driver on a node beside the head runs jobs while the head is killed and started again.

Run by ``test_gcs_redis.py``: ``python head_restart.py ADDRESS NODE_IP FOLDER``. It tells the test
how far it is by files in FOLDER, and waits for the file ``back`` there.
"""

from __future__ import annotations

import operator
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray

import agentic_ray as ar
import agentic_ray.array as xp

ADDRESS, NODE_IP, FOLDER = sys.argv[1], sys.argv[2], Path(sys.argv[3])


def until(condition: Callable[[], Any], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


@ar.workload("wave", cache=False)
def wave(seed: int) -> str:
    def slowly(x: float) -> float:
        time.sleep(0.05)
        return x * 0.1

    data = [float(seed + i) for i in range(240)]
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


def tell(what: str) -> None:
    print(f"{time.strftime('%T')} {what}", flush=True)
    (FOLDER / what).touch()


def main() -> None:
    ray.init(address=ADDRESS, _node_ip_address=NODE_IP, log_to_driver=False)
    session = ar.init(poll_seconds=0.3)
    until(lambda: session.slots == 3)
    here = ray.get_runtime_context().get_node_id()
    head = next(n["NodeID"] for n in ray.nodes() if n["NodeID"] != here)
    with ar.Master(journal=FOLDER / "journal", cache_bytes=0, max_running=2) as master:

        def both() -> list[ar.Job]:
            return [master.submit("wave", 1), master.submit("blocks", 1)]

        expected = [job.result(120) for job in both()]
        jobs = both()
        until(lambda: all(head in {p.node_id for p in job.placements()} for job in jobs))
        tell("running")
        until((FOLDER / "dead").exists)
        late = both()  # accepted while there is no head
        assert [job.result(200) for job in jobs] == expected
        tell("ended")
        assert [job.result(200) for job in late] == expected
        until((FOLDER / "back").exists)
        until(lambda: session.slots == 3)
        tell("joined")
        again = both()
        assert [job.result(120) for job in again] == expected
        places = {p.node_id for job in again for p in job.placements()}
        assert len(places - {"caller"}) == 2, places
        assert here in places, places
        assert head not in places, "the head that came back is another node"
        metrics = [job.metrics for job in jobs]
        assert all(one is not None and one["recovery"] == 1.0 for one in metrics), metrics
    ar.shutdown()
    ray.shutdown()
    tell("fine")


if __name__ == "__main__":
    main()
