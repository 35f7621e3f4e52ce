"""`LinearSVR` has the minimum that LIBLINEAR looks for, its penalised intercept included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import agentic_ray.array as xp
from agentic_ray import ml

RNG = np.random.default_rng(0)
N, P = 400, 5
X = RNG.standard_normal((N, P))
Y = X @ np.arange(1.0, P + 1) + 0.5 * RNG.standard_normal(N)
W = RNG.random(N) + 0.1
PLAIN, SQUARED = "epsilon_insensitive", "squared_epsilon_insensitive"


def objective(model: Any, x: Any, y: Any, weight: Any) -> float:
    """LIBLINEAR's: the intercept is penalised as a coefficient of a column of ``scaling``."""
    beyond = np.maximum(np.abs(y - x @ model.coef_ - model.intercept_[0]) - model.epsilon, 0.0)
    losses = beyond if model.loss == PLAIN else beyond**2
    own = model.intercept_[0] / model.intercept_scaling
    return float(0.5 * (model.coef_ @ model.coef_ + own**2) + model.C * (weight @ losses))


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weights"])
@pytest.mark.parametrize(
    ("far", "mean", "options"),
    [
        (0, 10, {"loss": PLAIN, "epsilon": 0.1}),
        (0, 1000, {"loss": PLAIN, "epsilon": 0.1}),
        (5, 10, {"loss": PLAIN, "epsilon": 0.3, "C": 0.1, "intercept_scaling": 10}),
        (0, 3, {"loss": PLAIN, "epsilon": 0.1, "C": 1e-3}),
        (0, 10, {"loss": SQUARED, "dual": False}),
        (0, 1000, {"loss": SQUARED, "dual": False, "epsilon": 0.1, "intercept_scaling": 100}),
    ],
    ids=str,
)
def test_the_intercept(far: float, mean: float, options: dict[str, Any], weighted: bool) -> None:
    x, y = X + far, Y + mean
    weight = W if weighted else np.ones(N)
    model = ml.LinearSVR(tol=1e-9, max_iter=1_000_000, random_state=0, **options)
    wanted = model.to_sklearn().fit(x, y, sample_weight=weight)
    for data in (x, xp.asarray(x, chunks=(90, 3))):
        model.fit(data, y, sample_weight=weight)
        # No higher than theirs, and at the same place as far as theirs has digits.
        assert objective(model, x, y, weight) <= objective(wanted, x, y, weight) * (1 + 1e-9)
        np.testing.assert_allclose(model.intercept_, wanted.intercept_, rtol=1e-5)
        scale = np.abs(wanted.coef_).max()
        np.testing.assert_allclose(model.coef_, wanted.coef_, atol=1e-5 * scale)
