"""``map_reduce`` and ``sum_of_squares``: named functions over numbers, block by block.

Integers are exact at any size. Where 64 bits may not be enough, a block is worked on with Python's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, Final, Literal, NotRequired, cast

import numpy as np
from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from agentic_ray.errors import InvalidParametersError
from agentic_ray.master.named.uploads import UploadParams, number_blocks

Block = np.ndarray[Any, Any]
MapName = Literal["identity", "square", "abs", "negative", "sqrt", "exp", "log"]
ReduceName = Literal["sum", "product", "min", "max", "count", "mean"]

_LARGEST: Final = 2**62


@with_config(ConfigDict(extra="forbid"))
class MapReduceParams(TypedDict):
    """Parameters of ``map_reduce``: numbers, what is done to each, and how they are reduced."""

    data: list[Any] | UploadParams
    column: NotRequired[Annotated[str, Field(max_length=1000)]]
    map: NotRequired[MapName]
    reduce: NotRequired[ReduceName]


@with_config(ConfigDict(extra="forbid"))
class NumbersParams(TypedDict):
    """Parameters of ``sum_of_squares``: a list of numbers, or an uploaded array or column."""

    data: list[Any] | UploadParams
    column: NotRequired[Annotated[str, Field(max_length=1000)]]


def map_reduce(params: MapReduceParams) -> int | float:
    """Apply a named function to every number and reduce them all to one."""
    found: int | float = _reduced(
        params["data"],
        params.get("column"),
        params.get("map", "identity"),
        params.get("reduce", "sum"),
    )
    return found


def sum_of_squares(params: NumbersParams) -> int | float:
    """Sum of the squares of numbers, of a list or of uploaded data; 0 for no data."""
    found: int | float = _reduced(params["data"], params.get("column"), "square", "sum")
    return found


def _reduced(data: Any, column: str | None, map_name: MapName, reduce_name: ReduceName) -> Any:
    # imported when first run: importing this module must not start to load Ray
    from agentic_ray.mapreduce import map_reduce as run

    blocks = [block.ravel() for block in number_blocks(data, column) if block.size]
    if not blocks:
        if reduce_name in _OF_NOTHING:
            return _OF_NOTHING[reduce_name]
        raise InvalidParametersError(f"there is no {reduce_name} of no numbers")
    count = sum(len(block) for block in blocks)
    if reduce_name == "count":
        return count
    kind: ReduceName = "sum" if reduce_name == "mean" else reduce_name
    total = run(partial(_of_block, map_name, kind), blocks, _COMBINED[kind])
    return total / count if reduce_name == "mean" else total


_OF_NOTHING: Final[Mapping[str, int]] = {"sum": 0, "product": 1, "count": 0}


def _of_block(map_name: MapName, reduce_name: ReduceName, block: Block) -> int | float:
    """Reduce a block to one number; Python's own, so that integers may be of any size."""
    block = block.astype(np.int64) if block.dtype.kind == "b" else block
    mapped = _mapped(map_name, block)
    if reduce_name in ("min", "max"):
        return _plain(mapped.min() if reduce_name == "min" else mapped.max())
    if mapped.dtype.kind in "iu":
        largest = _magnitude(mapped)
        if reduce_name == "sum" and largest * len(mapped) < _LARGEST:
            return int(mapped.sum(dtype=np.int64))
        values = [int(x) for x in mapped.tolist()]
        return sum(values) if reduce_name == "sum" else math.prod(values)
    if mapped.dtype.kind == "O":
        values = mapped.tolist()
        exact: int | float = sum(values) if reduce_name == "sum" else math.prod(values)
        return exact
    with np.errstate(all="ignore"):
        return float(mapped.sum() if reduce_name == "sum" else mapped.prod())


def _mapped(name: MapName, block: Block) -> Block:
    if name in ("square", "abs", "negative") and block.dtype.kind in "iu":
        largest = _magnitude(block)
        if (largest * largest if name == "square" else largest) >= _LARGEST:
            block = block.astype(object)
        else:
            block = block.astype(np.int64)
    if block.dtype.kind == "f" and block.dtype.itemsize < 8:
        block = block.astype(np.float64)
    if name in ("sqrt", "exp", "log"):
        block = block.astype(np.float64)
    with np.errstate(all="ignore"):  # infinities and NaN are results like any other
        return _MAPS[name](block)


_MAPS: Final[Mapping[str, Callable[[Block], Block]]] = {
    "identity": lambda block: block,
    "square": lambda block: cast(Block, block * block),
    "abs": np.abs,
    "negative": np.negative,
    "sqrt": np.sqrt,
    "exp": np.exp,
    "log": np.log,
}


def _magnitude(block: Block) -> int:
    return max(abs(int(block.min())), abs(int(block.max())))


def _plain(value: Any) -> int | float:
    found: int | float = value.item() if isinstance(value, np.generic) else value
    return found


def _add(a: Any, b: Any) -> Any:
    return a + b


def _multiply(a: Any, b: Any) -> Any:
    return a * b


def _smaller(a: Any, b: Any) -> Any:
    return a if a != a or a <= b else b  # (a NaN stays, as in NumPy)


def _larger(a: Any, b: Any) -> Any:
    return a if a != a or a >= b else b


_COMBINED: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "sum": _add,
    "product": _multiply,
    "min": _smaller,
    "max": _larger,
}
