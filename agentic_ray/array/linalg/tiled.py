"""Computes the Cholesky factor of a matrix of several chunks, tile by tile.

Reference
---------
A. Buttari et al., "A class of parallel tiled linear algebra algorithms for multicore
architectures", Parallel Computing 35(1), 2009.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.node import Node, Op, make
from agentic_ray.array.core.standard import dtype_of
from agentic_ray.array.core.views import rechunk

MOST_TILES = 32
"""Most tiles along an axis: n of them need about n² / 2 tasks, in n steps one after the other."""


def _dagger(xp: Any, x: Any) -> Any:
    return xp.conj(x.T) if dtype_of(x).kind == "c" else x.T


def _updated(xp: Any, tile: Any, left: Sequence[Any], right: Sequence[Any]) -> Any:
    """Subtract from a tile the products of the factor's tiles before it."""
    result = xp.array(tile)
    for one, other in zip(left, right, strict=True):
        result -= one @ _dagger(xp, other)
    return result


def _diagonal_tile(xp: Any, tile: Any, row: Sequence[Any]) -> Any:
    return xp.linalg.cholesky(_updated(xp, tile, row, row))


def _lower_tile(xp: Any, tile: Any, left: Sequence[Any], right: Sequence[Any], corner: Any) -> Any:
    """Solve ``x @ corner.T = tile``, which makes ``tile`` a tile of the factor."""
    rest = _updated(xp, tile, left, right)
    return _dagger(xp, xp.linalg.solve(corner, _dagger(xp, rest)))


def _zeros(xp: Any, shape: tuple[int, int], dtype: Any) -> Any:
    return xp.zeros(shape, dtype=dtype)


def _whole(xp: Any, x: Any) -> Any:
    return xp.linalg.cholesky(x)


def _lower_cholesky(node: Node, lowering: Any) -> list[Any]:
    (x,) = node.inputs
    lengths = node.chunks[0]
    count = len(lengths)
    tiles = lowering.blocks(x)
    made: list[list[Any]] = [[] for _ in range(count)]
    each = node.nbytes // count**2
    volume = 2.0 * node.size / count**2 * max(lengths)

    def one(kernel: Any, label: str, *args: Any, params: tuple[Any, ...] = ()) -> Any:
        return lowering.call(
            node, kernel, [args], params=params, label=label, written_bytes=each,
            read_bytes=each * (len(args[1]) * 2 + 1) if args else 0,
            flops=volume * (len(args[1]) + 1) if args else 0.0,
        )[0]  # fmt: skip

    for j in range(count):
        at = f".{j}"
        corner = one(_diagonal_tile, f".corner{at}", tiles[j * count + j], list(made[j]))
        for i in range(j + 1, count):
            made[i].append(
                one(
                    _lower_tile, f".tile{at}.{i}", tiles[i * count + j], list(made[i]),
                    list(made[j]), corner,
                )
            )  # fmt: skip
        made[j].append(corner)
        for k in range(j + 1, count):
            shape = (lengths[j], lengths[k])
            made[j].append(one(_zeros, f".zero{at}.{k}", params=(shape, node.dtype)))
    return [tile for row in made for tile in row]


_CHOLESKY = Op("tiled_cholesky", "tasks", _whole, _lower_cholesky, weight=64)


def tiled_cholesky(node: Node) -> Node:
    """Return the lower factor of a positive definite matrix; only the lower half is read."""
    size = node.shape[0]
    tile = max(min(max(lengths) for lengths in node.chunks), -(-size // MOST_TILES))
    lengths = grids.regular(size, tile)
    x = rechunk(node, (lengths, lengths))
    return make(_CHOLESKY, (x,), (), x.shape, x.dtype, x.chunks)
