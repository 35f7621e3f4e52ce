"""Properties of the queue: order, ageing, fairness, limits; all in virtual time."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentic_ray.errors import QueueFullError
from agentic_ray.master.jobs import JobRecord
from agentic_ray.master.queue import JobQueue, QueueLimits, retry_after


def record(sequence: int, user: str = "u", priority: int = 0, at: float = 0.0) -> JobRecord:
    return JobRecord(f"j{sequence}", "w", "1", {}, priority, sequence, at, user=user)


def push(queue: JobQueue, made: JobRecord) -> None:
    queue.push(made, made.created_at)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-2, 2), st.sampled_from("abc")), max_size=60))
def test_a_users_jobs_of_one_priority_keep_their_order(jobs: Any) -> None:
    queue = JobQueue()
    for i, (priority, user) in enumerate(jobs):
        push(queue, record(i, user, priority))
    order = [int(str(queue.pop(0.0))[1:]) for _ in jobs]
    assert sorted(order) == list(range(len(jobs)))
    assert queue.pop(0.0) is None
    priorities = [jobs[i][0] for i in order]
    assert priorities == sorted(priorities, reverse=True)
    for kind in set(jobs):
        same = [i for i in order if jobs[i] == kind]
        assert same == sorted(same)


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(0, 5), st.data())
def test_no_job_waits_for_ever_behind_more_important_ones(
    ageing: int, gap: int, data: st.DataObject
) -> None:
    """One place, one second a job, and a stream of better jobs that fills it."""
    queue = JobQueue(QueueLimits(ageing_seconds=float(ageing)))
    push(queue, record(0, "old", priority=0))
    owner = {"j0": "old"}
    bound = ageing * (gap + 1) + 2
    for second in range(1, bound + 1):
        user = data.draw(st.sampled_from(["old", "x", "y"]))
        push(queue, record(second, user, priority=gap, at=float(second)))
        owner[f"j{second}"] = user
        job_id = str(queue.pop(float(second)))
        if job_id == "j0":
            return
        queue.stopped(owner[job_id])
    raise AssertionError(f"it still waits after {bound} seconds")


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(30, 60), min_size=2),
    st.integers(1, 4),
)
def test_users_who_all_wait_get_equal_shares(waiting: dict[str, int], places: int) -> None:
    queue = JobQueue()
    number = 0
    owner: dict[str, str] = {}
    for user, count in waiting.items():  # one after the other: the first came first with all
        for _ in range(count):
            push(queue, record(number, user))
            owner[f"j{number}"] = user
            number += 1
    running: list[str] = []
    served: Counter[str] = Counter()
    for _ in range(20 * len(waiting)):
        if len(running) == places:
            queue.stopped(running.pop(0))
        user = owner[str(queue.pop())]
        running.append(user)
        served[user] += 1
        if min(waiting[u] - served[u] for u in waiting) > 0:
            assert max(served[u] for u in waiting) - min(served[u] for u in waiting) <= 1 + places


def test_one_who_submits_one_at_a_time_does_not_crowd_out_another() -> None:
    queue = JobQueue()
    for i in range(50):
        push(queue, record(i, "many"))
    served: Counter[str] = Counter()
    for i in range(50, 90):
        push(queue, record(i, "single", at=1.0))
        job_id = str(queue.pop(1.0))
        user = "single" if int(job_id[1:]) >= 50 else "many"
        served[user] += 1
        queue.stopped(user)
    assert abs(served["single"] - served["many"]) <= 1


def test_a_pause_earns_no_credit() -> None:
    queue = JobQueue()
    for i in range(100):
        push(queue, record(i, "busy"))
    for _ in range(50):
        queue.pop()
        queue.stopped("busy")
    for i in range(100, 200):
        push(queue, record(i, "late"))
    served: Counter[str] = Counter()
    for _ in range(20):
        user = "late" if int(str(queue.pop())[1:]) >= 100 else "busy"
        served[user] += 1
        queue.stopped(user)
    assert abs(served["late"] - served["busy"]) <= 2


def test_limits_of_a_user_hold_and_leave_room_for_others() -> None:
    queue = JobQueue(QueueLimits(max_queued=4, max_queued_per_user=2, max_running_per_user=1))
    for i in range(2):
        queue.check_room("a")
        push(queue, record(i, "a"))
    with pytest.raises(QueueFullError, match="user 'a'") as caught:
        queue.check_room("a")
    assert caught.value.retry_after_seconds >= 1
    with pytest.raises(QueueFullError, match="user 'b'"):
        queue.check_room("b", pending=1, pending_of_user=2)
    queue.check_room("b")
    push(queue, record(2, "b"))
    with pytest.raises(QueueFullError, match="4 jobs wait"):
        queue.check_room("c", pending=1)
    assert (queue.pop(), queue.pop(), queue.pop()) == ("j0", "j2", None)
    queue.stopped("a")
    assert queue.pop() == "j1"


def test_jobs_taken_over_have_waited_since_they_came() -> None:
    queue = JobQueue(QueueLimits(ageing_seconds=60))
    queue.push(record(0, priority=2), 1000.0)
    queue.push(record(1, priority=0), 1000.0 - 150)  # two and a half levels more
    assert [queue.pop(1000.0) for _ in range(2)] == ["j1", "j0"]


def test_ageing_can_be_turned_off() -> None:
    queue = JobQueue(QueueLimits(ageing_seconds=math.inf))
    push(queue, record(0, priority=0))
    push(queue, record(1, priority=1, at=1e12))
    assert queue.pop(2e12) == "j1"


def test_names_of_users_do_not_pile_up() -> None:
    queue = JobQueue()
    for i in range(3000):
        push(queue, record(i, f"user{i}"))
        assert queue.pop() == f"j{i}"
        queue.stopped(f"user{i}")
    assert len(queue._users) <= 1001


def test_the_hint_when_to_try_again_is_bounded() -> None:
    assert [retry_after(n) for n in (0, 100, 10**6)] == [1.0, 5.0, 60.0]


def test_the_queue_is_bounded_in_bytes_too() -> None:
    queue = JobQueue(QueueLimits(max_queued_bytes=100))
    push(queue, replace(record(1), size_bytes=60))
    queue.check_room("ada", size_bytes=40)
    with pytest.raises(QueueFullError, match="60 bytes of parameters wait"):
        queue.check_room("ada", size_bytes=41)
    with pytest.raises(QueueFullError):
        queue.check_room("ada", size_bytes=40, pending_bytes=1)
    queue.pop()
    queue.check_room("ada", size_bytes=100)
    push(queue, replace(record(2), size_bytes=100))
    queue.remove("j2")
    queue.check_room("ada", size_bytes=100)
