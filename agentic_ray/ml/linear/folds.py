"""Linear models with a squared loss whose penalty is chosen by cross-validation, in one pass.

Each fold's rows are summed up by themselves. The summary of the other folds is what a model is
fitted on, and its error on the fold follows from the fold's summary: all folds, penalties and
models need one pass over the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.linalg
import sklearn.linear_model as sk
from sklearn.linear_model._coordinate_descent import _alpha_grid
from sklearn.model_selection import KFold, check_cv

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.ml.base import Distributed, begin
from agentic_ray.ml.data import offsets
from agentic_ray.ml.linear.squares import check_width
from agentic_ray.ml.moments import merged_scatter, scatter
from agentic_ray.ml.passes import Passes


def fold_scatters(x: Any, y: Any, w: Any, count: int, folds: Any) -> Any:
    """The scatter of the rows of each fold; ``folds`` has the number of each row's."""
    parts = []
    for fold in range(count):
        at = folds == fold
        own = None if w is None else w[at]
        if at.any():
            parts.append(scatter(x[at], y[at], own))
        else:
            q = x.shape[1] + (1 if y.ndim == 1 else y.shape[1])
            parts.append((0.0, np.zeros(q), np.zeros((q, q)), 0))
    return tuple(parts)


def merged_folds(left: Any, right: Any) -> Any:
    """Merge the moments of two lots of rows, fold by fold."""
    return tuple([merged_scatter(a, b) for a, b in zip(left, right, strict=True)])


def fold_numbers(cv: Any, run: Passes, classifier: bool) -> tuple[int, list[Any]]:
    """The number of folds, and for each chunk the fold of each of its rows.

    Raises
    ------
    InvalidArgumentError
        The folds of the splitter are not one for each row.
    """
    splitter = check_cv(cv, classifier=classifier)
    n = run.n
    numbers = np.full(n, -1, dtype=np.int16)
    if classifier and not isinstance(splitter, KFold):
        raise InvalidArgumentError("cv must not depend on the targets here")
    count = 0
    for count, (_, test) in enumerate(splitter.split(np.empty((n, 0))), 1):
        if (numbers[test] >= 0).any():
            raise InvalidArgumentError("cv must put each row into one test set")
        numbers[test] = count - 1
    if (numbers < 0).any():
        raise InvalidArgumentError("cv must put each row into one test set")
    starts = list(offsets(run.x.lengths))
    return count, [
        numbers[at : at + length] for at, length in zip(starts, run.x.lengths, strict=True)
    ]


class Summaries:
    """The scatter of each fold's rows.

    Parameters
    ----------
    run : Passes
    cv : int, splitter or None
    """

    def __init__(self, run: Passes, cv: Any) -> None:
        self.p = run.p
        self.count, numbers = fold_numbers(cv, run, False)
        self.folds: Sequence[Any] = run.run(
            fold_scatters, self.count, combine=merged_folds, numbered=numbers
        )

    def training(self, fold: int | None) -> Any:
        """The scatter of all rows but those of a fold (None: of all)."""
        found = (0.0, np.zeros_like(self.folds[0][1]), np.zeros_like(self.folds[0][2]), 0)
        for number, part in enumerate(self.folds):
            if number != fold:
                found = merged_scatter(found, part)
        return found

    def short(self, fold: int | None, centred: bool) -> tuple[Any, Any, Any]:
        """A short X and y with as much scatter a row as those of the training rows, and the
        training means."""
        weight, mean, spread, _ = self.training(fold)
        if not centred:
            spread, mean = spread + weight * np.outer(mean, mean), np.zeros_like(mean)
        values, vectors = scipy.linalg.eigh(spread)
        root = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
        root *= np.sqrt(len(root) / weight)
        return np.asfortranarray(root[:, : self.p]), root[:, self.p :], mean

    def errors(self, fold: int, coefs: Any, mean: Any) -> Any:
        """The mean of squared residuals on a fold's rows for each column of coefficients."""
        weight, own, spread, _ = self.folds[fold]
        apart = own - mean
        product = spread / weight + np.outer(apart, apart)
        signed = np.vstack([coefs, -np.ones((1, coefs.shape[1]))])
        return np.maximum(np.einsum("ij,ik,kj->j", signed, product, signed), 0.0)


class _Path(Distributed):
    """`fit` of LassoCV and ElasticNetCV."""

    def fit(self: Any, X: Any, y: Any, sample_weight: Any = None, *, checkpoint: Any = None) -> Any:
        """Fit the model for all folds and penalties; one pass over the rows.

        Parameters
        ----------
        X : array-like, Array or Rows of shape (n_samples, n_features)
        y : array-like, Array or Rows of shape (n_samples,)
        sample_weight : array-like, Array or Rows of shape (n_samples,), optional
        checkpoint : path or URL of a folder, optional
            Keeps what was gone through.

        Returns
        -------
        self
        """
        run = begin(
            self, X, y, sample_weight, checkpoint=checkpoint, accept_sparse=True,
            target="numeric", non_negative_weight=True,
        )  # fmt: skip
        check_width(run)
        sums = Summaries(run, self.cv)
        ratios = np.atleast_1d(getattr(self, "l1_ratio", 1.0))
        whole_x, whole_y, means = sums.short(None, self.fit_intercept)
        alphas = self._grid(whole_x, whole_y[:, 0], ratios)
        errors = np.empty((len(ratios), alphas.shape[1], sums.count))
        for fold in range(sums.count):
            x, target, mean = sums.short(fold, self.fit_intercept)
            for i, ratio in enumerate(ratios):
                coefs = self._path_coefs(x, target[:, 0], ratio, alphas[i])
                errors[i, :, fold] = sums.errors(fold, coefs, mean)
        average = errors.mean(axis=-1)  # scikit-learn gives no fold more weight than another
        at_ratio, at_alpha = np.unravel_index(np.argmin(average), average.shape)
        self.alpha_ = float(alphas[at_ratio, at_alpha])
        self.l1_ratio_ = float(ratios[at_ratio])
        self.mse_path_ = np.squeeze(errors)
        self.alphas_ = alphas if len(ratios) > 1 else alphas[0]
        model = sk.ElasticNet(
            alpha=self.alpha_,
            l1_ratio=self.l1_ratio_,
            fit_intercept=False,
            max_iter=self.max_iter,
            tol=self.tol,
            positive=self.positive,
            random_state=self.random_state,
            selection=self.selection,
        ).fit(whole_x, whole_y[:, 0])
        self.coef_, self.dual_gap_, self.n_iter_ = model.coef_, model.dual_gap_, model.n_iter_
        self.intercept_ = 0.0
        if self.fit_intercept:
            self.intercept_ = np.float64(means[-1] - self.coef_ @ means[:-1])
        if type(self).__name__ == "LassoCV":
            del self.l1_ratio_
        return self

    def _grid(self: Any, x: Any, y: Any, ratios: Any) -> Any:
        given = self.alphas
        count = given if isinstance(given, int | np.integer) else 100
        if given is None or isinstance(given, int | np.integer | str):
            return np.array(
                [
                    _alpha_grid(x, y, l1_ratio=r, fit_intercept=False, eps=self.eps, n_alphas=count)
                    for r in ratios
                ]
            )
        return np.tile(np.sort(np.asarray(given, float))[::-1], (len(ratios), 1))

    def _path_coefs(self: Any, x: Any, y: Any, ratio: float, alphas: Any) -> Any:
        _, coefs, _ = sk.enet_path(
            x,
            y,
            l1_ratio=ratio,
            alphas=alphas,
            max_iter=self.max_iter,
            tol=self.tol,
            positive=self.positive,
            selection=self.selection,
            random_state=self.random_state,
        )
        return coefs


class LassoCV(_Path, sk.LassoCV):
    """Lasso with a penalty chosen by cross-validation: all folds and penalties in one pass.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.random.default_rng(0).standard_normal((60, 3))
    >>> model = ml.LassoCV(cv=3).fit(X, X[:, 0] * 2)
    >>> model.mse_path_.shape
    (100, 3)
    """


class ElasticNetCV(_Path, sk.ElasticNetCV):
    """Elastic net with penalties chosen by cross-validation: all folds in one pass.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.random.default_rng(0).standard_normal((60, 3))
    >>> model = ml.ElasticNetCV(cv=3, l1_ratio=[0.5, 1.0]).fit(X, X[:, 0] * 2)
    >>> model.mse_path_.shape
    (2, 100, 3)
    """


def left_out(x: Any, y: Any, w: Any, mean: Any, values: Any, vectors: Any, coefs: Any, alphas: Any, total: float) -> Any:  # noqa: E501  # fmt: skip
    """For each penalty the sum of squares of what each row's residual would be if it were left
    out (G. H. Golub, M. Heath, G. Wahba, 1979), by target."""
    p = x.shape[1]
    dense = (x.toarray() if hasattr(x, "toarray") else x) - mean[:p]
    target = y.reshape(len(dense), -1) - mean[p:]
    turned = dense @ vectors
    own = np.ones(len(dense)) if w is None else w
    found = []
    for alpha, coef in zip(alphas, coefs, strict=True):
        # The centring takes one more degree of freedom, which every row has a share of.
        lever = own * ((turned**2) @ (1.0 / (values + alpha)) + (1.0 / total if total else 0.0))
        rest = (target - dense @ coef) / (1.0 - lever)[:, None]
        found.append((own[:, None] * rest**2).sum(axis=0))
    return np.array(found)


class RidgeCV(Distributed, sk.RidgeCV):
    """Ridge regression with a penalty chosen by leaving out each row (``cv=None``; two passes) or
    by cross-validation (one pass).

    ``scoring`` and ``store_cv_results`` are refused.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.random.default_rng(0).standard_normal((60, 3))
    >>> float(ml.RidgeCV(alphas=[1e-3, 1.0, 1e3]).fit(X, X[:, 0] * 2).alpha_)
    0.001
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, checkpoint: Any = None) -> Any:
        """Fit the model.

        Parameters
        ----------
        X : array-like, Array or Rows of shape (n_samples, n_features)
        y : array-like, Array or Rows of shape (n_samples,) or (n_samples, n_targets)
        sample_weight : array-like, Array or Rows of shape (n_samples,), optional
        checkpoint : path or URL of a folder, optional
            Keeps what was gone through.

        Returns
        -------
        self
        """
        run = begin(
            self, X, y, sample_weight, checkpoint=checkpoint, accept_sparse=True,
            target="numeric", multi_output=True, non_negative_weight=True,
        )  # fmt: skip
        check_width(run)
        if self.scoring is not None or self.store_cv_results or self.alpha_per_target:
            raise InvalidArgumentError(
                "scoring, store_cv_results and alpha_per_target are not taken here"
            )
        assert run.y is not None
        alphas = np.atleast_1d(np.asarray(self.alphas, dtype=np.float64))
        if (alphas < 0).any() or (self.cv is None and (alphas == 0).any()):
            raise ValueError(f"alphas[{int(np.argmin(alphas))}] == {alphas.min()}, must be > 0.0.")
        if self.cv is None:
            weight, mean, spread, _ = run.run(scatter, combine=merged_scatter)
        else:
            sums = Summaries(run, self.cv)
            weight, mean, spread, _ = sums.training(None)
        if not self.fit_intercept:
            spread, mean = spread + weight * np.outer(mean, mean), np.zeros_like(mean)
        coefs, values, vectors = _ridge(spread, run.p, alphas)
        if self.cv is None:
            total = weight if self.fit_intercept else 0.0
            squares = run.run(left_out, mean, values, vectors, coefs, alphas, total)
            scores = -squares.mean(axis=1) / run.n
        else:
            scores = self._by_folds(sums, alphas)
        best = int(np.argmax(scores))
        self.alpha_ = alphas[best]
        self.best_score_ = float(scores[best])
        coef = coefs[best].T
        self.coef_ = coef[0] if run.y.ndim == 1 else coef
        self.intercept_ = 0.0
        if self.fit_intercept:
            intercept = mean[run.p :] - coef @ mean[: run.p]
            self.intercept_ = intercept[0] if run.y.ndim == 1 else intercept
        return self

    def _by_folds(self, sums: Summaries, alphas: Any) -> Any:
        """The mean over folds of R² on the rows left out."""
        if sums.folds[0][1].size != sums.p + 1:
            raise InvalidArgumentError("cv of several targets is not taken here")
        scores = np.zeros((sums.count, len(alphas)))
        for fold in range(sums.count):
            weight, mean, spread, _ = sums.training(fold)
            if not self.fit_intercept:
                spread, mean = spread + weight * np.outer(mean, mean), np.zeros_like(mean)
            coefs, _, _ = _ridge(spread, sums.p, alphas)
            errors = sums.errors(fold, coefs[:, :, 0].T, mean)
            own_weight, _, own, _ = sums.folds[fold]
            scores[fold] = 1.0 - errors * own_weight / own[-1, -1]
        return scores.mean(axis=0)


def _ridge(spread: Any, p: int, alphas: Any) -> tuple[Any, Any, Any]:
    """Coefficients for each penalty, and eigenvalues and vectors of the scatter of X."""
    values, vectors = scipy.linalg.eigh(spread[:p, :p])
    values = np.maximum(values, 0.0)
    turned = vectors.T @ spread[:p, p:]
    coefs = np.array([vectors @ (turned / (values + alpha)[:, None]) for alpha in alphas])
    return coefs, values, vectors
