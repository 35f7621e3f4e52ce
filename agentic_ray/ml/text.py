"""Features of texts in chunks."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import sklearn.feature_extraction.text as sk
from sklearn.feature_extraction import FeatureHasher as _FeatureHasher

from agentic_ray.ml.base import Distributed, begin, blockwise, is_distributed


class HashingVectorizer(Distributed, sk.HashingVectorizer):
    """Texts as sparse rows of counts, by hashes of their words: nothing is learnt.

    Examples
    --------
    >>> from agentic_ray import ml
    >>> texts = ml.rows(["one two", "two three"], chunk_rows=1)
    >>> ml.HashingVectorizer(n_features=16).transform(texts).shape
    (2, 16)
    """

    def fit(self, X: Any, y: Any = None) -> Any:
        """Look at the parameters alone."""
        return self if is_distributed(X) else sk.HashingVectorizer.fit(self, X, y)

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """As `transform`."""
        return self.transform(X)


class FeatureHasher(Distributed, _FeatureHasher):
    """Features by hashes of their names: nothing is learnt.

    Examples
    --------
    >>> from agentic_ray import ml
    >>> ml.FeatureHasher(4, input_type="string").transform([["a"], ["a", "b"]]).shape
    (2, 4)
    """

    def fit(self, X: Any = None, y: Any = None) -> Any:
        """Look at the parameters alone."""
        return self if is_distributed(X) else _FeatureHasher.fit(self, X, y)

    def transform(self, raw_X: Any) -> Any:
        """Sparse rows of the features of each sample."""
        if is_distributed(raw_X):
            return blockwise(self, "transform", raw_X)
        return _FeatureHasher.transform(self, raw_X)


def frequencies(x: Any, y: Any, w: Any) -> Any:
    """In how many rows each column is there, and the rows."""
    table = x if sp.issparse(x) else sp.csr_array(x)
    return np.bincount(table.indices, minlength=x.shape[1]).astype(np.float64), x.shape[0]


class TfidfTransformer(Distributed, sk.TfidfTransformer):
    """Counts weighted by how rare their columns are; one pass.

    Examples
    --------
    >>> from agentic_ray import ml
    >>> model = ml.TfidfTransformer().fit([[1, 0], [1, 1]])
    >>> model.idf_.round(3)
    array([1.   , 1.405])
    """

    def fit(self, X: Any, y: Any = None, *, checkpoint: Any = None) -> Any:
        """Find how many rows have each column.

        Parameters
        ----------
        X : array-like, sparse matrix, Array or Rows of shape (n_samples, n_features)
        y : ignored
        checkpoint : path or URL of a folder, optional
            Keeps what was gone through.

        Returns
        -------
        self
        """
        run = begin(self, X, checkpoint=checkpoint, accept_sparse=True)
        if self.use_idf:
            found, n = run.run(frequencies)
            kind = np.float32 if run.x.dtype == np.float32 else np.float64
            found = found.astype(kind) + float(self.smooth_idf)
            self.idf_ = np.log((n + int(self.smooth_idf)) / found).astype(kind) + kind(1.0)
        return self
