"""Programs of the tests of functions on cards, each in a process of its own:
``function_scenarios.py NAME``.

Ray is real, with made-up GPUs; NVML is the stand-in built from C, whose cards' memory follows the
real function processes, in which `standin_torch` is the framework. Each scenario checks what it
claims and ends with an error otherwise.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import standin_torch as torch

import agentic_ray as ar
from agentic_ray.runtime import Session
from agentic_ray.runtime.embedded import init_embedded
from tests.support.waiting import until

MIB = 2**20
TOTAL = 64 * MIB
UUIDS = tuple(f"GPU-{i}{i}{i}{i}aaaa-0000-0000-0000-00000000000{i}" for i in range(4))


@contextmanager
def cards(count: int, cpus: int = 2) -> Iterator[Session]:
    """A session on a Ray of its own with so many stand-in cards, all empty."""
    lines = [f"gpus={count}"]
    for i, uuid in enumerate(UUIDS[:count]):
        folder = torch.make_card(uuid, TOTAL)
        figures: dict[str, object] = {
            "uuid": uuid,
            "name": "NVIDIA Test",
            "total": TOTAL,
            "free": TOTAL,
            "used": 0,
            "reserved": 0,
            "mig": 0,
            "bus": f"00000000:0{i + 1}:00.0",
            "allocations": folder,
        }
        lines += [f"gpu.{i}.{field}={value}" for field, value in figures.items()]
    Path(os.environ["NVML_STANDIN_STATE"]).write_text("\n".join(lines) + "\n")
    init_embedded(num_cpus=cpus, num_gpus=count, logging_level="ERROR")
    try:
        yield ar.init(poll_seconds=0.2)
    finally:
        ar.shutdown()
        ray.shutdown()


def failures() -> list[str]:
    """What could not be allocated on any card so far."""
    found: list[str] = []
    for uuid in UUIDS:
        path = torch.folder_of(uuid) / "failures"
        if path.exists():
            found += path.read_text().splitlines()
    return found


def said(name: str, line: str) -> None:
    """Note something in a file, from any process."""
    with (Path(os.environ["SCENARIO_FOLDER"]) / name).open("a") as file:
        file.write(line + "\n")


def heard(name: str) -> list[str]:
    path = Path(os.environ["SCENARIO_FOLDER"]) / name
    return path.read_text().splitlines() if path.exists() else []


BEGAN = time.monotonic()


def stage(name: str) -> None:
    """Tell how long the scenario has taken so far."""
    print(f"{time.monotonic() - BEGAN:6.1f} s  {name}", flush=True)


# --- functions -----------------------------------------------------------------------------


def load() -> Any:
    said("setups", f"{os.getpid()} {torch.card()}")
    return torch.empty(8 * MIB)


@ar.function(gpu_memory=20 * MIB, setup=load)
def where(model: Any, number: int) -> tuple[int, str, int]:
    assert model.size_bytes == 8 * MIB
    room = torch.empty(2 * MIB)
    time.sleep(0.02)
    assert room.size_bytes
    return number, torch.card(), os.getpid()


@ar.function(gpu_memory=40 * MIB, batch_size=16)
def doubled(numbers: Sequence[int], *, device: str) -> Any:
    if device == "cuda":
        room = torch.empty(5 * MIB * len(numbers))
        assert room.size_bytes
    said("doubled", f"{device} {len(numbers)}")
    return np.asarray(numbers) * 2


@ar.function(gpu_memory=1 * MIB)
def picky(number: int) -> int:
    if number == 13:
        raise KeyError("thirteen")
    return number


@ar.function(gpu_memory=1 * MIB)
def mortal(number: int) -> int:
    if number == 5 and len(heard("deaths")) < 2:
        said("deaths", str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)
    return -number


@ar.function(gpu_memory=1 * MIB)
def deadly(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


@ar.function(gpu_memory=4 * MIB)
def huge(number: int) -> int:
    return torch.empty(200 * MIB).size_bytes + number


@ar.function(gpu_memory=4 * MIB)
def huge_or_cpu(number: int, *, device: str) -> str:
    if device == "cuda":
        torch.empty(200 * MIB)
    return f"{device} {number}"


@ar.function(gpu_memory=30 * MIB)
def steady(number: int) -> int:
    room = torch.empty(24 * MIB)
    time.sleep(0.01)
    assert room.size_bytes
    return number * 3


@ar.function(gpu_memory=18 * MIB, batch_size=4)
def lively(numbers: Sequence[int]) -> list[int]:
    room = torch.empty(3 * MIB * len(numbers))
    time.sleep(0.01 * len(numbers))
    assert room.size_bytes
    return [7 * number for number in numbers]


# --- scenarios -----------------------------------------------------------------------------


def functions() -> None:
    with cards(4) as session:
        stage("in order, on both")
        # in order, each process set up once and used again
        results = list(ar.map(where, range(60)))
        assert [number for number, _, _ in results] == list(range(60))
        assert {card for _, card, _ in results} <= set(UUIDS), results
        setups = heard("setups")
        assert len(setups) == len({line.split()[0] for line in setups}), setups
        pids = {str(pid) for _, _, pid in results}
        assert pids <= {line.split()[0] for line in setups}
        again = list(ar.map(where, range(20)))
        assert {pid for _, _, pid in again} <= {int(line.split()[0]) for line in heard("setups")}
        assert failures() == []

        # one call alone, as a job
        jobs = [ar.submit(where, number) for number in (7, 8)]
        assert [job.result(90)[0] for job in jobs] == [7, 8]
        assert {job.result(90)[1] for job in jobs} <= set(UUIDS)

        stage("what NVML saw")
        # what NVML saw takes the place of what was declared
        name = where.codelet.name
        seen = {peak.size_bytes for peak in session.model.device_peaks.knowledge()}
        assert seen <= {8 * MIB, 10 * MIB}, seen  # (a short peak may pass between two looks)
        assert session.model.device_peaks.need_bytes(name, 1, 20 * MIB) <= int(10 * MIB * 1.05)

        stage("a batch that does no")
        # a batch that does not fit runs in halves, and the next ones are smaller
        assert list(ar.map(doubled, range(100))) == [2 * i for i in range(100)]
        sizes = [int(line.split()[1]) for line in heard("doubled")]
        assert max(sizes) < 16, sizes
        assert all(line.startswith("cuda") for line in heard("doubled"))
        assert failures(), "the first batches are too large for any card"

        stage("one item that fits o")
        # one item that fits on no card: on a CPU where it can, else the framework's own error
        assert list(ar.map(huge_or_cpu, range(3))) == ["cpu 0", "cpu 1", "cpu 2"]
        with pytest.raises(ar.errors.OutOfDeviceMemoryError, match=r"torch\.OutOfMemoryError"):
            list(ar.map(huge, [1]))

        stage("errors of the functi")
        # errors of the function
        with pytest.raises(KeyError, match="thirteen") as error:
            list(ar.map(picky, range(40)))
        assert error.value.element_index == 13  # type: ignore[attr-defined]

        stage("a process that dies")
        # a process that dies is replaced; a function that always dies is named
        assert list(ar.map(mortal, range(12))) == [-i for i in range(12)]
        assert len(heard("deaths")) == 2
        with pytest.raises(ar.errors.PoisonTaskError, match="SIGKILL"):
            list(ar.map(deadly, [1]))

        stage("lazy:")
        # lazy: items are read a few batches ahead of the reader only
        read: list[int] = []

        def items() -> Iterator[int]:
            for i in range(10_000):
                read.append(i)
                yield i

        with ar.map(picky, (i for i in items() if i != 13)) as lazy:
            assert next(lazy) == 0
            assert len(read) < 200, len(read)

        stage("reduced,")
        # reduced, too
        assert ar.map_reduce(mortal, range(10), lambda a, b: a + b) == -45

        stage("another program fill")
        # another program fills both cards: it waits, without an error, until there is room
        before = len(failures())
        for uuid in UUIDS:
            until(lambda uuid=uuid: torch.set_others(uuid, 50 * MIB))
        done: list[int] = []
        waiting = threading.Thread(target=lambda: done.extend(ar.map(steady, range(8))))
        waiting.start()
        waiting.join(1.5)
        assert done == []
        torch.set_others(UUIDS[1], 0)
        waiting.join(90)
        assert done == [3 * i for i in range(8)]
        assert len(failures()) == before, "it was tried where it could not fit"

        # two cards are about half full, by a program whose memory changes all the time
        stage("others come and go")
        for uuid in UUIDS:
            torch.set_others(uuid, 0)
        ended = threading.Event()

        def others() -> None:
            sizes = itertools.cycle([24, 36, 30, 40, 20])
            while not ended.wait(0.5):
                for uuid in UUIDS[:2]:
                    torch.set_others(uuid, next(sizes) * MIB)

        changing = threading.Thread(target=others)
        changing.start()
        try:
            assert list(ar.map(lively, range(400))) == [7 * i for i in range(400)]
        finally:
            ended.set()
            changing.join()


class Holder:
    """A plain Ray actor of a user."""

    def __init__(self) -> None:
        self.room: Any = None

    def take(self, mib: int) -> str:
        self.room = torch.empty(mib * MIB)
        return ",".join(torch.visible())


def leases() -> None:
    with cards(2) as session:
        actor = ray.remote(Holder)
        stage("one card, shared by memory")
        first = ar.reserve(gpu_memory=40 * MIB, cpus=1, timeout=90)
        ((node_id, uuid),) = first.cards
        held = actor.options(**first.options).remote()
        assert ray.get(held.take.remote(30), timeout=90) == uuid
        assert ray.cluster_resources()["GPU"] - ray.available_resources().get("GPU", 0.0) == 2.0

        # what it uses of its lease is counted once, and nothing else takes the rest of it
        books = session._loop.dispatcher.view.executors[node_id, uuid]
        until(lambda: (books.offer.memory_bytes or 0) > 55 * MIB)
        assert books.held.memory_bytes == 40 * MIB
        results = list(ar.map(steady, range(20)))
        assert results == [3 * i for i in range(20)]
        assert failures() == []

        # whole cards are granted when they are empty, in time or with the reason
        stage("whole cards")
        with pytest.raises(ar.errors.LeaseTimeoutError, match="can be had"):
            ar.reserve(gpus=2, timeout=1)
        with pytest.raises(ar.errors.ImpossibleResourcesError, match="3 GPUs"):
            ar.reserve(gpus=3)
        with pytest.raises(ar.errors.ImpossibleResourcesError, match="GPU memory"):
            ar.reserve(gpu_memory="80 GB")
        with pytest.raises(ar.errors.InvalidArgumentError, match="whole number"):
            ar.reserve(gpus=1.5)

        # a lease ends with its actor
        stage("it ends with its actor")
        ray.kill(held)
        until(lambda: first.ended != "")
        assert "have ended" in first.ended
        with pytest.raises(ar.errors.LeaseLostError):
            _ = first.options
        with ar.reserve(gpus=2, timeout=90) as both:
            assert {card for _, card in both.cards} == set(UUIDS[:2])
            asked = actor.options(**both.options).remote()
            assert ray.get(asked.take.remote(60), timeout=90) == ",".join(
                card for _, card in both.cards
            )
            ray.kill(asked)
        until(lambda: both.ended != "")

        # fractions that Ray cannot pack
        stage("fractions")
        many = [ar.reserve(gpus=0.18, timeout=90) for _ in range(10)]
        assert sorted(Counter(lease.cards[0][1] for lease in many).values()) == [5, 5]
        for lease in many:
            lease.release()
        until(lambda: not session._loop.dispatcher.lease_books())

        # a card computes with arrays and runs functions at the same time
        stage("arrays and functions")
        block = np.arange(100_000.0)
        total = ar.map_reduce(array_sum, block, lambda a, b: a + b, tag="gpu", chunk_size=10_000)
        assert list(ar.map(steady, range(4))) == [0, 3, 6, 9]
        assert np.isclose(total, block.sum())


@ar.codelet
def array_sum(block: Any, *, xp: Any) -> float:
    return float(xp.sum(block))


def no_card() -> None:
    with pytest.raises(ar.errors.NoSuitableDeviceError, match="no GPU"):
        list(ar.map(huge, [1]))
    with pytest.raises(ar.errors.NoSuitableDeviceError, match="no GPU"):
        ar.reserve(gpus=1)
    assert list(ar.map(huge_or_cpu, range(3))) == ["cpu 0", "cpu 1", "cpu 2"]


SCENARIOS = {"functions": functions, "leases": leases, "no_card": no_card}

if __name__ == "__main__":
    SCENARIOS[sys.argv[1]]()
    print("done")
