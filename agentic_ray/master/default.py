"""The master that ``ar.submit``, ``ar.job`` and ``ar.jobs`` use, made on first use."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from typing import Any

from agentic_ray.master.handle import Job
from agentic_ray.master.jobs import JobRecord
from agentic_ray.master.master import Master

_master: Master | None = None
_lock = threading.Lock()


def _default() -> Master:
    global _master
    with _lock:
        if _master is None:
            _master = Master()
            atexit.register(_master.close, drain=False)
        return _master


def present() -> Master | None:
    """Return this master if it was used before; makes none."""
    return _master


def submit(
    workload: str | Callable[[Any], Any],
    params: Any,
    *,
    priority: int = 0,
    timeout_seconds: float | None = None,
) -> Job:
    """Run a workload as a job in this process; returns at once. See `Master.submit`.

    Jobs that have not finished when the program ends are cancelled: wait for their results. Their
    functions run in threads, and see the objects of this process; ``Master(runners=2)`` runs them
    in processes of their own.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> ar.submit("default", {"data": [1, 2, 3, 4, 5]}).result()
    55
    """
    return _default().submit(workload, params, priority=priority, timeout_seconds=timeout_seconds)


def job(job_id: str) -> Job:
    """The job with this identifier; UnknownJobError if there is none.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> known = ar.submit("default", {"data": [1, 2]})
    >>> ar.job(known.id).result()
    5
    """
    return _default().job(job_id)


def jobs() -> list[JobRecord]:
    """The jobs of this process, in the order of submission.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> known = ar.submit("default", {"data": [1, 2]})
    >>> ar.jobs()[-1].id == known.id
    True
    """
    return _default().jobs()
