"""``await job``: the event loop goes on, a cancelled wait stops the work, errors arrive."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

import agentic_ray as ar
from agentic_ray.awaiting import in_thread
from agentic_ray.errors import JobCancelledError, JobTimeoutError

pytestmark = pytest.mark.usefixtures("ray_session")


def test_a_job_is_awaited_while_the_loop_goes_on() -> None:
    async def main() -> tuple[list[int], int]:
        ticks = 0
        done = asyncio.Event()

        async def tick() -> None:
            nonlocal ticks
            while not done.is_set():
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.create_task(tick())
        job = ar.map_reduce_job(lambda x: time.sleep(0.2) or x, range(4))
        found = await job
        assert await job == found
        done.set()
        await ticking
        return found, ticks

    found, ticks = asyncio.run(main())
    assert found == [0, 1, 2, 3]
    assert ticks > 3


def test_many_jobs_are_awaited_together() -> None:
    async def main() -> list[int]:
        jobs = [ar.map_reduce_job(lambda x: x, range(n), lambda a, b: a + b) for n in (2, 3, 4)]
        return list(await asyncio.gather(*jobs))

    assert asyncio.run(main()) == [1, 3, 6]


def test_a_wait_that_is_cancelled_cancels_the_job(tmp_path: Path) -> None:
    def work(x: int) -> None:
        for step in range(600):
            (tmp_path / f"{x}-{step}").touch()
            time.sleep(0.1)

    job = ar.map_reduce_job(work, range(4))

    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(job, 2)

    asyncio.run(main())
    with pytest.raises(JobCancelledError):
        job.result(60)  # the thread that runs it ends
    before = len(list(tmp_path.iterdir()))
    time.sleep(0.5)
    assert len(list(tmp_path.iterdir())) == before
    assert "cancelled" in repr(job)


def test_what_a_job_raises_is_raised_by_await() -> None:
    def fail(x: int) -> None:
        raise LookupError(f"no {x}")

    async def main() -> None:
        with pytest.raises(LookupError, match="no 0"):
            await ar.map_reduce_job(fail, [0])

    asyncio.run(main())


def test_what_no_future_can_hold_is_raised_all_the_same() -> None:
    def stop() -> None:
        raise StopIteration(3)

    async def main() -> None:
        with pytest.raises(RuntimeError, match="StopIteration"):
            await in_thread(stop, cancelled=lambda: None)

    asyncio.run(main())


def test_a_submitted_job_is_awaited_and_outlives_a_cancelled_wait() -> None:
    gate = threading.Event()

    @ar.workload("waits for the test", replace=True)
    def waits(params: dict[str, int]) -> int:
        gate.wait(60)
        return params["n"]

    async def main() -> None:
        job = ar.submit("waits for the test", {"n": 7})
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(job, 0.2)
        assert "running" in repr(job)
        gate.set()
        assert await job == 7

    asyncio.run(main())


# --- one job, one outcome --------------------------------------------------------------------


def test_a_result_is_computed_once() -> None:
    read = []

    def numbers() -> object:
        for i in range(5):
            read.append(i)
            yield i

    job = ar.map_reduce_job(lambda x: x, numbers(), lambda a, b: a + b)
    assert [job.result(), job.result()] == [10, 10]
    assert read == list(range(5))


def test_a_failure_is_raised_each_time() -> None:
    job = ar.map_reduce_job(lambda x: 1 // x, [0])
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            job.result()
    assert "failed, ZeroDivisionError" in repr(job)


def test_who_asks_meanwhile_waits_for_the_same() -> None:
    job = ar.map_reduce_job(lambda x: time.sleep(1) or x, range(2))
    found: list[object] = []
    asking = threading.Thread(target=lambda: found.append(job.result()))
    asking.start()
    while "running" not in repr(job):
        time.sleep(0.01)
    with pytest.raises(JobTimeoutError):
        job.result(0.05)
    found.append(job.result())
    asking.join()
    assert found == [[0, 1], [0, 1]]


def test_a_job_says_how_it_stands() -> None:
    job = ar.map_reduce_job(lambda x: x, range(3))
    assert repr(job) == "<map_reduce <lambda>: not started, 0 of 3 elements>"
    job.result()
    assert "succeeded, 3 of 3 elements" in repr(job)
    assert "&lt;lambda&gt;" in job._repr_html_()
