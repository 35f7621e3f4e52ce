"""Forests over rows in chunks: each chunk grows some of the trees."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import sklearn.ensemble as sk
from sklearn.base import is_classifier

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.ml.base import Distributed, begin, encode_labels, is_distributed, seed_of
from agentic_ray.ml.cluster import lloyd
from agentic_ray.ml.linear.logistic import balanced
from agentic_ray.ml.linear.losses import label_weights


def grow(x: Any, y: Any, w: Any, forest: Any, classes: int, number: tuple[int, int]) -> Any:
    """The trees that one chunk grows."""
    seed, trees = number
    if not trees or not x.shape[0]:
        return []
    forest.set_params(n_estimators=trees, random_state=seed)
    if classes:
        # A class that the chunk lacks is there with a row that weighs nothing.
        missing = np.setdiff1d(np.arange(classes), y)
        if len(missing):
            w = np.concatenate([np.ones(len(y)) if w is None else w, np.zeros(len(missing))])
            x = np.concatenate([x, np.repeat(x[:1], len(missing), axis=0)])
            y = np.concatenate([y, missing])
    forest.fit(x, y, sample_weight=w)
    return forest.estimators_


class _Forest(Distributed):
    """`fit` of a forest over chunks. Data in memory are scikit-learn's own to fit."""

    def fit(self: Any, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Fit the model: tree t is grown by chunk t modulo the number of chunks, on its rows.

        Trees see less than all rows, as with bagging; with rows in a random order a forest of
        trees from chunks is as good as one of bootstrap samples of that size.

        Parameters
        ----------
        X : array-like, Array or Rows of shape (n_samples, n_features)
        y : array-like, Array or Rows of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like, Array or Rows of shape (n_samples,), optional

        Returns
        -------
        self
        """
        if not is_distributed(X):
            return self._sklearn_class.fit(self, X, y, sample_weight)
        if self.oob_score or self.warm_start:
            raise InvalidArgumentError(
                "oob_score and warm_start are not taken for data in chunks: a tree does not know "
                "the rows of other chunks"
            )
        classifier = is_classifier(self)
        run = begin(
            self, X, y, sample_weight, target="labels" if classifier else "numeric",
            allow_nan=True, multi_output=not classifier,
        )  # fmt: skip
        options = {**self.get_params(deep=False), "n_jobs": None, "verbose": 0}
        classes = 0
        if classifier:
            self.classes_ = encode_labels(run)
            classes = len(self.classes_)
            if self.class_weight == "balanced_subsample":
                pass  # of the rows of a tree, which its chunk has
            elif self.class_weight is not None:
                totals = run.run(label_weights, classes)
                own = balanced(self.class_weight, self.classes_, totals)[1]
                options["class_weight"] = dict(enumerate(own.tolist()))
        chunks = len(run.x.lengths)
        if self.n_estimators < chunks:
            warnings.warn(
                f"n_estimators={self.n_estimators} is less than the number of chunks: "
                f"{chunks - self.n_estimators} of {chunks} chunks grow no tree, and their rows are "
                "not used; take more trees or larger chunks (rechunk)",
                UserWarning,
                stacklevel=2,
            )
        seed = seed_of(run, self.random_state)
        seeds = np.random.SeedSequence(seed).generate_state(chunks) >> 1
        share = [len(range(i, self.n_estimators, chunks)) for i in range(chunks)]
        forest = self._sklearn_class(**options)
        grown = run.each(
            grow, forest, classes,
            numbered=[(int(s), n) for s, n in zip(seeds, share, strict=True)],
        )  # fmt: skip
        turns = max(map(len, grown))
        self.estimators_ = [trees[t] for t in range(turns) for trees in grown if t < len(trees)]
        self.n_outputs_ = 1 if run.y is None or run.y.ndim == 1 else int(run.y.shape[1])
        if classifier:
            self.n_classes_ = classes
        self.estimator_ = self.estimators_[0].__class__()
        self._n_samples, self._n_samples_bootstrap = run.n, None
        return self


class RandomForestClassifier(_Forest, sk.RandomForestClassifier):
    """A random forest whose trees are grown by chunks; parameters as `sklearn.ensemble`'s.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.array([[0.0], [1.0], [3.0], [4.0]])
    >>> model = ml.RandomForestClassifier(10, random_state=0).fit(X, ["a", "a", "b", "b"])
    >>> model.predict([[0.0], [4.0]])
    array(['a', 'b'], dtype='<U1')
    """


class RandomForestRegressor(_Forest, sk.RandomForestRegressor):
    """A random forest whose trees are grown by chunks; parameters as `sklearn.ensemble`'s.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.array([[0.0], [1.0], [3.0], [4.0]])
    >>> model = ml.RandomForestRegressor(10, random_state=0).fit(X, X[:, 0])
    >>> len(model.estimators_)
    10
    """


class ExtraTreesClassifier(_Forest, sk.ExtraTreesClassifier):
    """Extremely randomised trees that are grown by chunks.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.array([[0.0], [1.0], [3.0], [4.0]])
    >>> ml.ExtraTreesClassifier(10, random_state=0).fit(X, [0, 0, 1, 1]).predict([[0.0], [4.0]])
    array([0, 1])
    """


class ExtraTreesRegressor(_Forest, sk.ExtraTreesRegressor):
    """Extremely randomised trees that are grown by chunks.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.array([[0.0], [1.0], [3.0], [4.0]])
    >>> len(ml.ExtraTreesRegressor(10, random_state=0).fit(X, X[:, 0]).estimators_)
    10
    """


class IsolationForest(Distributed, sk.IsolationForest):
    """An isolation forest over rows in chunks.

    Each of its trees sees some hundred rows. One pass draws as many rows as all trees together
    need (200,000 at most), at random and without replacement, and scikit-learn grows the trees.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.array([[0.0], [0.1], [-0.1], [0.05], [9.0]])
    >>> ml.IsolationForest(random_state=0).fit(X).predict([[0.0], [9.0]])
    array([ 1, -1])
    """

    _MOST_ROWS = 200_000

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Fit the model.

        Parameters
        ----------
        X : array-like, Array or Rows of shape (n_samples, n_features)
        y : ignored
        sample_weight : array-like of shape (n_samples,), optional
            Of data in memory only.

        Returns
        -------
        self
        """
        if not is_distributed(X):
            return sk.IsolationForest.fit(self, X, y, sample_weight)
        if sample_weight is not None or self.warm_start:
            raise InvalidArgumentError(
                "sample_weight and warm_start are not taken for data in chunks"
            )
        run = begin(self, X, dtype=("float32",))
        each = 256 if self.max_samples == "auto" else self.max_samples
        each = int(each * run.n) if isinstance(each, float) else int(each)
        wanted = min(run.n, max(each, min(each * self.n_estimators, self._MOST_ROWS)))
        seed = seed_of(run, self.random_state)
        seeds = [(seed, 0, i) for i in range(len(run.x.lengths))]
        _, drawn, _ = run.run(lloyd.draw_rows, wanted, combine=lloyd.merged_draw, numbered=seeds)
        options = {**self.get_params(deep=False), "max_samples": min(each, wanted)}
        twin = sk.IsolationForest(**{**options, "random_state": seed}).fit(drawn)
        kept = {name: vars(self)[name] for name in (*options, "n_features_in_")}
        kept |= {n: vars(self)[n] for n in ("feature_names_in_",) if n in vars(self)}
        self.__dict__.update({**vars(twin), **kept, "max_samples": self.max_samples})
        return self
