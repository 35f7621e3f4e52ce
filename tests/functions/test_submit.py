"""`ar.submit` of a function with its needs, on CPUs over the shared Ray; cards in
``tests/runtime``."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agentic_ray as ar
from agentic_ray.errors import (
    ImpossibleResourcesError,
    InvalidArgumentError,
    InvalidTypeError,
    JobCancelledError,
    JobTimeoutError,
    NoSuitableDeviceError,
)

pytestmark = pytest.mark.usefixtures("ray_session")


def load() -> dict[str, int]:
    return {"ten": 10}


@ar.function(setup=load)
def scaled(model: dict[str, int], number: int, *more: int, plus: int = 0) -> tuple[int, int]:
    return model["ten"] * number + sum(more) + plus, os.getpid()


def test_a_call_gets_its_arguments_and_runs_elsewhere() -> None:
    value, pid = ar.submit(scaled, 4, 1, 1, plus=3).result(timeout=120)
    assert value == 45
    assert pid != os.getpid()
    assert scaled(4, 1, 1, plus=3) == (45, os.getpid())


def test_any_value_comes_back() -> None:
    @ar.function(cpus=1)
    def ones(*shape: int) -> Any:
        return np.ones(shape), {"shape": shape}

    array, about = ar.submit(ones, 300, 400).result(timeout=120)
    assert array.shape == (300, 400) == about["shape"]
    job = ar.submit(ones, 2)
    assert job.result(120)[0].tolist() == job.result(120)[0].tolist() == [1.0, 1.0]
    assert job.done
    assert job.status() == "succeeded"
    assert [record.items for record in job.placements()] == [1]
    assert "succeeded" in repr(job)
    assert not job.cancel()


def test_items_for_a_function_of_batches_are_cut_into_batches() -> None:
    @ar.function(batch_size=4)
    def doubled(numbers: Any) -> Any:
        assert len(numbers) <= 4
        return [2 * number for number in numbers]

    assert ar.submit(doubled, range(10)).result(120) == [2 * i for i in range(10)]
    assert ar.submit(doubled, []).result(120) == []
    found = ar.submit(doubled, np.arange(6)).result(120)
    assert [int(value) for value in found] == [0, 2, 4, 6, 8, 10]
    with pytest.raises(InvalidArgumentError, match="one list or array"):
        ar.submit(doubled, [1], [2])


def test_its_own_error_is_raised_with_the_lines_it_passed_through() -> None:
    @ar.function
    def inverse(number: float) -> float:
        return 1 / number

    job = ar.submit(inverse, 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError) as raised:
            job.result(120)
    assert "in inverse" in raised.value.remote_traceback  # type: ignore[attr-defined]
    assert raised.value.element_index is None  # type: ignore[attr-defined]
    assert job.status() == "failed"
    with pytest.raises(TypeError, match="unexpected keyword argument 'wrong'"):
        ar.submit(inverse, 1, wrong=2).result(120)


def test_a_call_whose_process_dies_is_made_again(tmp_path: Path) -> None:
    mark = tmp_path / "mark"

    @ar.function
    def mortal() -> str:
        if not mark.exists():
            mark.write_text("")
            os.kill(os.getpid(), signal.SIGKILL)
        return "alive"

    assert ar.submit(mortal).result(timeout=120) == "alive"


def test_what_is_cancelled_or_late_stops(tmp_path: Path) -> None:
    begun = tmp_path / "begun"

    @ar.function
    def endless() -> None:
        begun.write_text("")
        while True:
            time.sleep(0.05)

    job = ar.submit(endless)
    deadline = time.monotonic() + 120
    while not begun.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with pytest.raises(JobTimeoutError):
        job.result(timeout=0.01)
    assert job.status() == "running"
    assert job.cancel()
    with pytest.raises(JobCancelledError):
        job.result(120)
    assert job.status() == "cancelled"
    with pytest.raises(JobTimeoutError, match="longer than it may"):
        ar.submit(endless, timeout_seconds=0.5).result(120)


def test_it_can_be_awaited() -> None:
    async def both() -> list[Any]:
        jobs = [ar.submit(scaled, number) for number in (1, 2)]
        return [(await job)[0] for job in jobs]

    assert asyncio.run(both()) == [10, 20]


def test_what_cannot_be_is_refused() -> None:
    @ar.function(gpus=1)
    def on_card() -> None: ...

    @ar.function(cpus=1000)
    def large() -> None: ...

    with pytest.raises(NoSuitableDeviceError, match="no GPU"):
        ar.submit(on_card).result(120)
    with pytest.raises(ImpossibleResourcesError):
        ar.submit(large).result(120)
    with pytest.raises(InvalidArgumentError, match="timeout_seconds"):
        ar.submit(scaled, 1, timeout_seconds=0)


def test_a_workload_still_takes_its_params() -> None:
    assert ar.submit("default", params={"data": [1, 2]}).result(120) == 5
    for wrong in ((), ({"data": []}, 2)):
        with pytest.raises(InvalidTypeError, match="one value"):
            ar.submit("default", *wrong)
