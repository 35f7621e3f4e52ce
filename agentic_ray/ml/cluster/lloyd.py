"""Kernels of k-means over a chunk: nearest centres, sums of clusters, and rows to start from."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from agentic_ray.ml.passes import row_blocks

try:
    from sklearn.cluster._k_means_lloyd import lloyd_iter_chunked_dense
except ImportError:  # it is no public function, and may go
    lloyd_iter_chunked_dense = None


def nearest(block: Any, centres: Any, squares: Any, *, xp: Any = np) -> Any:
    """The nearest centre of each row, and the squared distance less the row's own square."""
    scores = block @ centres.T
    scores *= -2.0
    scores += squares
    labels = scores.argmin(axis=1)
    return labels, scores


def assign(x: Any, y: Any, w: Any, centres: Any, shift: Any, *, xp: Any = np) -> Any:
    """Do half of an iteration of Lloyd's: for each centre return the sum and the weight of the rows
    that are nearest to it.

    ``centres`` are relative to ``shift`` (None: 0), which is near the mean of all rows.
    """
    count, p = centres.shape
    sums, weights = xp.zeros((count, p)), xp.zeros(count)
    squares = (centres * centres).sum(axis=1)
    for rows in row_blocks(x, 1 << 20):
        block = _shifted(x[rows], shift, xp)
        own = None if w is None else w[rows]
        found = _compiled(block, centres, own)
        if found is None:
            labels, _ = nearest(block, centres, squares, xp=xp)
            found = _sums(block, labels, own, count, xp), xp.bincount(labels, own, count)
        sums += found[0]
        weights += found[1]
    return sums, weights


def _compiled(block: Any, centres: Any, own: Any) -> Any:
    """Do the work of `assign` by scikit-learn's compiled loop; None where it cannot be had.

    It gives means, and moves centres without rows to other places: of them a block may have some.
    """
    n, count = block.shape[0], len(centres)
    if lloyd_iter_chunked_dense is None or type(block) is not np.ndarray or n < count:
        return None  # of fewer rows than centres it cannot move all that have none
    labels = np.empty(n, np.int32)
    means, weights, moved = np.empty_like(centres), np.empty(count), np.empty(count)
    given = np.ones(n) if own is None else np.ascontiguousarray(own, np.float64)
    lloyd_iter_chunked_dense(
        np.ascontiguousarray(block), given, centres, means, weights, labels, moved, 1
    )
    totals = np.bincount(labels, own, count)
    return (means * totals[:, None], totals) if (totals > 0).all() else None


def _shifted(block: Any, shift: Any, xp: Any) -> Any:
    if sp.issparse(block):
        return block
    block = block.astype(xp.float64, copy=False)
    return block if shift is None else block - shift


def _norms(block: Any) -> Any:
    if sp.issparse(block):
        return np.asarray(block.multiply(block).sum(axis=1)).ravel()
    return np.einsum("ij,ij->i", block, block) if type(block) is np.ndarray else (block**2).sum(1)


def _sums(block: Any, labels: Any, own: Any, count: int, xp: Any) -> Any:
    """The (weighted) sum of the rows of each label."""
    n = len(labels)
    if xp is not np:
        chosen = xp.zeros((n, count))
        chosen[xp.arange(n), labels] = 1.0 if own is None else own
        return chosen.T @ block
    data = np.ones(n) if own is None else own
    chosen = sp.csc_array((data, labels.astype(np.int32), np.arange(n + 1)), shape=(count, n))
    found = chosen @ block
    return found.toarray() if sp.issparse(found) else found


def exact_inertia(x: Any, y: Any, w: Any, centres: Any, shift: Any) -> Any:
    """The sum of squared distances to the nearest centre, from differences, and how many rows
    each centre has."""
    total, counts = 0.0, np.zeros(len(centres))
    squares = (centres * centres).sum(axis=1)
    for rows in row_blocks(x, 1 << 17):
        block = _shifted(x[rows], shift, np)
        labels, scores = nearest(block, centres, squares)
        if sp.issparse(block):
            distances = np.maximum(scores[np.arange(len(labels)), labels] + _norms(block), 0.0)
        else:
            apart = block - centres[labels]
            distances = np.einsum("ij,ij->i", apart, apart)
        total += float(distances.sum() if w is None else distances @ w[rows])
        counts += np.bincount(labels, minlength=len(centres))
    return total, counts


def farthest(x: Any, y: Any, w: Any, centres: Any, shift: Any, count: int) -> Any:
    """The ``count`` rows that are farthest from their centre: distance, row, weight, centre; and
    ``count``, of which a chunk may have fewer."""
    found = None
    squares = (centres * centres).sum(axis=1)
    for rows in row_blocks(x, 1 << 17):
        block = _shifted(x[rows], shift, np)
        labels, scores = nearest(block, centres, squares)
        distances = scores[np.arange(len(labels)), labels] + _norms(block)
        at = np.argsort(-distances, kind="stable")[:count]
        dense = block[at].toarray() if sp.issparse(block) else block[at]
        own = np.ones(len(at)) if w is None else w[rows][at]
        part = (distances[at], dense, own, labels[at], count)
        found = part if found is None else merged_farthest(found, part)
    return found


def merged_farthest(left: Any, right: Any) -> Any:
    """Merge two lots of rows to as many as are wanted; first come, first kept."""
    count = left[-1]
    both = [np.concatenate([a, b]) for a, b in zip(left[:-1], right[:-1], strict=True)]
    order = np.argsort(-both[0], kind="stable")[:count]
    return (*[part[order] for part in both], count)


# --- where to start --------------------------------------------------------------------------


def generator(seed: Any) -> Any:
    """The random numbers of one chunk in one round."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))


def draw_rows(x: Any, y: Any, w: Any, count: int, seed: Any) -> Any:
    """``count`` rows with the largest random keys: of all chunks together a sample without
    replacement, by weight (P. S. Efraimidis, P. G. Spirakis, 2006). With them goes ``count``, of
    which a chunk may have fewer."""
    n = x.shape[0]
    keys = np.log(generator(seed).random(n))
    if w is not None:
        with np.errstate(divide="ignore"):
            keys = np.where(w > 0, keys / np.where(w > 0, w, 1.0), -np.inf)
    at = np.argsort(-keys, kind="stable")[:count]
    block = x[at].toarray() if sp.issparse(x) else np.asarray(x[at], dtype=np.float64)
    return keys[at], block, count


def merged_draw(left: Any, right: Any) -> Any:
    """Keep the rows of both draws with the largest keys, as many as are wanted."""
    count = left[2]
    keys = np.concatenate([left[0], right[0]])
    order = np.argsort(-keys, kind="stable")[:count]
    return keys[order], np.concatenate([left[1], right[1]])[order], count


def distances_to(x: Any, centres: Any) -> Any:
    """The squared distance of each row to the nearest of ``centres``."""
    squares = (centres * centres).sum(axis=1)
    parts = []
    for rows in row_blocks(x, 1 << 17):
        block = x[rows]
        labels, scores = nearest(block, centres, squares)
        best = scores[np.arange(len(labels)), labels]
        parts.append(np.maximum(best + _norms(block), 0.0))
    return np.concatenate(parts) if parts else np.zeros(0)


def cost(x: Any, y: Any, w: Any, centres: Any) -> Any:
    """The sum of squared distances to the nearest of ``centres``."""
    distances = distances_to(x, centres)
    return float(distances.sum() if w is None else distances @ w)


def oversample(x: Any, y: Any, w: Any, centres: Any, factor: float, seed: Any) -> Any:
    """Rows taken with a probability of ``factor`` times their squared distance."""
    distances = distances_to(x, centres)
    chance = distances * factor if w is None else distances * w * factor
    at = np.flatnonzero(generator(seed).random(x.shape[0]) < chance)
    return x[at].toarray() if sp.issparse(x) else np.asarray(x[at], dtype=np.float64)


def below(upper: Any, lower: Any) -> Any:
    """Two matrices below each other."""
    return np.concatenate([upper, lower])


def cluster_weights(x: Any, y: Any, w: Any, centres: Any) -> Any:
    """The weight of the rows that are nearest to each of ``centres``."""
    total = np.zeros(len(centres))
    squares = (centres * centres).sum(axis=1)
    for rows in row_blocks(x, 1 << 17):
        labels, _ = nearest(x[rows], centres, squares)
        total += np.bincount(labels, None if w is None else w[rows], len(centres))
    return total
