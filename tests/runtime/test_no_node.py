"""A cluster on which no node takes work: it is said what is waited for, and the wait has an end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
Make = Callable[[str], Any]


def test_no_node_is_left(program: Make) -> None:
    one = program(
        """
        import operator, threading, time
        import ray
        from tests.support.clusters import start_head
        import agentic_ray as ar
        from agentic_ray.errors import NoNodeError, PlacementError
        cluster = start_head(0)
        ray.init(address=cluster.address, log_to_driver=False)
        session = ar.init(no_node_seconds=8, poll_seconds=0.3)
        began = time.monotonic()
        job = ar.map_reduce_job(abs, [-1, 2], operator.add)
        try:
            job.result()
        except NoNodeError as error:
            assert isinstance(error, PlacementError)
            assert "no_node_seconds" in str(error) and "ray start" in str(error), error
        else:
            raise AssertionError("on what node?")
        assert time.monotonic() - began >= 8
        assert "waiting" in [event.kind for event in job.events()]
        # one that comes in time is used, and so is one that comes after an error
        found = []
        thread = threading.Thread(
            target=lambda: found.append(ar.map_reduce(abs, [-1, 2], operator.add)))
        ar.shutdown()
        ar.init(no_node_seconds=200, poll_seconds=0.3)
        thread.start()
        time.sleep(2)
        cluster.add_node(num_cpus=1)
        thread.join(200)
        assert found == [3], found
        assert ar.map_reduce(abs, [-1, 2], operator.add) == 3
        # a share counts the CPUs of nodes that have some
        ar.shutdown()
        session = ar.init(share=1.0)
        assert ar.map_reduce(abs, [-1, 2], operator.add) == 3
        assert session.slots == 1, session.slots
        ar.shutdown()
        ray.shutdown()
        cluster.shutdown()
        print("fine")
        """
    )
    output = one.run(timeout=380)
    assert "fine" in output
    lines = [line for line in output.splitlines() if "no node of the cluster takes work" in line]
    assert 2 <= len(lines) <= 4, output  # at once in each wait, and not all the time
    assert one.leftovers() == []
