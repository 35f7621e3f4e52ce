"""Chunks of rows: where they come from, how a task reads one, and which steps it goes through."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import scipy.sparse as sp

from agentic_ray.array import Array
from agentic_ray.array.core import evaluate
from agentic_ray.errors import LostDataError, SourceError
from agentic_ray.graph import Ref, Task
from agentic_ray.sources import Part

Step: TypeAlias = Callable[[Any], Any]
"""Makes a chunk of another, row by row."""


# --- where chunks come from -----------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Given:
    """Chunks that tasks can be given as they are: in memory, in the object store, or a `Part`,
    which a task reads.

    Parameters
    ----------
    chunks : tuple
    nbytes : int
    is_here : bool
        Whether they are in the caller's memory.
    again : callable, optional
        Makes chunks anew that were lost with the object store; it is given their positions.
    """

    chunks: tuple[Any, ...]
    nbytes: int
    is_here: bool
    again: Callable[[Sequence[int]], list[Any]] | None = None
    _placed: list[Any] = field(default_factory=list, init=False, repr=False)

    def arguments(self, local: bool) -> tuple[list[Task], list[Any]]:
        """Tasks that make chunks, and for each chunk what tasks are given: what is in the
        caller's memory is put in the object store, once."""
        if local or all(isinstance(chunk, Part) for chunk in self.chunks):
            return [], list(self.chunks)
        from agentic_ray.runtime import Stored, get_session, put

        if self.again is not None:
            return [], self._kept(self.again)
        stay = get_session().stay
        if not self._placed or self._placed[0] is not stay:  # a store ends with its stay
            kept = (Part, Stored)
            self._placed[:] = [stay, [c if isinstance(c, kept) else put(c) for c in self.chunks]]
        return [], list(self._placed[1])

    def _kept(self, again: Callable[[Sequence[int]], list[Any]]) -> list[Any]:
        """The chunks, those made anew that are lost."""
        if not self._placed:
            self._placed[:] = [None, list(self.chunks)]
        held = self._placed[1]
        lost = [at for at, chunk in enumerate(held) if _is_lost(chunk)]
        if lost:
            for at, chunk in zip(lost, again(lost), strict=True):
                held[at] = chunk
        return list(held)

    def take(self, which: Sequence[int]) -> Given:
        """Only some of the chunks."""
        share = len(which) / max(len(self.chunks), 1)
        chunks = tuple([self.chunks[at] for at in which])
        again = self.again
        own = None if again is None else Again(again, tuple(which))
        return Given(chunks, int(self.nbytes * share), self.is_here, own)


@dataclass(frozen=True)
class Again:
    """Makes chunks anew of which some of the chunks were taken."""

    again: Callable[[Sequence[int]], list[Any]]
    which: tuple[int, ...]

    def __call__(self, positions: Sequence[int]) -> list[Any]:
        return self.again([self.which[at] for at in positions])


def _is_lost(chunk: Any) -> bool:
    """Whether a chunk was in an object store that has died.

    Raises
    ------
    SessionError
        The session in which it was kept was ended.
    """
    from agentic_ray.runtime import Stored

    if not isinstance(chunk, Stored):
        return False
    try:
        chunk.check()
    except LostDataError:
        return True
    return False


@dataclass(frozen=True, eq=False)
class OfArray:
    """The chunks of an `Array`, which are computed anew for each pass unless it is persisted."""

    array: Array

    @property
    def nbytes(self) -> int:
        return int(self.array.nbytes)

    @property
    def is_here(self) -> bool:
        return evaluate.runs_locally([self.array._node])

    def arguments(self, local: bool) -> tuple[list[Task], list[Any]]:
        """Tasks that make chunks, and for each chunk what tasks are given."""
        tasks, blocks = evaluate.for_tasks([self.array._node], local=local)
        if local:
            keys = [block.key for block in blocks[0] if type(block) is Ref]
            made = evaluate.run_here(tasks, keys)
            return [], [made[b.key] if type(b) is Ref else b for b in blocks[0]]
        return tasks, blocks[0]


class Taken(NamedTuple):
    """Some rows of a chunk; a tuple, so that the chunk may be one that another task makes."""

    chunk: Any
    positions: Any


@dataclass(frozen=True, eq=False)
class Chosen:
    """Some rows of each chunk of a source."""

    source: Any
    positions: tuple[Any, ...]

    @property
    def nbytes(self) -> int:
        return int(self.source.nbytes)

    @property
    def is_here(self) -> bool:
        return bool(self.source.is_here)

    def arguments(self, local: bool) -> tuple[list[Task], list[Any]]:
        """Tasks that make chunks, and for each chunk what tasks are given."""
        tasks, chunks = self.source.arguments(local)
        pairs = zip(chunks, self.positions, strict=True)
        if local:
            return tasks, [Taken(chunk, at) for chunk, at in pairs]
        from agentic_ray.runtime import put

        return tasks, [Taken(chunk, put(at)) for chunk, at in pairs]


class Side(NamedTuple):
    """Chunks of several sources, for the same rows, with the steps of each; a tuple as `Taken`
    is."""

    chunks: tuple[Any, ...]
    steps: Any


@dataclass(frozen=True, eq=False)
class Together:
    """Sources that are cut alike, side by side: a chunk is a tuple of one of each after its
    steps."""

    sources: tuple[Any, ...]
    steps: tuple[tuple[Step, ...], ...]

    @property
    def nbytes(self) -> int:
        return sum(int(source.nbytes) for source in self.sources)

    @property
    def is_here(self) -> bool:
        return all(source.is_here for source in self.sources)

    def arguments(self, local: bool) -> tuple[list[Task], list[Any]]:
        """Tasks that make chunks, and for each chunk what tasks are given."""
        tasks: list[Task] = []
        columns = []
        for source in self.sources:
            made, chunks = source.arguments(local)
            tasks += made
            columns.append(chunks)
        steps: Any = self.steps
        if not local:
            from agentic_ray.runtime import put

            steps = put(steps)
        return tasks, [Side(tuple(row), steps) for row in zip(*columns, strict=True)]


def chunk_at(source: Any, at: int) -> Any:
    """Return what `loaded` makes a chunk of; None if another task has to make it first."""
    if isinstance(source, Given):
        return source.chunks[at]
    if isinstance(source, Chosen):
        inner = chunk_at(source.source, at)
        return None if inner is None else Taken(inner, source.positions[at])
    if isinstance(source, Together):
        parts = tuple([chunk_at(one, at) for one in source.sources])
        return None if any(part is None for part in parts) else Side(parts, source.steps)
    return None


# --- reading a chunk ------------------------------------------------------------------------


@dataclass(frozen=True)
class Unreadable:
    """Stands for a chunk that cannot be read."""

    reason: str


def joined(chunks: Sequence[Any]) -> Any:
    """Chunks of one kind below each other."""
    head = chunks[0]
    if len(chunks) == 1:
        return head
    if sp.issparse(head):
        return sp.vstack(chunks, format="csr")
    if hasattr(head, "iloc"):
        import pandas as pd

        return pd.concat(chunks, ignore_index=True)
    if type(head).__module__.split(".")[0] == "polars":
        import polars as pl

        return pl.concat(chunks)
    return np.concatenate(chunks)


def loaded(chunk: Any, steps: Sequence[Step]) -> Any:
    """A chunk as a pass sees it: read if it is a part of a file, then each step.

    Raises
    ------
    SourceError
        A file is damaged; the message names it and the row groups.
    """
    if isinstance(chunk, Taken):
        whole = loaded(chunk.chunk, ())
        return loaded(
            whole.iloc[chunk.positions] if hasattr(whole, "iloc") else whole[chunk.positions], steps
        )
    if isinstance(chunk, Side):
        pairs = zip(chunk.chunks, chunk.steps, strict=True)
        chunk = tuple([loaded(part, own) for part, own in pairs])
    if isinstance(chunk, Part):
        label = chunk.label
        try:
            chunk = as_frame(chunk.load())
        except FileNotFoundError:
            raise
        except (ValueError, OSError) as error:
            raise SourceError(f"{label}: {error}") from error
    for step in steps:
        chunk = step(chunk)
    return chunk


def as_frame(table: Any) -> Any:
    """A pandas DataFrame of any table; anything else as it is."""
    if hasattr(table, "to_pandas") and not hasattr(table, "iloc"):
        return table.to_pandas()
    if isinstance(table, list):  # lines of text
        return np.array(table, dtype=object)
    return table


@dataclass(frozen=True)
class Chain:
    """Some steps as one."""

    steps: tuple[Step, ...]

    def __call__(self, block: Any) -> Any:
        return loaded(block, self.steps)


@dataclass(frozen=True)
class Columns:
    """A step that takes columns of a table; ``single`` gives the one column's values."""

    names: tuple[str, ...]
    single: bool = False

    def __call__(self, frame: Any) -> Any:
        return frame[self.names[0]].to_numpy() if self.single else frame[list(self.names)]


@dataclass(frozen=True, eq=False)
class Positions:
    """A step that takes columns by their positions; one integer gives a vector."""

    at: Any

    def __call__(self, block: Any) -> Any:
        if not hasattr(block, "iloc"):
            found = block[:, self.at]
            one = isinstance(self.at, int | np.integer)
            return found.toarray().ravel() if one and sp.issparse(found) else found
        found = block.iloc[:, self.at]
        return found.to_numpy() if found.ndim == 1 else found


@dataclass(frozen=True)
class AsMatrix:
    """A step that makes a NumPy array of one dtype of a table or matrix."""

    dtype: Any

    def __call__(self, block: Any) -> Any:
        return np.ascontiguousarray(block, dtype=self.dtype)
