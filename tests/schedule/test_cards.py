"""Functions on cards, decided without Ray: sharing by memory, shortages, a seeded simulation."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

from agentic_ray.errors import OutOfDeviceMemoryError, PoisonTaskError
from agentic_ray.graph import Bundle, Codelet, CostHint, Resources, Task
from agentic_ray.schedule import Dispatcher, RetryRules
from agentic_ray.schedule import events as ev
from agentic_ray.schedule.admission import reserve_bytes
from agentic_ray.schedule.device_memory import DevicePeaks, Peak
from agentic_ray.schedule.policies import get_policy
from agentic_ray.telemetry.state import NodeState

GB = 10**9


def work(*_: Any) -> None: ...


ONLY = Codelet("only", None, work, opaque=True, own_process=True, speculative=False)
EITHER = Codelet("either", work, work, opaque=True, own_process=True, speculative=False)
ARRAYS = Codelet("arrays", None, work)


def batch(
    key: str,
    memory: int = 0,
    *,
    gpus: float = 0.0,
    cpus: float = 0.0,
    items: int = 4,
    codelet: Codelet = ONLY,
) -> Bundle:
    need = Resources(gpus=gpus, gpu_memory_bytes=memory, cpus=cpus)
    task = Task.of(codelet, key=key, resources=need, cost=CostHint(items=items))
    return Bundle(key, (task,), (), (key,))


class Bench:
    """A Dispatcher with cards of given budgets, and a clock."""

    def __init__(self, *budgets: int, cpus: int = 8, total: int = 16 * GB) -> None:
        self.now = 0.0
        self.dispatcher = Dispatcher(get_policy("predictive"), retry=RetryRules(max_failures=2))
        self.total = total
        self.cpus = cpus
        self.up(*budgets)

    def up(self, *budgets: int) -> list[ev.Command]:
        devices = [ev.DeviceSlots("cpu", "cpu", self.cpus)]
        devices += [
            ev.DeviceSlots(f"GPU-{i}", "gpu", 1, memory_bytes=b, memory_total_bytes=self.total)
            for i, b in enumerate(budgets)
        ]
        return self.send(ev.NodeUp, NodeState("n", "n", self.cpus, self.cpus), tuple(devices))

    def send(self, kind: Any, *fields: Any, **named: Any) -> list[ev.Command]:
        return self.dispatcher.handle(kind(self.now, *fields, **named))

    def submit(self, *bundles: Bundle, graph: str = "g") -> list[ev.Command]:
        keys = tuple(bundle.key for bundle in bundles)
        return self.send(ev.GraphSubmitted, graph, bundles, keys)

    def finish(self, start: ev.Start, peak: int = 0, items: int = 4) -> list[ev.Command]:
        values = tuple(ev.ValueInfo(key, 8, "n") for key in start.bundle.outputs)
        peaks = ((items, peak),) if peak else ()
        return self.send(
            ev.BundleFinished,
            *(start.bundle_id, start.attempt, 0.1, (0.1,), values),
            device_peaks=peaks,
        )

    def fail(self, start: ev.Start, cause: str, error: Exception) -> list[ev.Command]:
        return self.send(ev.BundleFailed, start.bundle_id, start.attempt, cause, error)

    def wake(self) -> list[ev.Command]:
        wakeup = self.dispatcher.next_wakeup_seconds
        assert wakeup is not None
        self.now = max(self.now, wakeup)
        return self.send(ev.Tick)


def starts(commands: list[ev.Command]) -> list[ev.Start]:
    return [command for command in commands if isinstance(command, ev.Start)]


def devices(commands: list[ev.Command]) -> Counter[str]:
    return Counter(start.placement.device for start in starts(commands))


def test_functions_share_cards_by_memory() -> None:
    bench = Bench(15 * GB, 7 * GB)
    commands = bench.submit(*(batch(f"b{i}", 5 * GB) for i in range(6)))
    assert devices(commands) == {"GPU-0": 3, "GPU-1": 1}
    assert all(start.process == "function" for start in starts(commands))
    (again,) = starts(bench.finish(starts(commands)[0]))
    assert again.placement.device == starts(commands)[0].placement.device


def test_fractions_are_packed() -> None:
    bench = Bench(15 * GB, 15 * GB)
    commands = bench.submit(*(batch(f"b{i}", gpus=0.18) for i in range(12)))
    assert devices(commands) == {"GPU-0": 5, "GPU-1": 5}


def test_calls_of_unknown_memory_have_a_card_to_themselves() -> None:
    bench = Bench(15 * GB, 15 * GB)
    commands = bench.submit(*(batch(f"b{i}") for i in range(4)))
    assert devices(commands) == {"GPU-0": 1, "GPU-1": 1}


def test_the_peak_that_was_seen_takes_the_place_of_the_declared_memory() -> None:
    bench = Bench(15 * GB)
    first = starts(bench.submit(*(batch(f"b{i}", 10 * GB) for i in range(9))))
    assert len(first) == 1
    more = starts(bench.finish(first[0], peak=3 * GB))
    assert len(more) == 4, "four of 3.15 GB fit in 15 GB"


def test_arrays_and_functions_draw_on_one_account() -> None:
    bench = Bench(15 * GB)
    bench.submit(batch("f", 10 * GB))
    need = Resources(gpu_memory_bytes=8 * GB)
    array = Task.of(ARRAYS, key="a", resources=need)
    assert starts(bench.submit(Bundle("a", (array,), (), ("a",)), graph="arrays")) == []
    small = Task.of(ARRAYS, key="s", resources=Resources(gpu_memory_bytes=4 * GB))
    assert starts(bench.submit(Bundle("s", (small,), (), ("s",)), graph="small")) == []
    assert bench.dispatcher.view.executors["n", "GPU-0"].held.memory_bytes == 10 * GB


def test_a_batch_waits_for_memory_that_others_hold_or_goes_to_a_cpu() -> None:
    bench = Bench(2 * GB)
    assert starts(bench.submit(batch("waits", 5 * GB))) == []
    commands = bench.submit(batch("goes", 5 * GB, codelet=EITHER), graph="cpu")
    assert devices(commands) == {"cpu": 1}
    assert "other programs hold it" in starts(commands)[0].placement.reason
    assert devices(bench.up(15 * GB)) == {"GPU-0": 1}


def test_out_of_memory_leads_to_another_card_then_to_a_cpu_then_to_the_error() -> None:
    bench = Bench(15 * GB, 15 * GB)
    error = OutOfDeviceMemoryError("full")
    for codelet, last in ((EITHER, "cpu"), (ONLY, None)):
        graph = codelet.name
        (first,) = starts(bench.submit(batch("b", 5 * GB, codelet=codelet), graph=graph))
        bench.fail(first, "memory", error)
        (second,) = starts(bench.wake())
        assert second.placement.device not in ("cpu", first.placement.device)
        commands = bench.fail(second, "memory", error)
        if last is None:
            for _ in range(2):  # other programs may have held the memory: the cards once more
                for _ in range(2):
                    assert not any(isinstance(c, ev.FailGraph) for c in commands)
                    (again,) = starts(bench.wake())
                    commands = bench.fail(again, "memory", error)
            (failed,) = (c for c in commands if isinstance(c, ev.FailGraph))
            assert failed.error is error
        else:
            (third,) = starts(bench.wake())
            assert third.placement.device == "cpu"
            bench.finish(third)


def test_memory_that_others_took_before_a_call_began_costs_nothing() -> None:
    bench = Bench(15 * GB)
    (start,) = starts(bench.submit(batch("b", 5 * GB)))
    for _ in range(50):
        commands = bench.fail(start, "card_full", OutOfDeviceMemoryError("full"))
        assert not any(isinstance(command, ev.FailGraph) for command in commands)
        (start,) = starts(bench.wake())
    assert any(isinstance(command, ev.FinishGraph) for command in bench.finish(start))


def test_a_function_that_ends_its_processes_fails_with_its_name() -> None:
    bench = Bench(15 * GB)
    (start,) = starts(bench.submit(batch("b", 5 * GB)))
    poison = PoisonTaskError("it dies", task="only")
    for _ in range(2):
        bench.fail(start, "crash", poison)
        (start,) = starts(bench.wake())
    (failed,) = (c for c in bench.fail(start, "crash", poison) if isinstance(c, ev.FailGraph))
    assert failed.error is poison


def test_cpus_beside_a_card_are_counted() -> None:
    bench = Bench(15 * GB, cpus=4)
    commands = bench.submit(*(batch(f"b{i}", GB, cpus=2) for i in range(4)))
    assert devices(commands) == {"GPU-0": 2}
    (more,) = starts(bench.finish(starts(commands)[0]))
    assert more.placement.device == "GPU-0"


def test_small_batches_do_not_starve_a_large_one() -> None:
    bench = Bench(15 * GB)
    running = starts(bench.submit(*(batch(f"s{i}", 4 * GB) for i in range(3))))
    bench.submit(batch("large", 14 * GB), graph="large")
    started: list[str] = []
    for number in range(60):
        if "large" in started:
            break
        bench.now += 1.0
        bench.submit(batch(f"m{number}", 4 * GB), graph=f"m{number}")
        commands = bench.finish(running.pop(0))
        running += starts(commands)
        started += [start.bundle.key for start in starts(commands)]
    assert "large" in started


def test_a_batch_larger_than_every_card_runs_in_parts() -> None:
    bench = Bench(15 * GB)
    bench.dispatcher.model.device_peaks.observe("only", 4, 40 * GB)
    (start,) = starts(bench.submit(batch("b", 5 * GB)))
    assert start.parts == 3


def test_peaks_grow_in_proportion_up_to_what_is_declared() -> None:
    peaks = DevicePeaks()
    assert peaks.need_bytes("f", 8, 7 * GB) == 7 * GB
    peaks.observe("f", 8, 2 * GB)
    assert peaks.need_bytes("f", 5, 7 * GB) == int(2.1 * GB)
    assert peaks.need_bytes("f", 16, 7 * GB) == int(4.2 * GB)
    assert peaks.need_bytes("f", 64, 7 * GB) == 7 * GB
    other = DevicePeaks()
    other.learn(peaks.knowledge())
    assert other.knowledge() == [Peak("f", 8, 2 * GB)]


# --- a simulation ----------------------------------------------------------------------------


@dataclass
class Card:
    total: int
    others: int = 0
    held: dict[tuple[int, int], int] = field(default_factory=dict)

    @property
    def budget(self) -> int:
        return max(0, self.total - self.others - reserve_bytes(self.total))


@pytest.mark.parametrize("seed", range(30))
def test_simulation(seed: int) -> None:
    """Random batches, other programs, deaths and losses: no card is ever over-committed by us,
    every batch has one result, and nothing waits for ever."""
    random_ = random.Random(seed)
    cards = {f"GPU-{i}": Card(16 * GB) for i in range(random_.randint(1, 4))}
    bench = Bench(*(card.budget for card in cards.values()), cpus=random_.randint(1, 8))
    needs: dict[str, int] = {}
    done: Counter[str] = Counter()
    flying: dict[tuple[int, int], ev.Start] = {}

    def take(commands: list[ev.Command]) -> None:
        for command in commands:
            if isinstance(command, ev.FailGraph):
                raise AssertionError(command.error)
            if isinstance(command, ev.Start):
                flying[command.bundle_id, command.attempt] = command
                device = command.placement.device
                if device != "cpu":
                    cards[device].held[command.bundle_id, command.attempt] = (
                        command.gpu_memory_bytes
                    )
                    held = sum(cards[device].held.values())
                    assert held <= told[device] + 1, (device, held, told[device])

    def ended(start: ev.Start) -> None:
        del flying[start.bundle_id, start.attempt]
        if start.placement.device != "cpu":
            del cards[start.placement.device].held[start.bundle_id, start.attempt]

    told = {name: card.budget for name, card in cards.items()}
    for graph in range(random_.randint(1, 6)):
        bundles = []
        for i in range(random_.randint(1, 30)):
            key = f"g{graph}-{i}"
            needs[key] = random_.choice([0, 1, 2, 3, 5, 9, 14]) * GB
            gpus = random_.choice([0.0, 0.0, 0.18, 0.5, 1.0])
            codelet = random_.choice([ONLY, EITHER])
            bundles.append(batch(key, needs[key], gpus=gpus, codelet=codelet))
        take(bench.submit(*bundles, graph=f"g{graph}"))
    steps = 0
    while len(done) < len(needs):
        steps += 1
        assert steps < 20_000, "it does not come to an end"
        bench.now += random_.random() * 0.2
        chance = random_.random()
        if chance < 0.1 and steps < 2_000:
            for card in cards.values():
                card.others = random_.choice([0, 4, 8, 15]) * GB
            told = {name: card.budget for name, card in cards.items()}
            take(bench.up(*told.values()))
        elif steps == 2_000:
            for card in cards.values():
                card.others = 0
            told = {name: card.budget for name, card in cards.items()}
            take(bench.up(*told.values()))
        elif flying and chance < 0.8:
            start = random_.choice(list(flying.values()))
            ended(start)
            fate = random_.random()
            if fate < 0.1 and steps < 2_000 and start.placement.device != "cpu":
                full = OutOfDeviceMemoryError("others were quicker")
                take(bench.fail(start, "card_full", full))
            elif fate < 0.15 and steps < 2_000:
                take(bench.fail(start, "node_lost", RuntimeError("gone")))
            else:
                done[start.bundle.key] += 1
                take(bench.finish(start))
        else:
            take(bench.send(ev.Tick))
    assert set(done.values()) == {1}
    assert bench.dispatcher.idle
    for executor in bench.dispatcher.view.executors.values():
        assert (executor.held.processes, executor.held.memory_bytes) == (0, 0)
        assert (executor.in_flight, executor.held.share, executor.held.unknown) == (0, 0.0, 0)
