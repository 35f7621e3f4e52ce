"""Runs expressions of NumPy's surface over NumPy and over this package, and compares the two.

A *form* is one line of Python that a NumPy user would write, such as ``np.sum(X, axis=0)``. Its
last statement is an expression, whose value is compared; statements before it end in ``;``. Names
in capital letters are operands (`operands`), made anew for each run, so that a form may assign to
them. Each form runs four times:

* ``numpy``: ``np`` is NumPy, operands are NumPy's arrays. This is what is right.
* ``ours``: ``np`` is `agentic_ray.array`, operands are our arrays in one chunk.
* ``chunked``: the same with operands in several chunks.
* ``protocol``: ``np`` is NumPy, operands are our arrays: NumPy's own functions are given them.

Values, dtypes, shapes and the types of exceptions have to agree.
"""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

import agentic_ray.array as xp

MODES = ("ours", "chunked", "protocol")


def operands() -> dict[str, np.ndarray[Any, Any]]:
    """The arrays that forms may name."""
    rng = np.random.default_rng(0)
    holes = rng.normal(size=(4, 6))
    holes[[0, 2], [1, 3]] = np.nan
    square = rng.normal(size=(5, 5)) + 5 * np.eye(5)
    return {
        "X": rng.normal(size=(4, 6)),  # floats
        "Y": rng.normal(size=(4, 6)),
        "P": rng.uniform(0.1, 0.9, size=(4, 6)),  # between 0 and 1
        "V": rng.normal(size=12),  # a vector
        "W": rng.normal(size=12),
        "S": np.sort(rng.normal(size=12)),  # a sorted one
        "F": rng.normal(size=(4, 6)).astype(np.float32),
        "I": rng.integers(-9, 9, size=(4, 6)),
        "J": rng.integers(0, 4, size=12),  # small integers that repeat
        "U": rng.integers(0, 255, size=(4, 6), dtype=np.uint8),
        "B": rng.random((4, 6)) < 0.5,
        "C": rng.normal(size=(4, 6)) + 1j * rng.normal(size=(4, 6)),
        "N": holes,  # floats with NaN
        "Q": square,  # a well conditioned square matrix
        "D": square @ square.T,  # a positive definite one
        "T": rng.normal(size=(2, 3, 4)),  # three axes
        "E": np.zeros((0, 3)),  # no elements
        "Z": np.array(2.5),  # no axes
        "M": np.array(["2020-01-01", "2020-01-05", "2019-12-31"], dtype="datetime64[D]"),
        "H": rng.normal(size=(4, 6)).astype(np.float16),
        "R": np.array(  # records
            [(3, 1.5, True), (1, 2.5, False), (3, 0.5, False), (2, 9.0, True)],
            dtype=[("a", "i4"), ("b", "f8"), ("c", "?")],
        ),
    }


@dataclass(frozen=True)
class Outcome:
    """The value of a form, or the exception that it raised."""

    value: Any = None
    error: BaseException | None = None


def run(form: str, mode: str) -> Outcome:
    """What ``form`` gives in one of the modes, or in ``"numpy"``."""
    made: dict[str, Any] = dict(operands())
    if mode != "numpy":
        made = {
            name: xp.asarray(value, chunks=2 if mode == "chunked" else "auto")
            for name, value in made.items()
        }
    made["np"] = xp if mode in ("ours", "chunked") else np
    made["numpy"] = np
    *body, last = ast.parse(form).body
    assert isinstance(last, ast.Expr), f"a form ends in an expression: {form}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            exec(compile(ast.Module(body, []), form, "exec"), made)
            value = eval(compile(ast.Expression(last.value), form, "eval"), made)
            return Outcome(plain(value))
        except Exception as error:  # whatever the form raises is its outcome
            return Outcome(error=error)


def plain(value: Any) -> Any:
    """``value`` with all lazy arrays in it computed."""
    if isinstance(value, xp.Array):
        return value.compute()
    if isinstance(value, tuple | list):
        return [plain(part) for part in value]
    if isinstance(value, dict):
        return {plain(key) if isinstance(key, xp.Array) else key: plain(part)
                for key, part in value.items()}  # fmt: skip
    if hasattr(value, "__next__"):
        return [plain(part) for part in value]
    return value


def difference(found: Outcome, wanted: Outcome) -> str:
    """How two outcomes differ; empty if they agree."""
    if wanted.error is not None:
        if found.error is None:
            return f"no {type(wanted.error).__name__} ({wanted.error}), but {found.value!r}"
        if not isinstance(found.error, _expected(wanted.error)):
            return f"{found.error!r} instead of {wanted.error!r}"
        return ""
    if found.error is not None:
        return f"{found.error!r} instead of {_short(wanted.value)}"
    return _unequal(found.value, wanted.value)


def _expected(error: BaseException) -> type[BaseException]:
    """NumPy's private exceptions stand for the public one they derive from."""
    kind = type(error)
    while kind.__module__.startswith("numpy._"):
        kind = kind.__bases__[0]
    return kind


def _unequal(found: Any, wanted: Any) -> str:
    if isinstance(wanted, list | tuple):
        if not isinstance(found, list | tuple) or len(found) != len(wanted):
            return f"{_short(found)} instead of {_short(wanted)}"
        parts = [_unequal(one, other) for one, other in zip(found, wanted, strict=True)]
        return "; ".join(f"part {i}: {text}" for i, text in enumerate(parts) if text)
    if isinstance(wanted, dict):
        if not isinstance(found, dict) or found.keys() != wanted.keys():
            return f"{_short(found)} instead of {_short(wanted)}"
        return "; ".join(filter(None, (_unequal(found[key], wanted[key]) for key in wanted)))
    if wanted is None or isinstance(wanted, str | bytes | type | np.dtype | slice):
        return "" if found == wanted else f"{_short(found)} instead of {_short(wanted)}"
    one, other = np.asarray(found), np.asarray(wanted)
    if one.shape != other.shape:
        return f"shape {one.shape} instead of {other.shape}"
    if one.dtype != other.dtype and isinstance(wanted, np.ndarray | np.generic):
        return f"dtype {one.dtype} instead of {other.dtype}"
    if other.dtype.kind in "fc":
        eps = np.finfo(other.dtype).eps
        scale = np.abs(other[np.isfinite(other)]).max(initial=0)
        same = np.allclose(one, other, rtol=256 * eps, atol=256 * eps * scale, equal_nan=True)
    elif other.dtype.names is not None or other.dtype.kind in "OSU":
        same = bool(np.all(one == other))
    else:
        same = np.array_equal(one, other, equal_nan=other.dtype.kind in "mM")
    return "" if same else f"{_short(found)} instead of {_short(wanted)}"


def _short(value: Any) -> str:
    text = repr(value).replace("\n", " ")
    return text if len(text) < 200 else text[:200] + "…"


def names_in(form: str) -> set[str]:
    """The names that a form reaches through ``np``, dotted, and the methods it calls."""
    dotted = set(re.findall(r"\bnp\.((?:linalg\.|fft\.)?\w+)", form))
    generator = {f"random.{name}" for name in re.findall(r"default_rng\([^)]*\)\.(\w+)", form)}
    methods = {f"ndarray.{name}" for name in re.findall(r"\b[A-Z]\.(\w+)", form)}
    return dotted | generator | methods
