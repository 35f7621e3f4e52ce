"""Ray Datasets by the references of their blocks: the rows stay in the cluster's object store.

A Dataset that was not run yet is run by Ray Data, whose tasks wait until the session does not hold
the CPUs (which it gives back after ``idle_release_seconds`` without work).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeGuard

from agentic_ray.errors import InvalidTypeError, SessionError
from agentic_ray.graph import Codelet, CostHint, Task, TaskGraph
from agentic_ray.runtime import values
from agentic_ray.runtime.current import get_session
from agentic_ray.runtime.values import Stored


@dataclass(frozen=True, slots=True)
class Block:
    """A block of a Dataset, a ``pyarrow.Table`` in the object store: its rows, bytes and
    ``pyarrow.Schema``."""

    held: Stored
    rows: int
    bytes: int
    schema: Any


def is_dataset(data: object) -> TypeGuard[Any]:
    """Whether ``data`` is a Ray Dataset."""
    return hasattr(data, "to_arrow_refs")


def blocks_of(dataset: Any) -> list[Block]:
    """Return the blocks of a Ray Dataset, in the order of its rows, without those of no rows.

    The Dataset is run, if it was not yet. The blocks are looked at where they are; this process
    gets their sizes and schemas alone.

    Raises
    ------
    SessionError
        The Dataset is of another Ray, or the session is lent by a master to this job.
    """
    _check_own_ray()
    session = get_session()
    with _in_order(dataset):
        run = dataset.materialize() if hasattr(dataset, "materialize") else dataset
        refs = run.to_arrow_refs()
    for ref in refs:
        values.check_known(ref)
    codelet = Codelet("datasets.look", _look, cost=CostHint(items=1))
    tasks = [
        Task.of(codelet, Stored(ref, 0), key=f"{codelet.name}/{ref.hex()}/{i}")
        for i, ref in enumerate(refs)
    ]
    if not tasks:
        return []
    looked = session.submit(TaskGraph(tasks, [task.key for task in tasks])).result()
    return [
        Block(Stored(ref, size), rows, size, schema)
        for ref, (rows, size, schema) in zip(refs, looked, strict=True)
        if rows
    ]


def schema_of(dataset: Any) -> Any:
    """Return the ``pyarrow.Schema`` that a Dataset without rows has, or None."""
    schema = dataset.schema()
    return getattr(schema, "base_schema", schema)


def dataset_of(tables: Sequence[Any]) -> Any:
    """Return a Ray Dataset of tables that are in the object store (small ones: in hand).

    Parameters
    ----------
    tables : sequence of Stored or pyarrow.Table
        As `Run.handles` gives them; each is a block.

    Raises
    ------
    ModuleNotFoundError
        Ray Data is not installed; ``pip install "agentic-ray[ray-data]"``.
    SessionError
        The session is lent by a master to this job.
    """
    _check_own_ray()
    import ray.data  # its packages are an extra

    refs = [value.ref if isinstance(value, Stored) else ray.put(value) for value in tables]
    return ray.data.from_arrow_refs(refs)


def _check_own_ray() -> None:
    if values.is_held_elsewhere():
        raise SessionError(
            "a job has no Ray of its own: its session belongs to the master, so Ray Data cannot be "
            "used in it; write and read Parquet files instead"
        )


@contextmanager
def _in_order(dataset: Any) -> Iterator[None]:
    """Let Ray Data keep the order of the rows, which it does not by itself, while it runs this."""
    options = getattr(getattr(dataset, "context", None), "execution_options", None)
    if options is None:
        yield
        return
    before = options.preserve_order
    options.preserve_order = True
    try:
        yield
    finally:
        options.preserve_order = before


def _look(block: Any) -> tuple[int, int, Any]:
    """Return the rows, bytes and schema of a block, in an executor."""
    schema = getattr(block, "schema", None)
    if schema is None or not hasattr(block, "column_names"):
        raise InvalidTypeError(f"a block of the Dataset is a {type(block).__name__}, no table")
    return block.num_rows, int(block.nbytes), schema.remove_metadata()
