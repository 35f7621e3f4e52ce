"""Base of all estimators: scikit-learn's classes with another way to fit.

An estimator of this package derives from scikit-learn's of the same name. Parameters, their
checks, tags, metadata routing and prediction are scikit-learn's; `fit` goes over chunks, and so do
prediction and transformation of arrays and rows in chunks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp
import sklearn
from sklearn.base import BaseEstimator
from sklearn.utils import check_array, check_consistent_length, check_random_state, get_tags
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

import agentic_ray.array as xp
from agentic_ray.array import Array
from agentic_ray.array.core import evaluate
from agentic_ray.errors import InvalidTypeError
from agentic_ray.graph import content_key
from agentic_ray.ml.checkpoints import Log, both_fingerprints, fingerprint
from agentic_ray.ml.chunks import Given, OfArray, loaded
from agentic_ray.ml.data import Rows, aligned, rows
from agentic_ray.ml.passes import Check, Passes, single
from agentic_ray.ml.progress import Progress

BLOCKWISE = (
    "predict",
    "predict_proba",
    "predict_log_proba",
    "decision_function",
    "transform",
    "inverse_transform",
    "score_samples",
    "apply",
)
"""Methods that treat each row by itself."""


def is_distributed(data: Any) -> bool:
    """Whether data is gone through in chunks: not an array, table or list in memory."""
    return isinstance(data, Array | Rows) or hasattr(data, "to_arrow_refs")


@dataclass(frozen=True)
class Method:
    """A step: a method of a fitted estimator of scikit-learn."""

    estimator: Any
    name: str
    options: tuple[tuple[str, Any], ...] = ()
    head: Any = None
    """The first row of the data, which gives a block without rows its columns and types."""

    def __call__(self, block: Any) -> Any:
        if not block.shape[0]:
            return self._of_none(block)
        with single():
            return getattr(self.estimator, self.name)(block, **dict(self.options))

    def _of_none(self, block: Any) -> Any:
        """No rows, which scikit-learn refuses: no rows of what one row gives."""
        if self.head is not None:
            return replace(self, head=None)(self.head)[:0]
        one = np.ones((1, *block.shape[1:]), getattr(block, "dtype", np.float64))
        if hasattr(block, "columns"):
            import pandas as pd

            one = pd.DataFrame(one, columns=block.columns)
        return self(one)[:0]


class Distributed:
    """Before a class of scikit-learn among the bases: its prediction goes over chunks."""

    _sklearn_class: ClassVar[Any]
    # `checkpoint` of `fit` is where to keep things, not data that belongs to the rows.
    __metadata_request__fit: ClassVar[dict[str, str]] = {"checkpoint": UNUSED}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own = next(
            (kind for kind in cls.__mro__ if kind.__module__.startswith("sklearn.") and
             issubclass(kind, BaseEstimator)), None,
        )  # fmt: skip
        if own is None or cls.__name__.startswith("_"):
            return
        cls._sklearn_class = own
        for name in ("transform", "fit_transform"):
            if hasattr(vars(cls).get(name), "__wrapped__"):
                setattr(cls, name, _containing(vars(cls)[name]))
        for name in BLOCKWISE:
            if _find(own, name) is not None and name not in vars(cls):
                setattr(cls, name, _dispatching(cls, own, name))
        if _find(own, "fit_transform") is not None and "fit_transform" not in vars(cls):
            cls.fit_transform = _fit_transform  # type: ignore[attr-defined]
        if _find(own, "score") is not None and not any(
            "score" in vars(kind) for kind in cls.__mro__ if not _is_theirs(kind)
        ):
            cls.score = _scoring(cls)  # type: ignore[attr-defined]
        for name in _taking_rows(own):
            if not any(name in vars(kind) for kind in cls.__mro__ if not _is_theirs(kind)):
                setattr(cls, name, _refusing(cls, own, name))

    def to_sklearn(self) -> Any:
        """Return the estimator, with all it has learnt, as scikit-learn's own class.

        It needs nothing of this package, to be pickled for a server for example.

        Examples
        --------
        >>> from agentic_ray import ml
        >>> model = ml.LinearRegression().fit([[0.0], [1.0], [2.0]], [1.0, 3.0, 5.0])
        >>> type(model.to_sklearn()).__module__.split(".")[0]
        'sklearn'
        """
        twin = self._sklearn_class.__new__(self._sklearn_class)
        twin.__dict__.update({name: as_sklearn(value) for name, value in vars(self).items()})
        return twin

    def to_onnx(self, sample: Any = None) -> Any:
        """Return the fitted estimator as an ONNX model: `agentic_ray.ml.to_onnx`."""
        from agentic_ray.ml.onnx import to_onnx

        return to_onnx(self, sample)

    def _for_steps(self) -> Any:
        """Return a copy for the chunks, without the facts about the rows it was fitted on."""
        light = type(self).__new__(type(self))
        light.__dict__.update(
            {k: v for k, v in vars(self).items() if not isinstance(v, Array | Rows)}
        )
        return light.to_sklearn()

    @classmethod
    def from_sklearn(cls, estimator: Any) -> Any:
        """scikit-learn's estimator, fitted or not, as one of this class.

        Raises
        ------
        InvalidTypeError
            It is of another class.
        """
        if type(estimator) is not cls._sklearn_class:
            raise InvalidTypeError(
                f"{cls.__name__} is made from {cls._sklearn_class.__module__}."
                f"{cls._sklearn_class.__name__}, not from {type(estimator).__name__}"
            )
        made = cls.__new__(cls)
        made.__dict__.update(vars(estimator))
        return made


def _find(kind: type, name: str) -> Any:
    return next((vars(k)[name] for k in kind.__mro__ if name in vars(k)), None)


def _dispatching(cls: Any, own: type, name: str) -> Any:
    """A method that goes over chunks where it is given chunks, else is scikit-learn's."""
    original = _find(own, name)
    function = getattr(original, "fn", original)

    @functools.wraps(function)
    def method(self: Any, X: Any, *args: Any, **kwargs: Any) -> Any:
        if is_distributed(X):
            return blockwise(self, name, X, *args, **kwargs)
        return getattr(super(cls, self), name)(X, *args, **kwargs)

    return _there_where_theirs_is(method, cls, name, original)


def _containing(wrapped: Any) -> Any:
    """A method that scikit-learn has wrapped for `set_output`: of data in chunks each chunk has its
    container already."""

    @functools.wraps(wrapped.__wrapped__)
    def method(self: Any, X: Any, *args: Any, **kwargs: Any) -> Any:
        if is_distributed(X):
            return wrapped.__wrapped__(self, X, *args, **kwargs)
        return wrapped(self, X, *args, **kwargs)

    return method


def _there_where_theirs_is(method: Any, cls: Any, name: str, original: Any) -> Any:
    """Let ``method`` of ``cls`` be there or not by the estimator's parameters, as ``original``,
    scikit-learn's method of this name, is by its `available_if`."""
    if callable(original) or not hasattr(original, "__get__"):
        return method

    def there(self: Any) -> bool:
        getattr(super(cls, self), name)
        return True

    return available_if(there)(method)


def _is_theirs(kind: type) -> bool:
    return not kind.__module__.startswith("agentic_ray.")


def _taking_rows(own: Any) -> list[str]:
    """Names of the methods of a class that are given rows first."""
    found = []
    for name in dir(own):
        function = None if name.startswith("_") else _find(own, name)
        code = getattr(getattr(function, "fn", function), "__wrapped__", function)
        code = getattr(code, "__code__", None)
        if code is not None and code.co_argcount > 1 and code.co_varnames[1] in ("X", "y", "raw_X"):
            found.append(name)
    return found


def _refusing(cls: Any, own: type, name: str) -> Any:
    """A method that would bring data in chunks together, and says so instead."""
    original = _find(own, name)
    function = getattr(original, "fn", original)

    @functools.wraps(function)
    def method(self: Any, X: Any = None, *args: Any, **kwargs: Any) -> Any:
        if any(is_distributed(value) for value in (X, *args, *kwargs.values())):
            raise InvalidTypeError(
                f"{cls.__name__}.{name} is not there for data in chunks; give it what is in memory"
            )
        if X is not None:
            args = (X, *args)
        return getattr(super(cls, self), name)(*args, **kwargs)

    return _there_where_theirs_is(method, cls, name, original)


def _fit_transform(self: Any, X: Any, y: Any = None, **fit_params: Any) -> Any:
    """Fit, then transform the same data."""
    return self.fit(X, y, **fit_params).transform(X)


def _scoring(cls: Any) -> Callable[..., Any]:
    inherited: Any = _find(cls, "score")

    @functools.wraps(inherited)
    def score(self: Any, X: Any, y: Any = None, sample_weight: Any = None, **options: Any) -> Any:
        if not is_distributed(X):
            if sample_weight is not None:
                options["sample_weight"] = sample_weight
            return super(cls, self).score(X, y, **options)
        if options:
            raise InvalidTypeError(
                f"{cls.__name__}.score takes no {', '.join(options)} with data in chunks"
            )
        from agentic_ray.ml.metrics import score_of

        return score_of(self, X, y, sample_weight)

    return score


def as_sklearn(value: Any) -> Any:
    """Estimators of this package, also those in lists, tuples and dicts, as scikit-learn's; and
    what they know of each row (labels of clusters) as NumPy arrays."""
    if isinstance(value, Distributed):
        return value.to_sklearn()
    if isinstance(value, Array | Rows):
        return np.asarray(value.compute())
    if type(value) in (list, tuple):
        return type(value)([as_sklearn(part) for part in value])
    if type(value) is dict:
        return {name: as_sklearn(part) for name, part in value.items()}
    steps = getattr(value, "steps", None)
    if isinstance(steps, list) and isinstance(value, BaseEstimator):  # a Pipeline
        kind: Any = type(value)
        twin = kind.__new__(kind)
        twin.__dict__.update({name: as_sklearn(part) for name, part in vars(value).items()})
        return twin
    return value


def blockwise(estimator: Any, name: str, X: Any, **options: Any) -> Any:
    """A method of a fitted estimator over each chunk: an `Array` of an array of which the method
    makes numbers, else `Rows`."""
    if get_tags(estimator).requires_fit:
        check_is_fitted(estimator)
    data = rows(X)
    twin = estimator._for_steps() if isinstance(estimator, Distributed) else as_sklearn(estimator)
    head = data.sample if np.shape(data.sample)[0] else None
    step = Method(twin, name, tuple(options.items()), head)
    return transformed(data, step, isinstance(X, Array))


def transformed(data: Rows, step: Callable[[Any], Any], as_array: bool) -> Any:
    """``data`` after a step; as an `Array` if wanted and its chunks are arrays of numbers."""
    try:
        made = data.then(step)
    except ValueError:
        if not isinstance(data.source, OfArray) or not len(data):
            raise
        # The row of ones that stands for an array may be none that there could be.
        head = np.asarray(data.source.array[:1])
        for earlier in data.steps:
            head = earlier(head)
        made = replace(data, sample=head).then(step)
    sample = made.sample
    if as_array and type(sample) is np.ndarray and sample.dtype.kind in "fiub":
        return made.array(sample.dtype)
    return made


# --- beginning a fit ------------------------------------------------------------------------


def begin(
    estimator: Any,
    X: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    checkpoint: Any = None,
    accept_sparse: bool = False,
    allow_nan: bool = False,
    dtype: tuple[str, ...] | None = ("float64", "float32"),
    target: str | None = None,
    multi_output: bool = False,
    min_samples: int = 1,
    min_features: int = 1,
    non_negative_weight: bool = False,
    reset: bool = True,
    as_table: bool = False,
) -> Passes:
    """Check what a fit is given, by scikit-learn's rules and with its messages, and make it ready
    to be gone through.

    Parameters
    ----------
    target : {None, "numeric", "labels"}
        What y is, if it is used.
    as_table : bool
        The kernels take chunks as they are, tables too.
    """
    if not sklearn.get_config()["skip_parameter_validation"]:
        estimator._validate_params()
    name = type(estimator).__name__
    check = Check(
        dtype, accept_sparse, allow_nan, True, "any" if target is None else target, name, as_table
    )
    if is_distributed(X):
        data, targets, check = _chunked(
            estimator, X, y, check, target, min_samples, reset, multi_output
        )
        weights = _weights_in_chunks(sample_weight, data, non_negative_weight)
    else:
        data, targets, weights, check = _in_memory(
            estimator, X, y, sample_weight, check, target,
            {"multi_output": multi_output, "ensure_min_samples": min_samples,
             "ensure_min_features": min_features, "reset": reset}, non_negative_weight,
        )  # fmt: skip
    progress = Progress(name, getattr(estimator, "verbose", 0))
    log = None
    if checkpoint is not None:
        whole_check = Check(dtype=None, as_table=True, name=name)
        seen = Passes(data, targets, weights, whole_check, None, progress)
        log = Log(checkpoint, _identity(estimator, seen))
    return Passes(data, targets, weights, check, log, progress)


def _identity(estimator: Any, run: Passes) -> str:
    """Names the estimator, its parameters and its data: one pass, since other values in arrays of
    the same shape are other data."""
    params = {k: as_sklearn(v) for k, v in estimator.get_params().items()}
    cuts = [None if c is None else (c.lengths, c.shape) for c in run.columns]
    digest = run.run(fingerprint, combine=both_fingerprints)
    return content_key(type(estimator).__name__, sklearn.__version__, params, cuts, digest)


def _chunked(
    estimator: Any, X: Any, y: Any, check: Check, target: str | None, min_samples: int,
    reset: bool, multi_output: bool,
) -> tuple[Rows, Rows | None, Check]:  # fmt: skip
    data = rows(X)
    if data.ndim != 2:
        check_array(data.sample, estimator=estimator, input_name="X")  # raises
    if len(data) < min_samples:
        raise ValueError(
            f"Found array with {len(data)} sample(s) (shape={data.shape}) while a minimum of "
            f"{min_samples} is required by {check.name}."
        )
    if sp.issparse(data.sample) and not (check.accept_sparse or check.as_table):
        check_array(data.sample, estimator=estimator, input_name="X")  # raises
    validate_data(estimator, X=data.sample, reset=reset, skip_check_array=True)
    data = without_empty(data)
    if target is None:
        return data, None, check
    if y is None:
        raise ValueError(
            f"This {check.name} estimator requires y to be passed, but the target y is None."
        )
    return data, _target(y, data, target, multi_output), check


def without_empty(data: Rows) -> Rows:
    """Chunks without rows left out, if others have some."""
    kept = [i for i, n in enumerate(data.lengths) if n]
    return data if len(kept) in (0, len(data.lengths)) else data.take_chunks(kept)


def _target(y: Any, data: Rows, target: str, multi_output: bool) -> Rows:
    if not is_distributed(y):
        if not multi_output:
            y = column_or_1d(y, warn=True)
        y = np.asarray(y)
        if target == "numeric":
            y = y.astype(np.float64) if y.dtype.kind in "OUS" else y
            y = check_array(y, ensure_2d=False, dtype="numeric", input_name="y")
        y = _plain(y)
    made = aligned(y, data.lengths, "y")
    if made.ndim > 1 and not multi_output:
        made = made.then(_column)
    return made


def _column(block: Any) -> Any:
    return column_or_1d(np.asarray(block), warn=True)


def _weights_in_chunks(sample_weight: Any, data: Rows, non_negative: bool) -> Rows | None:
    if sample_weight is None:
        return None
    if not is_distributed(sample_weight):
        sample_weight = np.asarray(sample_weight, dtype=np.float64)
        if not sample_weight.ndim:
            sample_weight = np.full(len(data), float(sample_weight))
        if sample_weight.ndim != 1:
            raise ValueError("Sample weights must be 1D array or scalar")
        if len(sample_weight) != len(data):
            raise ValueError(
                f"sample_weight.shape == {sample_weight.shape}, expected ({len(data)},)!"
            )
        positive_weight(float(np.count_nonzero(sample_weight)))
        sample_weight = _plain(sample_weight)
    step = _not_negative if non_negative else as_floats
    return aligned(sample_weight, data.lengths, "sample_weight").then(step)


def positive_weight(total: float) -> float:
    """The weight of all rows, if there is any.

    Raises
    ------
    ValueError
        It is zero, with scikit-learn's message.
    """
    if not total:
        raise ValueError("Sample weights must contain at least one non-zero number.")
    return total


def as_floats(block: Any) -> Any:
    """A chunk of weights as finite numbers."""
    found = np.asarray(block, dtype=np.float64)
    if not np.isfinite(found).all():
        raise ValueError("Input sample_weight contains NaN or infinity.")
    return found


def _not_negative(block: Any) -> Any:
    found = as_floats(block)
    if (found < 0).any():
        raise ValueError("Negative values in data passed to `sample_weight`")
    return found


def _in_memory(
    estimator: Any, X: Any, y: Any, sample_weight: Any, check: Check, target: str | None,
    options: dict[str, Any], non_negative_weight: bool,
) -> tuple[Rows, Rows | None, Rows | None, Check]:  # fmt: skip
    if check.as_table:
        data = _table_here(estimator, X, options["reset"])
        matrix = data
    else:
        options |= {
            "accept_sparse": "csr" if check.accept_sparse else False,
            "dtype": None if check.dtype is None else [np.dtype(t) for t in check.dtype],
            "order": "C",
            "ensure_all_finite": "allow-nan" if check.allow_nan else True,
        }
        if target is None:
            options.pop("multi_output")
            matrix = validate_data(estimator, X, **options)
        else:
            matrix, y = validate_data(
                estimator, X, y, y_numeric=target == "numeric", **options
            )  # fmt: skip
            if target == "labels":
                check_classification_targets(y)
        data = whole(matrix)
        check = replace(check, finite=False)
    targets = None
    if target is not None:
        check_consistent_length(matrix if not isinstance(matrix, Rows) else range(len(data)), y)
        targets = aligned(_plain(y), data.lengths, "y")
    weights = None
    if sample_weight is not None:
        given = _check_sample_weight(
            sample_weight,
            matrix if not isinstance(matrix, Rows) else np.empty((len(data), 1)),
            dtype=np.float64,
            ensure_non_negative=non_negative_weight,
        )
        weights = aligned(_plain(given), data.lengths, "sample_weight")
    return data, targets, weights, check


def _plain(array: Any) -> Rows:
    """A vector or matrix in memory as rows in one chunk."""
    array = np.asarray(array)
    return Rows(Given((array,), array.nbytes, True), (len(array),), array[:1])


def whole(matrix: Any) -> Rows:
    """Take data in memory: in one chunk if it is small, else cut."""
    nbytes = matrix.data.nbytes if sp.issparse(matrix) else matrix.nbytes
    if nbytes <= evaluate.LOCAL_BYTES or not matrix.shape[0]:
        return Rows(Given((matrix,), nbytes, True), (matrix.shape[0],), matrix[:1])
    return rows(matrix)


def _table_here(estimator: Any, X: Any, reset: bool) -> Rows:
    validate_data(estimator, X=X, reset=reset, skip_check_array=True)
    data = X if isinstance(X, np.ndarray) else rows(X)
    return _plain(data) if isinstance(data, np.ndarray) else data


# --- targets ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Codes:
    """A step: the position of each label among the classes, as floats."""

    classes: Any

    def __call__(self, block: Any) -> Any:
        found = np.searchsorted(self.classes, block)
        return np.asarray(found, dtype=np.float64)


def unique_labels(x: Any, y: Any, w: Any) -> Any:
    """The labels in a chunk."""
    check_classification_targets(y)
    return np.unique(y)


def encode_labels(run: Passes) -> Any:
    """The classes, sorted; y of the passes becomes positions among them."""
    assert run.y is not None
    y = run.y
    if y.is_here or (isinstance(y.source, Given) and y.source.is_here):
        # Few, or in the caller's memory anyway.
        made = [loaded(chunk, y.steps) for chunk in y.source.arguments(True)[1]]
        chunks = [np.asarray(chunk) for chunk in made]
        classes = unique_labels(None, np.concatenate(chunks), None)
        codes = tuple([Codes(classes)(chunk) for chunk in chunks])
        size = sum(chunk.nbytes for chunk in codes)
        run.y = Rows(Given(codes, size, True), y.lengths, np.zeros(1))
        return classes
    only = Passes(y, y, None, replace(run.check, as_table=True), run._log, run.progress)
    classes = only.run(unique_labels, combine=np.union1d)
    if isinstance(y.source, OfArray) and not y.steps:
        encoded = xp.map_blocks(Codes(classes), y.source.array, dtype=np.float64)
        run.y = rows(encoded.persist())
    else:
        run.y = replace(y, steps=(*y.steps, Codes(classes)), sample=np.zeros(1))
    return classes


def seed_of(run: Passes, random_state: Any) -> int:
    """A seed of this fit; the same when it is resumed."""
    draw: Callable[[], int] = lambda: int(  # noqa: E731
        check_random_state(random_state).randint(np.iinfo(np.int32).max)
    )
    return int(run._logged(seed_of, (), draw))
