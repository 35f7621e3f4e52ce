"""Leases decided without Ray: all or nothing, fair, in the books, and never in a deadlock."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from agentic_ray.graph import Bundle, Codelet, CostHint, Resources, Task
from agentic_ray.schedule import Dispatcher, RetryRules
from agentic_ray.schedule import events as ev
from agentic_ray.schedule.admission import reserve_bytes
from agentic_ray.schedule.policies import get_policy
from agentic_ray.telemetry.state import NodeState

GB = 10**9
TOTAL = 16 * GB


def work(*_: Any) -> None: ...


ONLY = Codelet("only", None, work, opaque=True, own_process=True, speculative=False)


def batch(key: str, memory: int) -> Bundle:
    need = Resources(gpu_memory_bytes=memory)
    return Bundle(
        key, (Task.of(ONLY, key=key, resources=need, cost=CostHint(items=1)),), (), (key,)
    )


class Bench:
    """A Dispatcher with nodes of empty cards, and a clock."""

    def __init__(
        self, *cards: int, links: dict[str, Any] | None = None, may_grow: bool = False
    ) -> None:
        self.now = 0.0
        retry = RetryRules(may_grow=may_grow)
        self.dispatcher = Dispatcher(get_policy("predictive"), retry=retry)
        for number, count in enumerate(cards):
            self.up(f"n{number}", count, (links or {}).get(f"n{number}", ()))

    def up(self, node: str, count: int, links: Any = ()) -> list[ev.Command]:
        budget = TOTAL - reserve_bytes(TOTAL)
        devices = [ev.DeviceSlots("cpu", "cpu", 8)]
        devices += [
            ev.DeviceSlots(f"{node}-{i}", "gpu", 1, memory_bytes=budget, memory_total_bytes=TOTAL)
            for i in range(count)
        ]
        return self.send(ev.NodeUp, NodeState(node, node, 8, 8), tuple(devices), links=links)

    def send(self, kind: Any, *fields: Any, **named: Any) -> list[ev.Command]:
        return self.dispatcher.handle(kind(self.now, *fields, **named))

    def ask(self, lease_id: str, **needs: Any) -> list[ev.Command]:
        return self.send(ev.LeaseRequested, lease_id, **needs)

    def free(self, lease_id: str) -> list[ev.Command]:
        return self.send(ev.LeaseReleased, lease_id)

    def submit(self, *bundles: Bundle) -> list[ev.Command]:
        keys = tuple(bundle.key for bundle in bundles)
        return self.send(ev.GraphSubmitted, "-".join(keys), bundles, keys)

    def finish(self, start: ev.Start) -> list[ev.Command]:
        values = tuple(ev.ValueInfo(key, 8, None) for key in start.bundle.outputs)
        return self.send(ev.BundleFinished, start.bundle_id, start.attempt, 0.1, (0.1,), values)


def granted(commands: list[ev.Command]) -> dict[str, tuple[tuple[str, str], ...]]:
    return {c.lease_id: c.places for c in commands if isinstance(c, ev.LeaseGranted)}


def ended(commands: list[ev.Command]) -> dict[str, ev.LeaseEnded]:
    return {c.lease_id: c for c in commands if isinstance(c, ev.LeaseEnded)}


def started(commands: list[ev.Command]) -> list[ev.Start]:
    return [c for c in commands if isinstance(c, ev.Start)]


def test_a_lease_and_functions_draw_on_one_account() -> None:
    bench = Bench(1)
    assert granted(bench.ask("a", gpu_memory_bytes=10 * GB)) == {"a": (("n0", "n0-0"),)}
    (start,) = started(bench.submit(batch("b", 5 * GB), batch("c", 5 * GB)))
    assert [s.bundle.key for s in started(bench.free("a"))] == ["c"]
    bench.finish(start)


def test_fractions_that_ray_cannot_pack_are_packed() -> None:
    bench = Bench(8)
    places = [granted(bench.ask(f"l{i}", share=0.18))[f"l{i}"][0][1] for i in range(40)]
    assert set(Counter(places).values()) == {5}
    assert granted(bench.ask("one more", share=0.18)) == {}


def test_whole_cards_are_for_one_alone() -> None:
    bench = Bench(2)
    assert len(granted(bench.ask("both", cards=2, share=1.0))["both"]) == 2
    assert started(bench.submit(batch("b", GB))) == []
    assert granted(bench.ask("a", gpu_memory_bytes=GB)) == {}
    commands = bench.free("both")
    assert granted(commands).keys() == {"a"}
    assert len(started(commands)) == 1


def test_cards_that_are_connected_best_are_chosen() -> None:
    links = [("n0-1", "n0-3", 40.0), ("n0-0", "n0-1", 1.0), ("n0-2", "n0-3", 2.0)]
    bench = Bench(4, links={"n0": tuple(links)})
    places = granted(bench.ask("pair", cards=2, share=1.0))["pair"]
    assert [device for _, device in places] == ["n0-1", "n0-3"]


def test_nodes_are_granted_all_at_once_or_not_at_all() -> None:
    bench = Bench(2, 2)
    bench.ask("small", cards=1, share=1.0)
    assert granted(bench.ask("gang", cards=2, share=1.0, nodes=2)) == {}
    assert bench.dispatcher.lease_books().keys() == {"small"}
    assert bench.dispatcher.open_leases == ("small", "gang")
    places = granted(bench.free("small"))["gang"]
    assert Counter(node for node, _ in places) == {"n0": 2, "n1": 2}


def test_the_end_of_the_wait_names_what_each_card_lacked() -> None:
    bench = Bench(1)
    bench.ask("a", gpu_memory_bytes=10 * GB)
    assert bench.ask("b", gpu_memory_bytes=10 * GB, until_seconds=5.0) == []
    assert bench.dispatcher.next_wakeup_seconds == 5.0
    bench.now = 5.0
    over = ended(bench.send(ev.Tick))["b"]
    assert over.timed_out
    assert "n0-0: " in over.reason
    assert "can be had, 1 calls and leases" in over.reason


@pytest.mark.parametrize(
    ("needs", "text"),
    [
        ({"cards": 3, "share": 1.0}, "3 GPUs on each of 1 node"),
        ({"cards": 1, "share": 1.0, "nodes": 3}, "1 GPUs on each of 3 node"),
        ({"gpu_memory_bytes": 17 * GB}, "the largest card can give"),
    ],
)
def test_what_no_node_has_is_refused_at_once(needs: dict[str, Any], text: str) -> None:
    refused = ended(Bench(2, 2).ask("a", **needs))["a"]
    assert refused.impossible
    assert text in refused.reason


def test_an_autoscaler_is_asked_for_cards_that_are_not_there() -> None:
    bench = Bench(0, may_grow=True)
    assert ended(bench.ask("a", cards=2, share=1.0, until_seconds=50.0)) == {}
    assert bench.send(ev.Tick) == [ev.RequestResources(0, 2)]
    assert granted(bench.up("n1", 2)) == {"a": (("n1", "n1-0"), ("n1", "n1-1"))}
    assert bench.send(ev.Tick) == [ev.RequestResources(0, 0)]
    bench.ask("b", cards=3, share=1.0, until_seconds=50.0)
    bench.now = 50.0
    assert ended(bench.send(ev.Tick))["b"].timed_out


def test_a_lease_ends_with_its_card() -> None:
    bench = Bench(1, 1)
    (place,) = granted(bench.ask("a", share=1.0))["a"]
    lost = ended(bench.send(ev.NodeLost, place[0], "gone"))["a"]
    assert lost.lost
    assert bench.dispatcher.lease_books() == {}


def test_functions_do_not_starve_a_lease_of_a_whole_card() -> None:
    bench = Bench(1)
    running = started(bench.submit(*(batch(f"s{i}", 4 * GB) for i in range(3))))
    bench.ask("whole", share=1.0)
    got: set[str] = set()
    for number in range(40):
        bench.now += 1.0
        running += started(bench.submit(batch(f"m{number}", 4 * GB)))
        if running:
            commands = bench.finish(running.pop(0))
        else:
            commands = bench.send(ev.Tick)
        running += started(commands)
        got |= granted(commands).keys()
    assert got == {"whole"}


@pytest.mark.parametrize("seed", range(20))
def test_simulation(seed: int) -> None:
    """Random leases, gangs and functions: nothing is over-committed, and all come to an end."""
    random_ = random.Random(seed)
    bench = Bench(*(random_.randint(1, 4) for _ in range(random_.randint(1, 3))))
    view = bench.dispatcher.view
    counts = Counter(e.node_id for e in view.executors.values() if e.kind == "gpu")
    waiting: set[str] = set()
    held: set[str] = set()
    running: list[ev.Start] = []
    over = done = 0

    def take(commands: list[ev.Command]) -> None:
        nonlocal over
        for lease_id, places in granted(commands).items():
            waiting.discard(lease_id)
            held.add(lease_id)
            assert len(set(places)) == len(places)
        for lease_id in ended(commands):
            over += lease_id in held or lease_id in waiting
            waiting.discard(lease_id)
            held.discard(lease_id)
        running.extend(started(commands))
        for executor in view.executors.values():
            if executor.kind == "gpu":
                budget = executor.offer.memory_bytes or 0
                whole = executor.held.memory_bytes == TOTAL and executor.held.processes == 1
                assert whole or executor.held.memory_bytes <= budget
                assert executor.held.share <= 1 + 1e-6

    asked = 30
    for number in range(asked):
        bench.now += random_.random()
        nodes = random_.randint(1, len(counts))
        most = sorted(counts.values())[-nodes]
        whole = random_.random() < 0.5
        needs: dict[str, Any] = (
            {"cards": random_.randint(1, most), "share": 1.0, "nodes": nodes}
            if whole
            else {"gpu_memory_bytes": random_.randint(1, 14) * GB}
        )
        if random_.random() < 0.3:
            needs["until_seconds"] = bench.now + random_.random() * 20
        waiting.add(f"l{number}")
        take(bench.ask(f"l{number}", **needs))
        take(bench.submit(batch(f"b{number}", random_.randint(0, 14) * GB)))
    steps = 0
    while waiting or held or running:
        steps += 1
        assert steps < 5_000, "they wait for each other"
        bench.now += random_.random()
        if held and random_.random() < 0.4:
            take(bench.free(random_.choice(sorted(held))))
        elif running and random_.random() < 0.7:
            start = running.pop(random_.randrange(len(running)))
            done += 1
            take(bench.finish(start))
        else:
            take(bench.send(ev.Tick))
    assert (over, done) == (asked, asked)
    for executor in view.executors.values():
        assert (executor.held.processes, executor.held.memory_bytes) == (0, 0)


def on_cpus(key: str) -> Bundle:
    plain = Codelet("plain", work, None, opaque=True, speculative=False)
    return Bundle(key, (Task.of(plain, key=key, cost=CostHint(items=1)),), (), (key,))


def test_a_lease_of_cpus_alone_takes_its_slots_from_the_work_of_the_session() -> None:
    bench = Bench(0)
    assert granted(bench.ask("six", cards=0, cpus=6)) == {"six": (("n0", "cpu"),)}
    assert bench.dispatcher.lease_books() == {"six": (("n0", "cpu"),)}
    assert granted(bench.ask("more", cards=0, cpus=4)) == {}
    first = started(bench.submit(*(on_cpus(f"b{i}") for i in range(6))))
    assert len(first) == 2, "two of eight slots are left beside the lease"
    for start in first:
        bench.finish(start)
    assert "more" not in bench.dispatcher.lease_books()


def test_cpus_of_several_nodes_are_leased_all_at_once() -> None:
    bench = Bench(0, 0)
    bench.ask("one", cards=0, cpus=5)
    assert granted(bench.ask("gang", cards=0, cpus=4, nodes=2)) == {}
    places = granted(bench.free("one"))["gang"]
    assert {node for node, _ in places} == {"n0", "n1"}
    assert "are asked for" in ended(bench.ask("three", cards=0, cpus=1, nodes=3))["three"].reason


def test_the_end_of_a_wait_for_cpus_says_what_is_in_use() -> None:
    bench = Bench(0)
    bench.ask("all", cards=0, cpus=8)
    bench.ask("more", cards=0, cpus=8, until_seconds=5.0)
    bench.now = 5.0
    over = ended(bench.send(ev.Tick))["more"]
    assert over.timed_out
    assert "n0: 8 of 8" in over.reason


def test_a_lease_of_cpus_ends_with_its_node() -> None:
    bench = Bench(0, 0)
    ((node, _),) = granted(bench.ask("a", cards=0, cpus=2))["a"]
    assert ended(bench.send(ev.NodeLost, node, "it is gone"))["a"].lost
    assert bench.dispatcher.lease_books() == {}
