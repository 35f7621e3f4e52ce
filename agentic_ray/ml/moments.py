"""Means, scatter matrices and triangular factors of rows, chunk by chunk."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from sklearn.utils.sparsefuncs import min_max_axis

from agentic_ray.array.linalg import panels
from agentic_ray.ml.passes import Passes, row_blocks

LEAST_PIVOT = 1e-4
"""Of the Cholesky factor of a correlation matrix: below it columns are so nearly dependent that
squaring them loses digits, and the factor is made by QR instead."""
MOST_SPARSE_COLUMNS = 8192
"""A sparse matrix of more columns has no scatter matrix that would be small."""


def scatter(x: Any, y: Any, w: Any, *, xp: Any = np) -> Any:
    """Weight, mean and scatter matrix about it of the columns of X and y, and the rows.

    The rows are gone through once, about the mean of the first of them: the correction for that
    is at most as many times the scatter as there are blocks.
    """
    n, p = x.shape
    if sp.issparse(x):
        return _sparse_scatter(x, y, w)
    targets = None if y is None else y.reshape(n, -1)
    q = p + (0 if targets is None else targets.shape[1])
    product = xp.zeros((q + 1, q + 1))
    shift = xp.zeros(q)
    buffer = xp.empty((0, q + 1))
    for rows in row_blocks(x, 1 << 17):
        length = rows.stop - rows.start
        if buffer.shape[0] != length:
            buffer = xp.empty((length, q + 1))
            buffer[:, q] = 1.0
        if not rows.start:
            shift[:p] = x[rows].mean(axis=0, dtype=xp.float64)
            if targets is not None:
                shift[p:] = targets[rows].mean(axis=0)
        xp.subtract(x[rows], shift[:p], out=buffer[:, :p])
        if targets is not None:
            xp.subtract(targets[rows], shift[p:], out=buffer[:, p:q])
        if w is not None:
            buffer[:, q] = 1.0
            buffer *= xp.sqrt(w[rows])[:, None]
        product += squared(buffer)
    weight = float(product[q, q])
    offset = product[:q, q] / (weight or 1.0)
    centred = product[:q, :q] - weight * xp.outer(offset, offset)
    return weight, shift + offset, centred, n


def squared(block: Any) -> Any:
    """``block.T @ block``."""
    if type(block) is np.ndarray and panels.fit(block, block):
        return panels.product(block, block)
    return block.T @ block


def _sparse_scatter(x: Any, y: Any, w: Any) -> Any:
    n = x.shape[0]
    weighted = x if w is None else sp.diags_array(w) @ x
    product = (weighted.T @ x).toarray()
    totals = np.asarray(weighted.sum(axis=0)).ravel()
    weight = float(n if w is None else w.sum())
    if y is not None:
        targets = y.reshape(n, -1)
        own = targets if w is None else targets * w[:, None]
        cross = x.T @ own
        product = np.block([[product, cross], [cross.T, targets.T @ own]])
        totals = np.concatenate([totals, own.sum(axis=0)])
    mean = totals / (weight or 1.0)
    return weight, mean, product - weight * np.outer(mean, mean), n


def merged_scatter(left: Any, right: Any) -> Any:
    """Merge the scatter of two lots of rows (T. F. Chan, G. H. Golub, R. J. LeVeque, 1979)."""
    (w1, m1, s1, n1), (w2, m2, s2, n2) = left, right
    weight = w1 + w2
    if not w1 or not w2:
        weight, mean, spread, _ = right if not w1 else left
        return weight, mean, spread, n1 + n2
    apart = m2 - m1
    mean = m1 + apart * (w2 / weight)
    return weight, mean, s1 + s2 + np.outer(apart, apart) * (w1 * w2 / weight), n1 + n2


def triangle(x: Any, y: Any, w: Any, centre: Any) -> Any:
    """R of the QR factors of the rows of X and y, less ``centre``, times the root of the weight."""
    n = x.shape[0]
    dense = x.toarray() if sp.issparse(x) else x
    parts = [dense] if y is None else [dense, y.reshape(n, -1)]
    block = np.hstack(parts).astype(np.float64, copy=False) - centre
    if w is not None:
        block *= np.sqrt(w)[:, None]
    (factor,) = scipy.linalg.qr(block, mode="r", overwrite_a=True, check_finite=False)
    return factor[: min(factor.shape)]


def merged_triangle(upper: Any, lower: Any) -> Any:
    """R of both below each other (TSQR: J. Demmel et al., 2012)."""
    (factor,) = scipy.linalg.qr(np.vstack([upper, lower]), mode="r", check_finite=False)
    return factor[: min(factor.shape)]


def summary(run: Passes, *, centred: bool) -> tuple[float, Any, Any]:
    """Total weight, means (0 if not ``centred``) and a short matrix with the same scatter as all
    rows of X and y: whatever is made of sums of squares and products can be made of it.

    One pass where the columns are well apart, two where they are nearly dependent.
    """
    weight, mean, spread, _ = run.run(scatter, combine=merged_scatter)
    if run.n and not weight:
        raise ValueError("Sample weights must contain at least one non-zero number.")
    if not centred:
        spread = spread + weight * np.outer(mean, mean)
        mean = np.zeros_like(mean)
    if not np.isfinite(spread).all():
        raise ValueError("Input X contains values too large for sums of their squares.")
    scale = np.sqrt(np.diag(spread))
    if (scale > 0).all():
        try:
            factor = scipy.linalg.cholesky(spread / np.outer(scale, scale))
        except scipy.linalg.LinAlgError:
            factor = None
        # The targets come last; that they are explained entirely is no loss.
        if factor is not None and np.diag(factor)[: run.p].min(initial=1.0) > LEAST_PIVOT:
            return weight, mean, factor * scale
    return weight, mean, run.run(triangle, mean, combine=merged_triangle)


# --- columns one by one ----------------------------------------------------------------------


def column_moments(x: Any, y: Any, w: Any, *, xp: Any = np) -> Any:
    """For each column: the weight of what is no NaN, its mean, and the sum of squares about it."""
    if sp.issparse(x):
        return _sparse_column_moments(x, w)
    total = None
    for rows in row_blocks(x, 1 << 17):
        block = xp.asarray(x[rows], dtype=xp.float64)
        own = None if w is None else w[rows][:, None]
        there = ~xp.isnan(block)
        if bool(there.all()):
            weight = xp.full(block.shape[1], float(len(block) if own is None else own.sum()))
            mean = (block.sum(axis=0) if own is None else (block * own).sum(axis=0)) / xp.where(
                weight > 0, weight, 1.0
            )
            block = block - mean
        else:
            weight = (there if own is None else there * own).sum(axis=0, dtype=xp.float64)
            block = xp.where(there, block, 0.0)
            sums = (block if own is None else block * own).sum(axis=0)
            mean = sums / xp.where(weight > 0, weight, 1.0)
            block = xp.where(there, block - mean, 0.0)
        squares = (block * block if own is None else block * block * own).sum(axis=0)
        part = (weight, mean, squares)
        total = part if total is None else merged_columns(total, part, xp=xp)
    if total is None:
        zero = xp.zeros(x.shape[1])
        return zero, zero, zero
    return total


def _sparse_column_moments(x: Any, w: Any) -> Any:
    n, p = x.shape
    dense_weight = np.full(p, float(n) if w is None else float(w.sum()))
    data = x.data.astype(np.float64, copy=False)
    own = np.ones_like(data) if w is None else np.repeat(w, np.diff(x.indptr))
    missing = np.isnan(data)
    weight = dense_weight - np.bincount(x.indices, own * missing, p)
    data = np.where(missing, 0.0, data)
    own = np.where(missing, 0.0, own)
    safe = np.where(weight > 0, weight, 1.0)
    mean = np.bincount(x.indices, own * data, p) / safe
    stored = np.bincount(x.indices, own, p)
    apart = data - mean[x.indices]
    squares = np.bincount(x.indices, own * apart * apart, p) + (weight - stored) * mean**2
    return weight, mean, squares


def merged_columns(left: Any, right: Any, *, xp: Any = np) -> Any:
    """Merge the statistics of two lots of rows, column by column."""
    (w1, m1, s1), (w2, m2, s2) = left, right
    weight = w1 + w2
    safe = xp.where(weight > 0, weight, 1.0)
    apart = xp.where(w2 > 0, m2 - m1, 0.0)
    mean = xp.where(w1 > 0, m1 + apart * (w2 / safe), m2)
    spread = xp.where(w1 > 0, apart * apart * (w1 * w2 / safe), 0.0)
    return weight, mean, s1 + s2 + spread


def extremes(x: Any, y: Any, w: Any) -> Any:
    """For each column the least and the greatest value that is no NaN; NaN if there is none."""
    if sp.issparse(x):
        return min_max_axis(x, axis=0, ignore_nan=True) if x.shape[0] else _no_extremes(x)
    if not x.shape[0]:
        return _no_extremes(x)
    return np.fmin.reduce(x, axis=0), np.fmax.reduce(x, axis=0)


def _no_extremes(x: Any) -> Any:
    return np.full(x.shape[1], np.nan), np.full(x.shape[1], np.nan)


def merged_extremes(left: Any, right: Any) -> Any:
    """Merge the extremes of two lots of rows."""
    return np.fmin(left[0], right[0]), np.fmax(left[1], right[1])
