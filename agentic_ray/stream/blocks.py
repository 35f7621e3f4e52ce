"""Aggregates of all rows that come, in blocks of a fixed number of rows.

The blocks, and what is combined with what, depend on the rows alone, however they came.
"""

from __future__ import annotations

import pyarrow as pa

from agentic_ray.stream.windows import BLOCK_ROWS
from agentic_ray.tables.aggregates import FAN_IN, State, combined, finish, partial
from agentic_ray.tables.grouping import Grouping, check_columns


class Blocks:
    """Rows that have come: those of the block that is not full, and states of the others.

    ``levels[n]`` are states of ``FAN_IN ** n`` blocks each, fewer than `FAN_IN` of them.
    """

    def __init__(self, grouping: Grouping) -> None:
        self._grouping = grouping
        self._rows: list[pa.Table] = []
        self._count = 0
        self._levels: list[list[State]] = [[]]

    def add(self, rows: pa.Table) -> None:
        """Add rows that came after all others.

        Raises
        ------
        InvalidArgumentError
            A column is missing.
        """
        check_columns(rows.column_names, self._grouping)
        kept = rows.select(list(self._grouping.columns) or rows.column_names[:1])
        while kept.num_rows:
            piece = kept.slice(0, BLOCK_ROWS - self._count)
            kept = kept.slice(piece.num_rows)
            self._rows.append(piece)
            self._count += piece.num_rows
            if self._count == BLOCK_ROWS:
                self._close()

    def _close(self) -> None:
        block = pa.concat_tables(self._rows, promote_options="default")
        self._rows, self._count = [], 0
        state = partial(block, self._grouping)
        for level in self._levels:
            level.append(state)
            if len(level) < FAN_IN:
                return
            state = combined(level)
            level.clear()
        self._levels.append([state])

    def finish(self) -> pa.Table:
        """Return the answer for all rows."""
        if self._rows:
            self._close()
        above: list[State] = []
        for level in self._levels:
            own = [*level, *above]
            above = [combined(own)] if own else []
        if not above:
            names = self._grouping.columns
            return finish(partial(pa.table({n: pa.nulls(0) for n in names}), self._grouping),
                          self._grouping)  # fmt: skip
        return finish(above[0], self._grouping)
