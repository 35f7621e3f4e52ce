"""Everyday one-liners give NumPy's value, dtype and effect over our arrays, or raise its exception.

The texts beside this file hold one script a line (``;;`` separates statements). `first.txt` and
`second.txt` were written by a user of NumPy who did not look at the package; of `second.txt`,
unseen, 96 % were right as it was written. `NumPy` itself is the yardstick: each script runs with it
(``m`` is the namespace) over NumPy's arrays, and then over ours cut in chunks, with our namespace
and with NumPy's. What a script prints, and all its variables afterwards, count too.
"""

from __future__ import annotations

import ast
import contextlib
import io
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import agentic_ray.array as xp
from agentic_ray.errors import InvalidTypeError

TEXT = "arrays of texts and objects are refused (docs/arrays.md)"
LEFT_OUT = "left out on purpose, the error says what to use (docs/arrays.md)"
OURS = "the text names our class"
BY_ISINSTANCE = "the library asks for numpy.ndarray by isinstance"

REVIEWED: dict[str, tuple[str, str]] = {
    # Line: (ways in which it differs: "m" our namespace, "np" NumPy's, "both"), why.
    "m.array(['a', 'b'])": ("m", TEXT),
    "m.array([1, 'a'])": ("m", TEXT),
    "m.array([1, None])": ("m", TEXT),
    "x.astype(str)": ("both", TEXT),
    "x.astype('S4')": ("both", TEXT),
    "x.astype(object)": ("both", TEXT),
    "m.zeros(3, dtype='U5')": ("m", TEXT),
    "m.full(2, 'a')": ("m", TEXT),
    "m.array([b'1', b'2']).astype(int)": ("m", TEXT),
    "m.array([2**64])": ("m", TEXT),
    "m.random.default_rng(0).choice(['a', 'b'])": ("m", TEXT),
    "m.char.upper('a')": ("m", LEFT_OUT),
    "m.busday_count('2024-01-01', '2024-01-08')": ("m", LEFT_OUT),
    "m.poly1d([1, 2])(3)": ("m", LEFT_OUT),
    "repr(k)": ("both", OURS),
    "print([1, x[0] > 0])": ("both", OURS),
    "repr(x[0] > 100)": ("both", OURS),
    "m.finfo(f.dtype).eps": ("m", "the standard wants Python's float"),
    "m.linalg.eigvals(s)": ("m", "the standard wants complex numbers"),
    "m.asarray(x) is x": ("np", "np.asarray makes NumPy's array"),
    "m.arange(t[3], t[0])": ("np", "np.arange does not ask our arrays; xp.arange does it"),
    "import pandas as pd ;; pd.Series(range(12))[b].tolist()": ("both", BY_ISINSTANCE),
    "import matplotlib ;; matplotlib.use('agg') ;; import matplotlib.pyplot as plt ;; "
    "plt.errorbar(range(4), v, yerr=v)[0].get_ydata()": ("both", BY_ISINSTANCE),
    "import pandas as pd ;; pd.unique(i)": ("both", BY_ISINSTANCE),
    "import pandas as pd ;; pd.Timestamp(t[0])": ("both", BY_ISINSTANCE),
    "import pandas as pd ;; pd.DataFrame(r)['id'].tolist()": ("both", BY_ISINSTANCE),
}
CALLS_A_FUNCTION = ("vectorize", "apply_along_axis", "piecewise", "fromfunction")
"""Functions of the user over several chunks go to the cluster: here they get one chunk."""


def read(name: str) -> list[str]:
    return (Path(__file__).parent / f"{name}.txt").read_text().splitlines()


def values() -> dict[str, np.ndarray[Any, Any]]:
    """The variables of the scripts."""
    rng = np.random.default_rng(7)
    s = rng.random((4, 4))
    return {
        "x": rng.random(12) * 10 - 3,
        "y": rng.random(12) + 0.5,
        "i": rng.integers(-9, 10, 12),
        "j": rng.integers(1, 6, 12),
        "b": rng.random(12) < 0.5,
        "a": rng.random((4, 6)) - 0.5,
        "c": rng.integers(0, 20, (2, 3, 4)),
        "z": rng.random(8) + 1j * rng.random(8),
        "n": np.where(rng.random((3, 5)) < 0.3, np.nan, rng.random((3, 5))),
        "t": np.array(
            ["2024-03-01", "2024-01-31", "NaT", "2024-02-29", "2023-12-31", "2024-03-01"], "M8[D]"
        ),
        "d": np.array([5, -3, 0, 12, 7, 5], "m8[h]"),
        "r": np.array([(3, 2.5), (1, -1.0), (2, 0.5), (3, 9.0)], dtype=[("id", "i4"), ("v", "f8")]),
        "s": s @ s.T + 4 * np.eye(4),
        "w": rng.random((4, 4)),
        "u": rng.integers(0, 256, 10).astype(np.uint8),
        "e": np.empty(0),
        "e2": np.zeros((0, 3)),
        "k": np.array(2.5),
        "f": rng.random((5, 5)).astype(np.float32),
        "h": rng.random(6).astype(np.float16),
        "v": rng.random(4),
    }


def cut(value: np.ndarray[Any, Any], whole: bool) -> xp.Array:
    chunks = tuple([max(1, -(-n if whole else -(-n * 2 // 5))) for n in value.shape])
    return xp.asarray(value, chunks=chunks) if value.ndim else xp.asarray(value)


def plain(value: Any) -> Any:
    """``value`` with arrays and scalars as NumPy's arrays, and sequences as lists of them."""
    if isinstance(value, xp.Array | np.generic):
        return np.asarray(value)
    if isinstance(value, tuple | list):
        return [plain(part) for part in value]
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    return value


class Outcome:
    """Result of a script, its variables and what it printed, or the exception it raised."""

    def __init__(self, script: str, namespace: ModuleType, given: dict[str, Any]) -> None:
        env = {**given, "m": namespace, "np": np}
        out = io.StringIO()
        self.error: Exception | None = None
        try:
            tree = ast.parse(script.replace(" ;; ", "\n"))
            last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
            with contextlib.redirect_stdout(out), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                exec(compile(tree, "script", "exec"), env)
                shown = None
                if isinstance(last, ast.Expr):
                    shown = eval(compile(ast.Expression(last.value), "script", "eval"), env)
                self.result = plain(shown)
                kinds = (np.ndarray, np.generic, xp.Array, list, tuple, int, float)
                self.variables = {
                    name: plain(value)
                    for name, value in env.items()
                    if isinstance(value, kinds) and not name.startswith("__")
                }
        except Exception as error:
            self.error = error
        self.printed = out.getvalue()


def check_same(ours: Any, numpys: Any) -> None:
    if isinstance(numpys, np.ndarray):
        assert isinstance(ours, np.ndarray)
        assert (ours.dtype, ours.shape) == (numpys.dtype, numpys.shape)
        if numpys.dtype.kind not in "fc":
            np.testing.assert_array_equal(ours, numpys)
            return
        eps = float(np.finfo(numpys.dtype).eps)
        np.testing.assert_allclose(ours, numpys, rtol=1e4 * eps**0.95 if eps < 1e-9 else 20 * eps,
                                   atol=100 * eps)  # fmt: skip
    elif isinstance(numpys, list):
        assert len(ours) == len(numpys)
        for mine, theirs in zip(ours, numpys, strict=True):
            check_same(mine, theirs)
    elif isinstance(numpys, dict):
        assert list(ours) == list(numpys)
        for name, theirs in numpys.items():
            check_same(ours[name], theirs)
    elif hasattr(numpys, "equals"):
        assert ours.equals(numpys)
    else:
        assert type(ours).__name__ == type(numpys).__name__
        if isinstance(numpys, float):
            assert ours == pytest.approx(numpys, rel=1e-9, nan_ok=True)
        elif isinstance(numpys, np.dtype | type | str | bytes | int | slice | None):
            assert ours == numpys


def compare(script: str, namespace: ModuleType) -> None:
    """Hold a script over our arrays against the same over NumPy's."""
    try:
        numpys = Outcome(script, np, values())
    except ModuleNotFoundError as missing:
        pytest.skip(str(missing))
    if isinstance(numpys.error, ModuleNotFoundError):
        pytest.skip(str(numpys.error))
    whole = any(name in script for name in CALLS_A_FUNCTION)
    given = {name: cut(value, whole) for name, value in values().items()}
    ours = Outcome(script, namespace, given)
    if numpys.error is not None:
        assert isinstance(ours.error, type(numpys.error)), f"NumPy raised {numpys.error!r}"
        return
    if ours.error is not None:
        raise ours.error
    check_same(ours.result, numpys.result)
    check_same(ours.variables, numpys.variables)
    assert ours.printed == numpys.printed


def differs(script: str, namespace: ModuleType) -> bool:
    """Whether a reviewed line really differs from NumPy."""
    try:
        compare(script, namespace)
    except (AssertionError, AttributeError, KeyError, TypeError):
        return True
    return False


LINES = [line for name in ("first", "second", "records", "edges") for line in read(name)]


@pytest.mark.parametrize("way", ["m", "np"])
@pytest.mark.parametrize("script", LINES)
def test_line(script: str, way: str) -> None:
    namespace = xp if way == "m" else np
    ways, reason = REVIEWED.get(script, ("", ""))
    if ways not in (way, "both"):
        compare(script, namespace)
    elif reason == TEXT:
        with pytest.raises(InvalidTypeError):
            compare(script, namespace)
    else:
        assert differs(script, namespace), "is NumPy's by now: take it off the list"
