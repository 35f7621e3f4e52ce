"""Programs of the tests of functions on cards, each in a process of its own:
``function_scenarios.py NAME``.

Ray is real, with made-up GPUs; NVML is the stand-in built from C, whose cards' memory follows the
real function processes, in which `standin_torch` is the framework. Each scenario checks what it
claims and ends with an error otherwise.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
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
    ray.init("local", num_cpus=cpus, num_gpus=count, include_dashboard=False, logging_level="ERROR")
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


def until(condition: Any, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


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


# --- scenarios -----------------------------------------------------------------------------


def functions() -> None:
    with cards(2) as session:
        # in order, on both cards, each process set up once and used again
        results = list(ar.map(where, range(60)))
        assert [number for number, _, _ in results] == list(range(60))
        assert {card for _, card, _ in results} == set(UUIDS[:2]), results
        setups = heard("setups")
        assert len(setups) == len({line.split()[0] for line in setups}), setups
        pids = {str(pid) for _, _, pid in results}
        assert pids <= {line.split()[0] for line in setups}
        again = list(ar.map(where, range(20)))
        assert {pid for _, _, pid in again} <= {int(line.split()[0]) for line in heard("setups")}
        assert len(heard("setups")) <= 10, "a card has room for five such processes"
        assert failures() == []

        # what NVML saw takes the place of what was declared
        name = where.codelet.name
        seen = {peak.size_bytes for peak in session.model.device_peaks.knowledge()}
        assert seen == {10 * MIB}, seen
        assert session.model.device_peaks.need_bytes(name, 1, 20 * MIB) == int(10 * MIB * 1.05)

        # a batch that does not fit runs in halves, and the next ones are smaller
        assert list(ar.map(doubled, range(100))) == [2 * i for i in range(100)]
        sizes = [int(line.split()[1]) for line in heard("doubled")]
        assert max(sizes) < 16, sizes
        assert all(line.startswith("cuda") for line in heard("doubled"))
        assert failures(), "the first batches are too large for any card"

        # one item that fits on no card: on a CPU where it can, else the framework's own error
        assert list(ar.map(huge_or_cpu, range(3))) == ["cpu 0", "cpu 1", "cpu 2"]
        with pytest.raises(RuntimeError, match="CUDA out of memory") as short:
            list(ar.map(huge, [1]))
        assert type(short.value).__name__ == "OutOfMemoryError"

        # errors of the function
        with pytest.raises(KeyError, match="thirteen") as error:
            list(ar.map(picky, range(40)))
        assert error.value.element_index == 13  # type: ignore[attr-defined]

        # a process that dies is replaced; a function that always dies is named
        assert list(ar.map(mortal, range(12))) == [-i for i in range(12)]
        assert len(heard("deaths")) == 2
        with pytest.raises(ar.errors.PoisonTaskError, match="SIGKILL"):
            list(ar.map(deadly, [1]))

        # lazy: items are read a few batches ahead of the reader only
        read: list[int] = []

        def items() -> Iterator[int]:
            for i in range(10_000):
                read.append(i)
                yield i

        with ar.map(picky, (i for i in items() if i != 13)) as lazy:
            assert next(lazy) == 0
            assert len(read) < 200, len(read)

        # reduced, too
        assert ar.map_reduce(mortal, range(10), lambda a, b: a + b) == -45

        # another program fills both cards: it waits, without an error, until there is room
        before = len(failures())
        for uuid in UUIDS[:2]:
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


def no_card() -> None:
    ray.init("local", num_cpus=2, include_dashboard=False, logging_level="ERROR")
    try:
        ar.init(poll_seconds=0.2)
        with pytest.raises(ar.errors.NoSuitableDeviceError, match="no GPU"):
            list(ar.map(huge, [1]))
        assert list(ar.map(huge_or_cpu, range(3))) == ["cpu 0", "cpu 1", "cpu 2"]
    finally:
        ar.shutdown()
        ray.shutdown()


SCENARIOS = {"functions": functions, "no_card": no_card}

if __name__ == "__main__":
    SCENARIOS[sys.argv[1]]()
    print("done")
