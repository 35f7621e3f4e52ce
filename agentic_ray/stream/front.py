"""`Stream`: what is done with events, written as a chain; and the loop that does it.

The loop takes rows from a source through a short queue, so that a source waits for slow work, and
never holds more than that queue and the open windows.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from agentic_ray.errors import (
    InvalidArgumentError,
    InvalidTypeError,
    SkippedDataWarning,
    SourceError,
)
from agentic_ray.graph import capture, content_key
from agentic_ray.stream.blocks import Blocks
from agentic_ray.stream.checkpoints import Checkpoint, Store
from agentic_ray.stream.sinks import Sink, sink_of
from agentic_ray.stream.sources import (
    NOTHING,
    Chunk,
    Events,
    LeftOut,
    Position,
    events_of,
    together,
)
from agentic_ray.stream.windows import (
    Duration,
    Fixed,
    Open,
    Rules,
    Session,
    Window,
    added,
    closed,
    microseconds,
)
from agentic_ray.tables import from_arrow
from agentic_ray.tables.grouping import Grouping, check_outputs, named_aggregates
from agentic_ray.tables.scans import Skipped
from agentic_ray.tables.steps import Filter, Map, Select, Step, is_expression

_BATCH_ROWS = 131_072
_WAIT_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class StreamReport:
    """The counts of a run.

    Attributes
    ----------
    rows : int
        Events that came, from the beginning of the stream (not only of this run), after its steps.
    windows, epochs : int
        Windows that came out in this run, and how often some did from the beginning.
    late, ahead, untimed, skipped : int
        Events left out: in no open window any more, too far ahead of all before (``max_jump``),
        without a time, and lines, or whole files of a folder, that could not be parsed.
    first_skipped : tuple of Skipped
        The first 1,000 of what could not be parsed in this run: each with ``path``, ``where`` (the
        byte at which the line begins; "" for a file) and ``error``.
    ended : bool
        Whether the source came to its end. (Else the run was stopped, and open windows are kept in
        the checkpoint.)
    """

    rows: int
    windows: int
    epochs: int
    late: int
    ahead: int
    untimed: int
    skipped: int
    first_skipped: tuple[Skipped, ...]
    ended: bool


@dataclass(frozen=True, eq=False)
class Stream:
    """Events and what is done with them; made by calling `agentic_ray.stream`.

    Each method gives another stream; `run` and `to_arrow` begin the work.
    """

    events: Events
    time: str
    max_delay: int
    max_jump: int
    skip: bool
    max_open_rows: int
    steps: tuple[Step, ...] = ()
    keys: tuple[str, ...] = ()
    windows: Window | None = None
    aggregates: tuple[Any, ...] = ()
    target: Sink | None = None

    def map(self, function: Callable[[pa.Table], Any]) -> Stream:
        """Apply a function to batches of rows, in worker processes.

        Parameters
        ----------
        function : callable
            Of a ``pyarrow.Table``, to one of any rows and columns. Batches differ from run to run,
            so what it makes of a row must depend on that row alone.
        """
        if not callable(function):
            raise InvalidTypeError(f"map takes a function, not {type(function).__name__}")
        return dataclasses.replace(self, steps=(*self.steps, Map(capture(function))))

    def filter(self, expression: Any) -> Stream:
        """Keep the events for which an expression of pyarrow is true, as `Table.filter`."""
        if not is_expression(expression):
            raise InvalidTypeError(
                "filter takes an expression such as ar.tables.col('amount') > 100, not "
                f"{type(expression).__name__}; use map for a function"
            )
        return dataclasses.replace(self, steps=(*self.steps, Filter(expression)))

    def select(self, *columns: str) -> Stream:
        """Keep some columns, in this order, as `Table.select`."""
        if not columns or not all(isinstance(name, str) for name in columns):
            raise InvalidTypeError(f"select takes names of columns, not {columns!r}")
        if len(set(columns)) < len(columns):
            raise InvalidArgumentError("select takes names of columns, each once")
        return dataclasses.replace(self, steps=(*self.steps, Select(columns)))

    def group_by(self, *keys: str) -> Grouped:
        """Group all events, without windows, as `Table.group_by`: so that one description is good
        for a table and for a stream of the same rows.

        Examples
        --------
        >>> import agentic_ray as ar
        >>> def totals(rows):
        ...     dear = rows.filter(ar.tables.col("price") > 3)
        ...     return dear.group_by("shop").agg({"price": "sum"})
        >>> sales = [{"shop": "north", "price": 4}, {"shop": "south", "price": 5}]
        >>> totals(ar.stream(sales)).to_pylist()
        [{'shop': 'north', 'price_sum': 4}, {'shop': 'south', 'price_sum': 5}]
        """
        if not keys or not all(isinstance(name, str) for name in keys):
            raise InvalidTypeError(f"group_by takes names of columns, not {keys!r}")
        if len(set(keys)) < len(keys):
            raise InvalidArgumentError("group_by takes names of columns, each once")
        return Grouped(self, keys)

    def agg(self, aggregates: Any = None, **named: Any) -> pa.Table:
        """Go to the end of the source, and aggregate all events to one row, as `Table.agg`."""
        return self._aggregated(Grouping((), named_aggregates(aggregates, named)))

    def key_by(self, *keys: str) -> Stream:
        """Have windows of their own for each value of these columns."""
        if not keys or not all(isinstance(name, str) for name in keys):
            raise InvalidTypeError(f"key_by takes names of columns, not {keys!r}")
        return dataclasses.replace(self, keys=keys)

    def window(self, window: Window) -> Stream:
        """Choose the windows: `tumbling`, `sliding` or `session`."""
        if not isinstance(window, Fixed | Session):
            raise InvalidTypeError(
                f"window takes ar.stream.tumbling(…), sliding(…) or session(…), not {window!r}"
            )
        return dataclasses.replace(self, windows=window)

    def aggregate(self, aggregates: Any = None, **named: Any) -> Stream:
        """Choose what is made of each window's events; as `Grouped.agg`."""
        return dataclasses.replace(self, aggregates=named_aggregates(aggregates, named))

    def sink(self, target: Any) -> Stream:
        """Choose where windows go.

        Parameters
        ----------
        target : str, os.PathLike or callable
            A local folder, in which each epoch's windows become one Parquet file; or
            ``function(windows, epoch)``, called in this process with a ``pyarrow.Table``. After a
            crash it may be called again with the same windows and epoch.
        """
        return dataclasses.replace(self, target=sink_of(target))

    def to_arrow(self) -> pa.Table:
        """Go to the end of the source, and return all windows. No sink is used.

        Raises
        ------
        As `run`.
        """
        found: list[pa.Table] = []
        collecting = self.sink(lambda windows, epoch: found.append(windows))
        collecting.run()
        if not found:
            names = ["window_start", "window_end", *self.keys]
            names += [aggregate.output for aggregate in self.aggregates]
            return pa.table({name: pa.nulls(0) for name in names})
        return pa.concat_tables(found, promote_options="default")

    def run(
        self,
        *,
        checkpoint: Any = None,
        seconds: float | None = None,
        stop: threading.Event | None = None,
        checkpoint_seconds: float = 1.0,
    ) -> StreamReport:
        """Take events until the source ends, and give windows to the sink as they close.

        A window closes when the watermark (the latest event time less ``max_delay``) has passed its
        end; at the end of the source all close.

        Parameters
        ----------
        checkpoint : str or os.PathLike, optional
            A local folder. A run that finds a checkpoint there goes on from it, so that each
            window comes out with the same bits and once, however often the process was killed.
        seconds : float, optional
            Stop after this time; open windows are kept in the checkpoint.
        stop : threading.Event, optional
            Stop when it is set, likewise.
        checkpoint_seconds : float
            How often the checkpoint is written while no window closes. (It is written whenever
            some do.)

        Raises
        ------
        SourceError
            A line or a row cannot be used.
        CheckpointError
            The checkpoint is damaged, in use, or of another stream.
        StreamStateError
            Open windows have more than ``max_open_rows`` rows and groups.
        InvalidArgumentError
            The stream is not complete, or its source cannot be resumed.
        """
        rules = self._rules()
        target = self.target
        if target is None:
            raise InvalidArgumentError("the stream has no sink; choose one, or use to_arrow()")
        if checkpoint is not None and not self.events.can_resume:
            raise InvalidArgumentError(
                "a socket cannot be read a second time, so a checkpoint could not keep its word; "
                "have it written to a file and follow that"
            )
        if seconds is not None and not seconds >= 0:
            raise InvalidArgumentError(f"seconds must be at least 0, not {seconds}")
        halt = stop or threading.Event()
        deadline = None if seconds is None else time.monotonic() + seconds
        if checkpoint is None:
            return self._run(rules, target, None, halt, deadline, checkpoint_seconds)
        with Store(checkpoint) as store:
            return self._run(rules, target, store, halt, deadline, checkpoint_seconds)

    def explain(self) -> str:
        """Describe the chain in a line."""
        steps = [type(step).__name__.lower() for step in self.steps]
        if self.keys:
            steps.append(f"key by {', '.join(self.keys)}")
        steps.append(f"window {self.windows}")
        steps += [f"{one.output} = {one.function} of {one.column}" for one in self.aggregates]
        return f"{type(self.events).__name__.lower()}: " + " → ".join(steps)

    # --- how -------------------------------------------------------------------------------

    def _rules(self) -> Rules:
        if self.windows is None:
            raise InvalidArgumentError("the stream has no window; choose one by window(…)")
        if not self.aggregates:
            raise InvalidArgumentError("the stream has no aggregate; choose some by aggregate(…)")
        taken = {"window_start", "window_end"} & {
            *self.keys,
            *(aggregate.output for aggregate in self.aggregates),
        }
        if taken:
            raise InvalidArgumentError(f"{', '.join(sorted(taken))} is a name of the windows'")
        return Rules(
            self.windows,
            Grouping(self.keys, self.aggregates),
            self.time,
            self.max_delay,
            self.max_jump,
            self.max_open_rows,
            self.skip,
        )

    def _description(self, rules: Rules) -> str:
        """Return a digest of everything that decides which windows come out."""
        # (Code of map functions may be mended between two runs; that they are there counts.)
        steps = [
            str(step.expression) if isinstance(step, Filter) else type(step).__name__
            for step in self.steps
        ]
        return content_key("stream", type(self.events).__name__, steps, rules)

    def _run(
        self,
        rules: Rules,
        target: Sink,
        store: Store | None,
        halt: threading.Event,
        deadline: float | None,
        checkpoint_seconds: float,
    ) -> StreamReport:
        description = self._description(rules)
        saved = store.load(description) if store is not None else None
        state = saved or Checkpoint(description, None, Open())
        target.begin(state.epoch)
        if saved is not None and saved.output is not None:
            # It is not known whether the sink had them before the process died.
            target.put(saved.output, saved.epoch)
        windows = 0
        left_out = NOTHING
        saved_at = time.monotonic()
        ended = False
        feed = _Feed(self.events, state.position, halt, deadline)
        with feed:
            for table, position, skipped in feed.batches():
                rows = self._stepped(table)
                left_out = left_out.then(skipped)
                position_state = dataclasses.replace(
                    state, position=position, skipped=state.skipped + skipped.count
                )
                state = _taken(position_state, rows, rules)
                opened, found = closed(state.open, rules)
                state = dataclasses.replace(state, open=opened)
                if found is not None:
                    state = _come_out(state, found, store, target)
                    windows += found.num_rows
                    saved_at = time.monotonic()
                elif store is not None and time.monotonic() - saved_at >= checkpoint_seconds:
                    store.save(state)
                    saved_at = time.monotonic()
            ended = feed.ended
        if ended:
            opened, found = closed(state.open, rules, final=True)
            state = dataclasses.replace(state, open=opened)
            if found is not None:
                state = _come_out(state, found, store, target)
                windows += found.num_rows
        if store is not None:
            store.save(state)
        _warn_of(left_out)
        counted = state.open
        return StreamReport(
            counted.rows,
            windows,
            state.epoch,
            counted.late,
            counted.ahead,
            counted.untimed,
            state.skipped,
            left_out.first,
            ended,
        )

    def _aggregated(self, grouping: Grouping) -> pa.Table:
        """Aggregate all events to the end of the source; groups come in the order of their first
        event. (Events without a time count too: no time is looked at.)"""
        blocks = Blocks(grouping)
        schema: pa.Schema | None = None
        count = 0
        left_out = NOTHING
        with _Feed(self.events, None, threading.Event(), None) as feed:
            for table, _, skipped in feed.batches():
                left_out = left_out.then(skipped)
                rows = self._stepped(table)
                if rows.num_columns and rows.num_rows:
                    rows, schema = fitted_rows(rows, schema, count)
                    blocks.add(rows)
                    count += rows.num_rows
        _warn_of(left_out)
        return blocks.finish()

    def _stepped(self, table: pa.Table) -> pa.Table:
        """Return the rows after the steps: filters here, users' functions in worker processes."""
        if not any(isinstance(step, Map) for step in self.steps):
            for step in self.steps:
                table = step(table, ())
            return table
        return dataclasses.replace(from_arrow(table), steps=self.steps).to_arrow()


def _warn_of(left_out: LeftOut) -> None:
    """Warn of lines, and files, that could not be read and were left out."""
    if left_out.count:
        first = left_out.first[0]
        warnings.warn(
            f"{left_out.count} lines or files could not be read and were left out, the first: "
            f"{first.path} {first.where}: {first.error}",
            SkippedDataWarning,
            stacklevel=4,
        )


def _taken(state: Checkpoint, rows: pa.Table, rules: Rules) -> Checkpoint:
    """Return the state with more rows; their columns keep the types of those before."""
    if not rows.num_columns or not rows.num_rows:
        return state
    rows, schema = fitted_rows(rows, state.schema, state.open.rows)
    return dataclasses.replace(state, open=added(state.open, rows, rules), schema=schema)


def fitted_rows(rows: pa.Table, before: pa.Schema | None, count: int) -> tuple[pa.Table, pa.Schema]:
    """Return rows with the columns and types of those before, of which there were ``count``, and
    what these are now: a column that was null only, or that rows lack, is no other type.

    Raises
    ------
    SourceError
        A column has another type than before.
    """
    schema = rows.schema.remove_metadata()
    if before is None or before == schema:
        return rows, schema
    try:
        schema = pa.unify_schemas([before, schema], promote_options="default")
        for entry in schema:
            if entry.name not in rows.column_names:
                rows = rows.append_column(entry, pa.nulls(rows.num_rows, entry.type))
        return rows.select(schema.names).cast(schema), schema
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise SourceError(
            f"rows after row {count} have other types than those before: {error}; give the source "
            "a schema"
        ) from error


def _come_out(state: Checkpoint, found: pa.Table, store: Store | None, target: Sink) -> Checkpoint:
    """Give windows to the sink. The checkpoint has them first: if the process dies in between, the
    next run gives the same to the sink."""
    state = dataclasses.replace(state, epoch=state.epoch + 1, output=found)
    if store is not None:
        store.save(state)
    target.put(found, state.epoch)
    return state


@dataclass(frozen=True, eq=False)
class Grouped:
    """Events by the values of columns; made by `Stream.group_by`."""

    stream: Stream
    keys: tuple[str, ...]

    def agg(self, aggregates: Any = None, **named: Any) -> pa.Table:
        """Go to the end of the source, and aggregate each group, as `Grouped.agg` of tables."""
        found = named_aggregates(aggregates, named)
        check_outputs(found, self.keys)
        return self.stream._aggregated(Grouping(self.keys, found))

    def size(self) -> pa.Table:
        """Go to the end of the source, and count the events of each group, as ``size``."""
        return self.agg(size="size")


class _Feed:
    """A thread that reads the source, and batches of what it has read.

    What is read and not taken is bounded: the source waits when windows cannot be made as fast as
    rows come.
    """

    def __init__(
        self,
        events: Events,
        position: Position | None,
        halt: threading.Event,
        deadline: float | None,
    ) -> None:
        self._events = events
        self._position = position
        self._halt = halt
        self._deadline = deadline
        self._over = threading.Event()
        self._changed = threading.Condition()
        self._chunks: list[Chunk] = []
        self._rows = 0
        self._is_read = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name="stream source", daemon=True)
        self.ended = False

    def __enter__(self) -> _Feed:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._over.set()

    def _read(self) -> None:
        error: BaseException | None = None
        try:
            for chunk in self._events.chunks(self._position, self._over):
                with self._changed:
                    while self._rows >= _BATCH_ROWS and not self._over.is_set():
                        self._changed.wait(_WAIT_SECONDS)
                    self._chunks.append(chunk)
                    self._rows += chunk.rows
                    self._changed.notify()
        except BaseException as raised:  # raised again in the thread that runs the stream
            error = raised
        with self._changed:
            self._error = error
            self._is_read = True
            self._changed.notify()

    def _stopped(self) -> bool:
        late = self._deadline is not None and time.monotonic() >= self._deadline
        return late or self._halt.is_set()

    def batches(self) -> Iterator[tuple[pa.Table, Position, LeftOut]]:
        """Give what has been read, put together: rows, the position after them, what was left
        out."""
        schema = getattr(self._events, "schema", None)
        while not self._stopped():
            with self._changed:
                if not self._chunks and not self._is_read:
                    self._changed.wait(_WAIT_SECONDS)
                chunks, self._chunks, self._rows = self._chunks, [], 0
                is_read, error = self._is_read, self._error
                self._changed.notify()
            if chunks:
                skipped = functools.reduce(LeftOut.then, (chunk.skipped for chunk in chunks))
                yield together(chunks, schema), chunks[-1].position, skipped
            if error is not None:
                raise error
            if is_read:
                self.ended = True
                return


def stream(
    source: Any,
    *,
    time: str = "time",
    max_delay: Duration = 0,
    max_jump: Duration | None = None,
    schema: pa.Schema | None = None,
    on_error: str = "raise",
    max_open_rows: int = 10_000_000,
) -> Stream:
    """Begin a stream of events.

    Parameters
    ----------
    source : iterable, callable, Table, path, or ``ar.stream.file``, ``folder``, ``socket``
        An iterable gives dicts, or tables or record batches of pyarrow; a callable makes one. A
        path is read to its end. To be resumed, an iterable must give the same rows again.
    time : str
        Column of the event time: timestamps, or numbers of seconds.
    max_delay : float or timedelta
        How much later than later events an event may come: the watermark is the latest event time
        less this. An event all of whose windows the watermark has passed is late: it is counted and
        left out. (In session windows an event before the watermark is.)
    max_jump : float or timedelta, optional
        An event that is further than this ahead of all before it is counted and left out, and
        moves nothing: a clock that is wrong must not close all windows.
    schema : pyarrow.Schema, optional
        Columns and types of an iterable's or a path's rows; by default those of the first rows.
    on_error : {"raise", "skip"}
        What to do about an event without a time: raise `SourceError`, or count it.
    max_open_rows : int
        Rows, and groups, that open windows may have.

    Raises
    ------
    InvalidTypeError, InvalidArgumentError
        An argument cannot be used.
    """
    if on_error not in ("raise", "skip"):
        raise InvalidArgumentError(f"on_error must be 'raise' or 'skip', not {on_error!r}")
    if not isinstance(time, str):
        raise InvalidTypeError(f"time names a column, so it is a str, not {time!r}")
    if not isinstance(max_open_rows, int) or max_open_rows < 1:
        raise InvalidArgumentError(f"max_open_rows must be at least 1, not {max_open_rows!r}")
    return Stream(
        events_of(source, schema),
        time,
        microseconds(max_delay, "max_delay"),
        0 if max_jump is None else microseconds(max_jump, "max_jump"),
        on_error == "skip",
        max_open_rows,
    )
