"""The master that ``ar.submit``, ``ar.job`` and ``ar.jobs`` use, made on first use."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, overload

from agentic_ray.errors import InvalidTypeError
from agentic_ray.master.handle import Job
from agentic_ray.master.jobs import JobRecord
from agentic_ray.master.master import Master

if TYPE_CHECKING:
    from agentic_ray.functions import Function, FunctionJob

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


@overload
def submit(
    workload: Function,
    *args: Any,
    priority: int = 0,
    timeout_seconds: float | None = None,
    **kwargs: Any,
) -> FunctionJob: ...
@overload
def submit(
    workload: str | Callable[[Any], Any],
    params: Any,
    *,
    priority: int = 0,
    timeout_seconds: float | None = None,
) -> Job: ...
def submit(
    workload: str | Callable[..., Any],
    *args: Any,
    priority: int = 0,
    timeout_seconds: float | None = None,
    **kwargs: Any,
) -> Job | FunctionJob:
    """Run a workload as a job in this process, or call a function where its resources are; returns
    at once.

    Parameters
    ----------
    workload : str, function, or Function
        A registered workload (see `Master.submit`), or a function with its needs (see `function`).
    *args, **kwargs
        Of a workload its parameters, one JSON-able value. Of a `Function` the arguments of the
        call, behind the value of its setup; of one that takes batches a list or an array of
        items, which is cut into batches.
    priority : int
        Higher runs first.
    timeout_seconds : float, optional
        Longest time it may run; of a `Function`, counting the time it waits for its resources.

    Returns
    -------
    Job or FunctionJob
        With ``result()``, ``cancel()`` and more.

    Raises
    ------
    InvalidTypeError
        A workload takes one value.
    The errors of `Master.submit`, or of `agentic_ray.map`

    Notes
    -----
    Jobs that have not finished when the program ends are cancelled: wait for their results.
    Workloads run in threads, and see the objects of this process; ``Master(runners=2)`` runs them
    in processes of their own.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> ar.submit("default", {"data": [1, 2, 3, 4, 5]}).result()
    55
    >>> @ar.function(cpus=1)
    ... def power(base, exponent):
    ...     return base**exponent
    >>> ar.submit(power, 2, exponent=5).result()
    32
    """
    if not isinstance(workload, str):
        # imported when first used: importing the master must not start to load Ray
        from agentic_ray.functions import Function
        from agentic_ray.functions import submit as submit_function

        if isinstance(workload, Function):
            return submit_function(
                workload, args, kwargs, priority=priority, timeout_seconds=timeout_seconds
            )
    given = (*args, *(kwargs.pop(name) for name in ("params",) if name in kwargs))
    if len(given) != 1 or kwargs:
        raise InvalidTypeError(
            "a workload is submitted with one value, its params; several arguments are for an "
            "agentic_ray.function"
        )
    return _default().submit(workload, given[0], priority=priority, timeout_seconds=timeout_seconds)


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
