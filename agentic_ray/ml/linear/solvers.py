"""Minimisers of smooth losses, whose values come from passes over the rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import scipy.linalg
import scipy.optimize
from sklearn.exceptions import ConvergenceWarning

Value: TypeAlias = tuple[float, Any]
"""A loss and its gradient."""


def lbfgs(
    function: Callable[[Any], Value],
    start: Any,
    *,
    tol: float,
    max_iter: int,
    report: Callable[[float], None],
    nonnegative: bool = False,
) -> tuple[Any, int]:
    """SciPy's L-BFGS with the options that scikit-learn uses.

    Returns
    -------
    array, int
        The minimum and the number of iterations.
    """
    last = [np.inf]

    def noted(point: Any) -> Value:
        value, gradient = function(point)
        last[0] = value
        return value, gradient

    options = {
        "maxiter": max_iter,
        "maxls": 50,
        "gtol": tol,
        "ftol": 64 * np.finfo(float).eps,
    }
    bounds = [(0.0, np.inf)] * start.size if nonnegative else None
    found = scipy.optimize.minimize(
        noted,
        start,
        method="L-BFGS-B",
        jac=True,
        bounds=bounds,
        options=options,
        callback=lambda _: report(last[0]),
    )
    if found.status == 1:
        _tell(f"lbfgs failed to converge after {found.nit} iteration(s)", max_iter)
    elif found.status == 2 and found.nit == 0 and not np.isfinite(found.fun):
        _tell(f"lbfgs failed to converge: {found.message}", max_iter)
    return found.x, min(int(found.nit), max_iter)


def newton(
    function: Callable[[Any], tuple[float, Any, Any]],
    value_of: Callable[[Any], Value],
    start: Any,
    *,
    tol: float,
    max_iter: int,
    report: Callable[[float], None],
    classes: int = 1,
) -> tuple[Any, int]:
    """Newton's method with a line search by halves.

    A Hessian matrix that is singular (an intercept for each of several classes is one too many)
    has the shortest of its steps taken. Where the matrix has lost the digits that a step needs,
    L-BFGS goes on, which needs none of it.

    Parameters
    ----------
    classes : int
        The parameters are a table of so many rows, one for each class.

    Raises
    ------
    ValueError
        The gradient or the Hessian matrix overflows.
    """
    point = start
    iterations = 0
    for iterations in range(1, max_iter + 1):
        value, gradient, hessian = function(point)
        if np.abs(gradient).max(initial=0.0) <= tol:
            return point, iterations - 1
        if not (np.isfinite(gradient).all() and np.isfinite(hessian).all()):
            raise ValueError("Input X contains values too large for sums of their squares.")
        solution, is_exact = _solved(hessian, gradient, classes)
        if not is_exact:
            more, turns = lbfgs(
                value_of, point, tol=tol, max_iter=max_iter - iterations + 1, report=report
            )
            return more, iterations - 1 + turns
        step = -solution
        slope = float(gradient @ step)
        if slope >= 0:  # curvature that is no curvature: go downhill
            step, slope = -gradient, -float(gradient @ gradient)
        length, tiny = 1.0, 16 * np.finfo(float).eps * abs(value)
        for _ in range(30):
            there, _unused = value_of(point + length * step)
            if there <= value + 1e-4 * length * slope + tiny:
                break
            length *= 0.5
        else:
            _tell("the line search of Newton's method found no lower loss", max_iter)
            return point, iterations
        point = point + length * step
        report(there)
        if -slope / 2 <= tol and np.abs(length * slope) <= tiny:
            return point, iterations
    _, gradient, _ = function(point)
    if np.abs(gradient).max(initial=0.0) > tol:
        _tell(f"Newton's method did not converge after {iterations} iterations", max_iter)
    return point, iterations


def _solved(hessian: Any, gradient: Any, classes: int) -> tuple[Any, bool]:
    """The solution of ``hessian @ x = gradient``, and whether it solves the equations.

    The equations are scaled first, so that columns of X of different magnitudes lose no digits.
    All classes share the scale of a column: so the shortest solution of a singular system is the
    one whose parameters sum to zero over the classes.
    """
    diagonal = np.abs(np.diag(hessian)).reshape(classes, -1).mean(axis=0)
    scale = np.tile(np.where(diagonal > 0, np.sqrt(diagonal), 1.0), classes)
    scaled, right = hessian / scale[:, None] / scale, gradient / scale
    try:
        factor = scipy.linalg.cho_factor(scaled, check_finite=False)
        pivots = np.abs(np.diag(factor[0]))
        if pivots.min() > 1e-7 * pivots.max():
            return scipy.linalg.cho_solve(factor, right, check_finite=False) / scale, True
    except scipy.linalg.LinAlgError:
        pass  # singular: the shortest solution below
    found = scipy.linalg.lstsq(scaled, right, cond=1e-12, check_finite=False)[0]
    rest = np.abs(scaled @ found - right).max(initial=0.0)
    return found / scale, bool(rest <= 1e-6 * np.abs(right).max(initial=0.0))


def _tell(what: str, max_iter: int) -> None:
    warnings.warn(
        f"{what}.\nIncrease the number of iterations (max_iter={max_iter}) or scale the data as "
        "shown in https://scikit-learn.org/stable/modules/preprocessing.html",
        ConvergenceWarning,
        stacklevel=4,
    )
