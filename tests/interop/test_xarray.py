"""xarray over our arrays: values and dtypes as over NumPy's, lazy where it is lazy over Dask's."""

from __future__ import annotations

import runpy
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agentic_ray.array as xp

xr = pytest.importorskip("xarray")
pd = pytest.importorskip("pandas")

RNG = np.random.default_rng(0)
TIMES = pd.date_range("2024-01-30", periods=24, freq="36h")


def _field() -> Any:
    """A field over time and place, as climate data is: with gaps, in float32 and float64."""
    temperature = RNG.normal(280, 10, size=(24, 5, 4))
    temperature[RNG.random(temperature.shape) < 0.1] = np.nan
    return xr.Dataset(
        {
            "t": (("time", "lat", "lon"), temperature, {"units": "K"}),
            "p": (("time", "lat", "lon"), RNG.random((24, 5, 4)).astype(np.float32)),
            "n": (("lat", "lon"), RNG.integers(0, 5, (5, 4))),
            "s": ("time", RNG.normal(size=24)),
            "wet": (("time", "lat", "lon"), RNG.random((24, 5, 4)) > 0.5),
            "seen": ("time", TIMES.values + np.timedelta64(90, "m")),
        },
        coords={
            "time": TIMES,
            "lat": [-20.0, -10.0, 0.0, 10.0, 20.0],
            "lon": [100.0, 110.0, 120.0, 130.0],
            "area": (("lat", "lon"), RNG.random((5, 4))),
            "basin": ("lat", ["a", "b", "a", "b", "c"]),
        },
        attrs={"source": "drawn"},
    )


FIELD = _field()
CHUNKS = [{"time": 7, "lat": 2}, {"time": -1, "lat": 2, "lon": 3}, {}]


@pytest.fixture(autouse=True)
def _our_manager() -> Iterator[None]:
    """With Dask installed ``chunk`` without a name would make arrays of Dask's, even of ours."""
    with xr.set_options(chunk_manager="agentic_ray"):
        yield


def ours(chunks: dict[str, int]) -> Any:
    return FIELD.chunk(chunks, chunked_array_type="agentic_ray")


def same(found: Any, wanted: Any) -> None:
    """``found``, once computed, is ``wanted`` in values, dtypes, names and attributes."""
    if isinstance(wanted, (tuple, list)):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            same(one, other)
        return
    if isinstance(wanted, dict):
        assert list(found) == list(wanted)
        for key in wanted:
            same(found[key], wanted[key])
        return
    if isinstance(wanted, xr.Dataset):
        assert set(found.variables) == set(wanted.variables)
        for name in wanted.variables:
            same(found[name], wanted[name])
        assert found.attrs == wanted.attrs
        return
    if isinstance(wanted, xr.DataArray):
        assert (found.name, found.dims, found.attrs) == (wanted.name, wanted.dims, wanted.attrs)
        assert set(found.coords) == set(wanted.coords)
        found, wanted = found.compute(), wanted.compute()
        assert type(found.data) is type(wanted.data)
        same(found.data, wanted.data)
        for name in wanted.coords:
            same(found.coords[name].values, wanted.coords[name].values)
        return
    if isinstance(wanted, pd.DataFrame):
        pd.testing.assert_frame_equal(found, wanted)
        return
    if isinstance(wanted, pd.Series):
        pd.testing.assert_series_equal(found, wanted)
        return
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    if wanted.dtype.kind in "fc":
        few = 1e-12 if np.finfo(wanted.dtype).eps < 1e-12 else 1e-5
        np.testing.assert_allclose(found, wanted, rtol=few, atol=few)
    elif wanted.dtype.kind == "O":
        assert pd.Series(found.ravel()).equals(pd.Series(wanted.ravel()))
    else:
        np.testing.assert_array_equal(found, wanted)


def _forms(name: str) -> list[str]:
    space = runpy.run_path(str(Path(__file__).with_name("forms_xarray.py")))
    return [line for line in space[name].splitlines() if line and not line.startswith("#")]


def _run(form: str, dataset: Any, whole: Any) -> Any:
    names = {
        "np": np, "pd": pd, "xr": xr, "TIMES": TIMES, "ds": dataset, "whole": whole,
        "num": dataset.drop_vars(["seen", "basin"]),
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return eval(form, names)


@pytest.mark.parametrize("form", _forms("FORMS"))
def test_as_over_numpy(form: str) -> None:
    wanted = _run(form, FIELD, FIELD)
    for chunks in CHUNKS:
        same(_run(form, ours(chunks), ours({"time": -1, "lat": -1, "lon": -1})), wanted)


@pytest.mark.parametrize("form", _forms("USERS"))
def test_functions_of_chunks_as_over_numpy(form: str, ray_session: object) -> None:
    same(_run(form, ours(CHUNKS[0]), None), _run(form, FIELD, None))


@pytest.mark.parametrize("form", _forms("BOTTLENECK"))
def test_what_xarray_does_by_bottleneck(form: str) -> None:
    pytest.importorskip("bottleneck")
    same(_run(form, ours(CHUNKS[0]), ours({})), _run(form, FIELD, FIELD))


# --- chunks ------------------------------------------------------------------------------------


def test_chunk() -> None:
    t = FIELD.t
    for made, wanted in [
        (t.chunk({"time": 7}, chunked_array_type="agentic_ray"), ((7, 7, 7, 3), (5,), (4,))),
        (t.chunk(time=(10, 14), chunked_array_type="agentic_ray"), ((10, 14), (5,), (4,))),
        (t.chunk(2, chunked_array_type="agentic_ray"), ((2,) * 12, (2, 2, 1), (2, 2))),
        (t.chunk("auto", chunked_array_type="agentic_ray"), ((24,), (5,), (4,))),
        (t.chunk(time="2 kB", chunked_array_type="agentic_ray"), ((12, 12), (5,), (4,))),
        (ours({"time": 7}).t.chunk({"lat": 2}), ((7, 7, 7, 3), (2, 2, 1), (4,))),
        (ours({"time": 7}).t.chunk({"time": -1}), ((24,), (5,), (4,))),
        (ours({"time": 7}).t.chunk(), ((7, 7, 7, 3), (5,), (4,))),
        (
            t.chunk(time=xr.groupers.TimeResampler("MS"), chunked_array_type="agentic_ray"),
            ((2, 19, 3), (5,), (4,)),
        ),
    ]:
        assert isinstance(made.data, xp.Array)
        assert made.chunks == made.data.chunks == wanted
        same(made, t)
    dataset = ours({"time": 7})
    assert dict(dataset.chunks) == {"time": (7, 7, 7, 3), "lat": (5,), "lon": (4,)}
    assert dict(dataset.s.chunksizes) == {"time": (7, 7, 7, 3)}


def test_unify_chunks() -> None:
    one, other = ours({"time": 10}).t, ours({"time": 8, "lat": 2}).p
    first, second = xr.unify_chunks(one, other)
    assert first.chunks == second.chunks == ((8, 2, 6, 4, 4), (2, 2, 1), (4,))
    same((first, second), (FIELD.t, FIELD.p))


def test_compute_load_persist(ray_session: object) -> None:
    dataset = ours({"time": 7})
    assert isinstance(dataset.compute().t.data, np.ndarray)
    assert isinstance(dataset.t.data, xp.Array)
    kept = (dataset[["t", "p"]] * 2).persist()
    assert kept.t.data._node.op.kind == "stored"
    assert kept.t.chunks == dataset.t.chunks
    same(kept, FIELD[["t", "p"]] * 2)
    assert isinstance(kept.load().t.data, np.ndarray)
    with pytest.raises(TypeError, match="'scheduler'"):
        dataset.compute(scheduler="threads")


def test_text_and_objects_stay_numpys() -> None:
    texts = np.asarray(["a", "bb", "c", "d", "e"])
    mixed = np.asarray([1, "a", None, 2.0, ()], dtype=object)
    dataset = FIELD.assign(text=("lat", texts), mixed=("lat", mixed))
    chunked = dataset.chunk({"lat": 2}, chunked_array_type="agentic_ray")
    assert type(chunked.text.data) is type(chunked.mixed.data) is np.ndarray
    assert isinstance(chunked.t.data, xp.Array)
    same(chunked.sortby("text", ascending=False).t, dataset.sortby("text", ascending=False).t)
    same(chunked.t.groupby(chunked.text).sum(), dataset.t.groupby(dataset.text).sum())


# --- laziness ----------------------------------------------------------------------------------

LAZY = """
ds.t.mean("time")
num - num.mean("time")
ds.t.where(ds.t > 280).sum("lat")
ds.t.fillna(0).rolling(time=3).mean()
ds.t.groupby("time.month").mean()
ds.t.groupby("basin").first()
ds.t.resample(time="7D").max()
ds.t.coarsen(time=2).std()
ds.t.quantile(0.5, "lat")
ds.t.interp(lat=[-5, 5])
ds.t.weighted(ds.area).mean(["lat", "lon"])
ds.t.isel(time=xr.DataArray([0, 1], dims="k"), lat=xr.DataArray([0, 1], dims="k"))
xr.concat([ds.t, ds.t + 1], "run")
xr.cov(ds.t, ds.t + 1, dim="time")
xr.apply_ufunc(np.square, ds.t, dask="parallelized")
xr.dot(ds.t, ds.t, dim="lat")
ds.t.chunk({"time": 5}).cumsum("time")
ds.t.differentiate("lat").sortby("lat", ascending=False).stack(k=("lat", "lon"))
ds.t.shift(time=1).pad(lon=1).astype("float32")
ds.t.sel(time="2024-02").reindex(lat=[0, 5, 10])
ds[["t"]].to_array().broadcast_like(ds.area)
(repr(ds), ds.t._repr_html_())
""".strip().splitlines()


@pytest.mark.parametrize("form", LAZY)
def test_nothing_is_computed_until_asked_for(form: str, tmp_path: Path) -> None:
    """A function that data come from is not called before ``compute``."""
    calls = tmp_path / "calls"

    def counted(block: Any, path: Path = calls) -> Any:
        with path.open("a") as file:
            file.write("x")
        return block

    # One chunk, so that the function is called here when values are asked for.
    dataset = ours({"time": -1}).assign_coords(area=FIELD.area)
    source = xp.map_blocks(counted, dataset.t.data, dtype=float)
    dataset["t"] = dataset.t.copy(data=source)
    result = _run(form, dataset, None)
    assert not calls.exists()
    if not isinstance(result, tuple):
        first = result.t if isinstance(result, xr.Dataset) else result
        assert isinstance(first.data, xp.Array)
        first.compute()
        assert calls.read_text() in ("x", "xx")


# --- assignment, indexing and mixing -------------------------------------------------------------


def test_assignment() -> None:
    def written(d: Any) -> Any:
        d["t"][0] = 1
        d["t"][{"lat": [0, 1], "lon": [1, 2]}] = 5
        d["t"].loc[{"lat": 10}] = 7
        d["double"] = d.t * 2
        d["t"] = d.t.where(d.t > 3)
        d["p"].loc["2024-02-01":"2024-02-10"] = 0
        d["n"] += 1
        d["n"].loc[{"lat": [-20, 0]}] = d.n.isel(lat=[0, 1]).values
        d["t"][:, 0] += d.s
        points = {"time": xr.DataArray([1, 2], dims="k"), "lat": xr.DataArray([1, 3], dims="k")}
        d["t"][points] = -9
        d["wide"] = xr.where(d.wet, 1, 2)
        d["one"] = 1.0
        d["r"] = ("time", np.arange(24))
        return d

    for chunks in CHUNKS:
        chunked = FIELD.copy(deep=True).chunk(chunks, chunked_array_type="agentic_ray")
        same(written(chunked), written(FIELD.copy(deep=True)))
    copied = chunked.t.copy()
    copied[0] = 99
    assert not (chunked.t == 99).any()


def test_outer_assignment_to_an_array_that_xarray_has_not_seen_before() -> None:
    """In a process of its own: the plug is loaded once."""
    import subprocess
    import sys

    program = """
import numpy as np, xarray as xr, agentic_ray.array as xp
x = xr.DataArray(xp.zeros((3, 3)), dims=("a", "b"))
x[{"a": [0, 1], "b": [1, 2]}] = 1
assert x.values.tolist() == [[0, 1, 1], [0, 1, 1], [0, 0, 0]], x.values
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=170)


def test_with_numpys_arrays() -> None:
    dataset = ours({"time": 7, "lat": 2})
    for found, wanted in [
        (dataset.t + FIELD.p, FIELD.t + FIELD.p),
        (FIELD.p * dataset.t, FIELD.p * FIELD.t),
        (xr.where(FIELD.wet, dataset.t, 0), xr.where(FIELD.wet, FIELD.t, 0)),
        (dataset.t.fillna(FIELD.p), FIELD.t.fillna(FIELD.p)),
        (xr.concat([dataset.t, FIELD.p], "k"), xr.concat([FIELD.t, FIELD.p], "k")),
        (xr.dot(dataset.p, FIELD.s), xr.dot(FIELD.p, FIELD.s)),
    ]:
        assert isinstance(found.data, xp.Array)
        same(found, wanted)
    xr.testing.assert_identical(dataset, FIELD)
    xr.testing.assert_allclose(FIELD.t, dataset.t)


def test_with_dasks_arrays() -> None:
    """Each kind goes to its own manager."""
    dask = pytest.importorskip("dask.array")
    theirs = FIELD.chunk({"time": 7}, chunked_array_type="dask")
    assert isinstance(theirs.t.data, dask.Array)
    assert isinstance(ours({"time": 7}).t.data, xp.Array)
    for dataset, kind in ((theirs, dask.Array), (ours({"time": 7}), xp.Array)):
        for made in (
            dataset.t.rolling(time=3).mean(),
            xr.apply_ufunc(np.square, dataset.t, dask="parallelized", output_dtypes=[float]),
            xr.zeros_like(dataset.t),
        ):  # fmt: skip
            assert isinstance(made.data, kind)
    with pytest.raises(TypeError, match="Mixing chunked array types"):
        xr.apply_ufunc(np.add, theirs.t, ours({"time": 7}).t, dask="parallelized")


# --- pictures ----------------------------------------------------------------------------------

PLOTS: dict[str, Callable[[Any], Any]] = {
    "line": lambda d: d.s.plot(),
    "lines": lambda d: d.t.isel(lat=0).plot.line(x="time"),
    "step": lambda d: d.s.plot.step(),
    "image": lambda d: d.t[0].plot(),
    "imshow": lambda d: d.t[0].plot.imshow(),
    "contour": lambda d: d.t[0].plot.contour(),
    "contourf": lambda d: d.t[0].plot.contourf(),
    "pcolormesh": lambda d: d.t[0].plot.pcolormesh(robust=True),
    "hist": lambda d: d.t.plot.hist(bins=12),
    "facets": lambda d: d.t[:2].plot(col="time"),
    "scatter": lambda d: d.plot.scatter(x="t", y="p"),
}


@pytest.mark.parametrize("name", PLOTS)
def test_plots_are_those_over_numpy(name: str) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    from matplotlib import pyplot

    def drawn(dataset: Any) -> Any:
        pyplot.figure(figsize=(2, 2), dpi=40)
        PLOTS[name](dataset)
        canvas = pyplot.gcf().canvas
        canvas.draw()
        return np.asarray(canvas.buffer_rgba()).copy()

    with matplotlib.rc_context({"backend": "agg"}):
        try:
            np.testing.assert_array_equal(drawn(ours(CHUNKS[0])), drawn(FIELD))
        finally:
            pyplot.close("all")
