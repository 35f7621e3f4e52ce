"""Fitted estimators and pipelines as ONNX models, by skl2onnx: the extra ``agentic-ray[onnx]``."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from agentic_ray.errors import InvalidArgumentError, InvalidTypeError
from agentic_ray.ml.base import Distributed, as_sklearn
from agentic_ray.ml.data import Rows
from agentic_ray.ml.onnx_model import OnnxModel, needed

_PROBES = 64
"""Rows on which a converted model is compared with the one it was made of."""
_CLOSE = {"float64": 1e-6, "float32": 1e-3}
"""Largest difference between predictions of the ONNX model and of ours, relative to the largest
prediction."""
_MOST_OTHERS = 0.02
"""Share of labels that may be others: of rows that lie on a border, which rounding decides."""
_OPSETS = (None, {"": 18, "ai.onnx.ml": 3})
"""Versions of operators to convert to: the newest that skl2onnx knows, or those that all of its
converters take."""


def to_onnx(model: Any, sample: Any = None) -> Any:
    """Convert a fitted estimator or pipeline to ONNX, by skl2onnx, and compare the predictions.

    Parameters
    ----------
    model : estimator or Pipeline
        Of this package or of scikit-learn.
    sample : array, DataFrame or Rows of some rows, optional
        Tells the types of the inputs: a matrix is one input, each column of a DataFrame one of its
        name. Default: a matrix of float64, or of float32 where skl2onnx cannot convert the model
        for float64. On these rows (random ones by default) the ONNX model must predict what the
        model does.

    Returns
    -------
    onnx.ModelProto
        ``SerializeToString()`` gives its bytes, for a file or a server. Probabilities are an array.

    Raises
    ------
    ModuleNotFoundError
        The extra ``agentic-ray[onnx]`` is not installed.
    InvalidTypeError
        skl2onnx cannot convert the model, or converts it to one that predicts something else.
    InvalidArgumentError
        The columns of the model cannot be known without a sample.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.array([[0.0, 1.0], [1.0, 0.5], [2.0, 3.0]])
    >>> model = ml.LinearRegression().fit(X, [0.0, 1.0, 2.0])
    >>> bool(np.allclose(ml.OnnxModel(ml.to_onnx(model)).predict(X), model.predict(X)))
    True
    """
    skl2onnx = needed("skl2onnx")
    needed("onnxruntime")
    if not isinstance(model, BaseEstimator):
        raise InvalidTypeError(f"to_onnx takes a fitted estimator, not a {type(model).__name__}")
    check_is_fitted(model)
    twin = model._for_steps() if isinstance(model, Distributed) else as_sklearn(model)
    given = None if sample is None else _rows_of(sample)
    reasons = []
    kinds = [given] if given is not None else _probes(twin)
    for rows, opset in itertools.product(kinds, _OPSETS):
        try:
            made = _converted(skl2onnx, twin, rows, opset)
        # skl2onnx raises anything, a plain Exception too
        except Exception as error:
            reasons.append(" ".join(str(_root(error)).split())[:300])
            continue
        differs = _difference(made, twin, rows)
        if differs is None:
            return made
        reasons.append(differs)
    raise InvalidTypeError(
        f"skl2onnx has no converter for this {type(twin).__name__} that gives its predictions "
        f"({'; '.join(dict.fromkeys(reasons))}). model.to_sklearn() is served without this package"
    )


def _root(error: BaseException) -> BaseException:
    """The error that an error came from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _rows_of(sample: Any) -> Any:
    """Some rows, as an array or a DataFrame."""
    if isinstance(sample, Rows):
        sample = sample[: min(len(sample), _PROBES)].compute()
    elif hasattr(sample, "compute"):
        sample = sample[:_PROBES].compute()
    if hasattr(sample, "iloc"):
        return sample.iloc[:_PROBES]
    sample = np.asarray(sample)[:_PROBES]
    if sample.ndim != 2 or not len(sample):
        raise InvalidArgumentError(
            f"sample must be some rows, of shape (n_samples, n_features), not {sample.shape}"
        )
    return sample


def _probes(model: Any) -> Iterator[Any]:
    """Random rows of float64, and the same of float32; both types have all their values."""
    count = getattr(model, "n_features_in_", None)
    if count is None or _has_columns(model):
        raise InvalidArgumentError(
            f"the columns of this {type(model).__name__} are not known: give to_onnx some rows of "
            "what it predicts, as sample="
        )
    drawn = np.random.default_rng(0).standard_normal((_PROBES, int(count))).astype(np.float32)
    if get_tags(model).input_tags.positive_only:
        drawn = np.abs(drawn) + np.float32(0.5)
    if get_tags(model).input_tags.categorical:
        categories = getattr(model, "categories_", None)
        if categories is not None:
            columns = [np.resize(own, _PROBES) for own in categories]
            if any(own.dtype.kind not in "fiu" for own in categories):
                yield np.column_stack([np.asarray(column, dtype=object) for column in columns])
                return
            drawn = np.column_stack(columns).astype(np.float32)
    yield drawn.astype(np.float64)
    yield drawn


def _has_columns(model: Any) -> bool:
    """Whether columns are chosen by their names somewhere in a model."""
    if hasattr(model, "transformers_"):
        return True
    steps = getattr(model, "steps", None) or getattr(model, "transformer_list", None) or []
    return any(_has_columns(step[1]) for step in steps)


def _converted(skl2onnx: Any, model: Any, rows: Any, opset: Any) -> Any:
    last = model.steps[-1][1] if isinstance(model, Pipeline) else model
    options = {id(last): {"zipmap": False}}
    if get_tags(last).estimator_type == "classifier":
        try:
            return skl2onnx.to_onnx(model, rows, options=options, target_opset=opset)
        except NameError:  # it has no such option
            pass
    return skl2onnx.to_onnx(model, rows, target_opset=opset)


def _difference(made: Any, model: Any, rows: Any) -> str | None:
    """Say what an ONNX model predicts otherwise than the model; None: nothing."""
    try:
        twin = OnnxModel(made)
        for method in ("predict", "predict_proba", "transform"):
            if not hasattr(model, method) or (method == "transform" and hasattr(model, "predict")):
                continue
            wanted = getattr(model, method)(rows)
            wanted = wanted.toarray() if hasattr(wanted, "toarray") else np.asarray(wanted)
            found = np.asarray(getattr(twin, method)(rows))
            if found.shape != wanted.shape:
                return f"its {method} has the shape {found.shape}, not {wanted.shape}"
            if not _alike(found, wanted, np.asarray(rows).dtype):
                return f"its {method} gives other values"
    except InvalidTypeError as error:
        return str(error)
    except Exception as error:  # ONNX Runtime has its own classes for all kinds of errors
        return f"the predictions cannot be compared: {' '.join(str(error).split())[:300]}"
    return None


def _alike(found: Any, wanted: Any, kind: np.dtype[Any]) -> bool:
    if wanted.dtype.kind != "f":
        return float(np.mean(found != wanted)) <= _MOST_OTHERS
    if not np.array_equal(np.isnan(found), np.isnan(wanted)):
        return False
    scale = float(np.nanmax(np.abs(wanted), initial=0.0)) or 1.0
    apart = np.nan_to_num(np.abs(found - wanted)) > _CLOSE.get(kind.name, 1e-3) * scale
    return float(np.mean(apart.reshape(len(apart), -1).any(axis=1))) <= _MOST_OTHERS
