"""Rows of which a search takes the same folds for each candidate: they are cut once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil

from agentic_ray.ml.data import Rows

_SHARE = 0.25
"""Share of the object stores (of free memory, if kept in this process) that folds may take."""


@dataclass(frozen=True, eq=False)
class FoldedRows(Rows):
    """Rows that keep what is taken of them, for as long as it fits; then it is cut for each pass.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> from agentic_ray.ml.shared_folds import folded
    >>> data = folded(ml.rows(np.arange(8.0)[:, None], chunk_rows=4))
    >>> data[np.array([1, 6])] is data[np.array([1, 6])]
    True
    """

    _cuts: dict[bytes, Rows] = field(default_factory=dict, init=False, repr=False)

    def take(self, positions: Any) -> Rows:
        """Some of the rows, as `Rows.take` gives them."""
        positions = np.ascontiguousarray(positions, dtype=np.int64)
        key = hashlib.blake2b(positions.tobytes(), digest_size=16).digest()
        found = self._cuts.get(key)
        if found is None:
            plain = Rows(self.source, self.lengths, self.sample, self.steps, self.skipped)
            found = plain.take(positions)
            if self._fits(found):
                found = self._cuts[key] = found.persist()
        return found

    def let_go(self) -> None:
        """Keep nothing any more."""
        self._cuts.clear()

    def _fits(self, cut: Rows) -> bool:
        kept = sum(int(one.source.nbytes) for one in self._cuts.values())
        more = int(self.source.nbytes * len(cut) / max(len(self), 1))
        if cut.is_here:
            return kept + more <= _SHARE * float(psutil.virtual_memory().available)
        from agentic_ray.runtime import get_session

        stores = sum(node.store_total_bytes or 0 for node in get_session().cluster().alive_nodes)
        return kept + more <= _SHARE * stores


def folded(data: Rows) -> FoldedRows:
    """Rows that keep their folds."""
    return FoldedRows(data.source, data.lengths, data.sample, data.steps, data.skipped)
