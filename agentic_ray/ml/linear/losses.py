"""Losses of linear models as sums over rows: values, gradients and curvatures by chunk.

Each is a function of the linear predictor, written over NumPy or CuPy. A chunk is gone through in
blocks that stay in cache: the predictor, the loss and the gradient of a block are made before the
next is read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.special import expit

from agentic_ray.ml.passes import row_blocks


def _expit(raw: Any, xp: Any) -> Any:
    return expit(raw) if xp is np else 1.0 / (1.0 + xp.exp(-raw))


def binomial(raw: Any, y: Any, options: Any, xp: Any) -> Any:
    """Loss of each row, its derivative and its second derivative by the predictor; y is 0 or 1."""
    probability = _expit(raw, xp)
    # log(1 + exp(raw)) without overflow
    value = xp.log1p(xp.exp(-xp.abs(raw))) + xp.maximum(raw, 0.0) - y * raw
    return value, probability - y, probability * (1.0 - probability)


def poisson(raw: Any, y: Any, options: Any, xp: Any) -> Any:
    """Half the Poisson deviance, less what does not depend on the predictor; log link."""
    mean = xp.exp(raw)
    return mean - y * raw, mean - y, mean


def gamma(raw: Any, y: Any, options: Any, xp: Any) -> Any:
    """Half the gamma deviance, likewise."""
    ratio = y * xp.exp(-raw)
    return raw + ratio, 1.0 - ratio, ratio


def tweedie(raw: Any, y: Any, options: Any, xp: Any) -> Any:
    """Half the Tweedie deviance of a power, likewise; log link unless the options say identity."""
    power, identity = options
    if identity:
        return _tweedie_identity(raw, y, power, xp)
    if power == 0:
        mean = xp.exp(raw)
        return 0.5 * (y - mean) ** 2, mean * (mean - y), mean * (2 * mean - y)
    if power == 1:
        return poisson(raw, y, None, xp)
    if power == 2:
        return gamma(raw, y, None, xp)
    one, two = xp.exp((1 - power) * raw), xp.exp((2 - power) * raw)
    value = two / (2 - power) - y * one / (1 - power)
    return value, two - y * one, (2 - power) * two - (1 - power) * y * one


def _tweedie_identity(mean: Any, y: Any, power: float, xp: Any) -> Any:
    if power == 0:
        return 0.5 * (y - mean) ** 2, mean - y, xp.ones_like(mean)
    mean = xp.where(mean > 0, mean, np.nan)
    first = mean ** (-power)
    if power == 1:
        value = mean - y * xp.log(mean)
    elif power == 2:
        value = xp.log(mean) + y / mean
    else:
        value = mean ** (2 - power) / (2 - power) - y * mean ** (1 - power) / (1 - power)
    slope = first * (mean - y)
    return value, slope, (1 - power) * first + power * y * mean ** (-power - 1)


def squared_hinge(raw: Any, y: Any, options: Any, xp: Any) -> Any:
    """Return the loss of a linear support vector machine; y is 0 or 1."""
    sign = 2.0 * y - 1.0
    margin = xp.maximum(1.0 - sign * raw, 0.0)
    return margin * margin, -2.0 * sign * margin, 2.0 * (margin > 0)


def hinge(raw: Any, y: Any, options: Any, xp: Any) -> Any:
    """The hinge with its corner rounded over a width, which the options give; y is 0 or 1."""
    sign = 2.0 * y - 1.0
    value, slope, curve = _rounded(1.0 - sign * raw, options, xp)
    return value, -sign * slope, curve


def epsilon(raw: Any, y: Any, options: Any, xp: Any) -> Any:
    """The distance of a residual beyond epsilon, with the corners rounded over a width; the options
    give both."""
    apart = raw - y
    beyond, width = options
    value, slope, curve = _rounded(xp.abs(apart) - beyond, width, xp)
    return value, slope * xp.sign(apart), curve


def _rounded(over: Any, width: float, xp: Any) -> Any:
    """``max(over, 0)`` with a parabola from 0 to ``width``, its slope and its curvature."""
    part = xp.clip(over / width, 0.0, 1.0)
    value = part * (over - 0.5 * width * part)
    return value, part, xp.where((over > 0) & (over < width), 1.0 / width, 0.0)


def squared_epsilon(raw: Any, y: Any, options: Any, xp: Any) -> Any:
    """The square of what a residual is beyond epsilon."""
    apart = raw - y
    over = xp.maximum(xp.abs(apart) - options, 0.0)
    return over * over, 2.0 * over * xp.sign(apart), 2.0 * (over > 0)


def squared(raw: Any, y: Any, options: Any, xp: Any) -> Any:
    """Half the square of the residual."""
    apart = raw - y
    return 0.5 * apart * apart, apart, xp.ones_like(apart)


LOSSES = {
    loss.__name__: loss
    for loss in (
        binomial, poisson, gamma, tweedie, hinge, epsilon, squared_hinge, squared_epsilon, squared,
    )
}  # fmt: skip


def loss_gradient(
    x: Any, y: Any, w: Any, coef: Any, intercept: Any, loss: str, options: Any, class_weight: Any,
    *, xp: Any = np,
) -> Any:  # fmt: skip
    """Sums over rows of the loss and of its gradient by coefficients and intercept."""
    function = LOSSES[loss]
    total, gradient, constant = 0.0, xp.zeros(x.shape[1]), 0.0
    for rows in row_blocks(x):
        block = x[rows]
        raw = block @ coef + intercept
        value, slope, _ = function(raw, y[rows], options, xp)
        own = _weights(w, y, class_weight, rows, xp)
        if own is not None:
            value, slope = value * own, slope * own
        total = total + value.sum()
        constant = constant + slope.sum()
        gradient += block.T @ slope
    return float(total), gradient, float(constant)


def loss_hessian(
    x: Any, y: Any, w: Any, coef: Any, intercept: Any, loss: str, options: Any, class_weight: Any,
    *, xp: Any = np,
) -> Any:  # fmt: skip
    """Return the loss, the gradient and the Hessian matrix; the intercept is the last parameter."""
    function = LOSSES[loss]
    p = x.shape[1]
    total, gradient, hessian = 0.0, xp.zeros(p + 1), xp.zeros((p + 1, p + 1))
    for rows in row_blocks(x):
        block = x[rows]
        raw = block @ coef + intercept
        value, slope, curve = function(raw, y[rows], options, xp)
        own = _weights(w, y, class_weight, rows, xp)
        if own is not None:
            value, slope, curve = value * own, slope * own, curve * own
        curve = xp.maximum(curve, 0.0)
        total = total + value.sum()
        gradient[:p] += block.T @ slope
        gradient[p] += slope.sum()
        _add_curvature(hessian, block, curve, xp)
    return float(total), gradient, hessian


def _add_curvature(hessian: Any, block: Any, curve: Any, xp: Any) -> None:
    p = block.shape[1]
    if sp.issparse(block):
        hessian[:p, :p] += (block.T @ (sp.diags_array(curve) @ block)).toarray()
        own = block.T @ curve
    else:
        root = xp.sqrt(curve)
        scaled = block * root[:, None]
        hessian[:p, :p] += scaled.T @ scaled
        own = scaled.T @ root
    hessian[:p, p] += own
    hessian[p, :p] += own
    hessian[p, p] += curve.sum()


def _weights(w: Any, y: Any, class_weight: Any, rows: slice, xp: Any) -> Any:
    """The weights of rows: their own times that of their class."""
    if class_weight is None:
        return None if w is None else w[rows]
    of_class = class_weight[y[rows].astype(np.int64)]
    return of_class if w is None else of_class * w[rows]


# --- several classes -------------------------------------------------------------------------


def multinomial_gradient(
    x: Any, y: Any, w: Any, coef: Any, intercept: Any, class_weight: Any, *, xp: Any = np
) -> Any:
    """Sums over rows of the loss (minus the log of a softmax) and its gradient; y is 0 … K - 1."""
    total, gradient, constant = 0.0, xp.zeros(coef.shape), xp.zeros(len(coef))
    for rows in row_blocks(x):
        block = x[rows]
        value, slope, _ = _softmax(block @ coef.T + intercept, y[rows], xp)
        own = _weights(w, y, class_weight, rows, xp)
        if own is not None:
            value, slope = value * own, slope * own[:, None]
        total = total + value.sum()
        constant += slope.sum(axis=0)
        gradient += (block.T @ slope).T
    return float(total), gradient, constant


def _softmax(raw: Any, y: Any, xp: Any) -> Any:
    codes = y.astype(np.int64)
    places = xp.arange(len(codes))
    raw = raw - raw.max(axis=1)[:, None]
    own = raw[places, codes]
    powers = xp.exp(raw)
    sums = powers.sum(axis=1)
    probability = powers / sums[:, None]
    slope = probability.copy()
    slope[places, codes] -= 1.0
    return xp.log(sums) - own, slope, probability


def multinomial_hessian(
    x: Any, y: Any, w: Any, coef: Any, intercept: Any, class_weight: Any, *, xp: Any = np
) -> Any:
    """Return the loss, the gradient and the Hessian matrix; parameters by class, the intercept last
    in each."""
    count, p = coef.shape
    size = p + 1
    total, gradient = 0.0, xp.zeros((count, size))
    hessian = xp.zeros((count * size, count * size))
    for rows in row_blocks(x):
        block = x[rows]
        block = block.toarray() if sp.issparse(block) else block
        wide = xp.concatenate([block, xp.ones((block.shape[0], 1))], axis=1)
        value, slope, probability = _softmax(block @ coef.T + intercept, y[rows], xp)
        own = _weights(w, y, class_weight, rows, xp)
        if own is None:
            own = xp.ones(len(value))
        total = total + (value * own).sum()
        gradient += (wide.T @ (slope * own[:, None])).T
        for i in range(count):
            for j in range(i, count):
                curve = -probability[:, i] * probability[:, j] * own
                if i == j:
                    curve = curve + probability[:, i] * own
                part = wide.T @ (wide * curve[:, None])
                here, there = slice(i * size, (i + 1) * size), slice(j * size, (j + 1) * size)
                hessian[here, there] += part
                if i != j:
                    hessian[there, here] += part.T
    return float(total), gradient, hessian


def label_weights(x: Any, y: Any, w: Any, count: int) -> Any:
    """The weight of each class; y is 0 … count - 1."""
    return np.bincount(y.astype(np.int64), w, count).astype(np.float64)
