"""What is asked of an autoscaler that grants a request as a whole or not at all."""

from __future__ import annotations

import pytest

from agentic_ray.runtime.asking import LONGEST_SECONDS, Asking, _sizes
from agentic_ray.runtime.autoscaling import Requests
from agentic_ray.telemetry.state import NodeState


class Granting:
    """An autoscaler whose cluster may have so many CPUs and GPUs; nodes take a while to come."""

    def __init__(self, cpus: int, gpus: int, seconds: float = 30.0) -> None:
        self.most, self.seconds = (cpus, gpus), seconds
        self.have = (0, 0)
        self.coming: list[tuple[float, int, int]] = []
        self.asked: list[tuple[int, int]] = []

    def ask(self, now: float, wanted: tuple[int, int]) -> None:
        if not self.asked or self.asked[-1] != wanted:
            self.asked.append(wanted)
        there = [self.have[i] + sum(entry[1 + i] for entry in self.coming) for i in (0, 1)]
        new = [max(0, wanted[i] - there[i]) for i in (0, 1)]
        if any(new) and all(wanted[i] <= self.most[i] for i in (0, 1)):
            self.coming.append((now + self.seconds, *new))

    def pass_to(self, now: float) -> None:
        for entry in [entry for entry in self.coming if entry[0] <= now]:
            self.coming.remove(entry)
            self.have = (self.have[0] + entry[1], self.have[1] + entry[2])


@pytest.mark.parametrize("most", [(8, 0), (200, 0), (37, 0), (64, 4), (3, 1), (0, 2)])
@pytest.mark.parametrize("work", [(200, 0), (5, 0), (50, 3), (1, 1)])
def test_the_cluster_comes_to_what_it_may_have_or_what_is_wanted(
    most: tuple[int, int], work: tuple[int, int]
) -> None:
    autoscaler, asking = Granting(*most), Asking()
    for now in range(4000):
        autoscaler.pass_to(now)
        left = [max(0, work[i] - autoscaler.have[i]) for i in (0, 1)]
        asking.waits(left[0], left[1])
        wanted = asking.decide(now, autoscaler.have, coming=bool(autoscaler.coming))
        autoscaler.ask(now, wanted)
    assert autoscaler.have == tuple(min(work[i], most[i]) for i in (0, 1))


def test_a_request_that_is_granted_stands_until_the_nodes_are_there() -> None:
    asking = Asking()
    asking.waits(10, 0)
    assert asking.decide(0.0, (2, 0), coming=False) == (12, 0)
    assert asking.decide(600.0, (2, 0), coming=True) == (12, 0)
    assert asking.decide(603.0, (2, 0), coming=False) == (12, 0)
    asking.waits(0, 0)
    assert asking.decide(700.0, (12, 0), coming=False) == (0, 0)


def test_a_kind_that_nothing_waits_for_is_not_asked_for() -> None:
    asking = Asking()
    asking.waits(3, 0)
    assert asking.decide(0.0, (2, 1), coming=False) == (5, 0)
    asking.waits(0, 1)
    assert asking.decide(1.0, (2, 1), coming=False) == (0, 2)


def test_a_cluster_that_is_full_is_asked_ever_less_often() -> None:
    asking, changes, last = Asking(), [], (0, 0)
    asking.waits(100, 0)
    for now in range(7200):
        wanted = asking.decide(now, (8, 0), coming=False)
        if wanted != last:
            changes.append(now)
            last = wanted
    assert changes[1] - changes[0] < 10
    assert changes[-1] - changes[-2] == LONGEST_SECONDS
    assert len(changes) < 60


def test_sizes_fall_to_one_and_each_kind_is_tried_alone() -> None:
    assert _sizes(20, 0) == [(20, 0), (5, 0), (2, 0), (1, 0)]
    assert _sizes(4, 2) == [(4, 2), (1, 1), (4, 0), (1, 0), (0, 2), (0, 1)]
    assert _sizes(0, 1) == [(0, 1)]


def test_nodes_that_have_just_come_are_counted_until_they_have_slots() -> None:
    requests, node = Requests(scales=True), NodeState("n", "n", 4.0, 4.0, 0)
    assert requests._joining([node]) == (4, 0)
    requests.waits(9, 0, {("n", "cpu"): 4})
    assert requests._joining([node]) == (0, 0)
