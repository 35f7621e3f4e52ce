"""What was seen of the network: estimates per source, odd links, and arrivals that use them."""

from __future__ import annotations

from typing import Any

import pytest

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.graph import Bundle, Codelet, Ref, Task
from agentic_ray.schedule import ClusterView, CostModel, Executor
from agentic_ray.schedule.events import Location
from agentic_ray.schedule.links import Links
from agentic_ray.schedule.load import Offer
from agentic_ray.schedule.predictive import Predictive
from agentic_ray.schedule.simulate import SimCluster, SimNode, simulate
from agentic_ray.schedule.workloads import random_layered

MB = 10**6


def work(*_: Any) -> None: ...


def seen(
    links: Links, source: str, destination: str, size_bytes: int, seconds: float = 1.0
) -> None:
    """A few transfers alike, as one alone is not believed."""
    for _ in range(3):
        links.record(source, destination, size_bytes, seconds)


def test_nothing_is_known_before_a_few_transfers() -> None:
    links = Links()
    links.record("a", "b", MB, 1000.0)
    assert links.bytes_per_second("a", "b") is None
    links.record("a", "b", 0, 1.0)
    links.record("a", "b", MB, 0.0)
    assert links.bytes_per_second("a", "b") is None
    assert not list(links.odd("a"))


def test_a_source_that_was_seen_counts_before_the_others_taken_together() -> None:
    links = Links()
    seen(links, "a", "b", 10 * MB)
    seen(links, "c", "b", MB)
    assert links.bytes_per_second("a", "never seen") == pytest.approx(10 * MB)
    assert links.bytes_per_second("c") == pytest.approx(MB)
    assert links.bytes_per_second("never seen") == pytest.approx(10 * MB)  # more bytes, more weight


def test_a_link_unlike_the_others_of_its_source_is_told_apart() -> None:
    links = Links()
    for _ in range(3):
        for destination in ("b", "c", "d"):
            links.record("a", destination, 10 * MB, 1.0)
    links.record("a", "slow", 10 * MB, 10.0)
    assert list(links.odd("a")) == ["slow"]
    assert links.bytes_per_second("a", "slow") == pytest.approx(MB)
    assert links.bytes_per_second("a", "b") == pytest.approx(10 * MB)
    for _ in range(60):
        links.record("a", "slow", 10 * MB, 1.0)
    assert not list(links.odd("a"))


def test_a_network_that_changes_is_noticed() -> None:
    links = Links()
    for seconds in (1.0, 5.0):
        for _ in range(50):
            links.record("a", "b", 10 * MB, seconds)
    assert links.bytes_per_second("a") == pytest.approx(2 * MB)


def test_a_node_that_left_is_forgotten() -> None:
    links = Links()
    seen(links, "a", "b", 10 * MB)
    seen(links, "c", "b", 100 * MB)
    seen(links, "c", "a", MB)
    assert list(links.odd("c")) == ["a"]
    links.forget("a")
    assert not list(links.odd("c"))
    assert links.bytes_per_second("c") == pytest.approx(100 * MB)


def test_figures_that_cannot_be_are_refused() -> None:
    with pytest.raises(InvalidArgumentError):
        Links().record("a", "b", -1, 1.0)


def test_the_cost_model_goes_from_the_calibration_to_what_was_seen() -> None:
    model = CostModel()
    assert model.transfer_seconds(MB) == model.calibration.transfer_seconds(MB)
    seen(model.links, "a", "b", MB)
    assert model.transfer_seconds(3 * MB, "a") == pytest.approx(3.0)
    assert model.transfer_seconds(3 * MB) == pytest.approx(3.0)


def _placed(model: CostModel, *, busy_seconds: float) -> str:
    """Where a bundle of one second goes whose input is on a busy node ``a``; ``b`` comes before
    ``c``, and both are idle."""
    view = ClusterView()
    for order, name in enumerate(("a", "b", "c")):
        executor = Executor(name, "cpu", "cpu", Offer(1), order)
        executor.held.free_at_seconds = busy_seconds if name == "a" else 0.0
        view.add(executor)
        view.update(executor)
    view.values = {"x": Location(10 * MB, "a")}
    task = Task.of(Codelet("work", work), Ref("x"), key="t")
    model.observe_size("work", "cpu", 1, 1.0)
    (found,) = Predictive().place([Bundle("t", (task,), ("x",), ("t",))], view, model)
    return found.node_id


def test_a_slow_network_keeps_a_bundle_where_its_input_is() -> None:
    assert _placed(CostModel(), busy_seconds=2.0) == "b"
    slow = CostModel()
    seen(slow.links, "a", "b", 10 * MB, 5.0)
    assert _placed(slow, busy_seconds=2.0) == "a"
    assert _placed(slow, busy_seconds=20.0) == "b"


def test_a_slow_link_is_avoided() -> None:
    model = CostModel()
    for _ in range(3):
        for destination in ("c", "d", "e"):
            model.links.record("a", destination, 10 * MB, 0.01)
    model.links.record("a", "b", 10 * MB, 5.0)
    assert _placed(model, busy_seconds=2.0) == "c"


def test_the_simulator_lets_the_network_be_learnt_too() -> None:
    model = CostModel()
    cluster = SimCluster(tuple(SimNode(f"n{i}", i + 1.0) for i in range(3)), bytes_per_second=1e7)
    simulate(random_layered(60, 6, 0.1), cluster, model=model)
    assert model.links.bytes_per_second("") == pytest.approx(1e7)
