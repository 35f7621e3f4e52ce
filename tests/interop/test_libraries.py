"""Our arrays in the hands of other libraries: they do what they do for NumPy's."""

from __future__ import annotations

import json
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
    """The hook that docs/arrays.md names."""
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


# --- SciPy and scikit-learn --------------------------------------------------------------

SCIPY: dict[str, Callable[[Any, Any], Any]] = {
    "stats.zscore": lambda v, m: v,
    "stats.norm.cdf": lambda v, m: v,
    "special.erf": lambda v, m: m,
    "special.softmax": lambda v, m: m,
    "linalg.svdvals": lambda v, m: m,
    "linalg.pinv": lambda v, m: m,
    "signal.detrend": lambda v, m: v,
    "signal.hilbert": lambda v, m: v,
    "ndimage.laplace": lambda v, m: m,
    "ndimage.sobel": lambda v, m: m,
    "integrate.simpson": lambda v, m: v,
    "fft.dct": lambda v, m: v,
    "spatial.distance.pdist": lambda v, m: m,
}


@pytest.mark.parametrize("name", SCIPY)
def test_scipy(name: str) -> None:
    pytest.importorskip("scipy")
    module, _, function = name.partition(".")
    call: Any = __import__(f"scipy.{module}", fromlist=["_"])
    for part in function.split("."):
        call = getattr(call, part)
    found = call(SCIPY[name](cut(VECTOR, 50), cut(MATRIX)))
    wanted = call(SCIPY[name](VECTOR, MATRIX))
    for one, other in zip(np.atleast_1d(found), np.atleast_1d(wanted), strict=True):
        np.testing.assert_allclose(
            np.asarray(one, dtype=float), np.asarray(other, dtype=float), rtol=1e-10, atol=1e-12
        )


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
