"""Runs a function over the parts of a table as a task graph.

What could not be read travels with the values, so that it is counted once, whatever is run again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from agentic_ray.errors import LostDataError, SourceError
from agentic_ray.graph import (
    Codelet,
    CostHint,
    Resources,
    Task,
    TaskGraph,
    content_key,
)
from agentic_ray.runtime import Run, check_cancelled, get_session
from agentic_ray.tables.pieces import Pack, Piece
from agentic_ray.tables.scans import Skipped
from agentic_ray.tables.steps import Join, Map, Step
from agentic_ray.tables.stores import reaching
from agentic_ray.tables.travel import as_rows, sent

MOST_DEATHS = 8
"""Deaths of the cluster's only node that a table outlives, though what was put there was lost."""
_MEMORY_FACTOR = 3
"""A part in memory takes about so many times its bytes in the file, with what is made of it."""
_MANY_ROWS = 1 << 16
_names = itertools.count()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one part, or of several that were combined."""

    value: Any
    rows: int
    bytes: int
    skipped: tuple[Skipped, ...] = ()

    @property
    def nbytes(self) -> int:
        return int(getattr(self.value, "nbytes", 0))


@dataclass(frozen=True, slots=True)
class Report:
    """The parts, rows and bytes that the last run over a table read.

    Attributes
    ----------
    parts, rows, bytes : int
        Parts read, their rows after the filter of the reading, and their bytes in the files (an
        estimate).
    pruned : int
        Files and row groups that were not read, because no row in them can pass the filter.
    skipped : tuple of Skipped
        Files, or parts of them, that could not be read (``on_error="skip"``): each with ``path``,
        ``where`` and ``error``.
    """

    parts: int = 0
    rows: int = 0
    bytes: int = 0
    pruned: int = 0
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True)
class PartCall:
    """Kernel of one part: reads it, takes the steps, and calls ``make`` with the rows.

    Parameters
    ----------
    columns, filter
        What reading does by itself.
    steps : tuple of Step
    make : callable
        Function of this package: the table's rows, and the part's number, to a value.
    schema : pyarrow.Schema
        Columns that are read, for a part that is skipped.
    skip : bool
        Whether a part that cannot be read is left out.
    """

    columns: tuple[str, ...] | None
    filter: Any
    steps: tuple[Step, ...]
    make: Callable[[pa.Table, int], Any]
    schema: pa.Schema
    skip: bool

    def __content_key__(self) -> str:
        names = (type(self.make).__qualname__, getattr(self.make, "__qualname__", ""))
        steps = [(type(step).__name__, getattr(step, "function", "")) for step in self.steps]
        return content_key("part", names, steps, self.columns, str(self.filter))

    def __call__(self, number: int, piece: Piece | Pack | Held, held: Sequence[Any]) -> Outcome:
        pieces = piece.pieces if isinstance(piece, Pack) else (piece,)
        skipped: list[Skipped] = []
        tables: list[pa.Table] = []
        size = 0
        for one in pieces:
            try:
                if isinstance(one, Held):
                    tables.append(one.read(held, self.columns, self.filter))
                else:
                    origin = getattr(one.reader, "origin", None)
                    with reaching(origin and origin.filesystem, one.path):
                        tables.append(one.reader.read(self.columns, self.filter))
                size += one.bytes
            except (SourceError, FileNotFoundError) as error:
                if not self.skip:
                    raise
                assert isinstance(one, Piece), "what is in memory can be read"
                skipped.append(Skipped(one.path, one.where, str(error)))
            check_cancelled()
        table = self._together(tables)
        rows = table.num_rows
        for step in self.steps:
            table = step(table, held)
        return Outcome(self.make(table, number), rows, size, tuple(skipped))

    def _together(self, tables: Sequence[pa.Table]) -> pa.Table:
        if not tables:
            table = self.schema.empty_table()
            return table if self.columns is None else table.select(list(self.columns))
        if len(tables) == 1:
            return tables[0]
        found = pa.concat_tables(tables, promote_options="default")
        # (Kernels go through a table chunk by chunk, at some cost for each.)
        return found.combine_chunks() if len(found) < _MANY_ROWS * len(tables) else found


@dataclass(frozen=True, slots=True)
class Held:
    """A part that is in memory: ``held[place]`` is its rows as Arrow's stream, or a table.

    ``fit``: columns and types that the rows are fitted to, if they have others.
    """

    place: int
    rows: int | None
    bytes: int
    label: str
    fit: pa.Schema | None = None

    def read(self, held: Sequence[Any], columns: Sequence[str] | None, filter: Any) -> pa.Table:
        """Return the rows."""
        value = held[self.place]
        table = as_rows(value.value if isinstance(value, Outcome) else value)
        if self.fit is not None:
            table = table.select(self.fit.names).cast(self.fit)
        if filter is not None:
            table = table.filter(filter)
        return table if columns is None else table.select(list(columns))


@dataclass(frozen=True)
class Work:
    """Parts, and the arguments that travel with all of them.

    ``held`` are what steps and parts in memory name by their places: bytes or tables of the
    caller's, put in the object store once, or what a finished run holds there.
    """

    pieces: tuple[Piece | Pack | Held, ...]
    held: tuple[Any, ...]
    call: PartCall
    pruned: int = 0
    skipped: tuple[Skipped, ...] = field(default=())

    @property
    def is_opaque(self) -> bool:
        return any(isinstance(step, Map) for step in self.call.steps)


def graph_of(work: Work) -> tuple[list[Task], list[str]]:
    """Return tasks that do the work, and the keys of what is wanted of them."""
    kind = content_key("tables", work.call)[:24]
    codelet = Codelet(kind, work.call, opaque=work.is_opaque)
    held = [sent(value) for value in work.held]
    shared = {step.place for step in work.call.steps if isinstance(step, Join)}
    number = next(_names)
    tasks: list[Task] = []
    for i, piece in enumerate(work.pieces):
        # Each part is given what it needs; other places are empty, so that nothing else travels.
        needed = shared | ({piece.place} if isinstance(piece, Held) else set())
        last = max(needed, default=-1) + 1
        given = [held[place] if place in needed else None for place in range(last)]
        tasks.append(
            Task.of(
                codelet,
                i,
                piece,
                given,
                key=f"{kind}@{number}/{i}",
                cost=CostHint(read_bytes=piece.bytes, items=1),
                resources=Resources(memory_bytes=_MEMORY_FACTOR * piece.bytes),
            )
        )
    return tasks, [task.key for task in tasks]


def submitted(work: Work) -> Run:
    """Submit the work; return the run, which is under way."""
    tasks, keys = graph_of(work)
    return get_session().submit(TaskGraph(tasks, keys), asked=len(work.pieces))


def outcomes(work: Work) -> list[Outcome]:
    """Return the outcome of each part, in order.

    Work whose values were lost with the cluster's only node is done again.
    """
    for left in reversed(range(MOST_DEATHS)):
        try:
            return [loaded(value) for value in submitted(work).result()]
        except LostDataError:
            if not left:
                raise
    raise AssertionError("the last round raises")


def loaded(value: Any) -> Outcome:
    """Return an outcome as it came."""
    assert isinstance(value, Outcome), "parts give outcomes"
    return value


def report_of(work: Work, found: Sequence[Outcome]) -> Report:
    """Return what was read, and what was not."""
    skipped = [entry for outcome in found for entry in outcome.skipped]
    return Report(
        len(work.pieces),
        sum(outcome.rows for outcome in found),
        sum(outcome.bytes for outcome in found),
        work.pruned,
        (*work.skipped, *skipped),
    )
