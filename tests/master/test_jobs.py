"""Records, legal steps, the queue and the store: the pure half of the master."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agentic_ray.errors import (
    InvalidArgumentError,
    JobCancelledError,
    TaskError,
    UnknownJobError,
)
from agentic_ray.master.jobs import (
    JobFailure,
    JobRecord,
    JobState,
    advance,
    lifecycle,
    raise_failure,
)
from agentic_ray.master.queue import JobQueue
from agentic_ray.master.store import MemoryStore

FAILURE = JobFailure("ValueError", "no")
LEGAL = {
    (JobState.QUEUED, JobState.RUNNING),
    (JobState.QUEUED, JobState.FAILED),
    (JobState.QUEUED, JobState.CANCELLED),
    (JobState.RUNNING, JobState.SUCCEEDED),
    (JobState.RUNNING, JobState.FAILED),
    (JobState.RUNNING, JobState.CANCELLED),
}


def record(job_id: str = "j", *, priority: int = 0, sequence: int = 0, size: int = 0) -> JobRecord:
    return JobRecord(job_id, "w", "1", {}, priority, sequence, created_at=10.0, size_bytes=size)


def in_state(state: JobState) -> JobRecord:
    if state is JobState.QUEUED:
        return record()
    running = advance(record(), JobState.RUNNING, 11.0)
    if state is JobState.RUNNING:
        return running
    error = None if state is JobState.SUCCEEDED else FAILURE
    return advance(running, state, 12.0, error=error)


@pytest.mark.parametrize(("old", "new"), list(itertools.product(JobState, JobState)))
def test_only_the_legal_steps_are_taken(old: JobState, new: JobState) -> None:
    error = FAILURE if new in (JobState.FAILED, JobState.CANCELLED) else None
    if (old, new) in LEGAL:
        assert advance(in_state(old), new, 13.0, error=error).state is new
    else:
        with pytest.raises(InvalidArgumentError, match=f"is {old.value} and cannot become"):
            advance(in_state(old), new, 13.0, error=error)


def test_a_failure_needs_an_error_and_a_success_has_none() -> None:
    running = in_state(JobState.RUNNING)
    with pytest.raises(InvalidArgumentError):
        advance(running, JobState.FAILED, 12.0)
    with pytest.raises(InvalidArgumentError):
        advance(running, JobState.SUCCEEDED, 12.0, error=FAILURE)


@given(st.floats(0, 100), st.floats(0, 100))
def test_a_clock_that_goes_back_keeps_the_order_of_times(start: float, end: float) -> None:
    running = advance(record(), JobState.RUNNING, start)
    done = advance(running, JobState.SUCCEEDED, end, result=1)
    assert done.started_at is not None
    assert done.finished_at is not None
    assert done.created_at <= done.started_at <= done.finished_at


def test_the_lifecycle_tells_each_step() -> None:
    assert [event.kind for event in lifecycle(in_state(JobState.FAILED))] == [
        "queued",
        "running",
        "failed",
    ]
    assert lifecycle(in_state(JobState.FAILED))[-1].text == "ValueError: no"


def test_a_failure_is_raised_as_itself_where_it_is_known() -> None:
    error = KeyError("x")
    done = advance(in_state(JobState.RUNNING), JobState.FAILED, 12.0, error=JobFailure.of(error))
    with pytest.raises(KeyError) as caught:
        raise_failure(done)
    assert caught.value is error
    with pytest.raises(TaskError, match="ValueError: no"):
        raise_failure(in_state(JobState.FAILED))
    with pytest.raises(JobCancelledError):
        raise_failure(in_state(JobState.CANCELLED))
    raise_failure(in_state(JobState.SUCCEEDED))


def test_a_failure_lets_go_of_what_its_frames_held() -> None:
    import weakref

    class Large:
        pass

    kept: list[weakref.ref[Large]] = []

    def work() -> None:
        large = Large()
        kept.append(weakref.ref(large))
        raise ValueError("with a large local")

    try:
        work()
    except ValueError as error:
        failure = JobFailure.of(error)
    assert kept[0]() is None
    assert "in work" in failure.traceback


def test_what_is_shown_has_no_traceback_and_no_params() -> None:
    shown = in_state(JobState.FAILED).to_dict()
    assert shown["error"] == {"type": "ValueError", "message": "no"}
    assert "params" not in shown
    assert "result" not in in_state(JobState.QUEUED).to_dict(with_result=False)


class QueueMachine(RuleBasedStateMachine):
    """The queue against a sorted list."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = JobQueue()
        self.model: list[JobRecord] = []
        self.count = 0

    @rule(priority=st.integers(-2, 2))
    def push(self, priority: int) -> None:
        made = record(f"j{self.count}", priority=priority, sequence=self.count)
        self.count += 1
        self.queue.push(made, 0.0)
        self.model.append(made)

    @rule()
    def pop(self) -> None:
        self.model.sort(key=lambda r: (-r.priority, r.sequence))
        expected = self.model.pop(0).id if self.model else None
        assert self.queue.pop() == expected

    @rule(index=st.integers(0, 40))
    def remove(self, index: int) -> None:
        known = [r for r in self.model if r.id == f"j{index}"]
        assert self.queue.remove(f"j{index}") == bool(known)
        self.model = [r for r in self.model if r not in known]

    @invariant()
    def same_jobs(self) -> None:
        assert len(self.queue) == len(self.model)
        assert all(r.id in self.queue for r in self.model)


TestQueue = QueueMachine.TestCase


def finished(job_id: str, size: int = 0) -> JobRecord:
    running = advance(record(job_id, size=size), JobState.RUNNING, 11.0)
    return advance(running, JobState.SUCCEEDED, 12.0)


def test_the_store_forgets_the_oldest_finished_jobs_and_no_others() -> None:
    store = MemoryStore(max_finished=2)
    for name in "abcd":
        store.put(record(name))
    for name in "cab":
        store.put(finished(name))
    assert [r.id for r in store.records()] == ["a", "b", "d"]
    with pytest.raises(UnknownJobError, match="last 2 finished jobs"):
        store.get("c")


def test_the_store_is_bounded_by_bytes_but_keeps_the_last() -> None:
    store = MemoryStore(max_finished_bytes=100)
    for name, size in (("a", 60), ("b", 30), ("c", 30), ("d", 500)):
        store.put(finished(name, size))
        if name == "c":
            assert [r.id for r in store.records()] == ["b", "c"]
    assert [r.id for r in store.records()] == ["d"]
