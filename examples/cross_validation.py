"""Choose the degree and the ridge strength of a polynomial fit by k-fold cross-validation.

    python examples/cross_validation.py --folds 10
    python examples/cross_validation.py --csv points.csv --x speed --y distance

Each combination of degree, strength and fold is one logical task: a plain Python function, which
runs in worker processes. Without ``--csv`` the points are a noisy sine.
"""

from __future__ import annotations

import argparse
import functools
import itertools

import numpy as np

import agentic_ray as ar

Scores = dict[tuple[int, float], tuple[float, int]]
"""Sum of squared errors and number of predictions by degree and strength."""


def points(csv: str | None, x: str, y: str) -> tuple[np.ndarray, np.ndarray]:
    """Shuffled points, with ``x`` scaled to -1..1."""
    generator = np.random.default_rng(0)
    if csv is None:
        xs = generator.uniform(-1, 1, 4000)
        ys = np.sin(4 * xs) + generator.normal(0, 0.3, xs.size)
    else:
        import pyarrow.csv

        table = pyarrow.csv.read_csv(csv).select([x, y]).drop_null()
        xs, ys = (column.to_numpy().astype(float) for column in table.columns)
        xs = 2 * (xs - xs.min()) / np.ptp(xs) - 1
    order = generator.permutation(xs.size)
    return xs[order], ys[order]


def score(task: tuple[int, float, int], *, xs: np.ndarray, ys: np.ndarray, folds: int) -> Scores:
    """Errors on one fold of the polynomial fitted to the other folds."""
    degree, strength, fold = task
    held_out = np.arange(xs.size) % folds == fold
    basis = np.polynomial.chebyshev.chebvander(xs, degree)
    train = basis[~held_out]
    gram = train.T @ train + strength * np.eye(degree + 1)
    weights = np.linalg.solve(gram, train.T @ ys[~held_out])
    errors = basis[held_out] @ weights - ys[held_out]
    return {(degree, strength): (float(errors @ errors), int(held_out.sum()))}


def merge(left: Scores, right: Scores) -> Scores:
    merged = dict(left)
    for key, (error, count) in right.items():
        known = merged.get(key, (0.0, 0))
        merged[key] = (known[0] + error, known[1] + count)
    return merged


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--csv", help="a file with the points")
    parser.add_argument("--x", default="x", help="column to predict from")
    parser.add_argument("--y", default="y", help="column to predict")
    parser.add_argument("--folds", type=int, default=10)
    parser.add_argument("--degrees", type=int, nargs="+", default=list(range(1, 16)))
    parser.add_argument("--strengths", type=float, nargs="+", default=[1e-6, 1e-2, 1.0, 100.0])
    options = parser.parse_args()
    if options.folds < 2:
        parser.error("--folds must be at least 2")

    tasks = list(itertools.product(options.degrees, options.strengths, range(options.folds)))
    xs, ys = points(options.csv, options.x, options.y)
    # The data travels with the function, once per worker process.
    fit = functools.partial(score, xs=xs, ys=ys, folds=options.folds)
    scores = ar.map_reduce(fit, tasks, merge)
    print(f"{len(tasks)} fits; the five best of {len(scores)} combinations by error on unseen data")
    best = sorted((error / count, *key) for key, (error, count) in scores.items())
    for mean_square, degree, strength in best[:5]:
        print(f"degree {degree:2}  strength {strength:8.0e}  error {mean_square**0.5:.4f}")


if __name__ == "__main__":
    main()
