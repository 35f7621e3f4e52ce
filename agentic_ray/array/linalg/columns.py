"""LU with partial pivoting and Householder QR of one matrix over blocks of its columns.

The method is right-looking: a block of columns (a panel) is factored in one task, as LAPACK would,
and applied to every block to the right of it in a task each. Panels hold all rows, so pivots are
sought in the whole column: errors have the bounds of LAPACK's ``getrf`` and ``geqrf``. The
functions for users are in ``decompositions`` and ``triangular``.

References
----------
J. Dongarra et al., "Numerical Linear Algebra for High-Performance Computers", SIAM 1998, ch. 5
(blocked right-looking factorisations).
S. Toledo, "Locality of reference in LU decomposition with partial pivoting", SIAM J. Matrix
Anal. Appl. 18(4), 1997 (the recursion inside a panel).
T. Joffrain et al., "Accumulating Householder transformations, revisited", ACM TOMS 32(2), 2006
(the product of a panel's reflections as I - V T V*).
N. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., SIAM 2002, ch. 8, 9 and 19.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from agentic_ray.array.core import chunks as grids
from agentic_ray.array.core.build import picks
from agentic_ray.array.core.node import DType, Node, Op, make
from agentic_ray.array.core.standard import dtype_of
from agentic_ray.array.core.views import rechunk

MOST_PANELS = 32
"""Most panels: with n of them there are about n² / 2 tasks and n steps one after the other."""
PANELS = 8
"""Panels are cut down until there are so many, or they are as narrow as `LEAST_COLUMNS`: with
fewer, other tasks have nothing to do beside the panel's."""
LEAST_COLUMNS = 256
LEAF_COLUMNS = 16
"""Columns that are eliminated one by one; wider panels are halved, so that the work is products."""
SWEEP_BYTES = 1 << 30
"""Most bytes of the factors that a task that solves takes at a time."""


def dagger(xp: Any, x: Any) -> Any:
    """Return the conjugate transpose."""
    return xp.conj(x.T) if dtype_of(x).kind == "c" else x.T


def in_columns(node: Node) -> Node:
    """Cut a matrix along its columns only, in panels."""
    rows, columns = node.shape
    width = max(min(max(lengths) for lengths in node.chunks), -(-columns // MOST_PANELS))
    width = min(width, max(LEAST_COLUMNS, -(-columns // PANELS)))
    return rechunk(node, ((rows,), grids.regular(columns, width)))


def right_sides(node: Node) -> Node:
    """Return right-hand sides (a matrix) with whole columns, in several chunks if they are many."""
    lengths = node.chunks[1]
    if len(lengths) == 1:
        lengths = grids.normalize((-1, "auto"), node.shape, node.dtype)[1]
    return rechunk(node, ((node.shape[0],), lengths))


def sweeps(starts: Sequence[int], panel_bytes: int) -> list[list[int]]:
    """Group consecutive panels so that each group fits in `SWEEP_BYTES`."""
    size = max(1, SWEEP_BYTES // max(panel_bytes, 1))
    numbers = list(range(len(starts)))
    return [numbers[i : i + size] for i in range(0, len(numbers), size)]


# --- LU ----------------------------------------------------------------------------------


def _unit_lower(xp: Any, packed: Any, b: Any) -> Any:
    """Solve ``L @ x = b`` for the unit lower triangle of ``packed``."""
    lower = xp.tril(packed, -1)
    return xp.linalg.solve(lower + xp.eye(lower.shape[0], dtype=lower.dtype), b)


def _eliminate(xp: Any, a: Any, order: Any) -> int:
    """Factor ``a`` in place, exchanging rows of it and of ``order``; return how many exchanges."""
    rows, columns = a.shape
    swaps = 0
    if columns <= LEAF_COLUMNS:
        for j in range(min(rows, columns)):
            best = j + int(xp.argmax(xp.abs(a[j:, j])))
            if best != j:
                swaps += 1
                a[[j, best]] = a[[best, j]]
                order[[j, best]] = order[[best, j]]
            if a[j, j] != 0:
                a[j + 1 :, j] /= a[j, j]
                a[j + 1 :, j + 1 :] -= a[j + 1 :, j, None] * a[j, j + 1 :]
        return swaps
    half = columns // 2
    left, right = a[:, :half], a[:, half:]
    own = xp.arange(rows)
    swaps += _eliminate(xp, left, own)
    order[:] = order[own]
    right[:] = right[own]
    right[:half] = _unit_lower(xp, left[:half], right[:half])
    right[half:] -= left[half:] @ right[:half]
    own = xp.arange(rows - half)
    swaps += _eliminate(xp, right[half:], own)
    left[half:] = left[half:][own]
    order[half:] = order[half:][own]
    return swaps


def _lu_panel(xp: Any, column: Any, at: int) -> tuple[Any, Any, int]:
    """Factor the rows from ``at`` on; return the factors packed in one, the order of the rows, and
    the number of exchanges."""
    packed = xp.array(column[at:])
    order = xp.arange(packed.shape[0])
    with np.errstate(all="ignore"):  # infinities and NaN pass through, as in LAPACK
        return packed, order, _eliminate(xp, packed, order)


def _eliminated(xp: Any, column: Any, panels: Sequence[Any], starts: Sequence[int]) -> Any:
    """Apply the panels' row exchanges and eliminations to ``column`` in turn."""
    out = xp.array(column)
    for (packed, order, _), at in zip(panels, starts, strict=True):
        width = packed.shape[1]
        rest = out[at:][order]
        out[at : at + width] = _unit_lower(xp, packed[:width], rest[:width])
        out[at + width :] = rest[width:] - packed[width:] @ out[at : at + width]
    return out


def _substituted(
    xp: Any, b: Any, columns: Sequence[Any], panels: Sequence[Any], starts: Sequence[int]
) -> Any:
    """Substitute back with the panels' upper triangles, the last first."""
    out = xp.array(b)
    for column, (packed, _, _), at in reversed(list(zip(columns, panels, starts, strict=True))):
        width = packed.shape[1]
        upper = xp.triu(packed[:width])
        if bool(xp.any(xp.diagonal(upper) == 0)):
            raise np.linalg.LinAlgError("Singular matrix")
        out[at : at + width] = xp.linalg.solve(upper, out[at : at + width])
        out[:at] -= column[:at] @ out[at : at + width]
    return out


def _lower_lu(node: Node, lowering: Any) -> list[Any]:
    """Return the columns, final above their panel's rows, and then the panels."""
    (x,) = node.inputs
    rows, widths = x.shape[0], x.chunks[1]
    starts = grids.offsets(widths)
    columns = list(lowering.blocks(x))
    panels: list[Any] = []
    for k, width in enumerate(widths):
        size = rows * width * x.dtype.itemsize
        panels += lowering.call(
            node, _lu_panel, [(columns[k], starts[k])], label=f".panel{k}", read_bytes=size,
            written_bytes=size, flops=float(rows - starts[k]) * width**2,
        )  # fmt: skip
        right = columns[k + 1 :]
        if right:
            columns[k + 1 :] = lowering.call(
                node, _eliminated, [(column, [panels[k]], [starts[k]]) for column in right],
                label=f".update{k}", read_bytes=2 * size * len(right),
                written_bytes=size * len(right),
                flops=2.0 * (rows - starts[k]) * width * sum(widths[k + 1 :]),
            )  # fmt: skip
    return [*columns, *panels]


def _lu_whole(xp: Any, x: Any) -> tuple[Any, ...]:
    return _lu_panel(xp, x, 0)


_LU = Op("lu", "tasks", _lu_whole, _lower_lu, weight=64)


def lu(node: Node) -> Node:
    """Factor a square matrix for `lu_solve`, `lu_det` and `lu_slogdet`."""
    x = in_columns(node)
    return make(_LU, (x,), (), x.shape, x.dtype, x.chunks)


def _lower_lu_solve(node: Node, lowering: Any) -> list[Any]:
    factors, b = node.inputs
    made = lowering.blocks(factors)
    columns, panels = made[: len(made) // 2], made[len(made) // 2 :]
    starts = grids.offsets(factors.chunks[1])[:-1]
    groups = sweeps(starts, factors.nbytes // len(panels))
    values = list(lowering.blocks(b))
    cost = {
        "read_bytes": (factors.nbytes * len(values) + b.nbytes) // len(groups),
        "written_bytes": node.nbytes,
        "flops": float(node.size) * node.shape[0] / len(groups),
    }
    for i, group in enumerate(groups):
        own = [panels[k] for k in group], [starts[k] for k in group]
        sides = [(value, *own) for value in values]
        values = lowering.call(node, _eliminated, sides, label=f".forward{i}", **cost)
    for i, group in reversed(list(enumerate(groups))):
        above = [columns[k] for k in group]
        own = [panels[k] for k in group], [starts[k] for k in group]
        rows = [(value, above, *own) for value in values]
        values = lowering.call(node, _substituted, rows, label=f".back{i}", **cost)
    return values


def _lu_solve_whole(xp: Any, factors: Any, b: Any) -> Any:
    return _substituted(xp, _eliminated(xp, b, [factors], [0]), [b], [factors], [0])


_LU_SOLVE = Op("lu_solve", "tasks", _lu_solve_whole, _lower_lu_solve, weight=64)


def lu_solve(factors: Node, b: Node) -> Node:
    """Solve for the columns of ``b``, which have the factors' dtype."""
    b = right_sides(b)
    return make(_LU_SOLVE, (factors, b), (), b.shape, factors.dtype, b.chunks)


def _pivots(xp: Any, panel: Any) -> tuple[Any, int]:
    packed, _, swaps = panel
    return xp.array(xp.diagonal(packed[: packed.shape[1]])), swaps


def _det(xp: Any, pivots: Sequence[Any], dtype: DType) -> Any:
    sign = -1 if sum(swaps for _, swaps in pivots) % 2 else 1
    with np.errstate(all="ignore"):
        product = xp.prod(xp.concatenate([values for values, _ in pivots]))
    return xp.asarray(sign * product, dtype=dtype)


def _slogdet(xp: Any, pivots: Sequence[Any], dtype: DType) -> tuple[Any, Any]:
    values = xp.concatenate([own for own, _ in pivots])
    sizes = xp.abs(values)
    sign = -1 if sum(swaps for _, swaps in pivots) % 2 else 1
    if bool(xp.any(sizes == 0)):
        return xp.asarray(0, dtype=dtype), xp.asarray(-np.inf, dtype=sizes.dtype)
    return (
        xp.asarray(sign * xp.prod(values / sizes), dtype=dtype),
        xp.asarray(xp.sum(xp.log(sizes)), dtype=sizes.dtype),
    )


def _lower_pivots(node: Node, lowering: Any) -> list[Any]:
    (factors,) = node.inputs
    made = lowering.blocks(factors)
    rows = [(panel,) for panel in made[len(made) // 2 :]]
    small = {"read_bytes": 0, "written_bytes": 0}
    pivots = lowering.call(node, _pivots, rows, label=".pivots", **small)
    kernel = _slogdet if node.params[0] else _det
    return list(lowering.call(node, kernel, [(pivots,)], params=(node.dtype,), **small))


def _pivots_whole(xp: Any, factors: Any, both: bool) -> Any:
    return (_slogdet if both else _det)(xp, [_pivots(xp, factors)], factors[0].dtype)


_PIVOTS = Op("lu_det", "tasks", _pivots_whole, _lower_pivots)


def lu_det(factors: Node) -> Node:
    """Return the determinant."""
    return make(_PIVOTS, (factors,), (False,), (), factors.dtype, ())


def lu_slogdet(factors: Node, real: DType) -> list[Node]:
    """Return sign and logarithm of the absolute value of the determinant."""
    made = make(_PIVOTS, (factors,), (True,), (), factors.dtype, ())
    return picks(made, [((), factors.dtype, ()), ((), real, ())])


# --- QR ----------------------------------------------------------------------------------


def _qr_panel(xp: Any, column: Any, at: int) -> tuple[Any, Any, Any]:
    """Factor the rows from ``at`` on; return V, T and R, where Q is I - V T V*.

    Rows of zeros at the end, as in a matrix with a unit matrix below it, take no part.
    """
    below = column[at:]
    filled = xp.flatnonzero(xp.any(below != 0, axis=1))
    used = max(int(filled[-1]) + 1 if filled.size else 0, below.shape[1])
    packed, tau = xp.linalg.qr(below[:used], mode="raw")
    packed = packed.T
    count = tau.shape[0]
    v = xp.tril(packed[:, :count], -1)
    v[xp.arange(count), xp.arange(count)] = 1
    # T's inverse has 1 / tau on its diagonal, and tau may be zero.
    unit = xp.eye(count, dtype=v.dtype) + tau[:, None] * xp.triu(dagger(xp, v) @ v, 1)
    t = xp.linalg.solve(unit, xp.diag(tau))
    return v, t, xp.triu(packed[:count])


def _reflected(
    xp: Any, column: Any, panels: Sequence[Any], starts: Sequence[int], forward: bool
) -> Any:
    """Multiply ``column`` by the adjoint of the panels' Q; by Q itself if not ``forward``."""
    out = xp.array(column)
    steps = list(zip(panels, starts, strict=True))
    for (v, t, _), at in steps if forward else reversed(steps):
        part = out[at : at + v.shape[0]]
        part -= v @ ((dagger(xp, t) if forward else t) @ (dagger(xp, v) @ part))
    return out


def _lower_qr(node: Node, lowering: Any) -> list[Any]:
    """Return the columns, final above their panel's rows, and then the panels."""
    (x,) = node.inputs
    rows, widths = x.shape[0], x.chunks[1]
    starts = grids.offsets(widths)
    columns = list(lowering.blocks(x))
    panels: list[Any] = []
    for k, width in enumerate(widths):
        if starts[k] >= rows:
            break
        size = rows * width * x.dtype.itemsize
        panels += lowering.call(
            node, _qr_panel, [(columns[k], starts[k])], label=f".panel{k}", read_bytes=size,
            written_bytes=size, flops=3.0 * (rows - starts[k]) * width**2,
        )  # fmt: skip
        right = columns[k + 1 :]
        if right:
            columns[k + 1 :] = lowering.call(
                node, _reflected, [(column, [panels[k]], [starts[k]]) for column in right],
                params=(True,), label=f".update{k}", read_bytes=2 * size * len(right),
                written_bytes=size * len(right),
                flops=4.0 * (rows - starts[k]) * width * sum(widths[k + 1 :]),
            )  # fmt: skip
    return [*columns, *panels]


def _qr_whole(xp: Any, x: Any) -> tuple[Any, ...]:
    return _qr_panel(xp, x, 0)


_QR = Op("blocked_qr", "tasks", _qr_whole, _lower_qr, weight=128)


def _r_column(xp: Any, column: Any, panel: Any, at: int, count: int) -> Any:
    out = xp.zeros((count, column.shape[1]), dtype=column.dtype)
    out[:at] = column[:at]
    out[at : at + panel[2].shape[0]] = panel[2]
    return out


def _r_beyond(xp: Any, column: Any, count: int) -> Any:
    return xp.array(column[:count])


def _lower_r(node: Node, lowering: Any) -> list[Any]:
    (factors,) = node.inputs
    count, widths = node.shape[0], factors.chunks[1]
    made = lowering.blocks(factors)
    columns, panels = made[: len(widths)], made[len(widths) :]
    starts = grids.offsets(widths)
    rows = [(c, p, at) for c, p, at in zip(columns, panels, starts, strict=False)]
    result = list(lowering.call(node, _r_column, rows, params=(count,)))
    beyond = [(column,) for column in columns[len(panels) :]]
    return result + list(lowering.call(node, _r_beyond, beyond, params=(count,), label=".beyond"))


def _r_whole(xp: Any, factors: Any) -> Any:
    return factors[2]


_R = Op("blocked_qr_r", "tasks", _r_whole, _lower_r)


def _unit_columns(xp: Any, rows: int, start: int, width: int, dtype: DType) -> Any:
    return xp.eye(rows, width, k=-start, dtype=dtype)


def _lower_q(node: Node, lowering: Any) -> list[Any]:
    (factors,) = node.inputs
    widths = factors.chunks[1]
    panels = lowering.blocks(factors)[len(widths) :]
    starts = grids.offsets(widths)[: len(panels)]
    groups = sweeps(starts, factors.nbytes // len(widths))
    units = [
        (node.shape[0], start, width)
        for start, width in zip(grids.offsets(node.chunks[1]), node.chunks[1], strict=False)
    ]
    values = lowering.call(
        node, _unit_columns, units, params=(node.dtype,), label=".unit", read_bytes=0
    )
    for i, group in reversed(list(enumerate(groups))):
        # A panel that begins below the ones of unit columns leaves them as they are.
        acting = [[k for k in group if starts[k] < start + width] for _, start, width in units]
        rows = [
            (value, [panels[k] for k in own], [starts[k] for k in own])
            for value, own in zip(values, acting, strict=True) if own
        ]  # fmt: skip
        made = iter(
            lowering.call(
                node, _reflected, rows, params=(False,), label=f".apply{i}",
                read_bytes=factors.nbytes * len(rows) // len(groups),
                flops=4.0 * node.size * factors.shape[1] / len(groups),
            )
        )  # fmt: skip
        values = [next(made) if own else value for value, own in zip(values, acting, strict=True)]
    return list(values)


def _q_whole(xp: Any, factors: Any) -> Any:
    v, _, r = factors
    unit = _unit_columns(xp, v.shape[0], 0, r.shape[0], v.dtype)
    return _reflected(xp, unit, [factors], [0], False)


_Q = Op("blocked_qr_q", "tasks", _q_whole, _lower_q, weight=128)


def blocked_qr(node: Node, *, complete: bool = False) -> tuple[Node, Node]:
    """Return Q and R of a matrix of any shape; Q is made only if it is used."""
    x = in_columns(node)
    rows, columns = x.shape
    count = rows if complete else min(rows, columns)
    factors = make(_QR, (x,), (), x.shape, x.dtype, x.chunks)
    # A complete Q may have many more columns than the few that were factored.
    width = max(*x.chunks[1], -(-count // MOST_PANELS))
    q_chunks = ((rows,), grids.regular(count, width))
    q = make(_Q, (factors,), (), (rows, count), x.dtype, q_chunks)
    r = make(_R, (factors,), (), (count, columns), x.dtype, ((count,), x.chunks[1]))
    return q, r
