"""xarray over our arrays: values and dtypes as over NumPy's, lazy where it is lazy over Dask's."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agentic_ray.array as xp
from agentic_ray.array.core import evaluate

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


def ours(chunks: dict[str, int]) -> Any:
    return FIELD.chunk(chunks, chunked_array_type="agentic_ray")


def same(found: Any, wanted: Any) -> None:
    """``found``, once computed, is ``wanted`` in values, dtypes, names and attributes."""
    if isinstance(wanted, (tuple, list)):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            same(one, other)
        return
    if isinstance(wanted, xr.Dataset):
        assert list(found.variables) == list(wanted.variables)
        for name in wanted.variables:
            same(found[name], wanted[name])
        assert found.attrs == wanted.attrs
        return
    if isinstance(wanted, xr.DataArray):
        assert (found.name, found.dims, found.attrs) == (wanted.name, wanted.dims, wanted.attrs)
        assert list(found.coords) == list(wanted.coords)
        found = found.compute()
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
        few = np.finfo(wanted.dtype).eps * 200
        np.testing.assert_allclose(found, wanted, rtol=few, atol=few)
    else:
        np.testing.assert_array_equal(found, wanted)


FORMS = """
# reductions
ds.t.mean()
ds.t.mean("time")
ds.t.mean(["lat", "lon"])
ds.t.mean(...)
ds.t.mean("time", skipna=False)
ds.t.mean("time", keep_attrs=False)
ds.t.sum("time", min_count=20)
ds.t.std()
ds.t.std("time", ddof=1)
ds.t.var("lat")
ds.t.min("time")
ds.t.max()
ds.t.median()
whole.t.median("time")
ds.t.prod("lon")
ds.t.count("time")
ds.t.argmax("lat", skipna=True)
ds.p.argmin("time")
ds.p.argmax(["lat", "lon"])
ds.t.idxmax("time")
ds.t.idxmin("lat")
ds.wet.any("time")
ds.wet.all()
ds.wet.mean("time")
ds.t.cumsum("time")
ds.t.cumprod("lat")
ds.p.sum(dtype="float64")
ds.n.mean()
ds.n.sum("lat")
ds.mean()
ds.mean("time")
ds.std("lat")
ds.sum()
ds.count()
ds[["t", "p"]].max(["lat", "lon"])
ds.seen.mean()
ds.seen.min()
ds.seen.max()
whole.t.quantile(0.3)
whole.t.quantile([0.1, 0.5], "time")
whole.p.quantile(0.25, dim=["lat", "lon"])
whole.t.quantile(0.3, "time", method="lower")
whole[["t", "p"]].quantile(0.5, "time")
ds.t.reduce(np.nanmean, dim="time")
ds.t.reduce(np.sum, dim=["lat", "lon"])
ds.mean("time", numeric_only=True)
# arithmetic
ds.t - 273.15
ds.t - ds.t.mean("time")
(ds.t - ds.t.mean("time")) / ds.t.std("time")
ds.t * ds.n
ds.t * ds.lat
ds.t + ds.area
ds.p ** 2
-ds.t
abs(ds.t)
ds.t > 280
(ds.t > 280) & ds.wet
~ds.wet
ds.t // 7
ds.t % 7
np.exp(ds.p)
np.maximum(ds.t, 280)
np.sqrt(ds.t)
np.log1p(ds.p).astype("float64")
ds + 1
ds[["t", "p"]] * 2
ds.t.round(1)
ds.t.clip(270, 290)
ds.t.astype("float32")
ds.n.astype(bool)
ds.t @ ds.s
xr.dot(ds.t.fillna(0), ds.area)
xr.dot(ds.p, ds.p, dim="time")
ds.t.dot(ds.n)
ds.seen - ds.seen.min()
ds.seen - ds.time
ds.seen + np.timedelta64(1, "D")
(ds.seen - ds.time) / np.timedelta64(1, "h")
ds.t.real
ds.t.T
ds.t.transpose("lon", ...)
# missing values
ds.t.isnull()
ds.t.notnull().sum("time")
ds.t.fillna(0)
ds.t.fillna(ds.t.mean("time"))
ds.fillna({"t": 1.0})
ds.t.where(ds.t > 280)
ds.t.where(ds.t > 280, -1)
ds.t.where(ds.wet)
ds.t.where(ds.lat > 0, drop=True)
ds.n.where(ds.n > 2)
ds.n.where(ds.n > 2, 0)
ds.where(ds.lat > 0)
xr.where(ds.t > 280, 1, 0)
xr.where(ds.wet, ds.t, ds.p)
ds.t.dropna("time", how="any")
ds.t.dropna("lat", how="all")
ds.t.dropna("time", thresh=15)
whole.t.interpolate_na("time")
whole.s.interpolate_na("time", method="nearest")
ds.t.isin([1, 2])
ds.n.isin([1, 2])
ds.t.combine_first(ds.p)
# selection
ds.t[0]
ds.t[3:9, ::2]
ds.t[:, [0, 2], 1]
ds.t[-1, ::-1]
ds.t.isel(time=slice(2, 20, 3))
ds.t.isel(time=-1, lat=[0, 3])
ds.t.isel(lat=ds.n.lat.argmax())
ds.t.sel(lat=10)
ds.t.sel(lat=slice(-10, 10), lon=[100, 130])
ds.t.sel(lat=3, method="nearest")
ds.t.sel(time="2024-02")
ds.t.sel(time=slice("2024-02-05", "2024-02-11"))
ds.t.loc["2024-02-05":"2024-02-11", 0:]
ds.sel(lon=120, time="2024-02-03")
ds.t.isel(time=xr.DataArray([0, 3, 5], dims="points"), lat=xr.DataArray([0, 1, 2], dims="points"))
ds.t.sel(lat=xr.DataArray([0.0, 10.0], dims="z"), lon=xr.DataArray([100.0, 120.0], dims="z"))
ds.t.head(time=3)
ds.t.tail(lat=2)
ds.t.thin(time=5)
ds.t[dict(time=0, lat=1)]
ds.t.sel(time=ds.time.dt.month == 2)
ds.t[ds.time.dt.hour == 0]
ds.t.isel(time=ds.s.values > 0)
ds.t.isel(time=(ds.s > 0).compute())
ds.t.squeeze()
ds.t.isel(lat=[1]).squeeze("lat")
ds.t.drop_vars("area")
ds.t.drop_sel(lat=10)
ds.t.drop_isel(time=[0, 1])
ds.t.item((1, 2, 3))
ds.t.reindex(lat=[-20, 5, 20])
ds.t.reindex(lat=[-20, 5, 20], method="nearest")
ds.t.reindex(lat=[-20, 5], fill_value=0)
ds.n.reindex(lat=[-20, 5])
ds.t.sortby("lat", ascending=False)
ds.t.sortby(ds.t.lon % 20)
ds.sortby("s")
ds.t.sortby("lon")
ds.t.shift(time=1)
ds.n.shift(lat=1)
ds.n.shift(lat=1, fill_value=0)
ds.t.roll(lon=1, roll_coords=True)
ds.t.roll(lon=-1)
ds.t.diff("time")
ds.t.diff("time", 2, label="lower")
ds.t.pad(lon=1)
ds.t.pad(lon=(1, 2), mode="wrap")
ds.t.pad(lat=1, mode="edge")
ds.t.pad(lat=1, constant_values=0)
ds.t.differentiate("lat")
ds.s.differentiate("time", datetime_unit="D")
ds.t.integrate("lon")
ds.s.integrate("time", datetime_unit="h")
ds.p.cumulative_integrate("lat")
# groups and windows
ds.t.groupby("time.month").mean()
ds.t.groupby("time.month").mean(...)
ds.t.groupby("time.month") - ds.t.groupby("time.month").mean()
ds.t.groupby("basin").sum()
ds.t.groupby("basin").max("lat")
ds.groupby("time.season").mean()
ds.t.groupby("time.dayofyear").std()
ds.t.groupby(ds.time.dt.hour).first()
ds.t.groupby("basin").last()
ds.t.groupby("time.hour").count()
ds.t.groupby("lat").map(lambda g: g - g.mean())
ds.t.groupby_bins("lat", [-30, 0, 30]).mean()
ds.t.groupby_bins("lat", [-30, 0, 30], labels=["south", "north"]).median()
ds.s.groupby("time.month").quantile(0.5)
ds.t.groupby("basin").var(ddof=1)
ds.t.groupby("time.month").median()
ds.t.groupby("basin").sum("lat", min_count=1)
ds.t.groupby(["basin", "lon"]).mean()
ds.t.groupby("time.month").cumsum()
ds.t.groupby("time.month").fillna(0.0)
ds.t.groupby("time.month").where(ds.t > 280) if False else ds.t
ds.t.resample(time="7D").mean()
ds.t.resample(time="MS").sum()
ds.resample(time="5D").max()
ds.t.resample(time="12h").asfreq()
ds.t.resample(time="12h").nearest()
ds.s.resample(time="MS").std()
ds.t.resample(time="5D").first()
ds.t.resample(time="5D").count()
ds.t.resample(time="7D").median()
ds.t.resample(time="7D").map(lambda g: g.mean("time"))
whole.s.resample(time="6h").interpolate("linear")
ds.t.coarsen(time=2).mean()
ds.t.coarsen(lat=2, boundary="trim").max()
ds.t.coarsen(lat=2, lon=2, boundary="pad").sum()
ds.coarsen(time=4).mean()
ds.t.coarsen(time=3).std()
ds.t.coarsen(time=12).construct(time=("year", "month"))
ds.t.coarsen(time=2).median()
ds.t.coarsen(time=2).reduce(np.sum)
ds.t.rolling(time=3).mean()
ds.t.rolling(time=3, center=True).mean()
ds.t.rolling(time=4, min_periods=1).sum()
ds.t.rolling(time=5, min_periods=2).std()
ds.p.rolling(lat=2, lon=2).mean()
ds.t.rolling(time=3).construct("window")
ds.t.rolling(time=3).construct("window", stride=2).mean("window")
ds.t.rolling(time=3).max()
ds.t.rolling(time=3).median()
ds.t.rolling(time=3).count()
ds.t.rolling(time=3).reduce(np.nansum)
ds.p.rolling(time=25, min_periods=1).min()
ds.rolling(time=3).mean()[["t", "p"]]
ds.n.rolling(lat=2).sum()
ds.t.cumulative("time").sum()
ds.p.cumulative("time").mean()
ds.p.rolling(time=3).argmax() if False else ds.p
ds.t.weighted(ds.area).mean(["lat", "lon"])
ds.t.weighted(np.cos(np.deg2rad(ds.lat))).mean()
ds.t.weighted(ds.area).sum("lat")
ds.t.weighted(ds.area).std(["lat", "lon"])
ds.t.weighted(ds.area).var("lon")
ds.t.weighted(ds.area).sum_of_weights("lon")
whole.t.weighted(ds.area).quantile(0.5, ["lat", "lon"])
ds.weighted(ds.area).mean(["lat", "lon"])
# fits
whole.p.polyfit("time", 1).polyfit_coefficients
whole.t.polyfit("time", 2).polyfit_coefficients
whole.t.polyfit("lat", 1, skipna=True, full=True)
whole.p.polyfit("lat", 1, cov=True)
whole.s.polyfit("time", 1)
xr.polyval(ds.lat, whole.p.polyfit("lat", 1).polyfit_coefficients)
whole.t.interp(lat=[-5, 5])
whole.t.interp(lat=[-5, 5], lon=[105.0, 125.0])
whole.s.interp(time=["2024-02-03T05:00", "2024-02-06"])
whole.t.interp(lat=3, method="nearest")
whole.p.interp(lat=[-15, 15], method="cubic")
whole.t.interp(lat=xr.DataArray([-5.0, 5], dims="k"), lon=xr.DataArray([105.0, 125], dims="k"))
ds.p.interp(lat=[-5, 5])
ds.p.interp_like(ds.p.isel(lat=slice(1, 3)))
xr.corr(ds.t, ds.p)
xr.corr(ds.t, ds.p, dim="time")
xr.cov(ds.t, ds.p, dim="time")
xr.cov(ds.t, ds.p, ddof=0)
xr.cov(ds.p, ds.s)
ds.t.curvefit("time", lambda time, a: a + 0 * time, p0={"a": 1}) if False else ds.t
# several arrays
xr.concat([ds.t, ds.t], "time")
xr.concat([ds.t.isel(lat=0), ds.t.isel(lat=1)], "lat")
xr.concat([ds.t, ds.p], pd.Index(["t", "p"], name="kind"))
xr.concat([ds.n, ds.n + 0.5], "copy")
xr.concat([ds, ds.isel(time=[0])], "time", data_vars="minimal")
xr.merge([ds.t, ds.p])
xr.merge([ds[["t"]], ds[["p"]].isel(time=slice(3))])
xr.merge([ds[["n"]], ds[["n"]]])
xr.combine_by_coords([ds[["t"]].isel(lat=[0, 1]), ds[["t"]].isel(lat=[2, 3, 4])])
xr.combine_nested([[ds.p.isel(lat=[0]), ds.p.isel(lat=[1])]], ["k", "lat"])
xr.align(ds.t, ds.p.isel(lat=[1, 2]), join="outer")
xr.align(ds.t, ds.p.isel(lat=[1, 2]), join="inner")
xr.broadcast(ds.n, ds.s)
ds.t.broadcast_like(ds.t)
ds.n.broadcast_like(ds.t)
xr.zeros_like(ds.t)
xr.ones_like(ds.n)
xr.full_like(ds.p, 3)
xr.full_like(ds.n, 1.5, dtype=float)
xr.zeros_like(ds)
# datasets
ds.map(np.fabs)
ds[["t", "p"]].map(lambda a: a - a.mean())
ds[["t", "p"]].reduce(np.nanmax, "time")
ds[["t", "p"]].to_array()
ds[["t", "p"]].to_dataarray("kind").mean("kind")
ds[["t", "p"]].to_dataframe()
ds.n.to_dataframe()
ds.s.to_series()
ds.s.to_pandas()
ds.n.to_pandas()
ds.t.to_dataset(name="x")
ds.t.to_dataset("lon")
ds.assign(c=ds.t - 273.15)
ds.assign(c=lambda d: d.t - d.p)
ds.assign_coords(lon=ds.lon - 180)
ds.t.assign_coords(m=("time", ds.time.dt.month.values))
ds.rename(t="temperature", lat="y")
ds.t.rename("x")
ds.swap_dims(lat="basin")
ds.set_coords("n")
ds.reset_coords("area")
ds.drop_dims("lat")
ds.t.stack(place=("lat", "lon"))
ds.t.stack(place=("lat", "lon")).unstack("place")
ds.t.stack(all=...).mean()
ds.t.stack(place=("lat", "lon")).mean("place")
ds.to_stacked_array("z", ["time", "lat", "lon"]) if False else ds
ds.t.expand_dims("run")
ds.t.expand_dims(run=3)
ds.t.expand_dims({"run": [1, 2]}, axis=1)
ds.filter_by_attrs(units="K")
ds.equals(ds + 0), ds.t.equals(ds.t + 0), ds.identical(ds), ds.t.broadcast_equals(ds.t)
ds.nbytes
ds.t.size, ds.t.shape, ds.t.dtype, ds.t.ndim
len(ds.t)
float(ds.t.mean())
int(ds.n.sum())
bool(ds.wet.any())
ds.t.mean().item()
ds.t.values
ds.t.to_numpy()
np.asarray(ds.t)
ds.n.values.tolist()
ds.n.to_dict()["data"]
ds.t.rank("lat") if False else ds.t
ds.t.dt if False else ds.seen.dt.month
ds.seen.dt.floor("D")
ds.seen.dt.dayofyear
ds.seen.dt.strftime("%Y") if False else ds.seen.dt.hour
ds.n.idxmax("lat")
ds.t.as_numpy()
ds.t.copy(deep=True)
ds.t.pipe(lambda a: a * 2)
ds.t.chunk({"time": 5}).sum()
ds.unify_chunks()
xr.apply_ufunc(np.square, ds.t, dask="allowed")
xr.apply_ufunc(np.square, ds.t, dask="parallelized", output_dtypes=[float])
xr.apply_ufunc(lambda a, b: a + b, ds.t, ds.p, dask="parallelized")
xr.apply_ufunc(lambda a: a.mean(-1), whole.t, input_core_dims=[["time"]], dask="parallelized")
xr.apply_ufunc(np.ptp, whole.p, input_core_dims=[["time"]], vectorize=True, dask="parallelized")
xr.apply_ufunc(lambda a: a[..., :2], whole.p, input_core_dims=[["time"]], output_core_dims=[["k"]], dask="parallelized", dask_gufunc_kwargs={"output_sizes": {"k": 2}})
xr.apply_ufunc(lambda a: (a.min(-1), a.max(-1)), whole.p, input_core_dims=[["time"]], output_core_dims=[[], []], dask="parallelized")
xr.apply_ufunc(np.mean, ds.p, input_core_dims=[["time"]], kwargs={"axis": -1}, dask="parallelized", dask_gufunc_kwargs={"allow_rechunk": True})
xr.apply_ufunc(lambda a: a + 1, ds[["t", "p"]], dask="parallelized")
ds.t.map_blocks(lambda b: b + 1) if False else ds.t
""".strip().splitlines()
"""What users write; ``whole`` is ``ds`` with every core axis in one chunk."""
FORMS = [form for form in FORMS if form and not form.startswith("#")]
