"""Refuses graphs of Dask's that would write to memory of the caller's process.

Tasks run in other processes. There they get copies of an array in memory, and what they write to
these would be lost without a word.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

import cloudpickle
import numpy as np
from dask._task_spec import DataNode, GraphNode, TaskRef
from dask._task_spec import Task as DaskTask

from agentic_ray.errors import InvalidArgumentError

_WRITERS = frozenset({"load_store_chunk", "store_chunk"})
"""Functions of `dask.array.core` that write their first argument to their second."""


def check_writes(node: DaskTask, nodes: Mapping[Any, GraphNode]) -> None:
    """Check where a task of Dask's writes to.

    Raises
    ------
    InvalidArgumentError
        It writes to an array in memory.
    """
    for target in _targets(node, nodes):
        if _is_in_memory(target):
            raise InvalidArgumentError(
                f"Dask would write to a {type(target).__name__} in this process's memory, and "
                "worker processes have only copies of it: assign `target[...] = x.compute()`, or "
                "write to files (to_zarr with a path, to_npy_stack, to_hdf5)"
            )


def _targets(node: DaskTask, known: Mapping[Any, Any]) -> Iterator[Any]:
    """Yield the arrays that ``node``, or the tasks fused in it, writes to."""
    if getattr(node.func, "__name__", "") in _WRITERS:
        target = node.args[1] if len(node.args) > 1 else node.kwargs.get("out")
        while isinstance(target, TaskRef) and target.key in known:
            target = known[target.key]
        yield target.value if isinstance(target, DataNode) else target
    elif node.args and isinstance(node.args[0], dict) and len(node.args) > 2:
        inner, _, names, *given = node.args  # of dask._task_spec._execute_subgraph
        if not isinstance(names, tuple | list):
            return
        within = {**known, **dict(zip(names, given, strict=False)), **inner}
        for each in inner.values():
            if type(each) is DaskTask:
                yield from _targets(each, within)


class _Seeker(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """Pickler that looks for the memory that an object keeps its elements in."""

    def __init__(self, shape: Any) -> None:
        super().__init__(io.BytesIO())
        self._shape = shape
        self.found = False

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            self.found |= value.shape == self._shape
            return str, ()
        if type(value).__name__ in ("MemoryStore", "KVStore"):  # of zarr, which is optional
            self.found = True
        return super().reducer_override(value)


def _is_in_memory(target: Any) -> bool:
    if isinstance(target, np.ndarray | dict):
        return True
    seeker = _Seeker(getattr(target, "shape", None))
    try:
        seeker.dump(target)
    except Exception:  # it cannot be sent at all, which is told when it is
        return False
    return seeker.found
