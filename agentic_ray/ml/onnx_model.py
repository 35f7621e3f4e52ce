"""ONNX models that predict rows, by ONNX Runtime: the extra ``agentic-ray[onnx]``."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from agentic_ray.errors import InvalidArgumentError, InvalidTypeError

_KINDS: dict[str, Any] = {
    "tensor(double)": np.float64, "tensor(float)": np.float32, "tensor(int64)": np.int64,
    "tensor(string)": object, "tensor(bool)": np.bool_,
}  # fmt: skip
"""Types of inputs that rows are made to."""


def needed(name: str) -> Any:
    """Import a module of the extra."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"ONNX models need {error.name}: pip install 'agentic-ray[onnx]'", name=error.name
        ) from error


def is_onnx(model: Any) -> bool:
    """Whether something is an ONNX model: a `ModelProto`, or the path of a file."""
    if isinstance(model, str | Path):
        return os.fspath(model).endswith(".onnx")
    return type(model).__name__ == "ModelProto" and hasattr(model, "SerializeToString")


class OnnxModel:
    """An ONNX model that predicts rows as scikit-learn's estimators do, by ONNX Runtime.

    It can be pickled; each process makes a session of one thread when it predicts first, so that
    chunks go on side by side.

    Parameters
    ----------
    model : onnx.ModelProto, bytes, or path of a file

    Raises
    ------
    FileNotFoundError, InvalidTypeError

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> model = ml.StandardScaler().fit([[0.0], [2.0]])
    >>> ml.OnnxModel(model.to_onnx()).transform(np.array([[4.0]]))
    array([[3.]])
    """

    def __init__(self, model: Any) -> None:
        if isinstance(model, str | Path):
            model = Path(model).read_bytes()
        elif hasattr(model, "SerializeToString"):
            model = model.SerializeToString()
        if not isinstance(model, bytes):
            raise InvalidTypeError(
                f"an ONNX model is a ModelProto, bytes or a path, not {type(model).__name__}"
            )
        self._bytes = model
        self._session: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_bytes": self._bytes, "_session": None}

    def _run(self, rows: Any) -> tuple[list[str], list[Any]]:
        if self._session is None:
            runtime = needed("onnxruntime")
            options = runtime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            options.log_severity_level = 3  # it warns of shapes that skl2onnx leaves open
            self._session = runtime.InferenceSession(
                self._bytes, options, providers=["CPUExecutionProvider"]
            )
        names = [output.name for output in self._session.get_outputs()]
        return names, self._session.run(None, _inputs(self._session.get_inputs(), rows))

    def predict(self, rows: Any) -> Any:
        """Return the label or value of each row: the model's first output."""
        names, found = self._run(rows)
        first = np.asarray(found[0])
        one = names[0] in ("variable", "label") and first.ndim == 2 and first.shape[1] == 1
        return first[:, 0] if one else first

    def predict_proba(self, rows: Any) -> Any:
        """Return the probabilities of the classes: the output of this name.

        Raises
        ------
        AttributeError
            The model has none.
        """
        names, found = self._run(rows)
        if "probabilities" not in names:
            raise AttributeError(f"the model gives {', '.join(names)} and no probabilities")
        return found[names.index("probabilities")]

    def transform(self, rows: Any) -> Any:
        """Return the model's last output."""
        return self._run(rows)[1][-1]


def _inputs(wanted: Any, rows: Any) -> dict[str, Any]:
    """The inputs of a session: rows are one of them, or a table's columns are."""
    if len(wanted) == 1 and not (hasattr(rows, "columns") and wanted[0].name in rows.columns):
        return {wanted[0].name: _as_kind(np.asarray(rows), wanted[0].type)}
    if not hasattr(rows, "columns"):
        raise InvalidTypeError(
            f"the model has the inputs {', '.join(one.name for one in wanted)}: give a DataFrame"
        )
    missing = [one.name for one in wanted if one.name not in rows.columns]
    if missing:
        raise InvalidArgumentError(f"there is no column {', '.join(missing)}")
    return {one.name: _as_kind(rows[[one.name]].to_numpy(), one.type) for one in wanted}


def _as_kind(values: Any, kind: str) -> Any:
    if kind not in _KINDS:
        raise InvalidTypeError(f"the model takes {kind}, which rows are not made to here")
    return np.ascontiguousarray(values, dtype=_KINDS[kind])
