"""`predict`: applies a model, or a `Function` and its resources, to rows of data of any size."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from agentic_ray.errors import InvalidArgumentError, InvalidTypeError
from agentic_ray.functions import Function
from agentic_ray.functions import map as function_map
from agentic_ray.ml.onnx_model import OnnxModel, is_onnx


class _Method:
    """A method of a model, as a function of batches of rows."""

    def __init__(self, model: Any, method: str) -> None:
        self._model = model
        self._method = method
        self.__name__ = self.__qualname__ = f"{type(model).__name__}.{method}"
        self.__module__ = type(model).__module__

    def __call__(self, rows: Any) -> Any:
        return getattr(self._model, self._method)(rows)


def predict(
    model: Any,
    data: Any,
    *,
    method: str = "predict",
    batch_size: int | None = None,
    priority: int = 0,
) -> Any:
    """Predict every row of ``data``, in batches on the cluster: exactly one result a row, in order,
    whatever dies on the way.

    Parameters
    ----------
    model : Function, object with a method of this name, callable, or ONNX model
        A `Function` (see `agentic_ray.function`) runs on the devices it asks for; its ``setup``
        loads the model once a process. Any other model is sent to worker processes on CPUs as it
        is: a fitted estimator of scikit-learn, for example, or a function of a batch of rows. An
        ONNX model is a ``ModelProto`` or the path of an ``.onnx`` file (see `OnnxModel`).
    data : array, table, Rows or iterable
        A NumPy array or one of `agentic_ray.array`, by its rows: only the batches that are under
        way are in the memory of this process. Tables (pandas, polars, Arrow) and `ml.rows`, whose
        batches are their chunks, as tables; not for a `Function`. Of any other iterable each
        element is a row.
    method : str
        Method of the model to call with a batch of rows.
    batch_size : int, optional
        Most rows of a batch; default: the size of the best throughput. A `Function` has its own.
    priority : int
        Work of higher priority goes first.

    Returns
    -------
    ndarray or list
        An array of one prediction a row where the batches give arrays, else a list.

    Raises
    ------
    InvalidTypeError
        The model cannot be called, or the data have no rows.
    InvalidArgumentError
        ``batch_size`` is given for a `Function`.
    The errors of `agentic_ray.map`

    Examples
    --------
    >>> import agentic_ray as ar
    >>> import numpy as np
    >>> ar.ml.predict(lambda rows: rows.sum(axis=1), np.ones((5, 3)))
    array([3., 3., 3., 3., 3.])
    """
    is_table = any(hasattr(data, name) for name in ("iloc", "to_pandas", "take_chunks"))
    if is_table and not isinstance(model, Function):
        return _of_table(_callable(model, method), data, batch_size)
    if isinstance(model, Function):
        if is_table:
            raise InvalidTypeError(
                f"a Function is given rows of arrays, not of a {type(data).__name__}"
            )
        if batch_size is not None:
            raise InvalidArgumentError("the batch_size of a Function is said where it is made")
        function = model
    else:
        function = Function(_callable(model, method), batch_size=batch_size or "auto")
    if getattr(data, "ndim", 1) == 0 or not (
        isinstance(data, Iterable) or hasattr(data, "__array_namespace__")
    ):
        raise InvalidTypeError(f"{type(data).__name__} has no rows to predict")
    blocks = list(function_map(function, data, priority=priority).blocks())
    arrays = [block for block in blocks if isinstance(block, np.ndarray)]
    if blocks and len(arrays) == len(blocks):
        return np.concatenate(arrays)
    return [result for block in blocks for result in block]


def _of_table(call: Callable[[Any], Any], data: Any, batch_size: int | None) -> Any:
    """Predict the rows of tables, chunk by chunk where they are."""
    from agentic_ray.ml.data import rows  # needs pandas, as tables do

    chunks = rows(data, chunk_rows=None if hasattr(data, "take_chunks") else batch_size)
    found = chunks.then(call).compute()
    if len(found) != len(chunks):
        raise InvalidArgumentError(f"{len(found)} predictions were made of {len(chunks)} rows")
    return found


def _callable(model: Any, method: str) -> Callable[[Any], Any]:
    if is_onnx(model):
        model = OnnxModel(model)
    if hasattr(model, method):
        return _Method(model, method)
    if not callable(model):
        raise InvalidTypeError(
            f"{type(model).__name__} has no method {method!r} and cannot be called"
        )
    found: Callable[[Any], Any] = model
    return found
