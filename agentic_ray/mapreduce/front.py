"""`map_reduce` and `map_reduce_job`, the functions that people call."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from os import PathLike
from typing import Any

from agentic_ray.errors import InvalidArgumentError, InvalidTypeError
from agentic_ray.functions import Function
from agentic_ray.functions import map as function_map
from agentic_ray.graph import Resources, Tag
from agentic_ray.mapreduce.job import MISSING, MapReduce
from agentic_ray.runtime import get_session
from agentic_ray.tracebacks import entry


@entry
def map_reduce_job(
    map_fn: Callable[..., Any],
    data: Any,
    reduce_fn: Callable[..., Any] | None = None,
    *,
    initial: Any = MISSING,
    chunk_size: int | str = "auto",
    tag: Tag = "any",
    priority: int = 0,
    progress: bool | None = None,
    retry_on: type[BaseException] | tuple[type[BaseException], ...] = (),
    has_effects: bool = False,
    resources: Resources | None = None,
) -> MapReduce:
    """Start `map_reduce` as an object: ``.result()`` or ``await``, then ``.placements()`` and
    ``.metrics``.

    Parameters and errors are those of `map_reduce`.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> job = ar.map_reduce_job(len, ["a", "bb", "ccc"], lambda a, b: a + b)
    >>> job.result()
    6
    >>> job.metrics.recovery
    1.0
    """
    if isinstance(map_fn, Function):
        if resources is not None or retry_on or has_effects or tag != "any":
            raise InvalidArgumentError(
                "resources, retry_on, has_effects and tag of a Function are said where it is made: "
                "@agentic_ray.function(...)"
            )
        data = function_map(map_fn, _elements(data), priority=priority)
        map_fn = _itself
    return MapReduce(
        map_fn,
        data,
        reduce_fn,
        initial=initial,
        chunk_size=chunk_size,
        tag=tag,
        priority=priority,
        progress=progress,
        retry_on=retry_on,
        has_effects=has_effects,
        resources=resources,
        session=get_session(),
    )


@entry
def map_reduce(
    map_fn: Callable[..., Any],
    data: Any,
    reduce_fn: Callable[..., Any] | None = None,
    *,
    initial: Any = MISSING,
    chunk_size: int | str = "auto",
    tag: Tag = "any",
    priority: int = 0,
    progress: bool | None = None,
    retry_on: type[BaseException] | tuple[type[BaseException], ...] = (),
    has_effects: bool = False,
    resources: Resources | None = None,
) -> Any:
    """Apply ``map_fn`` to every element of ``data`` and reduce the results in a fixed tree.

    The tree depends on the number of elements only, so the result has the same bits whatever the
    automatic chunk size, the cluster, the schedule, or the failures on the way.

    Parameters
    ----------
    map_fn : callable or codelet
        A plain function is called with one element, in a worker process. A codelet (see
        `agentic_ray.codelet`) is called with blocks of rows of an array, or with the parts of
        a source, in threads beside the data, on CPUs or GPUs. A `Function` (see
        `agentic_ray.function`) is called as `agentic_ray.map` calls it; its ``data`` is an
        iterable of items.
    data : sequence, range, array, table, iterator, path, source, or ObjectRef(s) of arrays
        An array is mapped along its first axis; a pandas, polars or Arrow table by its rows, each
        a dict by column; a column by its values. A `pathlib.Path` is read by its suffix: CSV and
        Parquet as tables, anything else as lines of text. A str is refused, because it could
        mean its characters or a file. An iterator is read as it is needed.
    reduce_fn : callable, optional
        ``reduce_fn(left, right)``, associative; order is kept, so it need not be commutative.
        Without it the result is the list of mapped values, in order.
    initial : optional
        Value combined once, from the left, with the reduction; also the result of an empty input.
    chunk_size : int or "auto"
        Elements of a task; for a codelet, rows of a block. ``"auto"`` follows the measured cost of
        elements.
    tag : {"any", "cpu", "gpu"}
        Kind of device that the tasks may run on.
    priority : int
        Work of higher priority goes first.
    progress : bool, optional
        Whether to show a progress bar; default: on work over two seconds where a person watches.
    retry_on : exception type or tuple of them
        If the functions raise one of these, the element is tried again, up to ``max_user_retries``
        times (a setting of `init`), with exponential back-off. Elements that are done are not run
        again. Any other exception is final.
    has_effects : bool
        Whether the functions change something outside, at most once: no chunk gets a second copy,
        and none is run again where it may have begun. Elements that ``retry_on`` names are tried
        again all the same.
    resources : Resources, optional
        Resources that each chunk takes while ``map_fn`` runs, and the nodes that may run it: CPUs,
        memory, labels, custom resources of Ray. Reducing runs anywhere.

    Returns
    -------
    The reduced value, or a list. Arrays in it can be written to, whatever their size.

    Raises
    ------
    EmptyInputError
        There is nothing to reduce and no ``initial``.
    InterruptedJobError
        A process or a node died while it ran a chunk of functions that have effects.
    SerializationError
        A function, an element or a result cannot be pickled.
    InvalidTypeError, InvalidArgumentError
        An argument cannot be used.
    The user's own exception
        Exception that ``map_fn`` or ``reduce_fn`` raised, with the lines it passed through there,
        ``chunk_index``, ``element_index`` and ``remote_traceback`` (the whole text); the rest of
        the work is stopped.

    Examples
    --------
    >>> import agentic_ray as ar, operator
    >>> ar.map_reduce(lambda x: x * x, [1, 2, 3, 4, 5], operator.add)
    55
    """
    return map_reduce_job(
        map_fn,
        data,
        reduce_fn,
        initial=initial,
        chunk_size=chunk_size,
        tag=tag,
        priority=priority,
        progress=progress,
        retry_on=retry_on,
        has_effects=has_effects,
        resources=resources,
    ).result()


def _itself(value: Any) -> Any:
    return value


def _elements(data: Any) -> Iterable[Any]:
    """Return data as items for a function; refuse what `map_reduce` reads and a function does
    not."""
    if isinstance(data, str | bytes | PathLike) or not isinstance(data, Iterable):
        raise InvalidTypeError(
            f"a Function is mapped over the items of an iterable, not over {type(data).__name__}"
        )
    return data
