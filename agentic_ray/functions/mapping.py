"""`map`: a function called on many items, in order, a few batches ahead of the reader."""

from __future__ import annotations

import itertools
import threading
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from agentic_ray.errors import InvalidTypeError
from agentic_ray.functions.declared import Function
from agentic_ray.graph import CostHint, Task, TaskGraph
from agentic_ray.runtime import Run, get_session, pack, writable
from agentic_ray.runtime.functions.call import Results
from agentic_ray.schedule.batches import BatchSizer, best_known
from agentic_ray.schedule.load import MOST_PROCESSES
from agentic_ray.sources.frames import sequence_of
from agentic_ray.telemetry.state import ClusterState

AHEAD: Final = 2
"""Batches under way or done for each call that the cluster runs at once."""
FIRST_AUTO: Final = 8
MOST_AUTO: Final = 4096
LONG_SECONDS: Final = 0.1
"""Items that are handed over one by one travel in parcels that take about this long."""


@dataclass(slots=True)
class _Sent:
    run: Run
    items: int


class Map(Iterator[Any]):
    """The results of a function for many items; made by `map`. Iterate over it once.

    It reads items only as results are taken from it. `close` stops what is under way; so does
    dropping it. Several threads may take results from it: each result goes to one of them.
    """

    def __init__(self, function: Function, items: Iterable[Any], *, priority: int = 0) -> None:
        self._blocks = _blocks(function, _cutter(items), priority)
        self._results: Iterator[Any] = iter(())
        self._taking = threading.Lock()

    def __next__(self) -> Any:
        with self._taking:
            while True:
                for result in self._results:
                    return result
                self._results = iter(writable(next(self._blocks)))

    def blocks(self) -> Iterator[Results]:
        """Yield the results of whole batches as they came, lists or arrays, in order."""
        yield from self._blocks

    def close(self) -> None:
        """Cancel the batches under way; read no more items, and yield no more results."""
        self._results = iter(())
        self._blocks.close()

    def __enter__(self) -> Map:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_Read = tuple[Any, Exception | None]
"""Items, and what their iterable raised after them."""


def _cutter(items: Iterable[Any]) -> Callable[[int], _Read]:
    """Return a function that takes the next items, at most so many; nothing of them at the end.

    Of an array, ours included, it takes slices of rows: they travel as one piece.
    """
    if hasattr(items, "__array_namespace__") and getattr(items, "ndim", None):
        array: Any = items
        at = 0

        def cut(most: int) -> _Read:
            nonlocal at
            rows = np.asarray(array[at : at + most])
            at += len(rows)
            return rows, None

        return cut
    iterator = iter(items)

    def read(most: int) -> _Read:
        found: list[Any] = []
        try:
            found.extend(itertools.islice(iterator, most))
        except Exception as error:  # an iterable may raise anything
            return found, error
        return found, None

    return read


def _blocks(
    function: Function, cut: Callable[[int], Any], priority: int
) -> Generator[Results, None, None]:
    """Yield the results of batch after batch, with later batches under way meanwhile."""
    session = get_session()
    codelet = function.codelet
    sizer = batch_sizer(function, codelet.name, session.model)
    window = _window(function, session.cluster(), session.slots)
    name = f"{codelet.name}-{uuid.uuid4().hex[:8]}"
    under_way: deque[_Sent] = deque()
    first = 0
    more = True
    failed: Exception | None = None
    try:
        while more or under_way:
            while more and len(under_way) < window:
                batch, failed = cut(sizer.size)
                more = failed is None and len(batch) > 0
                if not len(batch):
                    break
                task = Task(
                    f"{name}-{first}",
                    codelet,
                    (first, pack(batch)),
                    {"stop": len(batch)},
                    resources=function.resources,
                    cost=CostHint(items=len(batch)),
                )
                graph = TaskGraph([task], [task.key])
                run = session.submit(graph, priority=priority, asked=len(batch))
                under_way.append(_Sent(run, len(batch)))
                first += len(batch)
            if under_way:
                (results,) = under_way[0].run.result()
                _learn(sizer, under_way.popleft())
                yield results
        if failed is not None:
            raise failed
    finally:
        for sent in under_way:
            sent.run.cancel()
            sent.run.release()


def map(function: Function | Callable[..., Any], items: Iterable[Any], *, priority: int = 0) -> Map:
    """Call a function on every item; yield the results in the order of the items.

    Items are read a few batches ahead of the reader and no further, so neither items nor results
    pile up. Every item has exactly one result, whatever dies on the way: a batch that was lost is
    called again, so functions that change something outside should say ``has_effects=True``.

    Parameters
    ----------
    function : Function or callable
        See `function`; a plain callable takes one item, on a CPU.
    items : iterable
        Items that can be pickled. An array, of NumPy or of `agentic_ray.array`, is mapped along its
        first axis; a function of batches gets slices of it. A pandas, polars or Arrow table is
        mapped by its rows, each a dict by column, and a column by its values.
    priority : int
        Work of higher priority goes first.

    Returns
    -------
    Map
        An iterator. Arrays that it gives can be written to, whatever their size.

    Raises
    ------
    InvalidTypeError
        The items cannot be iterated over, or are a table of a kind that gives its columns.
    InvalidArgumentError
        Two columns of a table have the same name.
    NoSuitableDeviceError
        The function needs a GPU, has no version for CPUs, and the cluster has none.
    ImpossibleResourcesError
        No node or card is as large as the function asks for.
    OutOfDeviceMemoryError
        One item alone did not fit on any card; the text has the framework's own error.
    SerializationError
        The function, an item or a result cannot be pickled.
    The user's own exception
        Exception that the function or its setup raised, with ``element_index`` where it takes one
        item, and ``remote_traceback``. An exception of ``items`` comes after the results of the
        items that were read before it.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> list(ar.map(abs, range(-2, 2)))
    [2, 1, 0, 1]
    """
    if isinstance(items, str):
        raise InvalidTypeError(
            f"cannot map over the str {items[:40]!r}: it could mean its characters or a file; pass "
            "list(text) for the characters, and for a file what reading it gives"
        )
    if isinstance(items, bytes):
        raise InvalidTypeError("cannot map over bytes; use list(items) for its numbers")
    table = sequence_of(items)
    if table is not None:
        items = table
    if not isinstance(items, Iterable) or getattr(items, "ndim", 1) == 0:
        raise InvalidTypeError(f"cannot map over {type(items).__name__}")
    known = function if isinstance(function, Function) else Function(function)
    return Map(known, items, priority=priority)


def batch_sizer(function: Function, name: str, model: Any) -> BatchSizer:
    """Return the sizes that batches of a function begin with, and how they grow."""
    size = function.batch_size
    if isinstance(size, int):
        return BatchSizer(size, size, grows=False)
    if size is None:
        return BatchSizer(1, MOST_AUTO, grows=True, until_seconds=LONG_SECONDS)
    kind = "gpu" if function.wants_gpu else "cpu"

    def seconds(items: int) -> float | None:
        predicted = model.predict_size(name, kind, items)
        return None if predicted is None else float(predicted.seconds)

    return BatchSizer(best_known(seconds, MOST_AUTO) or FIRST_AUTO, MOST_AUTO, grows=True)


def _window(function: Function, cluster: ClusterState, slots: int) -> int:
    """Return how many batches may be under way or wait to be read."""
    if function.max_concurrency is not None:
        return function.max_concurrency
    at_once = slots
    if function.wants_gpu:
        cards = [gpu for node in cluster.alive_nodes for gpu in node.gpus if gpu.healthy]
        at_once = sum(_at_once(function, gpu.memory_total_bytes) for gpu in cards) or slots
    return 1 + AHEAD * at_once


def _at_once(function: Function, memory_bytes: int | None) -> int:
    """Return how many calls of a function a card holds when nothing else is there."""
    resources = function.resources
    most = MOST_PROCESSES
    if resources.gpus:
        most = min(most, int(1.0 / resources.gpus + 1e-9))
    if resources.gpu_memory_bytes and memory_bytes is not None:
        most = min(most, memory_bytes // resources.gpu_memory_bytes)
    return max(1, most)


def _learn(sizer: BatchSizer, sent: _Sent) -> None:
    """Tell the sizer what a batch took, and whether memory was short."""
    if any(event.kind in _SHORT for event in sent.run.events()):
        sizer.short(sent.items)
        return
    seconds = sum(record.actual_seconds for record in sent.run.placements())
    sizer.observe(sent.items, seconds)


_SHORT: Final = frozenset({"memory: split", "failed: memory"})
