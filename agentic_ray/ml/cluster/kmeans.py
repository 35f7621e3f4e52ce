"""k-means over rows in chunks."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import sklearn.cluster as sk
from sklearn.cluster import kmeans_plusplus
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array
from threadpoolctl import threadpool_limits

from agentic_ray.array import Array
from agentic_ray.errors import InvalidArgumentError
from agentic_ray.ml.base import Distributed, begin, is_distributed, seed_of, transformed
from agentic_ray.ml.cluster import lloyd
from agentic_ray.ml.data import rows
from agentic_ray.ml.moments import column_moments, merged_columns
from agentic_ray.ml.passes import Passes

_SMALL_MEAN = 100.0
_ROUNDS = 5
"""Of k-means||: after so many it has little to gain (B. Bahmani et al., 2012)."""


class KMeans(Distributed, sk.KMeans):
    """k-means over rows in chunks; parameters as `sklearn.cluster`'s.

    ``init="k-means++"`` starts by k-means||, its form for rows in chunks: a few passes take some
    times as many rows as there are to be centres, and k-means++ chooses among them. Lloyd's
    iterations are a pass each; ``algorithm="elkan"`` is refused. ``labels_`` of an `Array` or
    `Rows` are lazy, and of the same kind.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.array([[0.0, 0.0], [0.0, 1.0], [9.0, 9.0], [9.0, 8.0]])
    >>> model = ml.KMeans(2, random_state=0).fit(X)
    >>> float(model.inertia_), sorted(model.cluster_centers_.tolist())
    (1.0, [[0.0, 0.5], [9.0, 8.5]])
    """

    def fit(
        self, X: Any, y: Any = None, sample_weight: Any = None, *, checkpoint: Any = None
    ) -> Any:  # fmt: skip
        """Fit the model; one pass over the rows for each iteration.

        Parameters
        ----------
        X : array-like, sparse matrix, Array or Rows of shape (n_samples, n_features)
        y : ignored
        sample_weight : array-like, Array or Rows of shape (n_samples,), optional
        checkpoint : path or URL of a folder, optional
            Keeps what was gone through; a fit that is begun again goes on there.

        Returns
        -------
        self
        """
        run = begin(self, X, None, sample_weight, checkpoint=checkpoint, accept_sparse=True)
        if self.algorithm == "elkan":
            raise InvalidArgumentError("algorithm='elkan' is not taken here; use 'lloyd'")
        if run.n < self.n_clusters:
            raise ValueError(
                f"n_samples={run.n} should be >= n_clusters={self.n_clusters}."
            )  # fmt: skip
        weight, mean, squares = run.run(column_moments, combine=merged_columns)
        variances = squares / np.where(weight > 0, weight, 1.0)
        # Distances are made of products: near the mean they keep their digits. Where the mean is
        # small beside the deviation they do so as it is.
        shift = None
        if not run.is_sparse and (mean**2).max() > _SMALL_MEAN * variances.mean():
            shift = mean
        scatter = float(squares.sum() + (0.0 if shift is not None else weight @ mean**2))
        tol = self.tol * float(variances.mean())
        best: tuple[float, Any, int, Any] | None = None
        seed = seed_of(run, self.random_state)
        for start in range(self._starts()):
            centres = start_centres(run, self, (seed, start))
            centres = centres if shift is None else centres - shift
            centres, iterations = iterate(run, centres, shift, self.max_iter, tol, scatter)
            inertia, counts = run.run(lloyd.exact_inertia, centres, shift)
            if best is None or inertia < best[0]:
                best = (inertia, centres, iterations, counts)
        assert best is not None
        inertia, centres, iterations, counts = best
        distinct = int((counts > 0).sum())
        if distinct < self.n_clusters:
            warnings.warn(
                f"Number of distinct clusters ({distinct}) found smaller than n_clusters "
                f"({self.n_clusters}). Possibly due to duplicate points in X.",
                ConvergenceWarning,
                stacklevel=2,
            )
        kind = np.float32 if run.x.dtype == np.float32 else np.float64
        self.cluster_centers_ = (centres if shift is None else centres + shift).astype(kind)
        self.inertia_ = inertia
        self.n_iter_ = iterations
        self._n_features_out = self.n_clusters
        self._n_threads = 1
        step = Nearest(centres, shift)
        if is_distributed(X):
            self.labels_ = transformed(rows(X), step, isinstance(X, Array))
        else:
            self.labels_ = run.x.then(step).compute()
        return self

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Fit, and the cluster of each row."""
        return self.fit(X, y, sample_weight).labels_

    def _starts(self) -> int:
        if self.n_init != "auto":
            return int(self.n_init)
        one = isinstance(self.init, str) and self.init == "k-means++"
        return 1 if one or not (isinstance(self.init, str) or callable(self.init)) else 10


class Nearest:
    """A step: the nearest centre of each row."""

    def __init__(self, centres: Any, shift: Any) -> None:
        self._centres = centres
        self._shift = shift

    def __call__(self, block: Any) -> Any:
        squares = (self._centres * self._centres).sum(axis=1)
        if not hasattr(block, "tocsr"):
            block = np.asarray(block, dtype=np.float64)
            block = block if self._shift is None else block - self._shift
        labels, _ = lloyd.nearest(block, self._centres, squares)
        return labels.astype(np.int32)


def iterate(
    run: Passes, centres: Any, shift: Any, max_iter: int, tol: float, scatter: float
) -> tuple[Any, int]:
    """Lloyd's iterations from ``centres``, which are relative to ``shift``, as the sum of squares
    ``scatter`` of all rows is."""
    iterations = 0
    for iterations in range(1, max_iter + 1):  # noqa: B007
        sums, weights = run.run(lloyd.assign, centres, shift)
        inertia = scatter + float(
            (weights * (centres**2).sum(axis=1)).sum() - 2.0 * (centres * sums).sum()
        )
        empty = np.flatnonzero(weights == 0)
        if len(empty):
            _fill(run, centres, shift, sums, weights, empty)
        safe = np.where(weights > 0, weights, 1.0)[:, None]
        moved = np.where(weights[:, None] > 0, sums / safe, centres)
        run.progress.iteration(inertia)
        apart = float(((moved - centres) ** 2).sum())
        centres = moved
        if apart <= tol:
            break
    return centres, iterations


def _fill(
    run: Passes, centres: Any, shift: Any, sums: Any, weights: Any, empty: Any
) -> None:  # fmt: skip
    """Give clusters without rows those that are farthest from their centre."""
    found = run.run(
        lloyd.farthest, centres, shift, len(empty), combine=lloyd.merged_farthest
    )  # fmt: skip
    distances, points, own, labels, _ = found
    if not len(distances) or distances.max() <= 0:
        return  # all rows lie on centres
    for cluster, point, weight, label in zip(empty, points, own, labels, strict=False):
        sums[cluster] = point * weight
        weights[cluster] = weight
        sums[label] -= point * weight
        weights[label] -= weight


def start_centres(run: Passes, estimator: Any, seed: tuple[int, ...]) -> Any:
    """Where to start, as the estimator says."""
    count, init = estimator.n_clusters, estimator.init
    if not isinstance(init, str):
        if callable(init):
            if not run.is_here:
                raise InvalidArgumentError(
                    "init= of a function is given all of X, which is in chunks here; give centres"
                )
            init = init(run.x.compute(), count, random_state=np.random.RandomState(seed[0]))
        centres = check_array(init, dtype=np.float64, order="C")
        if centres.shape[0] != count:
            raise ValueError(
                f"The shape of the initial centers {centres.shape} does not match the number of "
                f"clusters {count}."
            )
        if centres.shape[1] != run.p:
            raise ValueError(
                f"The shape of the initial centers {centres.shape} does not match the number of "
                f"features of the data {run.p}."
            )
        return centres.copy()
    numbers = range(len(run.x.lengths))
    if init == "random":
        _, drawn, _ = run.run(
            lloyd.draw_rows,
            count,
            combine=lloyd.merged_draw,
            numbered=[(*seed, 0, i) for i in numbers],
        )
        return drawn
    return _scalable(run, count, seed)


def _scalable(run: Passes, count: int, seed: tuple[int, ...]) -> Any:
    """k-means||."""
    chunks = len(run.x.lengths)
    _, centres, _ = run.run(
        lloyd.draw_rows,
        1,
        combine=lloyd.merged_draw,
        numbered=[(*seed, 1, i) for i in range(chunks)],
    )
    for turn in range(_ROUNDS):
        total = run.run(lloyd.cost, centres)
        if total <= 0:
            break
        more = run.run(
            lloyd.oversample,
            centres,
            2.0 * count / total,
            combine=lloyd.below,
            numbered=[(*seed, 2 + turn, i) for i in range(chunks)],
        )
        centres = np.concatenate([centres, more])
    weights = run.run(lloyd.cluster_weights, centres)
    random = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed)))
    if len(centres) < count:  # fewer distinct rows than centres: some are taken twice
        more = run.run(
            lloyd.draw_rows,
            count,
            combine=lloyd.merged_draw,
            numbered=[(*seed, 99, i) for i in range(chunks)],
        )[1]
        centres = np.concatenate([centres, more])
        weights = np.ones(len(centres))
    chosen, _ = kmeans_plusplus(centres, count, sample_weight=weights, random_state=random)
    # Among so few rows iterations cost nothing.
    refined = sk.KMeans(count, init=chosen, n_init=1, max_iter=20)
    # Several threads would add up in an order that is another each time.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        return refined.fit(centres, sample_weight=weights).cluster_centers_
