"""Random numbers that depend on seed and position only, never on the chunks.

A stream is cut into tiles of fixed length in C order; each tile has a Philox generator of its
own, keyed by the stream and counted by the tile (Salmon et al., "Parallel random numbers: as
easy as 1, 2, 3", SC 2011). A chunk draws the tiles it overlaps.

Several numbers that belong together, such as the counts of a multinomial draw, are one *item*: it
has axes of its own, behind those of the array, which are never cut; a tile then has fewer items.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.chunks import Shape
from agentic_ray.array.core.node import DType, NDArray, Node, Op, make
from agentic_ray.array.core.program import Location, host_only
from agentic_ray.array.core.views import broadcast, rechunk, reshaped

TILE = 1 << 14
"""Length of a tile, in numbers. It is part of the meaning of a seed, so it must not change."""

Key = tuple[int, int]
Options = tuple[tuple[str, Any], ...]


def items_of(item: Shape) -> int:
    """Return the number of items in a tile."""
    return max(1, TILE // max(1, math.prod(item)))


def _tile(key: Key, index: int, method: str, args: Sequence[Any], options: Options, n: int) -> Any:
    """Draw the first ``n`` items of a tile. Draws are in order, so they are a prefix of the
    tile."""
    # A tile draws far fewer than the 2**64 blocks that its second counter word leaves it.
    bits = np.random.Philox(key=np.array(key, dtype=np.uint64), counter=[0, index, 0, 0])
    return getattr(np.random.Generator(bits), method)(*args, size=n, **dict(options))


# --- with the same parameters everywhere -------------------------------------------------


def _runs(starts: Shape, lengths: Shape, shape: Shape) -> Iterator[tuple[int, int]]:
    """Yield the block's elements as runs of the flattened array: (start, length)."""
    axis = len(shape)
    run = 1
    while axis > 0 and lengths[axis - 1] == shape[axis - 1]:
        axis -= 1
        run *= shape[axis]
    if axis == 0:
        yield 0, run
        return
    run *= lengths[axis - 1]
    steps = [math.prod(shape[a + 1 :]) for a in range(len(shape))]
    outer = [range(starts[a], starts[a] + lengths[a]) for a in range(axis - 1)]
    tail = starts[axis - 1] * steps[axis - 1]
    for place in itertools.product(*outer):
        yield sum(p * s for p, s in zip(place, steps, strict=False)) + tail, run


def _random_kernel(
    xp: Any,
    location: Location,
    key: Key,
    method: str,
    args: tuple[Any, ...],
    options: Options,
    dtype: DType,
    shape: Shape,
    item: Shape,
) -> Any:
    starts, lengths = (part[: len(shape)] for part in location)
    tile_length = items_of(item)
    out = np.empty((math.prod(lengths), *item), dtype)
    total = math.prod(shape)
    at = 0
    index, tile = -1, np.empty(0, dtype)
    for start, length in _runs(starts, lengths, shape) if out.size else ():
        while length:
            wanted, offset = divmod(start, tile_length)
            taken = min(length, tile_length - offset)
            if wanted != index:
                # A run that ends here needs the tile's beginning only; later runs may need more.
                index = wanted
                need = min(tile_length, total - wanted * tile_length)
                tile = _tile(key, wanted, method, args, options, need)
            out[at : at + taken] = tile[offset : offset + taken]
            at += taken
            start += taken
            length -= taken
    return xp.asarray(out.reshape((*lengths, *item)))


RANDOM = Op("random", "create", _random_kernel, weight=32)


# --- with parameters for each element ----------------------------------------------------


@host_only  # numbers are drawn on CPUs, and their parameters would have to come back
def _with_parameters(
    xp: Any,
    *values: Any,
) -> Any:
    *blocks, start, key, method, template, options, dtype, item = values
    tile_length = items_of(item)
    count = blocks[0].shape[0]
    out = np.empty((count, *item), dtype)
    for low in range(0, count, tile_length):
        high = min(low + tile_length, count)
        args = [blocks[arg[1]][low:high] if arg[0] == "input" else arg[1] for arg in template]
        index = (start + low) // tile_length
        out[low:high] = _tile(key, index, method, args, options, high - low)
    return out


def _whole_with_parameters(xp: Any, *values: Any) -> Any:
    *blocks, key, method, template, options, dtype, item = values
    return _with_parameters(xp, *blocks, 0, key, method, template, options, dtype, item)


def _lower_with_parameters(node: Node, lowering: Any) -> list[Any]:
    columns = [lowering.blocks(source) for source in node.inputs]
    starts = grids.offsets(node.chunks[0])[:-1]
    rows = list(zip(*columns, starts, strict=True))
    return list(
        lowering.call(node, _with_parameters, rows, params=node.params, flops=lowering.work(node))
    )


RANDOM_OF = Op("random_of", "tasks", _whole_with_parameters, _lower_with_parameters, weight=64)


def drawn_with(
    key: Key,
    method: str,
    args: Sequence[Node | Any],
    cores: Sequence[int],
    options: Options,
    shape: Shape,
    item: Shape,
    dtype: DType,
) -> Node:
    """Draw items in ``shape`` whose parameters are arrays.

    Parameters
    ----------
    args : sequence
        Parameters. A node broadcasts to ``shape``, apart from as many last axes as ``cores`` says;
        any other parameter is the same for all.
    """
    count = math.prod(shape)
    tile = items_of(item)
    most = max(math.prod(item), *[1] * len(args))
    length = max(tile, grids.rules().elements(dtype) // max(1, most) // tile * tile)
    template: list[tuple[str, Any]] = []
    inputs: list[Node] = []
    for arg, core in zip(args, cores, strict=True):
        if not isinstance(arg, Node):
            template.append(("value", arg))
            continue
        own = arg.shape[arg.ndim - core :]
        spread = broadcast(arg, (*shape, *own), grids.auto((*shape, *own), arg.dtype))
        flat = reshaped(spread, (count, *own))
        template.append(("input", len(inputs)))
        inputs.append(rechunk(flat, (grids.regular(count, length), *grids.single(own))))
    chunks = (grids.regular(count, length), *grids.single(item))
    params = (key, method, tuple(template), options, dtype, item)
    made = make(RANDOM_OF, tuple(inputs), params, (count, *item), dtype, chunks)
    return reshaped(made, (*shape, *item))


def as_parameter(value: NDArray) -> Any:
    """Return a small array as a hashable parameter of a draw."""
    return tuple(map(as_parameter, value)) if value.ndim else value.item()
