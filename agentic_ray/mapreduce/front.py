"""`map_reduce` and `map_reduce_job`, the functions that people call."""

from __future__ import annotations

import operator
import os
import pickle
from collections.abc import Callable, Iterable
from typing import Any, SupportsIndex

from agentic_ray.errors import InvalidArgumentError, InvalidTypeError
from agentic_ray.functions import Function
from agentic_ray.functions import map as function_map
from agentic_ray.graph import Kernel, Resources, Tag
from agentic_ray.mapreduce.folding import FoldLeaf, pickled_state
from agentic_ray.mapreduce.job import MISSING, MapReduce
from agentic_ray.mapreduce.leaves import GroupLeaves, IteratorGroups, fold_leaves
from agentic_ray.runtime import get_session, is_dataset
from agentic_ray.sources import Source, open_source
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
    data : sequence, range, array, table, iterator, path, source, Ray Dataset, ObjectRefs
        An array is mapped along its first axis; a pandas, polars or Arrow table by its rows, each
        a dict by column; a column by its values. A `pathlib.Path` is read by its suffix: CSV and
        Parquet as tables, anything else as lines of text. A str is refused, because it could
        mean its characters or a file. An iterator is read as it is needed. ObjectRefs
        hold arrays. Of a Ray Dataset ``map_fn`` gets each block where it is, as a
        ``pyarrow.Table``.
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


@entry
def fold(
    data: Any,
    step: Callable[[Any, Any], Any],
    combine: Callable[[Any, Any], Any],
    initial: Any,
    *,
    leaf_size: int | str = "auto",
    priority: int = 0,
    progress: bool | None = None,
    retry_on: type[BaseException] | tuple[type[BaseException], ...] = (),
    has_effects: bool = False,
    resources: Resources | None = None,
) -> Any:
    """Fold ``data`` from the left, leaf by leaf, and combine the leaves' states in a fixed tree.

    It is for states that are costly to combine and cheap to add an element to, such as counters:
    ``map_reduce`` would combine one state for each element, ``fold`` combines one for each leaf.

    The leaves depend on the data alone, so the result has the same bits whatever the cluster, the
    schedule, or the failures on the way.

    Parameters
    ----------
    data : sequence, range, array, table, iterator, path, source or Ray Dataset
        As for `map_reduce`. Of files of text an element is a line; of CSV and Parquet files it is
        the ``pyarrow.Table`` of one part, of a Ray Dataset that of one block.
    step : callable
        ``step(state, element) -> state``, in a worker process. It may change ``state`` and return
        it.
    combine : callable
        ``combine(left, right) -> state`` of the states of two neighbouring runs of elements;
        associative. It may change ``left``.
    initial
        State that each leaf begins with, a copy of its own each; also the result of empty data. It
        must be neutral: ``combine(initial, state)`` equals ``state``.
    leaf_size : int or "auto"
        Elements that are folded one after the other. ``"auto"`` is a 32nd of a sequence, as a power
        of two, or 1,024 elements of an iterator. The leaves of files are the parts of their source;
        of lines whose ``part_bytes`` is ``"auto"`` a 32nd, from 1 to 64 MiB. Other leaves may give
        other last bits of floating-point numbers.
    priority, progress, has_effects, resources
        As for `map_reduce`.
    retry_on : exception type or tuple of them
        If ``step`` raises one of these, its leaf is begun anew, up to ``max_user_retries`` times.

    Returns
    -------
    The state after all elements.

    Raises
    ------
    SerializationError
        A function, ``initial``, an element or a state cannot be pickled.
    InvalidTypeError, InvalidArgumentError
        An argument cannot be used.
    The user's own exception
        Exception that ``step`` or ``combine`` raised, with ``element_index`` where elements were
        counted (not in files).

    Examples
    --------
    >>> import agentic_ray as ar
    >>> from collections import Counter
    >>> def count(words, line):
    ...     words.update(line.split())
    ...     return words
    >>> lines = ["to be or", "not to be"]
    >>> sorted(ar.fold(lines, count, lambda a, b: a + b, Counter()).items())
    [('be', 2), ('not', 1), ('or', 1), ('to', 2)]
    """
    for name, function in (("step", step), ("combine", combine)):
        if isinstance(function, Kernel) or not callable(function):
            raise InvalidTypeError(f"{name} must be a plain function, not {function!r}")
    size: int | None = None
    if leaf_size != "auto":
        if not isinstance(leaf_size, SupportsIndex) or isinstance(leaf_size, bool):
            raise InvalidTypeError(f"leaf_size must be 'auto' or an int, not {leaf_size!r}")
        size = operator.index(leaf_size)
        if size < 1:
            raise InvalidArgumentError(f"leaf_size must be at least 1, not {leaf_size}")
    if isinstance(data, os.PathLike):
        data = open_source(os.fspath(data))
    state = pickled_state(initial)
    # A source's parts are all of one unit; a part of a table is one element.
    whole = is_dataset(data) or (
        isinstance(data, Source) and any(part.unit == "block" for part in data.parts())
    )
    leaves = fold_leaves(data, size)
    if leaves.count == 0:
        return pickle.loads(state)
    counted = leaves.size if isinstance(leaves, GroupLeaves | IteratorGroups) else 0
    return map_reduce_job(
        FoldLeaf(step, state, counted, whole),
        leaves,
        combine,
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
    if isinstance(data, str | bytes | os.PathLike) or not isinstance(data, Iterable):
        raise InvalidTypeError(
            f"a Function is mapped over the items of an iterable, not over {type(data).__name__}"
        )
    return data
