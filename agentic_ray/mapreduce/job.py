"""Plans a map-reduce in waves of chunks, learns the cost of an element, combines in one tree."""

from __future__ import annotations

import operator
import os
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Final, SupportsIndex

from agentic_ray.awaiting import in_thread
from agentic_ray.errors import (
    EmptyInputError,
    InvalidArgumentError,
    InvalidTypeError,
    JobCancelledError,
    JobTimeoutError,
    LostDataError,
)
from agentic_ray.graph import (
    Codelet,
    CostHint,
    Kernel,
    Resources,
    Tag,
    Task,
    TaskGraph,
    aligned_spans,
    tree_reduce,
)
from agentic_ray.graph.task import TAGS
from agentic_ray.mapreduce.kernels import NOTHING, chunk_codelet, combine_codelet, taken
from agentic_ray.mapreduce.leaves import Cut, Leaves, leaves_of
from agentic_ray.mapreduce.retries import Retries
from agentic_ray.pictures import Timeline
from agentic_ray.pictures.held import summed
from agentic_ray.runtime import Run, RunEvent, Session, recorded, writable
from agentic_ray.runtime.explain import placement_table
from agentic_ray.runtime.progress import ProgressBar
from agentic_ray.runtime.scope import current_scope
from agentic_ray.schedule.admission import INPUT_FACTOR
from agentic_ray.schedule.cutting import (
    WAVE_BUNDLES_PER_SLOT,
    chunk_elements,
    most_chunks,
    wave_spans,
)
from agentic_ray.schedule.metrics import Metrics, PlacementRecord, summarise
from agentic_ray.schedule.spans import job_html, timeline_of
from agentic_ray.shown import Shown, one_line
from agentic_ray.tracebacks import entry, shows_all, trimmed

MISSING: Final[Any] = object()
_FIRST_WAVE_PER_SLOT = 2
_CANCEL_WAIT_SECONDS = 5.0
_LATE_WAIT_SECONDS = 1.0
"""As the wait before it, after a time-out: the caller wants an answer by then. A call that does not
stop when it is told to is ended by the session a little later."""
_MOST_DEATHS = 8
"""Deaths of the cluster's only node that a job outlives, though pieces of the data were lost."""
_LATE = "the map-reduce is not done in the time given"
_CANCELLED = "the map-reduce was cancelled"
_ITERATOR_CHUNK = 1 << 16
_ITERATOR_SECONDS = 0.25

Span = tuple[int, int]


@dataclass(slots=True)
class _Wave:
    """Consecutive chunks under way as one graph, and the tree nodes that its outputs stand for."""

    run: Run
    nodes: list[Span]


@dataclass(slots=True)
class _Plan:
    """State of the cutting: how much of the data has become waves."""

    position: int = 0
    chunks: int = 0
    exhausted: bool = False
    waves: list[_Wave] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """Outcome of a map-reduce; an exception is raised each time with its original traceback."""

    value: Any
    error: BaseException | None = None
    trace: TracebackType | None = None

    def get(self) -> Any:
        if self.error is not None:
            raise self.error.with_traceback(self.trace)
        return self.value


class MapReduce:
    """A map-reduce. `result`, or ``await``, runs it; placements and metrics describe it then.

    Its ``repr`` shows its state.
    """

    def __init__(
        self,
        map_fn: Callable[..., Any],
        data: Any,
        reduce_fn: Callable[..., Any] | None,
        *,
        initial: Any,
        chunk_size: int | str,
        tag: Tag,
        priority: int,
        progress: bool | None,
        retry_on: type[BaseException] | tuple[type[BaseException], ...],
        has_effects: bool,
        resources: Resources | None,
        session: Session,
    ) -> None:
        retried = (retry_on,) if isinstance(retry_on, type) else tuple(retry_on)
        retries = Retries(retried, session.settings.max_user_retries)
        _check(map_fn, reduce_fn, chunk_size, tag, priority, initial)
        if resources is not None and not isinstance(resources, Resources):
            raise InvalidTypeError(f"resources must be ar.Resources, not {resources!r}")
        blocks = isinstance(map_fn, Kernel)
        fixed = None if isinstance(chunk_size, str) else int(chunk_size)
        self._leaves: Leaves = leaves_of(
            data, blocks=blocks, block_rows=fixed if blocks else None, gpu=tag == "gpu"
        )
        # For a codelet the chunk size is the block's: blocks are still grouped automatically.
        self._chunk = None if blocks else fixed
        # Objects that the functions see may change while the waves are under way.
        map_fn, reduce_fn = taken(map_fn), taken(reduce_fn)
        self._map_fn = map_fn
        self._codelet = chunk_codelet(
            map_fn,
            reduce_fn,
            retries=retries,
            has_effects=has_effects,
            # (An element of `optional` leaves is a part of one.)
            auto=self._chunk is None and not self._leaves.optional,
        )
        self._combine: Codelet | None = None
        if reduce_fn is not None:
            self._combine = combine_codelet(
                map_fn,
                reduce_fn,
                optional=self._leaves.optional,
                retries=retries,
                has_effects=has_effects,
            )
        self._reduce_fn = reduce_fn
        self._initial = initial
        self._tag: Tag = tag
        self._wanted = resources
        self._priority = priority
        self._progress = progress
        self._session = session
        self._runs: list[Run] = []
        self._asked = 0
        self._started: float | None = None
        self._finished: float | None = None
        self._changed = threading.Event()
        self._cancelled = False
        self._running = threading.Lock()
        self._outcome: _Outcome | None = None

    # --- for the user ------------------------------------------------------------------

    @entry
    def result(self, timeout: float | None = None) -> Any:
        """Run to the end and return the value; later calls return the same value.

        Raises
        ------
        EmptyInputError
            There is nothing to reduce and no ``initial``.
        JobTimeoutError
            The job is not done after ``timeout`` seconds; running bundles are cancelled.
        SerializationError, or the user's own exception
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self._running.acquire(timeout=-1 if timeout is None else max(timeout, 0.0)):
            raise JobTimeoutError(_LATE)
        try:
            if self._outcome is None:
                self._outcome = self._ran(deadline)
        finally:
            self._running.release()
        return self._outcome.get()

    def __await__(self) -> Generator[Any, None, Any]:
        """Run as `result` does, in a thread. Cancelling the awaiting task cancels the job."""
        return in_thread(self.result, cancelled=self._ask_to_stop).__await__()

    def _ran(self, deadline: float | None) -> _Outcome:
        self._started = time.monotonic()
        try:
            total = self._leaves.count if self._leaves.bytes_per_leaf == 0 else None
            scope = current_scope()
            if scope is not None and total is not None:
                scope.expect(total)
            with ProgressBar("map_reduce", total, self._progress, self._session.settings) as bar:
                value = recorded("map_reduce", self._content, lambda: self._run_all(deadline, bar))
                return _Outcome(writable(value))
        except BaseException as error:
            late = isinstance(error, JobTimeoutError)
            self._cancel_runs(_LATE_WAIT_SECONDS if late else _CANCEL_WAIT_SECONDS)
            if not isinstance(error, Exception) and not self._of_a_run(error):
                # The exception ends the awaiting task, as Ctrl-C does, and is no outcome of the
                # job.
                self._outcome = _Outcome(None, JobCancelledError("the map-reduce was interrupted"))
                raise
            trace = error.__traceback__ if shows_all() else trimmed(error.__traceback__)
            return _Outcome(None, error, trace)
        finally:
            self._write_printed()
            self._finished = time.monotonic()

    def _of_a_run(self, error: BaseException) -> bool:
        return any(run.error is error for run in self._runs)

    def _ask_to_stop(self) -> None:
        self._cancelled = True
        for run in self._runs:
            run.cancel()
        self._changed.set()

    def cancel(self) -> None:
        """Stop running bundles, and wait a little until they have stopped."""
        self._cancelled = True
        self._cancel_runs()

    def _cancel_runs(self, wait_seconds: float = _CANCEL_WAIT_SECONDS) -> None:
        unfinished = [run for run in self._runs if not run.done]
        for run in unfinished:
            run.cancel()
        deadline = time.monotonic() + wait_seconds
        for run in unfinished:
            run.wait(max(0.0, deadline - time.monotonic()))
        # Also calls of a failed run: nothing goes on behind the caller's back.
        self._session.drain(self._runs, max(0.0, deadline - time.monotonic()))
        for run in self._runs:
            run.release()

    def placements(self) -> list[PlacementRecord]:
        """List where each bundle ran and why, in the order they finished."""
        return [record for run in self._runs for record in run.placements()]

    def timeline(self, path: str | os.PathLike[str] | None = None) -> Timeline:
        """Return where and when its bundles ran as a picture, so far if it still runs.

        Parameters
        ----------
        path : path, optional
            File to write it to as well: ``.html`` is a page that needs no network, ``.svg`` a
            drawing, ``.json`` a trace for Perfetto and chrome://tracing.

        Raises
        ------
        NothingRanError
            No bundle has finished.
        InvalidArgumentError
            The path has another ending.

        Examples
        --------
        >>> import agentic_ray as ar
        >>> job = ar.map_reduce_job(len, ["a", "bb"])
        >>> job.result()
        [1, 2]
        >>> job.timeline()
        <timeline of map_reduce len: ... on ... in ...>
        """
        title = self._shown().label
        return timeline_of(
            title, self.placements(), summed(run.memory.levels for run in self._runs), path
        )

    def events(self) -> list[RunEvent]:
        return sorted((e for run in self._runs for e in run.events()), key=lambda e: e.time)

    def explain(self) -> str:
        """Describe the data and the cost of a leaf, and list where finished bundles ran."""
        count = "an unknown number of" if self._leaves.count is None else f"{self._leaves.count:,}"
        seconds = self._seconds_per_leaf()
        cost = "not known yet" if seconds is None else f"about {seconds:.3g} s each"
        lane = "worker processes" if self._codelet.opaque else "executor threads"
        head = (
            f"{self._codelet.name} over {count} leaves, {cost}, tagged {self._tag}, in {lane} on "
            f"{self._session.slots} slots"
        )
        return head + "\n" + placement_table(self.placements())

    @property
    def metrics(self) -> Metrics:
        end = self._finished or time.monotonic()
        return summarise(
            self.placements(),
            slots={device: n for run in self._runs for device, n in run.slots.items()},
            makespan_seconds=end - (self._started or end),
            asked=self._asked,
            failed=sum(len(run.failed_bundles) for run in self._runs),
            recovered=sum(len(run.recovered_bundles) for run in self._runs),
        )

    def _state(self) -> tuple[str, str]:
        """Return its state in a word, and a line about its error, or an empty one."""
        if self._started is None:
            return ("cancelled" if self._cancelled else "not started"), ""
        if self._outcome is None:
            return ("being cancelled" if self._cancelled else "running"), ""
        error = self._outcome.error
        if error is None:
            return "succeeded", ""
        state = "cancelled" if isinstance(error, JobCancelledError) else "failed"
        return state, one_line(error)

    def _shown(self) -> Shown:
        state, detail = self._state()
        end = self._finished or time.monotonic()
        return Shown(
            f"map_reduce {self._codelet.name.partition('[')[2].partition(']')[0]}",
            state,
            detail,
            done=sum(run.items_done for run in self._runs),
            total=self._leaves.count if self._leaves.bytes_per_leaf == 0 else None,
            seconds=None if self._started is None else end - self._started,
        )

    def __repr__(self) -> str:
        return f"<{self._shown().text()}>"

    def _repr_html_(self) -> str:
        records = self.placements()
        if not records:
            return self._shown().html()
        levels = summed(run.memory.levels for run in self._runs)
        picture = timeline_of(self._shown().label, records, levels)
        return job_html(self._shown().html(), picture, self.metrics)

    def _run_all(self, deadline: float | None, bar: ProgressBar) -> Any:
        """Run the plan; begin again if pieces of the data were lost with the only node."""
        deaths = 0
        while True:
            try:
                return self._run(deadline, bar)
            except LostDataError:
                deaths += 1
                if deaths > _MOST_DEATHS or not self._leaves.again:
                    raise
                for run in self._runs:
                    run.cancel()
                    run.release()
                self._runs.clear()
                self._asked = 0

    # --- the plan ----------------------------------------------------------------------

    def _run(self, deadline: float | None, bar: ProgressBar) -> Any:
        plan = _Plan(exhausted=self._leaves.count == 0)
        while not plan.exhausted:
            if self._cancelled:
                raise JobCancelledError(_CANCELLED)
            self._await_room(plan, deadline, bar)
            self._next_wave(plan)
        if not plan.waves:
            return self._with_initial(NOTHING)
        if self._combine is None:
            lists = [chunk for wave in plan.waves for chunk in self._wait(wave.run, deadline, bar)]
            return [value for values in lists for value in values]
        if len(plan.waves) == 1 and len(plan.waves[0].nodes) == 1:
            return self._with_initial(self._wait(plan.waves[0].run, deadline, bar)[0])
        return self._with_initial(self._last_reduce(plan, deadline, bar))

    def _content(self) -> Any:
        """Return everything that the value depends on."""
        initial = None if self._initial is MISSING else (self._initial,)
        return self._map_fn, self._reduce_fn, self._leaves, initial, self._chunk

    def _await_room(self, plan: _Plan, deadline: float | None, bar: ProgressBar) -> None:
        """Wait until more work is useful: few bundles under way, and some cost known."""
        while True:
            self._changed.clear()
            under_way = 0
            for run in self._runs:
                if run.error is not None:
                    run.result()  # raises it
                under_way += run.bundles_total - len(run.records)
            known = self._seconds_per_leaf() is not None or self._chunk is not None
            limit = self._session.slots
            if self._chunk is not None or self._leaves.count is None:
                limit *= WAVE_BUNDLES_PER_SLOT // 2
            if not under_way or (known and under_way <= limit):
                return
            self._pause(deadline, bar)

    def _pause(self, deadline: float | None, bar: ProgressBar) -> None:
        if deadline is not None and time.monotonic() > deadline:
            raise JobTimeoutError(_LATE)
        if self._cancelled:
            raise JobCancelledError(_CANCELLED)
        self._changed.wait(0.1)  # short, so that the main thread notices Ctrl-C
        self._write_printed()
        done = sum(run.items_done for run in self._runs)
        note = "" if self._leaves.count is not None else "(reading an iterator)"
        note = next((run.note for run in self._runs if run.note), note)
        bar.update(done, note=note)

    def _write_printed(self) -> None:
        for run in self._runs:
            run.write_printed()

    def _wait(
        self, run: Run, deadline: float | None, bar: ProgressBar, *, fetch: bool = True
    ) -> list[Any]:
        while not run.done:
            self._changed.clear()
            if not run.done:
                self._pause(deadline, bar)
            for other in self._runs:
                if other.error is not None:
                    other.result()
        if not fetch:
            return []
        return run.result(None if deadline is None else max(0.1, deadline - time.monotonic()))

    def _next_wave(self, plan: _Plan) -> None:
        """Cut the next chunks and submit them with the part of the tree that they complete."""
        start = plan.position
        limit = self._session.slots * WAVE_BUNDLES_PER_SLOT
        spans: list[Span] = []
        tasks: list[Task] = []
        for span in self._next_spans(plan, limit):
            cut = self._leaves.cut(*span)
            if cut is None:
                plan.exhausted = True
                break
            stop = span[0] + cut.leaves
            spans.append((span[0], stop))
            tasks.append(self._task(plan.chunks, span[0], cut))
            plan.chunks += 1
            plan.position = stop
            self._asked += cut.items
            if stop < span[1]:
                plan.exhausted = True
                break
        if self._leaves.count is not None and plan.position >= self._leaves.count:
            plan.exhausted = True
        if not spans:
            return
        keys = [task.key for task in tasks]
        nodes = spans
        if self._combine is not None:
            nodes, keys, more = self._tree(start, spans, keys, final=plan.exhausted)
            tasks = [*tasks, *more]
        run = self._session.submit(
            TaskGraph(tasks, keys),
            priority=self._priority,
            asked=sum(task.cost.items for task in tasks),
            # Before a cost is known every chunk is a bundle, so that every slot has work.
            target_seconds=0.0 if self._seconds_per_leaf() is None else None,
        )
        run.listen(self._changed.set)
        self._runs.append(run)
        plan.waves.append(_Wave(run, nodes))

    def _next_spans(self, plan: _Plan, limit: int) -> list[Span]:
        """Return the next chunks, at most ``limit``, as spans of leaves."""
        start = plan.position
        count = self._leaves.count
        if self._chunk is not None:
            stop = start + limit * self._chunk
            stop = stop if count is None else min(stop, count)
            return [(at, min(at + self._chunk, stop)) for at in range(start, stop, self._chunk)]
        slots = self._session.slots
        # (Large chunks tell more than the few single leaves that were tried first.)
        seconds = self._seconds_per_leaf(_ITERATOR_CHUNK if count is None else max(count, 1))
        if seconds is None:
            first = slots * _FIRST_WAVE_PER_SLOT
            if count is not None and count - start <= 2 * first:
                first = count - start  # so few that nothing is learnt in time
            return aligned_spans(start, start + first, 1)
        if count is None:
            # An iterator's waves grow by doubling, and are held in memory until they are sent.
            most = min(max(start, 1), _ITERATOR_CHUNK)
            size = int(min(max(_ITERATOR_SECONDS / max(seconds, 1e-9), 1), most))
        else:
            left = count - start
            total = seconds * left
            size = chunk_elements(seconds, left, self._session.bundle_seconds(total))
            limit = most_chunks(total, slots)
        return wave_spans(start, count, size, limit)

    def _seconds_per_leaf(self, leaves: float = 1.0) -> float | None:
        """Predict, by the cost model, the seconds of a leaf in a chunk of ``leaves``; None before
        the first observation."""
        size = (self._leaves.bytes_per_leaf or 1.0) * leaves
        kinds = ("gpu", "cpu") if self._tag == "gpu" else ("cpu", "gpu")
        for kind in kinds:
            found = self._session.model.predict_size(self._codelet.name, kind, size)
            if found is not None:
                return found.seconds / leaves
        return None

    def _task(self, chunk: int, first: int, cut: Cut) -> Task:
        return Task.of(
            self._codelet,
            chunk,
            first,
            list(cut.pieces),
            key=f"{self._codelet.name}/{chunk}",
            tag=self._tag,
            resources=self._resources(),
            cost=CostHint(read_bytes=cut.read_bytes, items=cut.items),
            priority=0,
        )

    def _resources(self) -> Resources | None:
        """Return the resources that the caller asked for. On a GPU one leaf at a time is copied
        there, however many leaves the chunk has."""
        leaf_bytes, wanted = self._leaves.bytes_per_leaf, self._wanted
        if self._codelet.gpu is None or not leaf_bytes or (wanted and wanted.gpu_memory_bytes):
            return wanted
        return replace(wanted or Resources(), gpu_memory_bytes=int(INPUT_FACTOR * leaf_bytes))

    def _tree(
        self, start: int, spans: list[Span], keys: list[str], *, final: bool
    ) -> tuple[list[Span], list[str], list[Task]]:
        """Combine the wave's chunks as far as the canonical tree allows without the other waves."""
        assert self._combine is not None
        stop = spans[-1][1]
        if self._chunk is not None:
            # The caller chose chunks: they are the leaves, in a tree of their own.
            low = start // self._chunk
            spans = [(low + i, low + i + 1) for i in range(len(spans))]
            start, stop = low, low + len(spans)
        whole = 1 << 62
        # A last node whose length is no power of two is a subtree only at the end of the data.
        nodes = aligned_spans(start, stop, whole) if final else _complete(start, stop)
        roots: list[str] = []
        tasks: list[Task] = []
        at = 0
        for node in nodes:
            inside = at
            while at < len(spans) and spans[at][1] <= node[1]:
                at += 1
            more, root = tree_reduce(
                keys[inside:at], self._combine, spans=spans[inside:at], tag=self._tag
            )
            tasks += more
            roots.append(root)
        return nodes, roots, tasks

    def _last_reduce(self, plan: _Plan, deadline: float | None, bar: ProgressBar) -> Any:
        """Combine the waves' values, small in number, by one more graph."""
        assert self._combine is not None
        nodes: list[Span] = []
        values: dict[str, Any] = {}
        for wave in plan.waves:
            self._wait(wave.run, deadline, bar, fetch=False)
            nodes += wave.nodes
            for value in wave.run.handles():
                values[f"{self._codelet.name}/value/{len(values)}"] = value
        tasks, root = tree_reduce(
            list(values), self._combine, spans=nodes, tag=self._tag, values=values
        )
        run = self._session.submit(TaskGraph(tasks, [root]), priority=self._priority, asked=0)
        run.listen(self._changed.set)
        self._runs.append(run)
        return self._wait(run, deadline, bar)[0]

    def _with_initial(self, value: Any) -> Any:
        if value is NOTHING:
            if self._reduce_fn is None:
                return []
            if self._initial is MISSING:
                raise EmptyInputError("cannot reduce an empty input without an initial value")
            return self._initial
        if self._initial is MISSING or self._reduce_fn is None:
            return value
        if isinstance(self._reduce_fn, Codelet):
            assert self._reduce_fn.cpu is not None
            return self._reduce_fn.cpu(self._initial, value)
        return self._reduce_fn(self._initial, value)


def _complete(start: int, stop: int) -> list[Span]:
    """Cut ``start..stop`` into aligned spans that are all powers of two long."""
    nodes: list[Span] = []
    while start < stop:
        length = 1 << ((stop - start).bit_length() - 1)
        if start:
            length = min(length, start & -start)
        nodes.append((start, start + length))
        start += length
    return nodes


def _check(
    map_fn: Any, reduce_fn: Any, chunk_size: Any, tag: Any, priority: Any, initial: Any
) -> None:
    if not callable(map_fn):
        raise InvalidTypeError(f"map_fn must be callable, not {type(map_fn).__name__}")
    if reduce_fn is not None and not callable(reduce_fn):
        raise InvalidTypeError(f"reduce_fn must be callable, not {type(reduce_fn).__name__}")
    if reduce_fn is None and initial is not MISSING:
        raise InvalidArgumentError("initial needs a reduce_fn")
    if chunk_size != "auto":
        if not isinstance(chunk_size, SupportsIndex) or isinstance(chunk_size, bool):
            raise InvalidTypeError(f"chunk_size must be 'auto' or an int, not {chunk_size!r}")
        if operator.index(chunk_size) < 1:
            raise InvalidArgumentError(f"chunk_size must be at least 1, not {chunk_size}")
    if tag not in TAGS:
        raise InvalidArgumentError(f"tag must be one of {', '.join(TAGS)}, not {tag!r}")
    if not isinstance(priority, SupportsIndex) or isinstance(priority, bool):
        raise InvalidTypeError(f"priority must be an int, not {priority!r}")
