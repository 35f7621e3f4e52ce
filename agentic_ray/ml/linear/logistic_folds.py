"""Logistic regression whose penalty is chosen by cross-validation, over rows in chunks."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import sklearn.linear_model as sk
from sklearn.linear_model._logistic import _check_solver
from sklearn.metrics import get_scorer, make_scorer
from sklearn.model_selection import check_cv
from sklearn.utils.metadata_routing import _raise_for_params, _routing_enabled, process_routing

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.ml.base import Distributed, begin, encode_labels, is_distributed, positive_weight
from agentic_ray.ml.chunks import Given, loaded
from agentic_ray.ml.data import Rows
from agentic_ray.ml.linear.logistic import (
    SOLVERS,
    LogisticRegression,
    Problem,
    balanced,
)
from agentic_ray.ml.linear.losses import label_weights
from agentic_ray.ml.passes import Passes
from agentic_ray.ml.scoring import for_chunks


@dataclass(frozen=True, eq=False)
class Labels:
    """A step: the label at each position among the classes."""

    classes: Any

    def __call__(self, codes: Any) -> Any:
        return self.classes[np.asarray(codes).astype(np.int64)]


def rows_of(column: Rows, positions: Any) -> Rows:
    """Rows at sorted positions; of small data in this process they are cut out once."""
    part = column.take(positions)
    if not part.is_here:
        return part
    chunks = tuple([loaded(chunk, part.steps) for chunk in part.source.arguments(True)[1]])
    return Rows(Given(chunks, part.source.nbytes, True), part.lengths, part.sample)


def part_of(run: Passes, positions: Any) -> Passes:
    """The passes over some of the rows of a run."""
    x, y, weight = [None if c is None else rows_of(c, positions) for c in run.columns]
    assert x is not None
    return Passes(x, y, weight, run.check, run._log, run.progress)


@dataclass(frozen=True)
class Path:
    """The settings of the models of one path."""

    classes: int
    fit_intercept: bool
    class_weight: Any
    solver: str
    tol: float
    max_iter: int

    def solve(
        self, run: Passes, strengths: Sequence[float], l1: float, start: Any = None
    ) -> tuple[Any, Any]:
        """Parameters and iterations for each strength of the penalty, of which ``l1`` is the share
        of l1; each fit starts where the one before it ended."""
        weights = run.run(label_weights, self.classes)
        if self.class_weight is not None:
            weights = weights * self.class_weight
        total = positive_weight(float(weights.sum()))
        problem = Problem(run, self.classes, self.fit_intercept, self.class_weight, total)
        points, turns = [], []
        point = np.zeros(problem.size) if start is None else start
        for strength in strengths:
            problem.l1, problem.l2 = l1 * strength / total, (1.0 - l1) * strength / total
            point, iterations = problem.solve(self.solver, self.tol, self.max_iter, point)
            points.append(point)
            turns.append(iterations)
        return np.array(points), np.array(turns, dtype=np.int32)


class LogisticRegressionCV(Distributed, sk.LogisticRegressionCV):
    """Logistic regression over rows in chunks whose penalty is chosen by cross-validation.

    Folds are cut once; in each the models follow each other from the least C to the greatest, and
    each starts where the one before it ended. Solvers are those of `LogisticRegression`. Folds
    depend on the labels, which come to this process, a number a row; so do predictions for a
    ``scoring`` that `agentic_ray.ml.metrics` does not have.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.linspace(-1, 1, 40)[:, None]
    >>> model = ml.LogisticRegressionCV(
    ...     Cs=[0.01, 1.0], l1_ratios=(0,), scoring="accuracy", use_legacy_attributes=False
    ... )
    >>> model.fit(X, X[:, 0] > 0).scores_.shape
    (5, 1, 2)
    """

    def fit(
        self: Any, X: Any, y: Any, sample_weight: Any = None, *, checkpoint: Any = None,
        **params: Any,
    ) -> Any:  # fmt: skip
        """Fit a model for each fold and penalty, and one with the best penalty on all rows.

        Parameters
        ----------
        X : array-like, sparse matrix, Array or Rows of shape (n_samples, n_features)
        y : array-like, Array or Rows of shape (n_samples,)
            Labels.
        sample_weight : array-like, Array or Rows of shape (n_samples,), optional
        checkpoint : path or URL of a folder, optional
            Keeps what was gone through; a fit that is begun again goes on there.
        **params
            For the splitter and the scorer, where metadata routing is on.

        Returns
        -------
        self
        """
        _raise_for_params(params, self, "fit")
        run = begin(
            self, X, y, sample_weight, checkpoint=checkpoint, accept_sparse=True,
            target="labels", dtype=("float64",),
        )  # fmt: skip
        ratios, scoring, legacy, penalty = self._options()
        self.classes_ = encode_labels(run)
        count = len(self.classes_)
        if count < 2:
            raise ValueError(
                "This solver needs samples of at least 2 classes in the data, but the data "
                f"contains only one class: {self.classes_[0]}."
            )
        given = self.class_weight
        if isinstance(given, dict) and not set(given) <= set(self.classes_.tolist()):
            raise ValueError(
                "The given class_weight dict must have the class labels as keys; "
                f"classes={self.classes_} but key={given.keys()}"
            )
        own = balanced(self.class_weight, self.classes_, run.run(label_weights, count))[1]
        splits, score_params = self._routed(X, run, params)
        path = Path(count, self.fit_intercept, own, self.solver, self.tol, self.max_iter)
        given = self.Cs
        whole = isinstance(given, int | np.integer)
        self.Cs_ = np.logspace(-4, 4, given) if whole else np.array(given)
        inverses = [0.0 if penalty is None or np.inf == C else 1.0 / C for C in self.Cs_]
        shares = [_share_of_l1(penalty, ratio) for ratio in ratios]
        scorer = self._fold_scorer(scoring)
        points = np.empty((len(splits), len(inverses), len(ratios)), dtype=object)
        scores = np.empty(points.shape)
        turns = np.empty(points.shape, dtype=np.int32)
        for fold, (train, test) in enumerate(splits):
            inside, outside = part_of(run, np.sort(train)), part_of(run, np.sort(test))
            for j, share in enumerate(shares):
                found, turns[fold, :, j] = path.solve(inside, inverses, share)
                for i, point in enumerate(found):
                    points[fold, i, j] = point
                    scores[fold, i, j] = self._score_on(outside, point, scorer, score_params)
        self.l1_ratios_ = np.asarray(ratios)
        self._learn(run, path, points, scores, inverses, shares, penalty)
        self._shape(points, scores, turns, ratios, legacy)
        return self

    # --- reading parameters ----------------------------------------------------------------

    def _options(self: Any) -> tuple[Any, Any, bool, Any]:
        """Ratios of l1, the scoring, whether attributes have their old shapes, and the penalty;
        warnings and errors are scikit-learn's."""
        given = self.l1_ratios
        if isinstance(given, str):
            _deprecated(
                "The default value for l1_ratios will change from None to (0.0,) in version 1.10. "
                "From version 1.10 onwards, only array-like with values in [0, 1] will be allowed, "
                "None will be forbidden. To avoid this warning, explicitly set a value, e.g. "
                "l1_ratios=(0,)."
            )
            given = None
        if self.penalty == "deprecated":
            if self.l1_ratios is None:
                _deprecated(
                    "'l1_ratios=None' was deprecated in version 1.8 and will trigger an error in "
                    "1.10. Use an array-like with valuesin [0, 1] instead."
                )
            if given is None or np.all(np.asarray(given) == 0):
                penalty: Any = "l2"
            else:
                penalty = "l1" if np.all(np.asarray(given) == 1) else "elasticnet"
        else:
            penalty = self.penalty
            _deprecated(
                "'penalty' was deprecated in version 1.8 and will be removed in 1.10. To avoid "
                "this warning, leave 'penalty' set to its default value and use 'l1_ratios' and "
                "'Cs' instead."
            )
        scoring = self.scoring
        if isinstance(scoring, str) and scoring == "warn":
            _deprecated(
                "The default value of the parameter 'scoring' will change from None, i.e. "
                "accuracy, to 'neg_log_loss' in version 1.11. To silence this warning, explicitly "
                "set the scoring parameter: scoring='neg_log_loss' for the new, "
                "scoring='accuracy' or scoring=None for the old default."
            )
            scoring = None
        legacy = self.use_legacy_attributes
        if isinstance(legacy, str):
            _deprecated(
                "The fitted attributes of LogisticRegressionCV will be simplified in scikit-learn "
                "1.10 to remove redundancy. Set`use_legacy_attributes=False` to enable the new "
                "behavior now, or set it to `True` to silence this warning during the transition "
                "period while keeping the deprecated behavior for the time being. The default "
                "value of use_legacy_attributes will change from True to False in scikit-learn "
                "1.10. See the docstring of LogisticRegressionCV for more details."
            )
            legacy = True
        _check_solver(self.solver, penalty, self.dual)
        if self.solver not in SOLVERS:
            raise InvalidArgumentError(
                f"solver={self.solver!r} goes over single rows in turn and is not taken here; use "
                f"one of {', '.join(SOLVERS)}"
            )
        return _ratios(given, penalty, self.penalty), scoring, legacy, penalty

    def _routed(self: Any, X: Any, run: Passes, params: Any) -> tuple[list[Any], dict[str, Any]]:
        """The folds, and what the scorer is given."""
        weight = run.weight
        to_splitter: dict[str, Any] = {}
        to_scorer = {} if weight is None else {"sample_weight": weight}
        if _routing_enabled():
            routed = process_routing(self, "fit", sample_weight=weight, **params)
            to_splitter, to_scorer = routed.splitter.split, routed.scorer.score
        assert run.y is not None
        codes = np.asarray(run.y.compute()).astype(np.int64)
        labels = self.classes_[codes]
        splitter = check_cv(self.cv, labels, classifier=True)
        shown = np.broadcast_to(np.zeros((1, 1)), (run.n, 1)) if is_distributed(X) else X
        return list(splitter.split(shown, labels, **to_splitter)), to_scorer

    def _get_scorer(self) -> Any:
        return for_chunks(super()._get_scorer())

    def score(self, X: Any, y: Any, *, sample_weight: Any = None, **score_params: Any) -> Any:
        """The score of ``scoring`` on data, in memory or in chunks.

        Parameters
        ----------
        X : array-like, sparse matrix, Array or Rows of shape (n_samples, n_features)
        y : array-like, Array or Rows of shape (n_samples,)
        sample_weight : array-like, Array or Rows of shape (n_samples,), optional
        **score_params
            For the scorer, where metadata routing is on.
        """
        return sk.LogisticRegressionCV.score(
            self, X, y, sample_weight=sample_weight, **score_params
        )

    def _fold_scorer(self: Any, scoring: Any) -> Any:
        """The scorer; one that takes ``labels`` is told all of them, since a fold may lack some."""
        scorer = get_scorer("accuracy" if scoring is None else scoring)
        function = getattr(scorer, "_score_func", None)
        taken = {} if function is None else inspect.signature(function).parameters
        if "labels" in taken:
            more: dict[str, Any] = {"labels": self.classes_}
            if len(self.classes_) == 2 and "pos_label" in taken:
                more["pos_label"] = self.classes_[-1]
            scorer = make_scorer(
                function, greater_is_better=scorer._sign == 1,
                response_method=scorer._response_method, **more, **scorer._kwargs,
            )  # fmt: skip
        return for_chunks(scorer)

    # --- folds ----------------------------------------------------------------------------

    def _score_on(self: Any, run: Passes, point: Any, scorer: Any, params: Any) -> float:
        """The score of a model on the rows that were left out."""
        model = LogisticRegression(solver=self.solver)
        model.classes_ = self.classes_
        p = run.p
        table = np.reshape(point, (-1, p + bool(self.fit_intercept)))
        model.coef_ = np.ascontiguousarray(table[:, :p])
        model.intercept_ = table[:, p].copy() if self.fit_intercept else np.zeros(len(table))
        model.n_features_in_ = p
        if run.x.columns is not None and hasattr(self, "feature_names_in_"):
            model.feature_names_in_ = self.feature_names_in_
        assert run.y is not None
        labels = replace(
            run.y, steps=(*run.y.steps, Labels(self.classes_)), sample=self.classes_[:1]
        )
        own = {name: run.weight if isinstance(v, Rows) else v for name, v in params.items()}
        return float(scorer(model, run.x, labels, **own))

    def _learn(
        self: Any, run: Passes, path: Path, points: Any, scores: Any, strengths: Any, shares: Any,
        penalty: Any,
    ) -> None:  # fmt: skip
        """Coefficients by the best penalty: of a fit on all rows, or of the means over folds."""
        if self.refit:
            total = scores.sum(axis=0)
            i, j = np.unravel_index(np.argmax(total), total.shape)
            best: Any = (self.Cs_[i], self.l1_ratios_[j])
            start = np.mean([points[fold, i, j] for fold in range(len(points))], axis=0)
            found, _ = path.solve(run, [strengths[i]], shares[j], start)
            point = found[0]
        else:
            flat = scores.reshape(len(scores), -1)
            at = [np.unravel_index(k, scores.shape[1:]) for k in np.argmax(flat, axis=1)]
            point = np.mean([points[fold, i, j] for fold, (i, j) in enumerate(at)], axis=0)
            mixed = penalty == "elasticnet"
            ratio = np.mean([self.l1_ratios_[j] for _, j in at]) if mixed else 0.0
            best = (np.mean([self.Cs_[i] for i, _ in at]), ratio)
        table = np.reshape(point, (-1, run.p + bool(self.fit_intercept)))
        count = len(table)
        self.coef_ = np.ascontiguousarray(table[:, : run.p])
        self.intercept_ = table[:, run.p].copy() if self.fit_intercept else np.zeros(count)
        self.C_ = np.tile([best[0]], count)
        self.l1_ratio_ = np.tile([best[1]], count)

    def _shape(self: Any, points: Any, scores: Any, turns: Any, ratios: Any, legacy: bool) -> None:
        """Scores, iterations and paths of coefficients in the shapes of scikit-learn's."""
        folds, strengths, kinds = points.shape
        count = len(self.coef_)
        paths = np.array([point.reshape(count, -1) for point in points.ravel()])
        paths = paths.reshape(folds, strengths, kinds, count, -1)
        if not legacy:
            self.C_ = float(self.C_[0])
            given = ratios[0] is not None
            self.l1_ratio_ = float(self.l1_ratio_[0]) if given else float(self.penalty == "l1")
            self.coefs_paths_ = np.moveaxis(paths, 1, 2)
            self.scores_ = np.swapaxes(scores, 1, 2)
            self.n_iter_ = np.swapaxes(turns, 1, 2)
            return
        classes = self.classes_[1:] if len(self.classes_) == 2 else self.classes_
        self.n_iter_ = turns[None]
        self.scores_ = {label: scores.copy() for label in classes}
        self.coefs_paths_ = {
            label: np.ascontiguousarray(paths[..., at, :]) for at, label in enumerate(classes)
        }
        if ratios[0] is None:
            self.n_iter_ = self.n_iter_[..., 0]
            self.scores_ = {label: part[:, :, 0] for label, part in self.scores_.items()}
            self.coefs_paths_ = {
                label: part[:, :, 0, :] for label, part in self.coefs_paths_.items()
            }


def _share_of_l1(penalty: Any, ratio: Any) -> float:
    """The share of l1 in a penalty."""
    return float({"l1": 1.0, "l2": 0.0, None: 0.0}.get(penalty, ratio))


def _ratios(given: Any, penalty: Any, asked: Any) -> Any:
    """The shares of l1 to be tried; ``[None]`` where none was given."""
    if penalty == "elasticnet" and (
        given is None
        or len(given) == 0
        or any(not isinstance(r, int | float | np.number) or not 0 <= r <= 1 for r in given)
    ):
        raise ValueError(
            f"l1_ratios must be an array-like of numbers between 0 and 1; got (l1_ratios={given!r})"
        )
    if penalty != "elasticnet" and given is not None and asked != "deprecated":
        warnings.warn(
            "l1_ratios parameter is only used when penalty is 'elasticnet'. Got "
            f"(penalty={penalty})",
            UserWarning,
            stacklevel=4,
        )
    return [None] if given is None else list(given)


def _deprecated(text: str) -> None:
    warnings.warn(text, FutureWarning, stacklevel=4)
