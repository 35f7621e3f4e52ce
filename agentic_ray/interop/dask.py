"""Runs graphs of Dask as task graphs of this package: the scheduler `get`, and `enabled`.

Dask's functions run in worker processes of the session. Arrays go both ways by `from_dask` and
`to_dask`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from typing import Any, Final

import dask

from agentic_ray.errors import InvalidTypeError
from agentic_ray.graph import Ref, TaskGraph, cull
from agentic_ray.interop.dask_arrays import from_dask, to_dask
from agentic_ray.interop.dask_plan import Plan
from agentic_ray.interop.dask_run import run_graph
from agentic_ray.runtime import Run, get_session

__all__ = ["enabled", "from_dask", "get", "to_dask"]

_OF_OTHERS: Final = frozenset(
    {"allow_other_workers", "cache", "num_workers", "pool", "resources", "retries", "workers"}
)
"""Options by which other schedulers place and repeat work. Schedulers of Dask's are given options
of libraries above them too, such as ``flush`` of xarray, and must not mind these."""


def get(dsk: Any, keys: Any, *, priority: int = 0, **options: Any) -> Any:
    """Compute keys of a graph of Dask's; what Dask calls a scheduler.

    It can be given as ``x.compute(scheduler=ar.interop.dask.get)`` or
    ``dask.config.set(scheduler=ar.interop.dask.get)``.

    Parameters
    ----------
    dsk : mapping
        A graph, in the form of `dask._task_spec` or of tuples.
    keys : key or nested lists of keys
    priority : int
        Graphs of higher priority go first.

    Returns
    -------
    object or nested tuples of objects
        Values of the keys, nested as they are.

    Raises
    ------
    InvalidArgumentError
        Dask would shuffle by files on one machine; see `enabled`.
    InvalidTypeError
        An option was given by which other schedulers place work, such as ``num_workers``. (Others
        are not looked at, as all schedulers of Dask's do.)
    MissingKeyError
        A key is not in the graph.
    SerializationError
        A function, an argument or a result cannot be pickled.
    The exception that a function raised

    Examples
    --------
    >>> import agentic_ray as ar
    >>> ar.interop.dask.get({"a": 1, "b": (sum, ["a", 2])}, ["b", ["a"]])
    (3, (1,))
    """
    return _compute(None, dsk, keys, priority=priority, **options)


@contextlib.contextmanager
def enabled() -> Iterator[list[Run]]:
    """Context in which Dask's collections are computed by this package.

    Data frames and bags are shuffled by tasks there, not by files on one machine.

    It gives a list, to which the runs of the block are added: ``ar.explain(runs[-1])``.

    Examples
    --------
    >>> import agentic_ray as ar, dask
    >>> with ar.interop.dask.enabled() as runs:
    ...     dask.delayed(pow)(2, 5).compute()
    32
    >>> "pow" in ar.explain(runs[-1])
    True
    """
    runs: list[Run] = []
    scheduler = functools.partial(_compute, runs)
    with dask.config.set({"scheduler": scheduler, "dataframe.shuffle.method": "tasks"}):
        yield runs


def _compute(
    runs: list[Run] | None, dsk: Any, keys: Any, *, priority: int = 0, **options: Any
) -> Any:
    refused = sorted(options.keys() & _OF_OTHERS)
    if refused:
        raise InvalidTypeError(f"the scheduler of agentic_ray has no option {', '.join(refused)}")
    plan = Plan.of(dsk)
    wanted = list(dict.fromkeys(_flat(keys)))
    found = {key: plan.result(key) for key in wanted}
    names = list(dict.fromkeys(v.key for v in found.values() if isinstance(v, Ref)))
    made: dict[str, Any] = {}
    if names:
        graph = cull(TaskGraph(plan.tasks, names))
        made = run_graph(get_session(), graph, priority, [] if runs is None else runs)
    values = {
        key: made[value.key] if isinstance(value, Ref) else value for key, value in found.items()
    }
    return _nested(keys, values)


def _flat(keys: Any) -> Iterator[Any]:
    if isinstance(keys, list):
        for each in keys:
            yield from _flat(each)
    else:
        yield keys


def _nested(keys: Any, values: Mapping[Any, Any]) -> Any:
    if isinstance(keys, list):
        return tuple(_nested(each, values) for each in keys)
    return values[keys]
