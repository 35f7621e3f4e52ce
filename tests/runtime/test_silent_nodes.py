"""A node whose collector stops reporting gets no new work, long before Ray gives it up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.mark.slow
def test_a_stopped_executor_silences_its_node_until_it_goes_on(
    program: Callable[[str], Any],
) -> None:
    script = program(
        """
    import operator, os, signal, time
    import ray
    import agentic_ray as ar
    from tests.support.clusters import start_head
    from tests.support.waiting import until

    cluster = start_head(1)
    second = cluster.add_node(num_cpus=1).node_id
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False)
    session = ar.init(poll_seconds=0.3)
    until(lambda: session.slots == 2)
    session.cluster()

    def age():
        return session.cluster().node(second).heartbeat_age_seconds
    def nap(x):
        time.sleep(0.02)
        return x
    def places():
        job = ar.map_reduce_job(nap, range(60), operator.add)
        assert job.result() == sum(range(60))
        return {p.node_id for p in job.placements()} - {"caller"}

    until(lambda: second in places())
    pid = ray.get(session._nodes.executor(second, "cpu").pid.remote())
    os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: age() > 5.5)
        time.sleep(1)
        seen = places()
        assert seen and second not in seen, seen
        assert all(node["Alive"] for node in ray.nodes())
    finally:
        os.kill(pid, signal.SIGCONT)
    until(lambda: age() < 2)
    time.sleep(1)
    until(lambda: second in places())
    ar.shutdown()
    ray.shutdown()
    cluster.shutdown()
    print("done")
    """
    )
    assert "done" in script.run()
