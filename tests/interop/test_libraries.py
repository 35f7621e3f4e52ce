"""Our arrays in the hands of other libraries: they do what they do for NumPy's."""

from __future__ import annotations

import json
import runpy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agentic_ray.array as xp

RNG = np.random.default_rng(0)
VECTOR = RNG.normal(size=120)
MATRIX = RNG.normal(size=(20, 30))
COUNTS = np.arange(10)


def cut(array: Any, chunks: Any = 7) -> xp.Array:
    return xp.asarray(array, chunks=chunks)


NAMES: dict[str, Any] = {
    "V": RNG.normal(size=60),
    "W": RNG.normal(size=60),
    "M": RNG.normal(size=(12, 5)),
    "N": np.arange(12),
    "I": RNG.integers(0, 5, 60),
    "T": np.datetime64("2024-01-01") + np.arange(60).astype("m8[D]"),
}
NAMES["P"] = abs(NAMES["V"]) + 0.1
NAMES["B"] = NAMES["V"] > 0
NAMES["S"] = NAMES["M"][:5] @ NAMES["M"][:5].T + 5 * np.eye(5)
NAMES["C"] = NAMES["V"][:10] + 1j * NAMES["W"][:10]


# --- expressions -------------------------------------------------------------------------


def _forms() -> list[str]:
    space = runpy.run_path(str(Path(__file__).with_name("forms_libraries.py")))
    return str(space["FORMS"]).strip().splitlines()


def _plain(value: Any) -> Any:
    """``value`` as nested lists of texts and NumPy's arrays."""
    kind = type(value).__module__.partition(".")[0]
    if isinstance(value, xp.Array):
        return np.asarray(value)
    if kind == "pandas" and hasattr(value, "dtypes") and hasattr(value, "index"):
        dtypes = value.dtypes if value.ndim > 1 else [value.dtype]
        return [*map(str, dtypes), _plain(value.to_numpy()), _plain(value.index.to_numpy())]
    if kind == "polars" and hasattr(value, "to_numpy"):
        return [str(getattr(value, "schema", None) or value.dtype), _plain(value.to_numpy())]
    if kind == "scipy" and hasattr(value, "toarray"):
        return value.toarray()
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, (np.ndarray, np.generic, float, int)):
        array = np.asarray(value)
        return str(array.tolist()) if array.dtype == object else array
    return str(value)


def _same(found: Any, wanted: Any) -> None:
    if isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            _same(one, other)
    elif isinstance(wanted, str):
        assert found == wanted
    else:
        assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
        if wanted.dtype.kind in "fc":
            np.testing.assert_allclose(found, wanted, rtol=1e-7, atol=1e-9)
        else:
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("form", _forms())
def test_as_for_numpy(form: str) -> None:
    import scipy.cluster.hierarchy
    import scipy.cluster.vq
    import scipy.fft
    import scipy.integrate
    import scipy.interpolate
    import scipy.ndimage
    import scipy.optimize
    import scipy.signal
    import scipy.sparse.csgraph
    import scipy.sparse.linalg
    import scipy.spatial
    import scipy.special
    import scipy.stats

    space = {
        "np": np, "xp": xp, "json": json, "scipy": scipy, "tolist": xp.Array.tolist,
        "pd": pytest.importorskip("pandas"), "pl": pytest.importorskip("polars"),
        "pa": pytest.importorskip("pyarrow"),
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = eval(form, {**space, **NAMES})
        found = eval(form, {**space, **{name: cut(value) for name, value in NAMES.items()}})
    _same(_plain(found), _plain(wanted))


def test_what_takes_numpys_arrays_only_says_so() -> None:
    """docs/libraries.md names these: an error, and never another value."""
    import scipy.sparse.linalg

    pd = pytest.importorskip("pandas")
    v, s = cut(NAMES["V"]), cut(NAMES["S"])
    with pytest.raises(KeyError):
        pd.DataFrame({"a": v})[v > 0]
    with pytest.raises(TypeError):
        pd.unique(v)
    with pytest.raises(TypeError):
        scipy.sparse.linalg.cg(s, v[:5])
    with pytest.raises(ValueError, match="offsets"):
        scipy.sparse.diags(v[:5])
    frame = pd.DataFrame({"a": v})
    frame["b"] = v * 2
    frame.loc[:, "c"] = v
    assert frame[np.asarray(v > 0)].equals(
        pd.DataFrame({"a": NAMES["V"], "b": NAMES["V"] * 2, "c": NAMES["V"]})[NAMES["V"] > 0]
    )


# --- tables ------------------------------------------------------------------------------


def test_pandas() -> None:
    pd = pytest.importorskip("pandas")
    v, m = cut(VECTOR, 50), cut(MATRIX)
    for made, wanted in [
        (pd.DataFrame({"a": v, "b": v * 2}), pd.DataFrame({"a": VECTOR, "b": VECTOR * 2})),
        (pd.DataFrame(m), pd.DataFrame(MATRIX)),
        (pd.Series(v).to_frame(), pd.Series(VECTOR).to_frame()),
        (pd.Series(cut(COUNTS)).to_frame(), pd.Series(COUNTS).to_frame()),
        (pd.DataFrame({"b": VECTOR}).assign(a=v), pd.DataFrame({"b": VECTOR, "a": VECTOR})),
        ((pd.Series(VECTOR) + v).to_frame(), pd.Series(VECTOR * 2).to_frame()),
        ((v + pd.Series(VECTOR)).to_frame(), pd.Series(VECTOR * 2).to_frame()),
    ]:
        pd.testing.assert_frame_equal(made, wanted)
    assert pd.Series(VECTOR).isin(v[:5]).sum() == 5
    assert list(pd.Index(cut(COUNTS))) == COUNTS.tolist()


def test_polars_and_arrow() -> None:
    pl, pa = pytest.importorskip("polars"), pytest.importorskip("pyarrow")
    v = cut(VECTOR, 50)
    for series in pl.Series(v), pl.Series("x", v), pl.DataFrame({"x": v})["x"]:
        assert series.dtype == pl.Float64
        np.testing.assert_array_equal(series.to_numpy(), VECTOR)
    assert pl.Series(cut(COUNTS)).dtype == pl.Int64
    assert pa.array(v).equals(pa.array(VECTOR))
    assert pa.array(cut(COUNTS), pa.int8()).equals(pa.array(COUNTS, pa.int8()))
    assert pa.table({"x": v}).equals(pa.table({"x": VECTOR}))
    with pytest.raises(ValueError, match="one axis"):
        pa.array(cut(MATRIX))


def test_json_of_results() -> None:
    """The hook that docs/libraries.md names."""
    text = json.dumps({"mean": cut(COUNTS).mean(), "all": cut(COUNTS)}, default=xp.Array.tolist)
    assert json.loads(text) == {"mean": 4.5, "all": COUNTS.tolist()}


def test_stores(tmp_path: Path) -> None:
    zarr, h5py = pytest.importorskip("zarr"), pytest.importorskip("h5py")
    z = zarr.open_array(tmp_path / "z", mode="w", shape=MATRIX.shape, chunks=(5, 5), dtype="f8")
    z[:] = cut(MATRIX)
    z[3] = cut(MATRIX)[4]
    wanted = MATRIX.copy()
    wanted[3] = MATRIX[4]
    np.testing.assert_array_equal(z[...], wanted)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = cut(MATRIX)
        file["x"][3] = cut(MATRIX)[4]
        np.testing.assert_array_equal(file["x"][...], wanted)


# --- pictures ----------------------------------------------------------------------------

DRAWINGS: dict[str, Callable[[Any, Any, Any, Any], Any]] = {
    "plot": lambda ax, v, m, n: ax.plot(v, v * 2),
    "plot of a matrix": lambda ax, v, m, n: ax.plot(m),
    "scatter": lambda ax, v, m, n: ax.scatter(v, v, c=v, s=abs(v) * 10),
    "bar": lambda ax, v, m, n: ax.bar(n, n * 2.0),
    "barh": lambda ax, v, m, n: ax.barh(n, n),
    "hist": lambda ax, v, m, n: ax.hist(v, bins=20),
    "hist of columns": lambda ax, v, m, n: ax.hist(m[:, :3]),
    "imshow": lambda ax, v, m, n: ax.imshow(m),
    "boxplot": lambda ax, v, m, n: ax.boxplot(v),
    "boxplot of columns": lambda ax, v, m, n: ax.boxplot(m[:, :4]),
    "violinplot": lambda ax, v, m, n: ax.violinplot(m[:, :4]),
    "errorbar": lambda ax, v, m, n: ax.errorbar(n, n, yerr=n * 0.1),
    "fill_between": lambda ax, v, m, n: ax.fill_between(n, n, n * 2),
    "contour": lambda ax, v, m, n: ax.contour(m),
    "pcolormesh": lambda ax, v, m, n: ax.pcolormesh(m),
    "step": lambda ax, v, m, n: ax.step(n, n),
    "stem": lambda ax, v, m, n: ax.stem(n, n),
    "pie": lambda ax, v, m, n: ax.pie(abs(v[:5])),
    "hexbin": lambda ax, v, m, n: ax.hexbin(v, v),
    "quiver": lambda ax, v, m, n: ax.quiver(m, m),
    "axvline": lambda ax, v, m, n: ax.axvline(v.mean()),
    "limits": lambda ax, v, m, n: ax.set_xlim(v.min(), v.max()),
    "semilogy": lambda ax, v, m, n: ax.semilogy(abs(v)),
    "stackplot": lambda ax, v, m, n: ax.stackplot(n, n, n),
    "ecdf": lambda ax, v, m, n: ax.ecdf(v),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_matplotlib_draws_what_it_draws_for_numpy(name: str) -> None:
    figure = pytest.importorskip("matplotlib.figure")
    agg = pytest.importorskip("matplotlib.backends.backend_agg")

    def drawn(*arrays: Any) -> Any:
        canvas = agg.FigureCanvasAgg(figure.Figure(figsize=(2, 2), dpi=40))
        DRAWINGS[name](canvas.figure.subplots(), *arrays)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba()).copy()

    ours = drawn(cut(VECTOR, 50), cut(MATRIX), cut(COUNTS))
    np.testing.assert_array_equal(ours, drawn(VECTOR, MATRIX, COUNTS))


# --- scikit-learn ------------------------------------------------------------------------


def test_scikit_learn() -> None:
    pytest.importorskip("sklearn")
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.metrics import r2_score
    from sklearn.model_selection import cross_val_score, train_test_split
    from sklearn.preprocessing import StandardScaler

    m, y = cut(MATRIX), cut(MATRIX[:, 0] > 0)
    np.testing.assert_allclose(
        LinearRegression().fit(m, m[:, 0]).coef_,
        LinearRegression().fit(MATRIX, MATRIX[:, 0]).coef_,
    )
    np.testing.assert_allclose(
        StandardScaler().fit_transform(m), StandardScaler().fit_transform(MATRIX)
    )
    np.testing.assert_allclose(PCA(2).fit(m).mean_, PCA(2).fit(MATRIX).mean_)
    assert len(cross_val_score(LogisticRegression(), m, y, cv=2)) == 2
    assert train_test_split(m, y, random_state=0)[0].shape == (15, 30)
    assert r2_score(cut(VECTOR), cut(VECTOR)) == 1


def test_scikit_learn_dispatches_by_the_array_api() -> None:
    """In a process of its own: SciPy reads its setting when it is imported."""
    import os
    import subprocess
    import sys

    pytest.importorskip("sklearn")
    program = """
import numpy as np, sklearn
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.preprocessing import StandardScaler, MinMaxScaler
import agentic_ray.array as xp
h = np.random.default_rng(0).normal(size=(20, 6))
x = xp.asarray(h, chunks=6)
with sklearn.config_context(array_api_dispatch=True):
    for made, wanted in [
        (StandardScaler().fit_transform(x), StandardScaler().fit_transform(h)),
        (MinMaxScaler().fit_transform(x), MinMaxScaler().fit_transform(h)),
        (Ridge(solver="svd").fit(x, x[:, 0]).coef_, Ridge(solver="svd").fit(h, h[:, 0]).coef_),
        (PCA(2, svd_solver="full").fit(x).explained_variance_,
         PCA(2, svd_solver="full").fit(h).explained_variance_),
    ]:
        assert isinstance(made, xp.Array), type(made)
        np.testing.assert_allclose(made.compute(), wanted, rtol=1e-10, atol=1e-12)
    assert r2_score(x[:, 0], x[:, 0]) == 1
"""
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        check=True,
        timeout=170,
        env={**os.environ, "SCIPY_ARRAY_API": "1"},
    )
