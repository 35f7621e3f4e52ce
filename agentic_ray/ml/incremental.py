"""Estimators that learn from one lot of rows after the other: chunks are their lots.

What a lot changes depends on the lots before it, so chunks are gone through in order, one at a
time. That is for data larger than memory; cores do not work side by side on it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import sklearn.cluster as clusters
import sklearn.decomposition as decomposition
import sklearn.linear_model as linear
from sklearn.base import is_classifier
from sklearn.utils import gen_batches

from agentic_ray.array import Array
from agentic_ray.errors import InvalidArgumentError
from agentic_ray.ml.base import (
    Distributed,
    begin,
    encode_labels,
    is_distributed,
    seed_of,
    transformed,
)
from agentic_ray.ml.cluster import lloyd
from agentic_ray.ml.cluster.kmeans import Nearest, start_centres
from agentic_ray.ml.data import rows
from agentic_ray.ml.linear.logistic import balanced
from agentic_ray.ml.linear.losses import label_weights


def learn(x: Any, y: Any, w: Any, state: Any, options: Any) -> Any:
    """An estimator of scikit-learn after one more chunk."""
    size, classes = options
    for batch in gen_batches(len(y) if x is None else x.shape[0], size or x.shape[0]):
        given = {} if w is None else {"sample_weight": w[batch]}
        if classes is not None:
            given["classes"] = classes
        if y is None:
            state.partial_fit(x[batch], **given)
        else:
            state.partial_fit(x[batch], y[batch], **given)
    return state


def refused_for_log(checkpoint: Any) -> None:
    """Refuse a checkpoint where what is kept would be an object."""
    if checkpoint is not None:
        raise InvalidArgumentError(
            "checkpoint= is not taken here: the state is an estimator; call partial_fit yourself "
            "and pickle it"
        )


class _Descent(Distributed):
    """`fit` by stochastic gradient descent: an epoch is a pass over the chunks in order.

    Of one chunk it does what scikit-learn does. Rows are shuffled within their chunk.
    """

    def fit(
        self: Any, X: Any, y: Any, coef_init: Any = None, intercept_init: Any = None,
        sample_weight: Any = None,
    ) -> Any:  # fmt: skip
        """Fit the model.

        Parameters
        ----------
        X : array-like, sparse matrix, Array or Rows of shape (n_samples, n_features)
        y : array-like, Array or Rows of shape (n_samples,)
        coef_init, intercept_init : ndarray, optional
            Where to start; of data in memory only.
        sample_weight : array-like, Array or Rows of shape (n_samples,), optional

        Returns
        -------
        self
        """
        if not is_distributed(X):
            return self._sklearn_class.fit(
                self, X, y, coef_init=coef_init, intercept_init=intercept_init,
                sample_weight=sample_weight,
            )  # fmt: skip
        refused = [name for name in ("early_stopping", "warm_start") if getattr(self, name)]
        if self.learning_rate == "adaptive":
            refused.append("learning_rate='adaptive'")
        if coef_init is not None or intercept_init is not None or refused:
            raise InvalidArgumentError(
                "coef_init, intercept_init, early_stopping, warm_start and "
                "learning_rate='adaptive' are not taken for data in chunks"
            )
        classifier = is_classifier(self)
        run = begin(
            self, X, y, sample_weight, accept_sparse=True,
            target="labels" if classifier else "numeric",
        )  # fmt: skip
        options = self.get_params(deep=False)
        options["random_state"] = seed_of(run, self.random_state)
        options["tol"] = None
        classes = None
        if classifier:
            labels = encode_labels(run)
            classes = np.arange(len(labels), dtype=np.float64)
            if self.class_weight is not None:
                totals = run.run(label_weights, len(labels))
                own = balanced(self.class_weight, labels, totals)[1]
                options["class_weight"] = dict(zip(classes.tolist(), own.tolist(), strict=True))
        state = self._sklearn_class(**{**options, "warm_start": False, "verbose": 0})
        best, bad, epoch = math.inf, 0, 0
        for epoch in range(1, self.max_iter + 1):  # noqa: B007
            state = run.chain(learn, state, (None, classes))
            loss = run.run(loss_of, state)
            total = loss[0] / loss[1]
            run.progress.iteration(total)
            if self.tol is None:
                continue
            bad = bad + 1 if total > best - self.tol else 0
            best = min(best, total)
            if bad >= self.n_iter_no_change:
                break
        for name, value in vars(state).items():
            if name.endswith("_") and name not in ("n_features_in_", "feature_names_in_"):
                setattr(self, name, value)
        if classifier:
            self.classes_ = labels
        self.n_iter_ = epoch
        return self


def loss_of(x: Any, y: Any, w: Any, state: Any) -> Any:
    """The sum of losses of a model on a chunk, and the weight of its rows."""
    raw = state.decision_function(x) if hasattr(state, "classes_") else state.predict(x)
    own = np.ones(len(y)) if w is None else w
    if hasattr(state, "classes_"):
        found = np.zeros(len(y))
        codes = np.searchsorted(state.classes_, y)
        table = raw[:, None] if raw.ndim == 1 else raw
        for column in range(table.shape[1]):
            positive = codes == (1 if table.shape[1] == 1 else column)
            sign = np.where(positive, 1.0, -1.0)
            found += _losses(state.loss, sign * table[:, column], state.epsilon)
        return float(found @ own), float(own.sum())
    return float(_residual_losses(state.loss, raw - y, state.epsilon) @ own), float(own.sum())


def _losses(loss: str, margin: Any, epsilon: float) -> Any:
    if loss == "log_loss":
        return np.logaddexp(0.0, -margin)
    if loss == "squared_hinge":
        return np.maximum(1.0 - margin, 0.0) ** 2
    if loss == "perceptron":
        return np.maximum(-margin, 0.0)
    if loss == "modified_huber":
        return np.where(margin >= -1, np.maximum(1.0 - margin, 0.0) ** 2, -4.0 * margin)
    if loss == "hinge":
        return np.maximum(1.0 - margin, 0.0)
    return _residual_losses(loss, margin - 1.0, epsilon)


def _residual_losses(loss: str, apart: Any, epsilon: float) -> Any:
    size = np.abs(apart)
    if loss == "squared_error":
        return 0.5 * apart**2
    if loss == "huber":
        return np.where(size <= epsilon, 0.5 * apart**2, epsilon * size - 0.5 * epsilon**2)
    over = np.maximum(size - epsilon, 0.0)
    return over if loss == "epsilon_insensitive" else over**2


class SGDClassifier(_Descent, linear.SGDClassifier):
    """Linear classifiers by stochastic gradient descent; chunks are gone through in order.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    >>> ml.SGDClassifier(random_state=0).fit(X, [0, 0, 1, 1]).predict([[-3.0], [3.0]])
    array([0, 1])
    """


class SGDRegressor(_Descent, linear.SGDRegressor):
    """Linear regression by stochastic gradient descent; chunks are gone through in order.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.linspace(-1, 1, 50)[:, None]
    >>> model = ml.SGDRegressor(random_state=0).fit(X, X[:, 0] * 2)
    >>> model.coef_.shape
    (1,)
    """


class IncrementalPCA(Distributed, decomposition.IncrementalPCA):
    """Principal components from batches of rows; chunks are gone through in order.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.random.default_rng(0).standard_normal((40, 3))
    >>> ml.IncrementalPCA(2, batch_size=10).fit(X).components_.shape
    (2, 3)
    """

    def fit(self, X: Any, y: Any = None) -> Any:
        """Fit the model.

        Parameters
        ----------
        X : array-like, Array or Rows of shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        self
        """
        if not is_distributed(X):
            return decomposition.IncrementalPCA.fit(self, X, y)
        run = begin(self, X)
        size = self.batch_size or 5 * run.p
        least = self.n_components or min(size, run.p)
        state = decomposition.IncrementalPCA(
            self.n_components, whiten=self.whiten, batch_size=self.batch_size
        )
        state = run.chain(in_batches, state, size, least)
        for name, value in vars(state).items():
            if name.endswith("_") and name not in ("n_features_in_", "feature_names_in_"):
                setattr(self, name, value)
        return self


def in_batches(x: Any, y: Any, w: Any, state: Any, size: int, least: int) -> Any:
    """An incremental estimator after the batches of one more chunk."""
    for batch in gen_batches(x.shape[0], size, min_batch_size=least):
        state.partial_fit(x[batch])
    return state


class MiniBatchKMeans(Distributed, clusters.MiniBatchKMeans):
    """k-means by batches of rows; chunks are gone through in order, for ``max_iter`` epochs or
    until the centres rest. All rows are looked at for where to start, whatever ``init_size`` is.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.array([[0.0], [1.0], [9.0], [10.0]])
    >>> sorted(ml.MiniBatchKMeans(2, random_state=0, n_init=3).fit(X).labels_.tolist())
    [0, 0, 1, 1]
    """

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Fit the model.

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
            return clusters.MiniBatchKMeans.fit(self, X, y, sample_weight)
        run = begin(self, X, None, sample_weight, accept_sparse=True)
        seed = seed_of(run, self.random_state)
        shift = np.zeros(run.p)
        starts = [start_centres(run, self, (seed, start)) for start in range(self._starts())]
        if len(starts) > 1:
            costs = [run.run(lloyd.exact_inertia, centres, shift)[0] for centres in starts]
            starts = [starts[int(np.argmin(costs))]]
        state = clusters.MiniBatchKMeans(
            self.n_clusters, init=starts[0], n_init=1,
            batch_size=self.batch_size, random_state=seed, tol=self.tol,
            reassignment_ratio=self.reassignment_ratio,
        )  # fmt: skip
        best, bad, epoch = math.inf, 0, 0
        for epoch in range(1, self.max_iter + 1):  # noqa: B007
            before = getattr(state, "cluster_centers_", None)
            before = None if before is None else before.copy()
            state = run.chain(learn, state, (self.batch_size, None))
            inertia, _ = run.run(lloyd.exact_inertia, state.cluster_centers_, shift)
            run.progress.iteration(inertia)
            bad = bad + 1 if inertia >= best else 0
            best = min(best, inertia)
            moved = math.inf if before is None else ((state.cluster_centers_ - before) ** 2).sum()
            if (self.max_no_improvement and bad >= self.max_no_improvement) or moved <= self.tol:
                break
        self.cluster_centers_ = state.cluster_centers_
        self._n_features_out, self._n_threads = self.n_clusters, 1
        self.inertia_, self.n_iter_, self.n_steps_ = inertia, epoch, state.n_steps_
        if self.compute_labels:
            step = Nearest(state.cluster_centers_.astype(np.float64), shift)
            self.labels_ = transformed(rows(X), step, isinstance(X, Array))
        return self

    def _starts(self) -> int:
        """From so many sets of centres the one of least inertia is taken."""
        if not isinstance(self.init, str | type(None)) and not callable(self.init):
            return 1  # centres are given
        if self.n_init != "auto":
            return int(self.n_init)
        return 1 if self.init == "k-means++" else 3
