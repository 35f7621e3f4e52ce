"""`Table`: rows in files, or in memory, with steps to take; work begins when a value is asked for.

How files are cut is in ``scans``, what is done with a part in ``steps`` and ``aggregates``, and how
parts become tasks in ``running``.
"""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from blake3 import blake3

from agentic_ray.errors import InvalidArgumentError, InvalidTypeError, SkippedDataWarning
from agentic_ray.graph import capture, content_key
from agentic_ray.runtime.current import current_session
from agentic_ray.tables.conversion import as_arrow, together
from agentic_ray.tables.grouping import Aggregate, Grouping, check_outputs, named_aggregates
from agentic_ray.tables.joining import HOW, check_join
from agentic_ray.tables.makers import Head, Partial, Rows, Whole, Words
from agentic_ray.tables.pieces import Pack, Piece
from agentic_ray.tables.running import (
    Held,
    Outcome,
    PartCall,
    Report,
    Work,
    outcomes,
    report_of,
)
from agentic_ray.tables.scans import Planned, Scan
from agentic_ray.tables.shuffle import aggregated
from agentic_ray.tables.steps import (
    Filter,
    Join,
    Map,
    Select,
    Step,
    is_expression,
    pushed,
    schema_after,
)
from agentic_ray.tables.travel import packed

if TYPE_CHECKING:
    import pandas as pd

    from agentic_ray.tables.manifests import Written

_JOIN_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Memory:
    """Parts that are in memory: places in a table's ``held``."""

    parts: tuple[Held, ...]
    schema: pa.Schema

    @property
    def label(self) -> str:
        return f"{len(self.parts)} parts in memory"


class _Last:
    """The report of the last run over a table."""

    def __init__(self) -> None:
        self.report = Report()


@dataclass(frozen=True, eq=False)
class Table:
    """Rows in parts: made by `read_parquet` and its siblings, or `from_arrow`.

    Methods such as `filter` give another table and read nothing. Methods that give values
    (`to_arrow`, `count`, ``agg`` …) read the parts where they are worked on, beside each other, and
    bring here what is left.

    Parts keep their order, and the rows in them; so do all results.
    """

    source: Scan | Memory
    steps: tuple[Step, ...] = ()
    held: tuple[Any, ...] = ()
    _last: _Last = dataclasses.field(default_factory=_Last, repr=False)

    # --- steps ---------------------------------------------------------------------------

    @property
    def schema(self) -> pa.Schema | None:
        """Columns and their types; None after `map`, whose function may make any."""
        return schema_after(self.source.schema, self.steps)

    def filter(self, expression: Any) -> Table:
        """Keep the rows for which an expression of pyarrow is true.

        Parquet files are read only where their statistics, and names of folders such as
        ``year=2013``, allow such rows.

        Parameters
        ----------
        expression : pyarrow.compute.Expression
            Such as ``ar.tables.col("price") > 3``; combine them by ``&``, ``|`` and ``~``.

        Raises
        ------
        InvalidTypeError
            It is no expression.
        InvalidArgumentError
            It names a column that is not there, or compares what cannot be compared.
        """
        if not is_expression(expression):
            raise InvalidTypeError(
                "filter takes an expression such as ar.tables.col('price') > 3, not "
                f"{type(expression).__name__}; use map for a function"
            )
        return self._then(Filter(expression))

    def select(self, *columns: str) -> Table:
        """Keep some columns, in this order; only they are read.

        Raises
        ------
        InvalidArgumentError
            A column is not there, or is named twice.
        """
        for name in columns:
            if not isinstance(name, str):
                raise InvalidTypeError(f"a column is named by a str, not {name!r}")
        if not columns or len(set(columns)) < len(columns):
            raise InvalidArgumentError("select takes names of columns, each once")
        return self._then(Select(columns))

    def map(self, function: Callable[[pa.Table], Any]) -> Table:
        """Apply a function to each part.

        Parameters
        ----------
        function : callable
            Of a ``pyarrow.Table``, to one of any rows and columns (or a frame of pandas or polars,
            or a dict of columns). It runs in a worker process, and is given parts of no rows too.
            Its answer should depend on the rows alone.

        Raises
        ------
        SerializationError
            It cannot be sent to another process.
        """
        if not callable(function):
            raise InvalidTypeError(f"map takes a function, not {type(function).__name__}")
        return self._then(Map(capture(function)))

    def join(
        self, right: Any, on: str | Sequence[str], how: str = "inner", *, suffix: str = "_right"
    ) -> Table:
        """Join with a small table, which every worker gets whole.

        Parameters
        ----------
        right : Table, pyarrow.Table or pandas.DataFrame
            It is brought here, and may have at most 1 GiB.
        on : str or sequence of str
            Columns of both tables. Null is equal to nothing.
        how : {"inner", "left", "semi", "anti"}
            "left" keeps the rows without a match, with nulls; "semi" and "anti" keep the rows with,
            or without, a match, and add no column.
        suffix : str
            Added to columns of ``right`` whose names the left table has too.

        Raises
        ------
        InvalidArgumentError, InvalidTypeError
            A column is not there, differs in type or is of floats; an unknown ``how``.
        """
        names = (on,) if isinstance(on, str) else tuple(on)
        if how not in HOW:
            raise InvalidArgumentError(f"how must be one of {', '.join(HOW)}, not {how!r}")
        if not names:
            raise InvalidArgumentError("on names no column")
        small = right.to_arrow() if isinstance(right, Table) else as_arrow(right)
        if small.nbytes > _JOIN_BYTES:
            raise InvalidArgumentError(
                f"the right table has {small.nbytes / 2**30:.1f} GiB, and each worker would get "
                "all of it; make the larger table the left one"
            )
        left = self.schema if how in ("inner", "left") else None
        check_join(left, small.schema, names, suffix)
        stream = packed(small)
        digest = blake3(stream).hexdigest()
        step = Join(len(self.held), names, how, suffix, small.schema, digest)
        return dataclasses.replace(self, held=(*self.held, stream))._then(step)

    def _then(self, step: Step) -> Table:
        after = dataclasses.replace(self, steps=(*self.steps, step), _last=_Last())
        after.schema  # noqa: B018  # an unknown column is an error now
        return after

    # --- values ----------------------------------------------------------------------------

    def to_arrow(self) -> pa.Table:
        """Bring all rows here.

        Raises
        ------
        SourceError
            A file is damaged, changed, or unlike the others.
        """
        found = self._each(Whole())
        tables = [outcome.value for outcome in found]
        return together(tables)

    def to_pandas(self) -> pd.DataFrame:
        """Bring all rows here, as a frame of pandas."""
        return self.to_arrow().to_pandas()

    def to_ray(self) -> Any:
        """Return the rows as a Ray Dataset, in this order; they do not come to this process.

        Each part is a block, in the object store of the cluster; parts of no rows are left out.
        The Dataset lives no longer than the session. Ray Data's tasks wait until the session does
        not hold the CPUs: at most ``idle_release_seconds`` after its last work.

        Returns
        -------
        ray.data.MaterializedDataset

        Raises
        ------
        ModuleNotFoundError
            Ray Data is not installed; ``pip install "agentic-ray[ray-data]"``.
        SessionError
            A master has lent the session to this job: it has no Ray of its own.
        """
        from agentic_ray.tables.datasets import to_ray  # it makes tables, too

        return to_ray(self)

    def head(self, rows: int = 5) -> pa.Table:
        """Bring the first rows here; parts are read one after the other until there are enough."""
        if rows < 0:
            raise InvalidArgumentError(f"head takes a number of rows, not {rows}")
        work = self._work(Head(rows), None)
        found: list[Outcome] = []
        for piece in work.pieces:
            one = dataclasses.replace(work, pieces=(piece,))
            found += outcomes(one)
            if sum(outcome.value.num_rows for outcome in found) >= rows:
                break
        self._tell(work, found)
        return together([outcome.value for outcome in found]).slice(0, rows)

    def iterate(self) -> Iterator[pa.Table]:
        """Give the parts one after the other; the next is read when it is asked for."""
        work = self._work(Whole(), None)
        found: list[Outcome] = []
        for piece in work.pieces:
            (one,) = outcomes(dataclasses.replace(work, pieces=(piece,)))
            found.append(dataclasses.replace(one, value=None))
            yield one.value
        self._tell(work, found)

    def count(self) -> int:
        """Count the rows."""
        needed = () if self.schema is None else self.schema.names[:1]
        return sum(outcome.value for outcome in self._each(Rows(), needed or None))

    def group_by(self, *keys: str) -> Grouped:
        """Group the rows by the values of columns.

        Null is a group of its own, as is NaN; groups come in the order of their first row.

        Examples
        --------
        >>> import agentic_ray as ar
        >>> sales = ar.tables.from_arrow({"shop": ["north", "south", "north"], "price": [3, 4, 5]})
        >>> sales.group_by("shop").agg({"price": "sum"}).to_pylist()
        [{'shop': 'north', 'price_sum': 8}, {'shop': 'south', 'price_sum': 4}]
        """
        for name in keys:
            if not isinstance(name, str):
                raise InvalidTypeError(f"a column is named by a str, not {name!r}")
        if not keys or len(set(keys)) < len(keys):
            raise InvalidArgumentError("group_by takes names of columns, each once")
        self._check(keys)
        return Grouped(self, keys)

    def agg(self, aggregates: Mapping[str, Any] | None = None, **named: Any) -> pa.Table:
        """Aggregate all rows to one; as `Grouped.agg`."""
        return self._aggregated(Grouping((), named_aggregates(aggregates, named)))

    def value_counts(self, column: str) -> pa.Table:
        """Count the rows of each value of a column: columns ``column`` and ``count``, most first;
        of equally many the one seen first."""
        found = self.group_by(column)._counted("count")
        order = pc.sort_indices(found, sort_keys=[("count", "descending")])
        return found.take(order)

    def word_count(self, column: str = "line") -> pa.Table:
        """Count the words of a column of text, which white space divides: columns ``word`` and
        ``count``, most first; of equally many the one seen first."""
        self._check((column,))
        grouping = Grouping(("word",), (Aggregate("count", None, "size"),))
        answer = self._reduced(Words(column), (column,), grouping)
        order = pc.sort_indices(answer, sort_keys=[("count", "descending")])
        return answer.take(order)

    def describe(self) -> pa.Table:
        """Describe each column in a row: its name and type, values and nulls, and for numbers mean,
        deviation, least and most."""
        schema = self.schema
        if schema is None:
            schema = self.head(0).schema
        numbers = [entry.name for entry in schema if _is_number(entry.type)]
        aggregates = [Aggregate("rows", None, "size")]
        for name in schema.names:
            aggregates.append(Aggregate(f"count {name}", name, "count"))
            if name in numbers:
                aggregates += [
                    Aggregate(f"{function} {name}", name, function)
                    for function in ("mean", "std", "min", "max")
                ]
        found = self._aggregated(Grouping((), tuple(aggregates))).to_pylist()[0]
        rows = found["rows"]
        described: dict[str, list[Any]] = {
            "column": schema.names,
            "type": [str(entry.type) for entry in schema],
            "count": [found[f"count {name}"] for name in schema.names],
            "nulls": [rows - found[f"count {name}"] for name in schema.names],
        }
        for function in ("mean", "std", "min", "max"):
            values = [found.get(f"{function} {name}") for name in schema.names]
            described[function] = [None if value is None else float(value) for value in values]
        kinds = {"column": pa.string(), "type": pa.string(), "count": pa.int64()}
        kinds["nulls"] = pa.int64()
        return pa.table(
            {name: pa.array(v, kinds.get(name, pa.float64())) for name, v in described.items()}
        )

    def sort_by(self, keys: str | Sequence[str | tuple[str, str]]) -> Table:
        """Sort the rows; see `agentic_ray.tables.sorting.sorted_table`.

        Parameters
        ----------
        keys : str, or sequence of str or (str, "ascending" or "descending")
            Nulls come last, NaN before them. Rows with equal keys keep their order.
        """
        from agentic_ray.tables.sorting import sorted_table  # it makes tables

        return sorted_table(self, keys)

    def write_parquet(
        self,
        path: str | os.PathLike[str],
        *,
        partition_by: str | Sequence[str] = (),
        mode: str = "error",
        job: str | None = None,
        compression: str = "snappy",
        filesystem: Any = None,
    ) -> Written:
        """Write the rows as Parquet files in a folder, all or nothing.

        Each part writes its files beside the folder; when all are there, the folder is put in place
        in one step. A job that fails leaves what was there before.

        Parameters
        ----------
        path : str or os.PathLike
            A local folder, the same on every node, or a URL such as ``s3://bucket/folder``. An
            object store has no folders to put in place: there the manifest, written last, says
            which files count, and `read_parquet` and its siblings go by it.
        partition_by : str or sequence of str
            Columns whose values become names of folders, such as ``year=2013``. The manifest keeps
            their types. A value that would be read back as another one is refused.
        mode : {"error", "overwrite"}
            What to do if the folder is there: refuse, or replace all of it.
        job : str, optional
            Name of the job, for the manifest; by default a new one.
        compression : str
            As of ``pyarrow.parquet``.
        filesystem : pyarrow.fs.FileSystem or fsspec file system, optional
            Where ``path`` is; by default local, or as its URL says.

        Returns
        -------
        Written
            The manifest, which is in the folder too, as ``_manifest.json``.

        Raises
        ------
        TargetExistsError
            The folder is there, and ``mode`` is "error"; or another job has written it meanwhile.
        StorageError
            An object store cannot be reached, or refuses.
        InvalidArgumentError, InvalidTypeError
            An argument cannot be used; a value, or a type, cannot be the name of a folder.
        """
        from agentic_ray.tables.writing import write  # it makes work of tables

        options = {"compression": compression}
        return write(self, path, "parquet", partition_by, mode, job, options, filesystem)

    def write_csv(
        self,
        path: str | os.PathLike[str],
        *,
        partition_by: str | Sequence[str] = (),
        mode: str = "error",
        job: str | None = None,
        delimiter: str = ",",
        filesystem: Any = None,
    ) -> Written:
        """Write the rows as CSV files in a folder, all or nothing; as `write_parquet`.

        The files say neither types nor what is null: `read_csv` finds types anew, unless it is
        given the ``schema``, and reads null in a column of text as "" (with ``null_values=[""]``
        it reads both as null). Parquet keeps all of it.

        Raises
        ------
        InvalidTypeError
            A column, such as one of lists, cannot be text.
        """
        from agentic_ray.tables.writing import write  # it makes work of tables

        options = {"delimiter": delimiter}
        return write(self, path, "csv", partition_by, mode, job, options, filesystem)

    @property
    def report(self) -> Report:
        """Return what the last run over this very table read and skipped."""
        return self._last.report

    def explain(self) -> str:
        """Describe what would be read and done; nothing is run.

        Returns
        -------
        str
            Parts, their bytes and rows, what the filter excludes, columns, steps, seconds.
        """
        columns, expression, rest = pushed(self.source.schema, self.steps, None)
        plan = self._planned(columns, expression)
        rows = [piece.rows for piece in plan[0]]
        size = sum(piece.bytes for piece in plan[0])
        names = self.source.schema.names if columns is None else columns
        lines = [
            f"read {self.source.label}: {len(plan[0])} parts, {size / 2**20:,.1f} MiB"
            + (f", {sum(rows):,} rows" if all(row is not None for row in rows) else ""),  # type: ignore[arg-type]
            f"  columns {', '.join(names)}"
            + ("" if columns is None else f" (of {len(self.source.schema.names)})"),
        ]
        if expression is not None:
            lines.append(f"  filter {expression}: {plan[1]} files or row groups are left out")
        lines += [f"  cannot be read: {entry.path}: {entry.error}" for entry in plan[2]]
        for step in rest:
            lines.append(_described(step))
        session = current_session()
        call = self._call(Whole(), columns, expression, rest)
        if session is not None:
            kind = content_key("tables", call)[:24]
            known = [session.model.predict_size(kind, "cpu", float(p.bytes)) for p in plan[0]]
            seconds = [entry.seconds for entry in known if entry is not None]
            told = (
                f"about {sum(seconds) / session.slots:.3g} s on {session.slots} slots"
                if len(seconds) == len(known)
                else "not known before the first run"
            )
            lines.append(f"to bring all rows here: {told}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        steps = "".join(f", {_described(step).strip()}" for step in self.steps)
        return f"<Table {self.source.label}{steps}>"

    # --- how -------------------------------------------------------------------------------

    def _check(self, columns: Sequence[str]) -> None:
        schema = self.schema
        missing = [name for name in columns if schema is not None and name not in schema.names]
        if missing and schema is not None:
            raise InvalidArgumentError(
                f"there is no column {', '.join(map(repr, missing))}; there are "
                f"{', '.join(schema.names)}"
            )

    def _aggregated(self, grouping: Grouping) -> pa.Table:
        self._check(grouping.columns)
        schema = self.schema
        # (Without columns, to count rows, one column is read.)
        needed = grouping.columns or (() if schema is None else tuple(schema.names[:1]))
        return self._reduced(Partial(grouping), needed or None, grouping)

    def _reduced(self, make: Any, needed: Sequence[str] | None, grouping: Grouping) -> pa.Table:
        work = self._work(make, needed)
        answer, found = aggregated(work, grouping)
        self._tell(work, found)
        return answer

    def _each(self, make: Any, needed: Sequence[str] | None = None) -> list[Outcome]:
        work = self._work(make, needed)
        found = outcomes(work)
        self._tell(work, found)
        return found

    def _tell(self, work: Work, found: Sequence[Outcome]) -> None:
        report = report_of(work, found)
        self._last.report = report
        if report.skipped:
            first = report.skipped[0]
            warnings.warn(
                f"{len(report.skipped)} files or parts could not be read and were left out, the "
                f"first: {first.path} {first.where}: {first.error}; report.skipped has them all",
                SkippedDataWarning,
                stacklevel=4,
            )

    def _work(self, make: Any, needed: Sequence[str] | None) -> Work:
        columns, expression, rest = pushed(self.source.schema, self.steps, needed)
        pieces, pruned, skipped = self._planned(columns, expression)
        call = self._call(make, columns, expression, rest)
        return Work(pieces, self.held, call, pruned, skipped)

    def _call(self, make: Any, columns: Any, expression: Any, rest: tuple[Step, ...]) -> PartCall:
        skip = isinstance(self.source, Scan) and self.source.on_error == "skip"
        return PartCall(columns, expression, rest, make, self.source.schema, skip)

    def _planned(
        self, columns: Sequence[str] | None, expression: Any
    ) -> tuple[tuple[Piece | Pack | Held, ...], int, Any]:
        if isinstance(self.source, Memory):
            return self.source.parts, 0, ()
        found: Planned = self.source.plan(columns, expression)
        return found.pieces, found.pruned, found.skipped


@dataclass(frozen=True, eq=False)
class Grouped:
    """Rows of a table by the values of columns; made by `Table.group_by`."""

    table: Table
    keys: tuple[str, ...]

    def agg(self, aggregates: Mapping[str, Any] | None = None, **named: Any) -> pa.Table:
        """Aggregate each group; return the keys and the aggregates, a row for each group.

        Parameters
        ----------
        aggregates : mapping of str to str or sequence of str, optional
            Function, or functions, of each column; the answer's columns are ``column_function``.
        **named
            Names of the answer's columns, each with ``(column, function)``, or ``"size"`` for the
            number of rows.

        Returns
        -------
        pyarrow.Table

        Raises
        ------
        InvalidArgumentError, InvalidTypeError
            A column or a function is not there, or does not fit the column's type.
        SumOverflowError
            A sum of integers does not fit 64 bits.

        Notes
        -----
        Functions: ``sum``, ``mean``, ``min``, ``max``, ``count`` (of values), ``size`` (of rows),
        ``var`` and ``std`` (of a sample, divided by n - 1), ``first``, ``last``, ``any``, ``all``,
        ``nunique``. Nulls are passed over; of nulls alone the sum is null. NaN counts as a number:
        sums and means with one are NaN, ``min`` and ``max`` pass over it.
        """
        found = named_aggregates(aggregates, named)
        check_outputs(found, self.keys)
        return self.table._aggregated(Grouping(self.keys, found))

    def size(self) -> pa.Table:
        """Count the rows of each group, as ``size``."""
        return self._counted("size")

    def _counted(self, name: str) -> pa.Table:
        if name in self.keys:
            raise InvalidArgumentError(f"a column is named {name!r}; use agg with another name")
        return self.table._aggregated(Grouping(self.keys, (Aggregate(name, None, "size"),)))


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def _described(step: Step) -> str:
    if isinstance(step, Filter):
        return f"filter {step.expression}"
    if isinstance(step, Select):
        return f"select {', '.join(step.columns)}"
    if isinstance(step, Join):
        return f"{step.how} join on {', '.join(step.on)} with {len(step.right.names)} columns"
    name = getattr(step.function, "__name__", None) or type(step.function).__name__
    return f"map {name}"
