"""Data as rows in chunks: each chunk is read, and gone through, where it is used."""

from __future__ import annotations

import functools
import glob
import itertools
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

import agentic_ray.array as xp
from agentic_ray import sources, tables
from agentic_ray.array import Array
from agentic_ray.array.core import evaluate
from agentic_ray.errors import InvalidArgumentError, InvalidTypeError, SourceError
from agentic_ray.ml.chunks import (
    AsMatrix,
    Chain,
    Chosen,
    Columns,
    Given,
    OfArray,
    Positions,
    Step,
    Together,
    Unreadable,
    as_frame,
    chunk_at,
    joined,
    loaded,
)
from agentic_ray.sources import Part, Source
from agentic_ray.tables.table import Memory

CHUNK_BYTES = 32 << 20
"""Tables and sparse matrices in the caller's memory are cut in chunks of about this size."""


# --- rows -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Rows:
    """A table or matrix in chunks of rows; made by `rows`.

    Nothing is read until a value is needed. A fit goes through the chunks where they are, and
    never puts them together.

    Attributes
    ----------
    lengths : tuple of int
        Rows of each chunk.
    columns : tuple of str or None
        Names, where there are names.
    skipped : tuple of str
        Parts of files that could not be read and were left out.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> data = ml.rows(np.arange(12.0).reshape(6, 2), chunk_rows=4)
    >>> data.shape, data.lengths
    ((6, 2), (4, 2))
    >>> data.map(lambda block: block * 2).compute()[-1]
    array([20., 22.])
    """

    source: Given | OfArray | Chosen | Together
    lengths: tuple[int, ...]
    sample: Any
    steps: tuple[Step, ...] = ()
    skipped: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """As NumPy's."""
        return (sum(self.lengths), *np.shape(self.sample)[1:])

    @property
    def ndim(self) -> int:
        """2 for tables and matrices, 1 for a column."""
        return len(np.shape(self.sample))

    @property
    def dtype(self) -> Any:
        """The type of a matrix's elements; None for a table, whose columns have their own."""
        return getattr(self.sample, "dtype", None)

    @property
    def columns(self) -> tuple[str, ...] | None:
        """Names of the columns of a table."""
        found = getattr(self.sample, "columns", None)
        return None if found is None else tuple(found)

    @property
    def is_here(self) -> bool:
        """Whether it is small and in this process."""
        return self.source.is_here and self.source.nbytes <= evaluate.LOCAL_BYTES

    def __len__(self) -> int:
        return sum(self.lengths)

    def __getitem__(self, names: Any) -> Rows:
        """Return a column, or some, of a table by their names; or rows, by a slice, positions or a
        mask in the caller's memory; or columns by position: ``[:, 1]``."""
        if isinstance(names, tuple) and len(names) == 2 and names[1] is Ellipsis:
            names = names[0] if isinstance(names[0], slice) else np.asarray(names[0])
        if isinstance(names, tuple) and len(names) == 2 and isinstance(names[0], slice):
            if self.ndim != 2:
                raise IndexError(f"too many indices: rows are {self.ndim}-dimensional")
            columns = self.then(Positions(names[1]))
            return columns if names[0] == slice(None) else columns[names[0]]
        if isinstance(names, slice | np.ndarray):
            return self.take(np.arange(len(self))[names])
        if isinstance(names, int | np.integer):
            raise InvalidTypeError(
                f"rows are taken by lists or slices of positions: [[{names}]], not [{names}]"
            )
        wanted = (names,) if isinstance(names, str) else tuple(names)
        if wanted and all(isinstance(at, int | np.integer) for at in wanted):
            return self.take(np.asarray(wanted))
        unknown = [name for name in wanted if name not in (self.columns or ())]
        if unknown:
            raise InvalidArgumentError(
                f"there is no column {', '.join(map(repr, unknown))}; there are "
                f"{', '.join(self.columns or ()) or 'no names'}"
            )
        step = Columns(wanted, isinstance(names, str))
        narrow = self._read_only(wanted)
        return narrow.then(step)

    def drop(self, columns: str | Sequence[str]) -> Rows:
        """All columns of a table but these."""
        gone = (columns,) if isinstance(columns, str) else tuple(columns)
        self[gone]  # an unknown name is an error
        return self[[name for name in self.columns or () if name not in gone]]

    def map(self, function: Callable[[Any], Any]) -> Rows:
        """``function`` of each chunk, which keeps its rows.

        Parameters
        ----------
        function : callable
            Of a matrix or table of some rows, to one of as many. It is called when a chunk is
            used, and once now, on one row.
        """
        return self.then(function)

    def then(self, step: Step) -> Rows:
        """Return these rows with one more step."""
        return replace(self, steps=(*self.steps, step), sample=step(self.sample))

    def take(self, positions: Any) -> Rows:
        """Some of the rows, in the order of the chunks; chunks that none is taken of are left out.

        Parameters
        ----------
        positions : array of int
            Sorted; that of scikit-learn's splitters are.

        Raises
        ------
        InvalidArgumentError
            They are not sorted: rows would have to move between chunks.
        """
        positions = np.asarray(positions)
        if len(positions) and (np.diff(positions) < 0).any():
            raise InvalidArgumentError(
                "rows can be taken in their order only; sort the positions (numpy.sort)"
            )
        edges = np.cumsum([0, *self.lengths])
        cuts = np.searchsorted(positions, edges)
        kept = [i for i in range(len(self.lengths)) if cuts[i] < cuts[i + 1]] or [0]
        own = [positions[cuts[i] : cuts[i + 1]] - edges[i] for i in kept]
        part = self.take_chunks(kept)
        source: Chosen | Together = Chosen(part.source, tuple(own))
        if isinstance(part.source, Together):
            source = Together(
                tuple([Chosen(one, tuple(own)) for one in part.source.sources]), part.source.steps
            )
        return replace(part, source=source, lengths=tuple(map(len, own)))

    def take_chunks(self, which: Sequence[int]) -> Rows:
        """Only some of the chunks, in this order."""
        if list(which) == list(range(len(self.lengths))):
            return self
        source: Given | OfArray | Chosen | Together
        if isinstance(self.source, Together):
            inner = [
                Rows(one, self.lengths, self.sample).take_chunks(which).source
                for one in self.source.sources
            ]
            source = Together(tuple(inner), self.source.steps)
        elif isinstance(self.source, OfArray):
            edges = np.cumsum([0, *self.lengths])
            parts = [self.source.array[edges[i] : edges[i + 1]] for i in which]
            array = parts[0] if len(parts) == 1 else xp.concatenate(parts)
            source = OfArray(array.rechunk((tuple(map(len, parts)), *array.chunks[1:])))
        elif isinstance(self.source, Chosen):
            part = Rows(self.source.source, self.lengths, self.sample).take_chunks(which)
            source = Chosen(part.source, tuple([self.source.positions[i] for i in which]))
        else:
            source = self.source.take(which)
        return replace(self, source=source, lengths=tuple([self.lengths[i] for i in which]))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """All rows together, here, as a NumPy array; how NumPy's and scikit-learn's functions take
        predictions."""
        found = self.compute()
        found = found.toarray() if sp.issparse(found) else np.asarray(found)
        return found if dtype is None else found.astype(dtype, copy=False)

    def reshape(self, *shape: Any) -> Any:
        """All rows together, here, as a NumPy array of another shape."""
        return np.asarray(self).reshape(*shape)

    def compute(self) -> Any:
        """All rows together, here: a NumPy array, a CSR matrix or a pandas DataFrame."""
        from agentic_ray.ml.passes import each_chunk

        return joined(each_chunk([self], first))

    def persist(self) -> Rows:
        """Read and compute all chunks now, and keep them where that is done: in the object store,
        or in this process if they are small.

        A fit of many passes then reads files once. What is kept takes as much memory as the chunks
        do; columns that are not needed are left out before (``rows[["a", "b"]].persist()``). Chunks
        that are lost with a machine are made again.

        Returns
        -------
        Rows
            With the same chunks; these rows stay as they are.

        Examples
        --------
        >>> import numpy as np
        >>> from agentic_ray import ml
        >>> data = ml.rows(np.arange(6.0).reshape(3, 2)).map(np.sqrt).persist()
        >>> data.steps, float(data.compute()[0, 1])
        ((), 1.0)
        """
        from agentic_ray.ml.passes import kept_chunks, size_of

        if isinstance(self.source, OfArray) and not self.steps:
            self.source.array.persist()
            return self
        held = kept_chunks(self)
        here = self.is_here
        nbytes = sum(map(size_of, held))
        again = None if here else functools.partial(_kept_again, self)
        return replace(self, source=Given(tuple(held), nbytes, here, again), steps=())

    def array(self, dtype: Any = np.float64) -> Array:
        """Return the values as an `agentic_ray.array` array, chunk by chunk.

        Raises
        ------
        InvalidTypeError
            The chunks are sparse.
        """
        if sp.issparse(self.sample):
            raise InvalidTypeError(
                "sparse chunks have no dense array; use .map(lambda b: b.toarray())"
            )
        shape = np.shape(self.sample)[1:]
        if isinstance(self.source, OfArray):
            if not self.steps:
                return self.source.array
            if self.is_here:  # here scikit-learn's functions need no cluster
                value = np.asarray(self.compute(), dtype=dtype)
                return xp.asarray(value, chunks=(self.lengths, *((n,) for n in shape)))
            base = self.source.array
            more = max(0, base.ndim - 1 - len(shape))
            return xp.map_blocks(
                Chain((*self.steps, AsMatrix(np.dtype(dtype)))),
                base,
                dtype=dtype,
                chunks=(self.lengths, *((n,) for n in shape)),
                drop_axis=list(range(base.ndim - more, base.ndim)) or None,
                new_axis=list(range(base.ndim, len(shape) + 1)) or None,
            )
        if self.is_here or not self.lengths or chunk_at(self.source, 0) is None:
            return xp.asarray(
                np.asarray(self.compute(), dtype=dtype),
                chunks=(self.lengths, *((n,) for n in shape)),
            )
        chunks = (self.lengths, *((n,) for n in shape))
        if isinstance(self.source, Given) and not all(
            isinstance(chunk, Part) for chunk in self.source.chunks
        ):
            made = self.then(AsMatrix(np.dtype(dtype))).persist()
            like = xp.empty(made.shape, dtype=dtype, chunks=chunks)._node
            return Array(evaluate.stored(like, made.source.arguments(False)[1]))
        call = functools.partial(_numbered, self.then(AsMatrix(np.dtype(dtype))))
        return xp.map_blocks(call, chunks=chunks, dtype=dtype)

    def _read_only(self, names: tuple[str, ...]) -> Rows:
        """Return this data so that files need be read for these columns alone."""
        if self.steps or not isinstance(self.source, Given):
            return self
        chunks = self.source.chunks
        reads = [c.read if isinstance(c, Part) else None for c in chunks]
        if not all(hasattr(read, "columns") for read in reads):
            return self
        narrow = tuple([replace(c, read=replace(c.read, columns=names)) for c in chunks])
        share = len(names) / max(len(self.columns or ()), 1)
        source = Given(narrow, int(self.source.nbytes * share), self.source.is_here)
        return replace(self, source=source, sample=self.sample[list(names)])

    def __repr__(self) -> str:
        chunks = "1 chunk" if len(self.lengths) == 1 else f"{len(self.lengths)} chunks"
        return f"<Rows of shape {self.shape} in {chunks}>"


def _kept_again(data: Rows, which: Sequence[int]) -> list[Any]:
    from agentic_ray.ml.passes import kept_chunks

    return kept_chunks(data.take_chunks(which))


def _numbered(data: Rows, block_id: tuple[int, ...]) -> Any:
    return loaded(chunk_at(data.source, block_id[0]), data.steps)


def first(chunk: Any) -> Any:
    """A chunk as it is."""
    return chunk


# --- making rows ----------------------------------------------------------------------------


def rows(
    data: Any,
    *,
    columns: Sequence[str] | None = None,
    chunk_rows: int | None = None,
    on_error: str = "raise",
) -> Rows:
    """Rows in chunks of anything that has rows.

    Parameters
    ----------
    data : Array, array, table, sparse matrix, Ray Dataset, Source, path or pattern
        A pandas, polars or Arrow table; a scipy.sparse matrix; a NumPy array; an
        `agentic_ray.array` array; a Ray Dataset (its blocks are used where they are); what
        `agentic_ray.sources` opens; a path of files, also with ``*``: ``.parquet``, ``.csv``,
        ``.npy``, ``.zarr``, or lines of text; a list of texts.
    columns : sequence of str, optional
        Of a table, these alone.
    chunk_rows : int, optional
        Rows of a chunk, for what is in memory and for arrays; by default 32 MB, or the array's
        own chunks. Files are read by row groups.
    on_error : {"raise", "skip"}
        A part of a file that cannot be read is an error, which names it, or is left out: a warning
        counts them, ``skipped`` of the result names them. Each part is read once for that.

    Returns
    -------
    Rows

    Raises
    ------
    InvalidTypeError, InvalidArgumentError
        It has no rows, or an argument cannot be used.
    FileNotFoundError, SourceError
        There is no such file, or it is damaged.

    Examples
    --------
    >>> import pandas as pd
    >>> from agentic_ray import ml
    >>> table = ml.rows(pd.DataFrame({"a": [1, 2, 3], "b": [0.5, 0.25, 0.0]}))
    >>> table.columns, len(table)
    (('a', 'b'), 3)
    >>> table["b"].compute()
    array([0.5 , 0.25, 0.  ])
    """
    if on_error not in ("raise", "skip"):
        raise InvalidArgumentError(f"on_error must be 'raise' or 'skip', not {on_error!r}")
    if chunk_rows is not None and (isinstance(chunk_rows, bool) or int(chunk_rows) < 1):
        raise InvalidArgumentError(f"chunk_rows must be at least 1, not {chunk_rows!r}")
    made = _rows(data, chunk_rows, on_error)
    return made if columns is None else made[list(columns)]


def _rows(data: Any, chunk_rows: int | None, on_error: str) -> Rows:
    if isinstance(data, Rows):
        return data
    if isinstance(data, Array):
        return of_array(data, chunk_rows)
    if isinstance(data, str | Path):
        return _of_files(str(data), chunk_rows, on_error)
    if isinstance(data, Source):
        return _of_parts(data.parts(), on_error)
    if hasattr(data, "to_arrow_refs"):
        return _of_dataset(data)
    if isinstance(data, list | tuple):
        data = np.array(data, dtype=object) if _is_text(data) else np.asarray(data)
    data = as_frame(data)
    if sp.issparse(data):
        data = data.tocsr()
        nbytes = data.data.nbytes + data.indices.nbytes + data.indptr.nbytes
    elif hasattr(data, "iloc"):
        data = data.to_frame() if data.ndim == 1 else data
        nbytes = int(data.memory_usage(deep=True).sum())
    elif isinstance(data, np.ndarray) and data.ndim >= 1:
        if data.dtype.kind in "biufc":
            return of_array(xp.asarray(data), chunk_rows)
        nbytes = sum(len(str(value)) for value in data.ravel()) + data.nbytes
    else:
        raise InvalidTypeError(f"data of type {type(data).__name__} has no rows to be gone through")
    return cut(data, nbytes, chunk_rows)


def _is_text(values: Sequence[Any]) -> bool:
    return bool(values) and isinstance(values[0], str)


def of_array(array: Array, chunk_rows: int | None = None) -> Rows:
    """The rows of an array: its chunks along the first axis, all columns in one."""
    if not array.ndim:
        raise InvalidTypeError("an array of no axis has no rows")
    wanted: Any = array.chunks[0] if chunk_rows is None else _equal(len(array), chunk_rows)
    grid = (wanted, *((n,) for n in array.shape[1:]))
    if array.chunks != grid:
        array = array.rechunk(grid)
    sample = np.ones((min(len(array), 1), *array.shape[1:]), array.dtype)
    return Rows(OfArray(array), tuple(wanted), sample)


def _equal(total: int, each: int) -> tuple[int, ...]:
    full, rest = divmod(total, each)
    return (each,) * full + ((rest,) if rest or not total else ())


def cut(data: Any, nbytes: int, chunk_rows: int | None = None) -> Rows:
    """Cut data in memory that is no array of numbers into chunks of rows."""
    total = int(data.shape[0])
    each = chunk_rows or max(1, min(total, total * CHUNK_BYTES // max(nbytes, 1)))
    lengths = _equal(total, each)
    edges = np.cumsum([0, *lengths])
    take = data.iloc if hasattr(data, "iloc") else data
    chunks = tuple([take[a:b] for a, b in itertools.pairwise(edges)])
    small = nbytes <= evaluate.LOCAL_BYTES
    return Rows(Given(chunks, nbytes, small), lengths, take[: min(total, 1)])


def _of_files(path: str, chunk_rows: int | None, on_error: str) -> Rows:
    suffix = os.path.splitext(path.rstrip("/"))[1].lower()
    if suffix == ".zarr":
        return of_array(xp.from_zarr(path), chunk_rows)
    if suffix == ".npy":
        found = sorted(glob.glob(path)) if any(c in path for c in "*?[") else [path]
        if not found:
            raise FileNotFoundError(f"no file matches {path}")
        arrays = [xp.from_npy(name) for name in found]
        return of_array(arrays[0] if len(arrays) == 1 else xp.concatenate(arrays), chunk_rows)
    return _of_parts(sources.open_source(path).parts(), on_error)


def _of_parts(parts: Sequence[Part], on_error: str) -> Rows:
    """Parts of files. Their rows must be known: where a format does not say them they are
    counted, which reads the files once."""
    from agentic_ray.ml.passes import each_chunk

    skipped: tuple[str, ...] = ()
    nbytes = sum(part.bytes for part in parts)
    small = nbytes <= evaluate.LOCAL_BYTES
    source = Given(tuple(parts), nbytes, small)
    known = [part.items for part in parts]
    if on_error == "skip" or any(n is None for n in known):
        blank = Rows(source, (0,) * len(parts), None)
        known = each_chunk([blank], _counting if on_error == "skip" else _length)
        kept = [i for i, n in enumerate(known) if n is not None]
        skipped = tuple([parts[i].label for i, n in enumerate(known) if n is None])
        _tell_skipped(skipped)
        if not kept:
            raise SourceError("no part of the files can be read")
        parts, known = [parts[i] for i in kept], [known[i] for i in kept]
        source = Given(tuple(parts), nbytes, small)
    lengths = tuple([int(n) for n in known if n is not None])
    return Rows(source, lengths, _first_row(parts), skipped=skipped)


def _tell_skipped(labels: Sequence[str]) -> None:
    if labels:
        shown = ", ".join(labels[:5])
        warnings.warn(
            f"{len(labels)} parts of files cannot be read and are left out: {shown}", stacklevel=4
        )


def _length(chunk: Any) -> int:
    return len(chunk)


def _counting(chunk: Any) -> int | None:
    return None if isinstance(chunk, Unreadable) else len(chunk)


_counting.may_fail = True  # type: ignore[attr-defined]  # it is given `Unreadable` in place of an error


def _first_row(parts: Sequence[Part]) -> Any:
    """Return one row of the first part that has any."""
    part = next((p for p in parts if p.items != 0), parts[0])
    peek = getattr(part.read, "peek", None)
    frame = as_frame(part.load() if peek is None else peek())
    return frame[:1] if not hasattr(frame, "iloc") else frame.iloc[:1]


def _of_dataset(dataset: Any) -> Rows:
    """A Ray Dataset by its blocks, as Arrow tables in the object store."""
    table = tables.from_ray(dataset)
    assert isinstance(table.source, Memory), "blocks are in memory"
    parts = table.source.parts
    lengths = tuple([part.rows or 0 for part in parts])
    blocks = table.held if any(lengths) else (table.to_arrow(),)
    source = Given(tuple(blocks), sum(part.bytes for part in parts), False)
    return Rows(source, lengths, table.head(1)).then(as_frame)


def together(parts: Sequence[Rows]) -> Rows:
    """Rows that are cut alike side by side: a chunk is a tuple of one of each."""
    source = Together(tuple([part.source for part in parts]), tuple([part.steps for part in parts]))
    return Rows(source, parts[0].lengths, tuple([part.sample for part in parts]))


def held_rows(held: Sequence[Any], lengths: Sequence[int], sample: Any) -> Rows:
    """Rows of chunks that a pass has left where they were made."""
    from agentic_ray.ml.passes import size_of
    from agentic_ray.runtime import Stored

    here = not any(isinstance(chunk, Stored) for chunk in held)
    return Rows(Given(tuple(held), sum(map(size_of, held)), here), tuple(lengths), sample)


def numbered_rows(numbers: Any, lengths: Sequence[int]) -> Rows:
    """Something small for each row, of this process, cut in chunks of these lengths."""
    edges = np.cumsum([0, *lengths])
    chunks = tuple([numbers[a:b] for a, b in itertools.pairwise(edges)])
    return Rows(Given(chunks, numbers.nbytes, True), tuple(lengths), numbers[:1])


def aligned(data: Any, lengths: tuple[int, ...], what: str) -> Rows:
    """``data`` (targets or weights) cut as rows of these lengths.

    Raises
    ------
    ValueError
        It has another number of rows, with scikit-learn's message.
    """
    made = data if isinstance(data, Rows) else _rows(data, None, "raise")
    if len(made) != sum(lengths):
        raise ValueError(
            "Found input variables with inconsistent numbers of samples: "
            f"{[sum(lengths), len(made)]}"
        )
    if made.lengths == lengths:
        return made
    if isinstance(made.source, OfArray) and not made.steps:
        array = made.source.array
        return of_array(array.rechunk((lengths, *array.chunks[1:])))
    if isinstance(made.source, Given) and len(made.lengths) == 1 and not made.steps:
        edges = np.cumsum([0, *lengths])
        (whole,) = made.source.chunks
        take = whole.iloc if hasattr(whole, "iloc") else whole
        chunks = tuple([take[a:b] for a, b in itertools.pairwise(edges)])
        source = Given(chunks, made.source.nbytes, made.source.is_here)
        return replace(made, source=source, lengths=lengths)
    raise InvalidArgumentError(
        f"{what} is cut in chunks of {made.lengths[:3]}… rows, X in chunks of {lengths[:3]}…: "
        "take both from one table, or give one of them as an array"
    )


def offsets(lengths: Sequence[int]) -> Iterator[int]:
    """Where each chunk begins."""
    at = 0
    for length in lengths:
        yield at
        at += length
