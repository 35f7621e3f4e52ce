"""Logistic regression over rows in chunks."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import sklearn.linear_model as sk

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.ml.base import Distributed, begin, encode_labels, positive_weight
from agentic_ray.ml.linear.losses import (
    label_weights,
    loss_gradient,
    loss_hessian,
    multinomial_gradient,
    multinomial_hessian,
)
from agentic_ray.ml.linear.solvers import lbfgs, newton
from agentic_ray.ml.passes import Passes

SOLVERS = ("lbfgs", "newton-cholesky", "newton-cg", "saga")


class LogisticRegression(Distributed, sk.LogisticRegression):
    """Logistic regression over rows in chunks; parameters as `sklearn.linear_model`'s.

    Solvers are ``"lbfgs"`` (a pass for each step), ``"newton-cholesky"`` and ``"newton-cg"``
    (fewer passes, each with a matrix of all parameters), and ``"saga"``, which stands for
    problems with an l1 penalty: they are solved by L-BFGS over the positive and the negative
    parts of the coefficients, and have the minimum that SAGA has. ``"liblinear"`` and ``"sag"``
    are refused.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> model = ml.LogisticRegression().fit(X, ["no", "no", "yes", "yes"])
    >>> model.predict([[0.5], [2.5]])
    array(['no', 'yes'], dtype='<U3')
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, checkpoint: Any = None) -> Any:
        """Fit the model; some passes over the rows for each iteration.

        Parameters
        ----------
        X : array-like, sparse matrix, Array or Rows of shape (n_samples, n_features)
        y : array-like, Array or Rows of shape (n_samples,)
            Labels.
        sample_weight : array-like, Array or Rows of shape (n_samples,), optional
        checkpoint : path or URL of a folder, optional
            Keeps what was gone through; a fit that is begun again goes on there.

        Returns
        -------
        self
        """
        run = begin(
            self, X, y, sample_weight, checkpoint=checkpoint, accept_sparse=True, target="labels"
        )
        l1, strength = self._penalties()
        self.classes_ = encode_labels(run)
        weights, class_weight = self._weights(run)
        if len(self.classes_) < 2:
            raise ValueError(
                "This solver needs samples of at least 2 classes in the data, but the data "
                f"contains only one class: {self.classes_[0]!r}"
            )
        total = positive_weight(float(weights.sum()))
        problem = Problem(run, len(self.classes_), self.fit_intercept, class_weight, total)
        problem.l1 = l1 * strength / total
        problem.l2 = (1.0 - l1) * strength / total
        start = self._warm_start(problem.size)
        point, iterations = problem.solve(self.solver, self.tol, self.max_iter, start)
        kind = np.float32 if run.x.dtype == np.float32 else np.float64
        coef, intercept = problem.parts(point)
        self.coef_ = np.atleast_2d(coef).astype(kind)
        self.intercept_ = np.atleast_1d(intercept).astype(kind)
        self.n_iter_ = np.array([iterations], dtype=np.int32)
        return self

    def _warm_start(self, size: int) -> Any:
        """The parameters of the fit before, if the estimator goes on from there."""
        if not (self.warm_start and hasattr(self, "coef_")):
            return None
        parts = [self.coef_]
        if self.fit_intercept:
            parts.append(np.broadcast_to(self.intercept_, len(self.coef_))[:, None])
        start = np.hstack(parts).astype(np.float64).ravel()
        if len(start) != size:
            raise ValueError(
                f"warm_start: coef_ of shape {self.coef_.shape} is of other classes or columns "
                "than these data have; set warm_start=False"
            )
        return start

    def _penalties(self) -> tuple[float, float]:
        """The share of l1, and the weight of the penalty beside a sum of losses."""
        penalty = getattr(self, "penalty", "deprecated")
        l1 = self.l1_ratio or 0.0
        strength = 1.0 / self.C if np.inf != self.C else 0.0
        if penalty != "deprecated":
            warnings.warn(
                "'penalty' was deprecated in version 1.8 and will be removed in 1.10. To avoid "
                "this warning, leave 'penalty' set to its default value and use 'l1_ratio' or 'C' "
                "instead.",
                FutureWarning,
                stacklevel=3,
            )
            if penalty == "elasticnet" and self.l1_ratio is None:
                raise ValueError("l1_ratio must be specified when penalty is elasticnet.")
            l1 = {"l2": 0.0, "l1": 1.0, None: 0.0}.get(penalty, l1)
            strength = 0.0 if penalty is None else strength
        if self.solver not in SOLVERS:
            raise InvalidArgumentError(
                f"solver={self.solver!r} goes over single rows in turn and is not taken here; use "
                f"one of {', '.join(SOLVERS)}"
            )
        if self.dual:
            raise ValueError(f"Solver {self.solver} supports only dual=False, got dual=True")
        if l1 and strength and self.solver != "saga":
            shown = "l1" if l1 == 1 else "elasticnet"
            raise ValueError(
                f"Solver {self.solver} supports only 'l2' or None penalties, got {shown} penalty."
            )
        return l1, strength

    def _weights(self, run: Passes) -> tuple[Any, Any]:
        """The weight of all rows of each class, and what multiplies those of its rows."""
        count = len(self.classes_)
        totals = run.run(label_weights, count)
        return balanced(self.class_weight, self.classes_, totals)


def balanced(class_weight: Any, classes: Any, totals: Any) -> tuple[Any, Any]:
    """The weights of classes after `class_weight`, and what their rows are multiplied by (None:
    nothing)."""
    if class_weight is None:
        return totals, None
    if isinstance(class_weight, str):  # "balanced": scikit-learn has checked it
        own = totals.sum() / (len(classes) * totals)
    else:
        own = np.array([float(class_weight.get(label, 1.0)) for label in classes.tolist()])
        unknown = [label for label in class_weight if label not in set(classes.tolist())]
        if unknown and len(own) - sum(c in class_weight for c in classes.tolist()) > 0:
            raise ValueError(
                f"The classes, {[c for c in classes.tolist() if c not in class_weight]}, are not "
                "in class_weight"
            )
    return totals * own, own


class Problem:
    """The mean loss of some rows with penalties, as a function of a vector of parameters.

    Parameters are the coefficients, by class if there are more than two, with the intercept last.
    """

    l1 = 0.0
    l2 = 0.0

    def __init__(
        self,
        run: Passes,
        classes: int,
        intercept: bool,
        class_weight: Any,
        total: float,
        loss: str = "binomial",
        options: Any = None,
    ) -> None:
        self._run = run
        self._classes = classes if classes > 2 else 1
        self._intercept = intercept
        self._class_weight = class_weight
        self._total = total
        self._loss = loss
        self._options = options
        self.size = self._classes * (run.p + intercept)

    def parts(self, point: Any) -> tuple[Any, Any]:
        """Coefficients and intercepts of a vector of parameters."""
        p = self._run.p
        table = point.reshape(self._classes, p + self._intercept)
        coef = table[:, :p]
        intercept = table[:, p] if self._intercept else np.zeros(self._classes)
        if self._classes == 1:
            return coef[0], float(intercept[0])
        return np.ascontiguousarray(coef), np.ascontiguousarray(intercept)

    def value(self, point: Any) -> tuple[float, Any]:
        """The loss and its gradient: one pass."""
        coef, intercept = self.parts(point)
        if self._classes == 1:
            total, by_coef, by_intercept = self._run.run(
                loss_gradient, coef, intercept, self._loss, self._options, self._class_weight
            )
        else:
            total, by_coef, by_intercept = self._run.run(
                multinomial_gradient, coef, intercept, self._class_weight
            )
        by_coef = by_coef / self._total + self.l2 * coef
        value = total / self._total + 0.5 * self.l2 * float((coef * coef).sum())
        parts = [np.atleast_2d(by_coef)]
        if self._intercept:
            parts.append(np.reshape(by_intercept, (-1, 1)) / self._total)
        return value, np.hstack(parts).ravel()

    def curved(self, point: Any) -> tuple[float, Any, Any]:
        """The loss, its gradient and its Hessian matrix: one pass."""
        coef, intercept = self.parts(point)
        p, count = self._run.p, self._classes
        if count == 1:
            total, gradient, hessian = self._run.run(
                loss_hessian, coef, intercept, self._loss, self._options, self._class_weight
            )
        else:
            total, gradient, hessian = self._run.run(
                multinomial_hessian, coef, intercept, self._class_weight
            )
        gradient = gradient.reshape(count, p + 1) / self._total
        hessian = hessian / self._total
        gradient[:, :p] += self.l2 * coef
        diagonal = np.zeros((count, p + 1))
        diagonal[:, :p] = self.l2
        hessian[np.diag_indices(len(hessian))] += diagonal.ravel()
        free = np.ones((count, p + 1), bool)
        free[:, p] = self._intercept
        kept = free.ravel()
        value = total / self._total + 0.5 * self.l2 * float((coef * coef).sum())
        return value, gradient.ravel()[kept], hessian[np.ix_(kept, kept)]

    def solve(
        self, solver: str, tol: float, max_iter: int, start: Any = None
    ) -> tuple[Any, int]:  # fmt: skip
        """The minimum and the number of iterations."""
        report = self._run.progress.iteration
        first = np.zeros(self.size) if start is None else start
        if self.l1:
            return self._sparse(tol, max_iter, first)
        if solver.startswith("newton"):
            return newton(
                self.curved, self.value, first, tol=tol, max_iter=max_iter, report=report,
                classes=self._classes,
            )  # fmt: skip
        return lbfgs(self.value, first, tol=tol, max_iter=max_iter, report=report)

    def _l1_of_each(self) -> Any:
        """The l1 penalty of each parameter; that of an intercept is 0."""
        p = self._run.p
        table = np.zeros((self._classes, p + self._intercept))
        table[:, :p] = self.l1
        return table.ravel()

    def _sparse(self, tol: float, max_iter: int, start: Any) -> tuple[Any, int]:
        """With an l1 penalty: over the positive and the negative part of each coefficient."""
        counted = self._l1_of_each()

        def split(both: Any) -> tuple[float, Any]:
            up, down = both.reshape(2, -1)
            value, gradient = self.value(up - down)
            value += float(counted @ (up + down))
            return value, np.concatenate([gradient + counted, counted - gradient])

        both, iterations = lbfgs(
            split,
            np.concatenate([np.maximum(start, 0.0), np.maximum(-start, 0.0)]),
            tol=tol,
            max_iter=max_iter,
            report=self._run.progress.iteration,
            nonnegative=True,
        )
        up, down = both.reshape(2, -1)
        return up - down, iterations
