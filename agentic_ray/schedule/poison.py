"""Bundles that end the process they run in: which bundle is to blame, and how it is found.

Pure; the Dispatcher counts and retries by these answers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from agentic_ray.schedule.records import Attempt, Record, RetryRules

Verdict = Literal["guilty", "beside"]


def process_of(record: Record, kind: str, rules: RetryRules) -> Literal["shared", "own", "watched"]:
    """Choose the kind of process for the next attempt of a bundle on a device of ``kind``.

    A suspect runs in a process of its own, where it can harm nobody and its guilt is certain. When
    it has spent its budget it runs once more in a watched process, which reports the task and the
    element it was at when it died, and the cause of death.
    """
    if kind != "cpu":
        return "shared"
    if record.crashed and record.failures > rules.max_failures:
        return "watched"
    return "own" if record.lane[1] else "shared"


def judge(attempt: Attempt, others: Iterable[Attempt]) -> Verdict:
    """Decide whether ``attempt`` is to blame for the death of its process, given the others on its
    executor.

    It is to blame if nothing else was in that process. Otherwise all attempts that were there
    become suspects (``attempt.beside`` is set for those whose deaths are reported after this one).
    """
    if attempt.process != "shared":
        return "guilty"
    company = [other for other in others if other.process == "shared"]
    for other in company:
        other.beside = True
    return "beside" if company or attempt.beside else "guilty"


def can_be_watched(record: Record) -> bool:
    """Whether a watched run can still tell more of a bundle that has spent its budget."""
    return record.crashed and not record.watched and "cpu" in record.lane[0]
