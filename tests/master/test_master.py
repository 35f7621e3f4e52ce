"""The master: order, limits, cancel, timeout, close. Only the last workloads use a cluster."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agentic_ray as ar
from agentic_ray.errors import (
    InvalidArgumentError,
    InvalidParametersError,
    InvalidTypeError,
    JobCancelledError,
    JobTimeoutError,
    NothingRanError,
    QueueFullError,
    SerializationError,
    SessionError,
    UnknownJobError,
    UnknownWorkloadError,
)
from agentic_ray.master import JobState, Master, MemoryStore, Registry
from agentic_ray.master import registry as process_registry
from tests.support.waiting import until


class Gate:
    """Holds workloads until it is opened, and notes the order in which they ran."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.order: list[Any] = []
        self.most = 0
        self._inside = 0
        self._lock = threading.Lock()

    def work(self, params: Any) -> Any:
        with self._lock:
            self.order.append(params)
            self._inside += 1
            self.most = max(self.most, self._inside)
        assert self.open.wait(30)
        with self._lock:
            self._inside -= 1
        return params


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open.set()


@pytest.fixture
def registry(gate: Gate) -> Registry:
    made = Registry()
    made.register("gate", gate.work)
    made.register("echo", lambda params: params)
    made.register("odd", lambda params: {1, 2})
    made.register("nan", lambda params: float("nan"))
    made.register("boom", boom)
    return made


def boom(params: Any) -> None:
    raise KeyError("the user's own")


@pytest.fixture
def master(registry: Registry, gate: Gate) -> Iterator[Master]:
    with Master(workloads=registry, max_running=2, max_queued=5) as made:
        yield made
        gate.open.set()


def test_a_job_succeeds(master: Master) -> None:
    job = master.submit("echo", {"x": 1})
    assert job.result(60) == {"x": 1}
    assert job.status() == "succeeded"
    status = master.get_task_status(job.id)
    assert (status["task_id"], status["state"], status["result"], status["error"]) == (
        job.id,
        "succeeded",
        {"x": 1},
        None,
    )
    assert [event.kind for event in job.events()] == ["queued", "running", "succeeded"]
    assert job.metrics is None
    assert master.job(job.id) is job
    assert not job.cancel()


def test_a_failed_job_raises_the_users_own_exception(master: Master) -> None:
    job = master.submit("boom", None)
    with pytest.raises(KeyError, match="the user's own"):
        job.result(60)
    assert master.get_task_status(job.id)["error"]["type"] == "KeyError"
    assert "in boom" in str(job.record.error and job.record.error.traceback)


@pytest.mark.parametrize("raised", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_whatever_a_workload_raises_is_its_jobs_alone(
    master: Master, registry: Registry, raised: BaseException
) -> None:
    def work(params: Any) -> None:
        raise raised

    registry.register("end", work)
    job = master.submit(work, None)
    with pytest.raises(type(raised)):
        job.result(60)
    assert master.submit("echo", 1).result(60) == 1


def test_a_result_without_a_json_form_fails_the_job(master: Master) -> None:
    with pytest.raises(SerializationError, match="result is of type set"):
        master.submit("odd", None).result(60)
    assert math.isnan(master.submit("nan", None).result(60))


def test_higher_priority_goes_first_and_equals_in_order(registry: Registry, gate: Gate) -> None:
    with Master(workloads=registry, max_running=1) as master:
        master.submit("gate", "blocker")
        until(lambda: gate.order)
        for name, priority in (("a", 0), ("b", 0), ("c", 5), ("d", -1), ("e", 5)):
            master.submit("gate", name, priority=priority)
        assert master.statistics().queued == 5
        gate.open.set()
    assert gate.order == ["blocker", "c", "e", "a", "b", "d"]


def test_no_more_jobs_run_at_once_than_may(master: Master, gate: Gate) -> None:
    for i in range(6):
        master.submit("gate", i)
    until(lambda: len(gate.order) == 2)
    statistics = master.statistics()
    assert (statistics.running, statistics.queued) == (2, 4)
    gate.open.set()
    assert master.close()
    assert gate.most == 2


def test_a_held_master_accepts_jobs_and_starts_them_later(registry: Registry) -> None:
    with Master(workloads=registry, held=True) as held:
        jobs = [held.submit("echo", i) for i in range(3)]
        late = held.submit("echo", 3, deadline_seconds=0.05)
        with pytest.raises(JobTimeoutError, match="deadline"):
            late.result(60)
        with pytest.raises(JobTimeoutError, match="queued"):
            jobs[0].result(0.1)
        assert jobs[2].cancel()
        assert held.held
        held.begin()
        assert [job.result(60) for job in jobs[:2]] == [0, 1]
        assert not held.held
        assert held.submit("echo", 4).result(60) == 4
        with pytest.raises(JobCancelledError):
            jobs[2].result(60)


def test_a_full_queue_refuses(master: Master, gate: Gate) -> None:
    for i in range(7):
        master.submit("gate", i)
    with pytest.raises(QueueFullError, match="5 jobs wait") as caught:
        master.submit("gate", 8)
    assert caught.value.retry_after_seconds > 0
    assert len(master.jobs()) == 7


def test_a_queued_job_is_cancelled_at_once_and_never_runs(master: Master, gate: Gate) -> None:
    for i in range(2):
        master.submit("gate", i)
    waiting = master.submit("gate", "never")
    assert waiting.cancel()
    assert waiting.status() is JobState.CANCELLED
    with pytest.raises(JobCancelledError, match="while it waited"):
        waiting.result(0)
    gate.open.set()
    assert master.close()
    assert "never" not in gate.order


def test_a_running_job_is_cancelled_when_it_stops(master: Master, gate: Gate) -> None:
    job = master.submit("gate", "x")
    until(lambda: gate.order)
    assert master.cancel(job.id)
    assert job.status() is JobState.RUNNING
    assert job.record.cancel_requested
    gate.open.set()
    with pytest.raises(JobCancelledError, match="while it ran"):
        job.result(60)
    assert job.record.result is None


def test_a_job_that_runs_too_long_fails_and_holds_its_place_till_it_stops(
    master: Master, gate: Gate
) -> None:
    jobs = [master.submit("gate", i, timeout_seconds=0.05) for i in range(2)]
    for job in jobs:
        with pytest.raises(JobTimeoutError, match=r"longer than its 0\.05 seconds"):
            job.result(60)
        assert job.status() is JobState.FAILED
    after = master.submit("echo", 1)
    time.sleep(0.1)
    assert after.status() is JobState.QUEUED
    gate.open.set()
    assert after.result(60) == 1


def test_waiting_for_a_result_has_a_time_limit(master: Master) -> None:
    job = master.submit("gate", 1)
    with pytest.raises(JobTimeoutError, match=r"is running after 0\.01 seconds"):
        job.result(0.01)


def test_close_without_drain_cancels(registry: Registry, gate: Gate) -> None:
    master = Master(workloads=registry, max_running=1)
    running, waiting = (master.submit("gate", i) for i in range(2))
    until(lambda: gate.order)
    threading.Timer(0.2, gate.open.set).start()
    assert master.close(drain=False)
    assert running.status() is waiting.status() is JobState.CANCELLED
    with pytest.raises(SessionError, match="closed"):
        master.submit("echo", 1)


def test_close_drains_no_longer_than_it_may(registry: Registry, gate: Gate) -> None:
    master = Master(workloads=registry)
    job = master.submit("gate", 1)
    began = time.monotonic()
    assert not master.close(drain=True, timeout_seconds=0.1)
    assert time.monotonic() - began < 30
    assert job.record.cancel_requested


def test_a_handle_keeps_a_result_that_the_master_has_forgotten(registry: Registry) -> None:
    with Master(workloads=registry, max_running=1, store=MemoryStore(max_finished=2)) as master:
        jobs = [master.submit("echo", i) for i in range(20)]
        assert [job.result(60) for job in jobs] == list(range(20))
        assert len(master.jobs()) == 2
        first = jobs[0].id
        assert not jobs[0].cancel()
        del jobs
        with pytest.raises(UnknownJobError, match="forgotten"):
            master.get_task_status(first)


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        (("nothing", None), {}, UnknownWorkloadError),
        ((boom.__class__, None), {}, UnknownWorkloadError),
        (("echo", {1, 2}), {}, InvalidParametersError),
        (("echo", float("nan")), {}, InvalidParametersError),
        (("echo", 1), {"priority": 1.5}, InvalidTypeError),
        (("echo", 1), {"priority": True}, InvalidTypeError),
        (("echo", 1), {"priority": 10**9}, InvalidArgumentError),
        (("echo", 1), {"timeout_seconds": 0}, InvalidArgumentError),
        (("echo", 1), {"timeout_seconds": float("nan")}, InvalidArgumentError),
        (("echo", 1), {"timeout_seconds": 1e300}, InvalidArgumentError),
        (("echo", 1), {"timeout_seconds": "1"}, InvalidTypeError),
    ],
)
def test_what_cannot_be_submitted_is_refused(
    master: Master, arguments: Any, options: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        master.submit(*arguments, **options)
    assert master.jobs() == []


def test_unknown_jobs(master: Master) -> None:
    for ask in (master.get_task_status, master.cancel, master.job, master.wait):
        with pytest.raises(UnknownJobError, match="no job 'x'"):
            ask("x")


@pytest.mark.parametrize("options", [{"max_running": 0}, {"max_queued": -1}])
def test_limits_must_be_positive(options: Any) -> None:
    with pytest.raises(InvalidArgumentError):
        Master(**options)


def test_a_workload_whose_version_changed_does_not_run(
    master: Master, registry: Registry, gate: Gate
) -> None:
    for i in range(2):
        master.submit("gate", i)
    job = master.submit("echo", 1)
    registry.register("echo", lambda params: params, version="2", replace=True)
    gate.open.set()
    with pytest.raises(UnknownWorkloadError, match="now at version 2"):
        job.result(60)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-1, 1), st.sampled_from(["keep", "cancel"])), max_size=25),
    st.integers(1, 4),
)
def test_every_job_ends_once_whatever_is_cancelled(plan: Any, places: int) -> None:
    runs: list[int] = []
    registry = Registry()
    registry.register("note", lambda i: runs.append(i))
    master = Master(workloads=registry, max_running=places)
    jobs = []
    for i, (priority, fate) in enumerate(plan):
        job = master.submit("note", i, priority=priority)
        jobs.append(job)
        if fate == "cancel":
            job.cancel()
    assert master.close()
    statistics = master.statistics()
    assert (statistics.queued, statistics.running) == (0, 0)
    assert sum(statistics.finished.values()) == statistics.submitted == len(plan)
    assert len(runs) == len(set(runs))
    for i, (job, (_, fate)) in enumerate(zip(jobs, plan, strict=True)):
        assert job.status().finished
        if fate == "keep":
            assert job.status() is JobState.SUCCEEDED
            assert i in runs


def test_many_threads_submit_wait_and_cancel(registry: Registry) -> None:
    failures: list[BaseException] = []
    with Master(workloads=registry, max_running=4) as master:

        def use(thread: int) -> None:
            try:
                for i in range(50):
                    job = master.submit("echo", [thread, i])
                    if i % 5 == 0:
                        job.cancel()
                    else:
                        assert job.result(30) == [thread, i]
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=use, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert len(master.jobs()) == 400


# --- on Ray ------------------------------------------------------------------------------


@pytest.fixture
def default_master(ray_session: ar.Session) -> Iterator[Master]:
    # other tests may have put something of their own in place of the default
    with Master(workloads=Registry({"default": process_registry.get("default")})) as made:
        yield made


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ([1, 2, 3, 4, 5], 55),
        ([], 0),
        ([7], 49),
        ([10**200, 1], 10**400 + 1),
        ([0.5, 1], 1.25),
        ([1e200], float("inf")),
    ],
)
def test_the_default_workload_sums_squares(
    default_master: Master, data: Any, expected: Any
) -> None:
    task_id = default_master.submit_task({"data": data})
    result = default_master.job(task_id).result(60)
    assert result == expected
    assert type(result) is type(expected)


def nap(x: int) -> int:
    time.sleep(0.05)
    return x


def test_cancel_stops_the_work_on_the_cluster(ray_session: ar.Session) -> None:
    registry = Registry()
    registry.register("long", lambda n: ar.map_reduce(nap, range(n), lambda a, b: a + b))
    with Master(workloads=registry) as master:
        job = master.submit("long", 100_000)
        time.sleep(1)
        assert job.cancel()
        with pytest.raises(JobCancelledError):
            job.result(15)
        assert master.submit("long", 4).result(30) == 6


def test_jobs_through_the_modules_functions(ray_session: ar.Session) -> None:
    @ar.workload("test_submit")
    def longest(params: list[str]) -> int:
        return int(ar.map_reduce(len, params, max))

    job = ar.submit(longest, ["a", "bbb"])
    assert job.result(60) == 3
    assert ar.job(job.id) is job
    assert job.id in [record.id for record in ar.jobs()]


def test_a_job_tells_of_its_work_on_the_cluster(default_master: Master) -> None:
    job = default_master.submit("default", {"data": [1, 2, 3]})
    assert job.result(60) == 14
    assert job.metrics is not None
    assert (job.metrics["tasks"], job.metrics["decomposition"]) == (3, 1.0)
    assert sum(record.items for record in job.placements()) == 3
    spans = job.timeline().spans
    assert [span.task for span in spans] == [record.bundle for record in job.placements()]
    assert all(span.made_bytes is not None and span.moved_bytes == 0 for span in spans)
    assert "<svg" in job._repr_html_()
    kinds = [event.kind for event in job.events()]
    assert (kinds[0], kinds[-1]) == ("queued", "succeeded")
    assert "finished" in kinds
    statistics = default_master.statistics()
    assert statistics.measured == 1
    assert statistics.figures["recovery"] == 1.0


def test_a_job_cancelled_before_it_reaches_the_cluster_never_gets_there(
    ray_session: ar.Session,
) -> None:
    registry = Registry()
    entered, go = threading.Event(), threading.Event()
    ran: list[int] = []

    def work(params: Any) -> Any:
        entered.set()
        assert go.wait(10)
        ran.append(1)
        return ar.map_reduce(nap, range(4), lambda a, b: a + b)

    registry.register("work", work)
    with Master(workloads=registry) as master:
        job = master.submit("work", None)
        entered.wait(10)
        job.cancel()
        go.set()
        with pytest.raises(JobCancelledError):
            job.result(60)
    assert ran == [1]
    assert job.placements() == []
    with pytest.raises(NothingRanError, match="no record of work"):
        job.timeline()
