"""Tables from Ray Datasets and as Ray Datasets: blocks and parts change hands by reference.

Their rows go from the workers of one to the workers of the other by the cluster's object store, and
not through the caller's process.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from agentic_ray.errors import InvalidArgumentError, InvalidTypeError
from agentic_ray.graph import Codelet, CostHint, Ref, Task, TaskGraph
from agentic_ray.runtime import blocks_of, dataset_of, get_session, is_dataset, schema_of
from agentic_ray.tables.makers import Whole
from agentic_ray.tables.running import Held, Outcome, graph_of
from agentic_ray.tables.scans import difference
from agentic_ray.tables.table import Memory, Table
from agentic_ray.tables.travel import as_rows, packed


def from_ray(dataset: Any) -> Table:
    """Make a table of a Ray Dataset; each of its blocks is a part, used where it is.

    Parameters
    ----------
    dataset : ray.data.Dataset
        It is run, if it was not yet; rows keep its order. Ray Data's tasks start when the session
        does not hold the CPUs: at most ``idle_release_seconds`` after its last work.

    Returns
    -------
    Table
        It holds references: the blocks stay in the object store as long as the table does, and no
        longer than the session.

    Raises
    ------
    InvalidTypeError
        It is no Dataset, or its blocks differ in columns or types. (A column that is null in all
        rows of a block takes its type from the others.)
    InvalidArgumentError
        It has neither rows nor columns.
    SessionError
        It is of another Ray than this session, or a master has lent the session to this job.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> dataset = ar.tables.from_arrow({"id": range(1000)}).to_ray()  # or of ray.data
    >>> ar.tables.from_ray(dataset).agg(most=("id", "max")).to_pylist()
    [{'most': 999}]
    """
    if not is_dataset(dataset):
        raise InvalidTypeError(f"from_ray takes a ray.data.Dataset, not {type(dataset).__name__}")
    blocks = blocks_of(dataset)
    schema = _common([block.schema for block in blocks]) if blocks else schema_of(dataset)
    if not isinstance(schema, pa.Schema) or not schema.names:
        raise InvalidArgumentError("the Dataset has no rows and no columns, so it is no table")
    schema = schema.remove_metadata()
    if not blocks:
        rows = packed(schema.empty_table())
        return Table(Memory((Held(0, 0, len(rows), "no rows"),), schema), held=(rows,))
    parts = tuple(
        Held(i, one.rows, one.bytes, f"block {i}", None if one.schema.equals(schema) else schema)
        for i, one in enumerate(blocks)
    )
    return Table(Memory(parts, schema), held=tuple(block.held for block in blocks))


def _common(schemas: list[pa.Schema]) -> pa.Schema:
    """Return the schema that all blocks can be given; columns of nulls take any type."""
    found = schemas[0]
    for number, own in enumerate(schemas):
        if own.equals(found):
            continue
        if sorted(own.names) == sorted(found.names):
            try:
                found = pa.unify_schemas([found, own], promote_options="default")
                continue
            except (pa.ArrowInvalid, pa.ArrowTypeError):
                pass  # told below, by the columns' names
        raise InvalidTypeError(
            f"block {number} of the Dataset has other columns or types than those before it: "
            f"{difference(own, found)}"
        )
    return found


def to_ray(table: Table) -> Any:
    """Return the rows of a table as a Ray Dataset; see `Table.to_ray`."""
    work = table._work(Whole(), None)
    tasks, keys = graph_of(work)
    rows = Codelet("tables.block", _block, cost=CostHint(items=0))
    told = Codelet("tables.told", _told, cost=CostHint(items=0))
    tables = [Task.of(rows, Ref(key), key=f"{key}/block") for key in keys]
    reports = [Task.of(told, Ref(key), key=f"{key}/told") for key in keys]
    wanted = [task.key for task in (*tables, *reports)]
    graph = TaskGraph([*tasks, *tables, *reports], wanted)
    handles = get_session().submit(graph, asked=len(keys)).handles()
    blocks, found = handles[: len(keys)], handles[len(keys) :]
    table._tell(work, found)
    full = [block for block, one in zip(blocks, found, strict=True) if one.value]
    return dataset_of(full or blocks[:1])


def _block(outcome: Outcome) -> pa.Table:
    """Return the rows of a part as they go into the object store: without what a slice was cut
    from."""
    table = as_rows(outcome.value)
    return as_rows(packed(table)) if table.get_total_buffer_size() > 2 * table.nbytes else table


def _told(outcome: Outcome) -> Outcome:
    """Return what is told of a part, with its number of rows in place of the rows."""
    return Outcome(outcome.value.num_rows, outcome.rows, outcome.bytes, outcome.skipped)
