"""Planning graphs as a whole: never longer than HEFT's own plan, and nothing waits for ever."""

from __future__ import annotations

import random
import statistics
from dataclasses import replace
from typing import Any

import pytest

from agentic_ray.schedule.ahead import LEAST_AT_ONCE, MOST_AT_ONCE, most_bundles
from agentic_ray.schedule.predictive import Predictive
from agentic_ray.schedule.simulate import SimCluster, SimNode, simulate
from agentic_ray.schedule.workloads import BYTES_PER_SECOND, Workload, random_layered


class OnlyReady(Predictive):
    """The same policy without a look at what is not ready yet."""

    looks_ahead = False


def case(seed: int, ccr: float) -> tuple[Workload, tuple[SimNode, ...]]:
    rng = random.Random(seed)
    nodes = tuple(SimNode(f"n{i}", rng.uniform(1, 8)) for i in range(rng.randint(3, 10)))
    speed = statistics.mean(node.speed for node in nodes)
    size = rng.randint(40, 120)
    return random_layered(size, rng.randint(4, 12), ccr / speed, 3, seed, seconds=10.0), nodes


def heft_seconds(workload: Workload, nodes: tuple[SimNode, ...]) -> float:
    """The makespan of HEFT with insertion (Topcuoglu et al., 2002), written a second time."""
    tasks = list(workload.graph)
    inverse = statistics.mean(1 / node.speed for node in nodes)
    move = {task.key: workload.bytes_of(task) / BYTES_PER_SECOND for task in tasks}
    rank: dict[str, float] = {task.key: 0.0 for task in tasks}
    below: dict[str, float] = {}
    for task in reversed(tasks):
        key = task.key
        rank[key] = workload.seconds_of(task) * inverse + below.get(key, 0.0)
        for parent in task.dependencies:
            path = rank[key] + move[parent] * (len(nodes) - 1) / len(nodes)
            below[parent] = max(below.get(parent, 0.0), path)
    spans: list[list[tuple[float, float]]] = [[] for _ in nodes]
    done: dict[str, tuple[float, int]] = {}
    for task in sorted(tasks, key=lambda task: -rank[task.key]):
        best = None
        for i, node in enumerate(nodes):
            begin = 0.0
            for parent in task.dependencies:
                end, where = done[parent]
                begin = max(begin, end + (0.0 if where == i else move[parent]))
            seconds = workload.seconds_of(task) / node.speed
            for start, end in spans[i]:
                if begin + seconds <= start:
                    break
                begin = max(begin, end)
            if best is None or begin + seconds < best[0]:
                best = (begin + seconds, begin, i)
        assert best is not None
        end, begin, i = best
        spans[i] = sorted([*spans[i], (begin, end)])
        done[task.key] = (end, i)
    return max(end for end, _ in done.values())


@pytest.mark.parametrize("ccr", [0.0, 0.1, 1.0])
def test_never_longer_than_the_plan_of_heft_where_costs_are_exact(ccr: float) -> None:
    ratios = []
    for seed in range(4):
        workload, nodes = case(seed, ccr)
        ours = simulate(workload, SimCluster(nodes, moves_ahead=True)).makespan_seconds
        ratios.append(ours / heft_seconds(workload, nodes))
    assert max(ratios) <= 1.0 + 1e-9, ratios
    assert statistics.mean(ratios) < 1.0 or not ccr


def beside_only_ready(seed: int, ccr: float, *, moves_ahead: bool = True, **options: Any) -> float:
    """The makespan over that of the same policy without a look ahead."""
    workload, nodes = case(seed, ccr)
    if "slow_factor" in options:
        slow = replace(nodes[0], slow_from_seconds=5.0, slow_factor=options.pop("slow_factor"))
        nodes = (slow, *nodes[1:])
    cluster = SimCluster(nodes, moves_ahead=moves_ahead)
    ours, other = (
        simulate(workload, cluster, policy, seed=seed, **options).makespan_seconds
        for policy in (Predictive(), OnlyReady())
    )
    return ours / other


@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({"noise": 0.2}, 1.0),
        ({"moves_ahead": False}, 1.0),
        ({"slow_factor": 5.0}, 1.05),  # what waits for a late bundle keeps no device idle
    ],
    ids=["noise", "values move when asked for", "a node becomes slow"],
)
def test_it_is_worth_it_where_the_plan_does_not_hold_too(
    options: dict[str, Any], most: float
) -> None:
    ratios = [beside_only_ready(seed, 0.1, **options) for seed in range(20)]
    assert statistics.mean(ratios) < most, ratios


def test_a_plan_is_made_only_where_it_costs_little_beside_the_work() -> None:
    assert most_bundles(4, 10.0) == MOST_AT_ONCE
    assert most_bundles(8, 0.5) >= LEAST_AT_ONCE
    assert most_bundles(8, 0.01) == 0
    assert most_bundles(1000, 10.0) == 0
    assert most_bundles(0, 10.0) == 0
