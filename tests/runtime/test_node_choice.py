"""Work that asks for labels and custom resources runs on the nodes that have them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
Make = Callable[[str], Any]


def test_labels_and_custom_resources_choose_the_node(program: Make) -> None:
    one = program(
        """
        import operator, threading, time
        import numpy as np
        import ray
        from tests.support.clusters import start_head
        import agentic_ray as ar
        from agentic_ray.errors import InvalidTypeError, NoSuitableDeviceError

        cluster = start_head(2)
        ray.init(address=cluster.address, log_to_driver=False)
        edge = cluster.add_node(num_cpus=2, labels={"site": "edge"}, resources={"licence": 1})
        cluster.wait_for_nodes()
        session = ar.init(poll_seconds=0.3)
        (state,) = [node for node in ar.cluster().nodes if node.labels.get("site") == "edge"]
        assert state.custom == {"licence": 1.0}, state.custom

        def where(x):
            time.sleep(0.01)
            return ray.get_runtime_context().get_node_id()

        at_edge = ar.Resources(labels={"site": "edge"})
        found = ar.map_reduce(where, range(12), chunk_size=1, resources=at_edge)
        assert set(found) == {state.node_id}, found

        @ar.codelet
        def block_where(block):
            return ray.get_runtime_context().get_node_id()

        found = ar.map_reduce(block_where, np.arange(12.0), chunk_size=2, resources=at_edge)
        assert set(found) == {state.node_id}, found

        # one licence: never two at a time, although the node has two CPUs
        def alone(x):
            begin = time.time()
            time.sleep(0.1)
            return begin, time.time()

        spans = sorted(ar.map_reduce(
            alone, range(4), chunk_size=1, resources=ar.Resources(custom={"licence": 1})))
        assert all(one[1] <= other[0] + 1e-3 for one, other in zip(spans, spans[1:])), spans

        # what no node has is waited for, and is used when it comes
        moon = ar.Resources(labels={"site": "moon"})
        done = []
        thread = threading.Thread(
            target=lambda: done.append(ar.map_reduce(where, [1], resources=moon)))
        thread.start()
        time.sleep(3)
        assert not done
        cluster.add_node(num_cpus=1, labels={"site": "moon"})
        thread.join(100)
        (moons,) = [node for node in ar.cluster().nodes if node.labels.get("site") == "moon"]
        assert done == [[moons.node_id]], done

        try:
            ar.map_reduce(where, [1], resources=ar.Resources(labels={"site": "mars"}))
        except NoSuitableDeviceError as error:
            assert "site=edge" in str(error) and "mars" in str(error), error
        else:
            raise AssertionError("there is no such node")
        try:
            ar.map_reduce(where, [1], resources={"CPU": 1})
        except InvalidTypeError as error:
            assert "ar.Resources" in str(error)
        ar.shutdown()
        ray.shutdown()
        cluster.shutdown()
        print("fine")
        """
    )
    assert "fine" in one.run(timeout=380)
