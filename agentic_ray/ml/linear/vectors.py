"""Linear support vector machines over rows in chunks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import sklearn.svm as sk
from sklearn.svm._base import _get_liblinear_solver_type
from sklearn.svm._classes import _validate_dual_parameter

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.ml.base import Distributed, begin, encode_labels, positive_weight
from agentic_ray.ml.linear.logistic import Problem, balanced
from agentic_ray.ml.linear.losses import label_weights
from agentic_ray.ml.passes import Passes


class _Penalised(Problem):
    """A problem whose intercept is penalised like a coefficient of a constant column, as
    LIBLINEAR's is."""

    scaling = 1.0

    def value(self, point: Any) -> tuple[float, Any]:
        value, gradient = super().value(point)
        if self._intercept:
            value += 0.5 * self.l2 * (point[-1] / self.scaling) ** 2
            gradient[-1] += self.l2 * point[-1] / self.scaling**2
        return value, gradient

    def curved(self, point: Any) -> tuple[float, Any, Any]:
        value, gradient, hessian = super().curved(point)
        if self._intercept:
            value += 0.5 * self.l2 * (point[-1] / self.scaling) ** 2
            gradient[-1] += self.l2 * point[-1] / self.scaling**2
            hessian[-1, -1] += self.l2 / self.scaling**2
        return value, gradient, hessian

    def _l1_of_each(self) -> Any:
        found = super()._l1_of_each()
        if self._intercept:
            found[-1] = self.l1 / self.scaling
        return found


_WIDTHS = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""Widths over which corners of a loss are rounded. The minimum is a continuous, piecewise linear
function of the width, so the last two tell where it is at width 0."""


def _scaled_problem(
    self: Any, run: Passes, loss: str, options: Any, total: float, class_weight: Any
) -> _Penalised:
    problem = _Penalised(run, 2, self.fit_intercept, class_weight, total, loss, options)
    problem.scaling = float(self.intercept_scaling)
    strength = 1.0 / (self.C * total)
    if getattr(self, "penalty", "l2") == "l1":
        problem.l1 = strength
    else:
        problem.l2 = strength
    return problem


def _solved(
    self: Any, run: Passes, loss: str, options: Any, total: float, class_weight: Any
) -> tuple[Any, float, int]:
    """Coefficients, intercept and iterations of a problem whose loss has a gradient everywhere."""
    problem = _scaled_problem(self, run, loss, options, total, class_weight)
    # LIBLINEAR's tolerance is relative to the gradient where it starts.
    _, first = problem.value(np.zeros(problem.size))
    tol = min(self.tol, 1e-4) * 1e-3 * float(np.abs(first).max(initial=1e-300))
    point, iterations = problem.solve("newton", tol, self.max_iter)
    coef, intercept = problem.parts(point)
    return coef, intercept, iterations


def _solved_with_corners(
    self: Any, run: Passes, loss: str, beyond: Any, total: float, class_weight: Any
) -> tuple[Any, float, int]:
    """As `_solved`, of a loss with corners: they are rounded less and less, and each minimum is
    where the search for the next one starts."""
    point: Any = None
    before: Any = None
    iterations, unit = 0, 1.0
    for width in _WIDTHS:
        options = width * unit if beyond is None else (beyond, width * unit)
        problem = _scaled_problem(self, run, loss, options, total, class_weight)
        if point is None:
            point = np.zeros(problem.size)
            value, first = problem.value(point)
            if beyond is not None and value:  # residuals have the unit of the targets
                unit = float(value)
                options = (beyond, width * unit)
                problem = _scaled_problem(self, run, loss, options, total, class_weight)
            tol = min(self.tol, 1e-4) * 1e-3 * float(np.abs(first).max(initial=1e-300))
        before = point
        point, turns = problem.solve("newton", tol, max(1, self.max_iter - iterations), point)
        iterations += turns
    # The line through the last two minima, at width 0.
    point = point + (point - before) * _WIDTHS[-1] / (_WIDTHS[-2] - _WIDTHS[-1])
    coef, intercept = problem.parts(point)
    return coef, intercept, iterations


class LinearSVC(Distributed, sk.LinearSVC):
    """A linear support vector classifier; parameters as `sklearn.svm`'s.

    The minimum that LIBLINEAR has is found by Newton's method over rows in chunks, with
    ``loss="hinge"`` too, and with ``penalty="l1"`` by L-BFGS; ``dual`` makes no difference. Several
    classes are one against the rest: ``multi_class="crammer_singer"`` is refused.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.array([[0.0], [1.0], [3.0], [4.0]])
    >>> ml.LinearSVC().fit(X, [0, 0, 1, 1]).predict([[0.5], [3.5]])
    array([0, 1])
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, checkpoint: Any = None) -> Any:
        """Fit the model; some passes over the rows for each iteration and class.

        Parameters
        ----------
        X : array-like, sparse matrix, Array or Rows of shape (n_samples, n_features)
        y : array-like, Array or Rows of shape (n_samples,)
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
        if self.multi_class != "ovr":
            raise InvalidArgumentError(
                f"only multi_class='ovr' is taken here; given is {self.multi_class!r}"
            )
        dual = _validate_dual_parameter(self.dual, self.loss, self.penalty, self.multi_class, run.x)
        _get_liblinear_solver_type(self.multi_class, self.penalty, self.loss, dual)
        check_scaling(self)
        self.classes_ = encode_labels(run)
        count = len(self.classes_)
        if count < 2:
            raise ValueError(
                "This solver needs samples of at least 2 classes in the data, but the data "
                f"contains only one class: {self.classes_[0]!r}"
            )
        weights, class_weight = balanced(
            self.class_weight, self.classes_, run.run(label_weights, count)
        )
        codes = run.y
        assert codes is not None
        total = float(weights.sum())
        found = []
        for label in range(1, 2) if count == 2 else range(count):
            run.y = replace(codes, steps=(*codes.steps, Against(label)))
            own = None
            if class_weight is not None and count == 2:
                own = class_weight
            elif class_weight is not None:
                own = np.array([1.0, class_weight[label]])
                weights_here = run.run(label_weights, 2) * own
                total = float(weights_here.sum())
            if self.loss == "hinge":
                found.append(_solved_with_corners(self, run, "hinge", None, total, own))
            else:
                found.append(_solved(self, run, "squared_hinge", None, total, own))
        self.coef_ = np.array([coef for coef, _, _ in found])
        self.intercept_ = (
            np.array([intercept for _, intercept, _ in found]) if self.fit_intercept else 0.0
        )
        self.n_iter_ = max(iterations for _, _, iterations in found)
        return self


def check_scaling(self: Any) -> None:
    """Refuse an intercept that would have no column."""
    if self.fit_intercept and self.intercept_scaling <= 0:
        raise ValueError(
            f"Intercept scaling is {self.intercept_scaling!r} but needs to be greater than 0. To "
            "disable fitting an intercept, set fit_intercept=False."
        )


def weight_of_rows(x: Any, y: Any, w: Any) -> float:
    """The weight of the rows of a chunk."""
    return float(len(y) if w is None else np.sum(w))


class Against:
    """A step: 1 for rows of one class, 0 for all others."""

    def __init__(self, label: int) -> None:
        self._label = label

    def __call__(self, codes: Any) -> Any:
        return (codes == self._label).astype(np.float64)


class LinearSVR(Distributed, sk.LinearSVR):
    """Linear support vector regression; parameters as `sklearn.svm`'s.

    The minimum that LIBLINEAR has is found by Newton's method over rows in chunks; ``dual`` makes
    no difference.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.array([[0.0], [1.0], [2.0]])
    >>> model = ml.LinearSVR(loss="squared_epsilon_insensitive", C=1e6).fit(X, [0.0, 1.0, 2.0])
    >>> float(model.coef_[0].round(3))
    1.0
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, checkpoint: Any = None) -> Any:
        """Fit the model; some passes over the rows for each iteration.

        Parameters
        ----------
        X : array-like, sparse matrix, Array or Rows of shape (n_samples, n_features)
        y : array-like, Array or Rows of shape (n_samples,)
        sample_weight : array-like, Array or Rows of shape (n_samples,), optional
        checkpoint : path or URL of a folder, optional
            Keeps what was gone through; a fit that is begun again goes on there.

        Returns
        -------
        self
        """
        run = begin(
            self, X, y, sample_weight, checkpoint=checkpoint, accept_sparse=True, target="numeric"
        )
        dual = _validate_dual_parameter(self.dual, self.loss, "l2", "ovr", run.x)
        _get_liblinear_solver_type("ovr", "l2", self.loss, dual)
        check_scaling(self)
        total, beyond = positive_weight(run.run(weight_of_rows)), float(self.epsilon)
        if self.loss == "epsilon_insensitive":
            found = _solved_with_corners(self, run, "epsilon", beyond, total, None)
        else:
            found = _solved(self, run, "squared_epsilon", beyond, total, None)
        self.coef_, intercept, self.n_iter_ = found
        self.intercept_ = np.atleast_1d(intercept) if self.fit_intercept else 0.0
        return self
