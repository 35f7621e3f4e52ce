"""DBSCAN over rows in chunks: exact, by pairs of chunks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
import sklearn.cluster as sk
from scipy.sparse.csgraph import connected_components
from sklearn.neighbors import NearestNeighbors

import agentic_ray.array as xp
from agentic_ray.array import Array
from agentic_ray.errors import InvalidArgumentError
from agentic_ray.ml.base import Distributed, begin, is_distributed
from agentic_ray.ml.data import numbered_rows, rows
from agentic_ray.ml.moments import extremes
from agentic_ray.ml.pairs import over_pairs
from agentic_ray.ml.passes import Passes

_POWERS = {
    "euclidean": 2.0, "l2": 2.0, "manhattan": 1.0, "cityblock": 1.0, "l1": 1.0,
    "chebyshev": np.inf, "infinity": np.inf,
}  # fmt: skip
"""Metrics that are norms of differences, with their powers."""


# --- kernels ---------------------------------------------------------------------------------


def _neighbours(queries: Any, points: Any, options: Any) -> Iterator[tuple[int, Any]]:
    """For some queries at a time: where they begin, and the points within the radius of each."""
    if not queries.shape[0] or not points.shape[0]:
        return
    finder = NearestNeighbors(**options).fit(points)
    each = int(np.clip((1 << 24) // points.shape[0], 16, 4096))
    for start in range(0, queries.shape[0], each):
        block = queries[start : start + each]
        yield start, finder.radius_neighbors(block, return_distance=False)


def weights_near(left: Any, right: Any, own: Any, other: Any, options: Any) -> Any:
    """Return the number or the weight of the right chunk's rows near each left row."""
    found = np.zeros(left.shape[0], np.int64 if other is None else np.float64)
    for start, near in _neighbours(left, right, options):
        for at, places in enumerate(near, start):
            found[at] = len(places) if other is None else other[places].sum()
    return found


def add(left: Any, right: Any) -> Any:
    """The sums of two pairs."""
    return left + right


def parts_within(x: Any, y: Any, w: Any, options: Any, core: Any) -> Any:
    """For each core row of a chunk, the position of the first core row that it is joined to by
    core rows of the chunk."""
    chosen = x[core]
    count = chosen.shape[0]
    ends: list[Any] = []
    starts: list[Any] = []
    labels = np.arange(count)
    for start, near in _neighbours(chosen, chosen, options):
        starts.append(np.repeat(np.arange(start, start + len(near)), [len(n) for n in near]))
        ends.append(np.concatenate(near))
        if sum(map(len, ends)) > 1 << 22:  # bounds the memory: one link a row stays
            labels = _joined(count, starts, ends, labels)
            starts, ends = [], []
    labels = _joined(count, starts, ends, labels)
    return np.flatnonzero(core)[labels]


def _joined(count: int, starts: list[Any], ends: list[Any], labels: Any) -> Any:
    """Return the first row of each row's component, given further links and the labels so far."""
    one = np.concatenate([*starts, np.arange(count)])
    two = np.concatenate([*ends, labels])
    links = sp.coo_matrix((np.ones(len(one), bool), (one, two)), shape=(count, count))
    _, found = connected_components(links, directed=False)
    _, first = np.unique(found, return_index=True)
    return first[found]


def links_between(left: Any, right: Any, own: Any, other: Any, options: Any) -> Any:
    """Pairs of parts of two chunks that have core rows near each other; of each chunk is given
    which rows are core, and the part of each of these."""
    (core, parts), (core_there, parts_there) = own, other
    pairs = [np.zeros((0, 2), np.int64)]
    there = right[core_there]
    for start, near in _neighbours(left[core], there, options):
        lengths = [len(n) for n in near]
        one = np.repeat(parts[start : start + len(near)], lengths)
        two = parts_there[np.concatenate(near)] if sum(lengths) else one[:0]
        pairs.append(np.unique(np.column_stack([one, two]), axis=0))
    return np.unique(np.concatenate(pairs), axis=0)


def both_links(left: Any, right: Any) -> Any:
    """The links of two pairs of chunks."""
    return np.unique(np.concatenate([left, right]), axis=0)


def clusters_near(left: Any, right: Any, own: Any, other: Any, options: Any) -> Any:
    """The least number of a cluster that has a core row near each row of the left chunk."""
    (core, _), (core_there, clusters) = own, other
    none = np.iinfo(np.int64).max
    found = np.full(left.shape[0], none)
    outside = np.flatnonzero(~core)
    for start, near in _neighbours(left[outside], right[core_there], options):
        for at, places in enumerate(near, start):
            if len(places):
                found[outside[at]] = clusters[places].min()
    return found


def least(left: Any, right: Any) -> Any:
    """The lesser of two values of each row."""
    return np.minimum(left, right)


def box(x: Any, y: Any, w: Any, number: int) -> Any:
    """The least and the greatest value of each column of a chunk."""
    return extremes(x, y, w)


# --- the estimator ---------------------------------------------------------------------------


class DBSCAN(Distributed, sk.DBSCAN):
    """Clusters of rows that have many others near them; parameters as `sklearn.cluster`'s.

    Labels are scikit-learn's. Of data in chunks each chunk is compared with each other one that is
    not farther away than ``eps`` as a whole: rows that are near each other should be in the same
    chunks, where that can be had (sorted files). Of each row this process has a few numbers, and
    one chunk's worth of neighbours is in memory at a time. ``labels_`` and ``components_`` of an
    `Array` or `Rows` are lazy, and of the same kind. ``metric="precomputed"`` is refused.

    Examples
    --------
    >>> from agentic_ray import ml
    >>> import agentic_ray.array as xp
    >>> X = xp.asarray([[0.0], [0.3], [0.1], [9.0], [9.2], [50.0]], chunks=(2, 1))
    >>> ml.DBSCAN(eps=0.5, min_samples=2).fit_predict(X).compute()
    array([ 0,  0,  0,  1,  1, -1])
    """

    def fit(self: Any, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Find the clusters: three passes over pairs of chunks.

        Parameters
        ----------
        X : array-like, sparse matrix, Array or Rows of shape (n_samples, n_features)
        y : ignored
        sample_weight : array-like, Array or Rows of shape (n_samples,), optional

        Returns
        -------
        self
        """
        if not is_distributed(X):
            return sk.DBSCAN.fit(self, X, y, sample_weight)
        if self.metric == "precomputed":
            raise InvalidArgumentError(
                "metric='precomputed' is not taken for data in chunks: a row of distances has as "
                "many columns as there are rows"
            )
        run = begin(self, X, None, sample_weight, accept_sparse=True)
        labels = self._labels(run)
        if isinstance(X, Array):
            own = rows(X)
            self.labels_ = xp.asarray(labels, chunks=(own.lengths,))
            core = np.asarray(self.core_sample_indices_)
            self.components_ = X[core]
        else:
            self.labels_ = numbered_rows(labels, rows(X).lengths)
            self.components_ = rows(X).take(self.core_sample_indices_)
        return self

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Find the clusters, and give that of each row; -1 for rows of none."""
        return self.fit(X, y, sample_weight).labels_

    def _labels(self, run: Passes) -> Any:
        options = {
            "radius": self.eps, "algorithm": self.algorithm, "leaf_size": self.leaf_size,
            "metric": self.metric, "metric_params": self.metric_params, "p": self.p,
        }  # fmt: skip
        lengths = run.x.lengths
        edges = np.cumsum([0, *lengths])
        weights: list[Any] = [None] * len(lengths)
        if run.weight is not None:
            whole = np.asarray(run.weight.compute(), np.float64)
            weights = [whole[a:b] for a, b in itertools.pairwise(edges)]
        wanted = self._near_chunks(run)
        counts = over_pairs(run, weights_near, wanted, weights, options, combine=add)
        cores = [np.asarray(count >= self.min_samples) for count in counts]
        self.core_sample_indices_ = np.flatnonzero(np.concatenate(cores))
        parts = run.each(parts_within, options, numbered=cores)
        known = [
            (core, part + start) for core, part, start in zip(cores, parts, edges, strict=False)
        ]
        later = [[j for j in row if j > i] or [i] for i, row in enumerate(wanted)]
        links = over_pairs(run, links_between, later, known, options, combine=both_links)
        clusters = _numbered(np.concatenate([part for _, part in known]), np.concatenate(links))
        ends = np.cumsum([0, *[len(part) for _, part in known]])
        inside = [
            (core, clusters[a:b]) for core, a, b in zip(cores, ends[:-1], ends[1:], strict=True)
        ]
        near = over_pairs(run, clusters_near, wanted, inside, options, combine=least)
        found = np.concatenate(near)
        labels = np.where(found == np.iinfo(np.int64).max, -1, found)
        labels[self.core_sample_indices_] = clusters
        return labels.astype(np.intp)

    def _near_chunks(self, run: Passes) -> list[list[int]]:
        """For each chunk those that may have rows within ``eps`` of its own; itself is among
        them."""
        count = len(run.x.lengths)
        power = _POWERS.get(self.metric) if isinstance(self.metric, str) else None
        if self.metric == "minkowski" and not self.metric_params:
            power = 2.0 if self.p is None else float(self.p)
        if power is None or run.is_sparse or power < 1:
            return [list(range(count))] * count
        boxes = run.each(box, numbered=range(count))
        low, high = np.array([b[0] for b in boxes], float), np.array([b[1] for b in boxes], float)
        found = []
        for at in range(count):
            gaps = np.maximum(np.maximum(low - high[at], low[at] - high), 0.0)
            apart = np.linalg.norm(gaps, ord=power, axis=1)
            # Rounding of distances must not make of near chunks far ones.
            near = ~(apart > self.eps * (1 + 1e-6))
            near[at] = True
            found.append(np.flatnonzero(near).tolist())
        return found


def _numbered(parts: Any, links: Any) -> Any:
    """The cluster of each core row: clusters are numbered by their first core row."""
    names, at = np.unique(parts, return_inverse=True)
    one, two = np.searchsorted(names, links.T) if len(links) else (np.zeros(0, int),) * 2
    graph = sp.coo_matrix((np.ones(len(one), bool), (one, two)), shape=(len(names), len(names)))
    _, found = connected_components(graph, directed=False)
    # Names are positions of first rows, in order: so is the first name of each component.
    _, first, inverse = np.unique(found, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    return order[inverse][at].astype(np.int64)
